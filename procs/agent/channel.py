"""A data channel that outlives its connections: it looks like aiortc's, and opens again when its session is back.

Events, with `on`: "open" each time it can send (again), "message" with str or bytes, "bufferedamountlow", "lost" when
the connection below it has gone (what was not acknowledged may have arrived or not), "close" when it is over.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiortc import RTCDataChannel
from pyee.asyncio import AsyncIOEventEmitter

from procs import log
from procs.errors import LinkLost, Refused

HIGH_BYTES = 256 * 1024  # more at once in aiortc's queue only makes everything behind it wait (notes: SCTP limits)
LOW_BYTES = 64 * 1024
LOOK_S = 0.02  # nothing tells when the last piece is acknowledged


class Channel(AsyncIOEventEmitter):
    """One channel of a PeerSession, known by its label. `options` are those of aiortc's createDataChannel."""

    def __init__(self, label: str, **options: Any) -> None:
        super().__init__()
        self.label, self.options = label, options
        self.bufferedAmountLowThreshold = LOW_BYTES
        self._below: RTCDataChannel | None = None
        self._changed = asyncio.Event()
        self._is_over = False
        self.opened_times = 0

    @property
    def below(self) -> RTCDataChannel | None:
        """The one of now; None between two connections."""
        return self._below

    @property
    def readyState(self) -> str:
        """connecting, open or closed."""
        if self._is_over:
            return "closed"
        return "open" if self._below and self._below.readyState == "open" else "connecting"

    @property
    def bufferedAmount(self) -> int:
        """Bytes that wait to be sent; less than what waits to be acknowledged."""
        return self._below.bufferedAmount if self._below else 0

    def send(self, data: str | bytes) -> None:
        """Send a message now. Raises LinkLost while it is not open, and Refused for what is too long for the peer."""
        if self._below is None or self._below.readyState != "open":
            raise LinkLost(f"channel {self.label!r} is {self.readyState}")
        try:
            self._below.send(data)
        except ValueError as error:
            raise Refused(str(error)) from None

    async def opened(self, within_s: float | None = None) -> None:
        """Wait until it is open. Raises LinkLost when it is not by then, or never will be."""
        try:
            async with asyncio.timeout(within_s):
                while self.readyState != "open":
                    if self._is_over:
                        raise LinkLost(f"channel {self.label!r} is closed")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise LinkLost(f"channel {self.label!r} did not open within {within_s:g} s") from None

    async def room(self) -> None:
        """Wait until there is room for more. Raises LinkLost if the connection below goes meanwhile."""
        if self.readyState != "open":
            raise LinkLost(f"channel {self.label!r} is {self.readyState}")
        below = self._below
        while below is self._below and self.readyState == "open":
            if self.bufferedAmount < HIGH_BYTES:
                return
            self._changed.clear()
            await self._changed.wait()
        raise LinkLost(f"channel {self.label!r} was lost")

    async def flushed(self, within_s: float | None = None) -> None:
        """Wait until the peer has acknowledged all that was sent, on this and all other channels of the session.
        Raises LinkLost if the connection goes meanwhile, or the time."""
        below = self._below
        try:
            async with asyncio.timeout(within_s):
                while below is self._below and below and below.readyState == "open":
                    sctp = below.transport
                    if not (
                        below.bufferedAmount or sctp._data_channel_queue or sctp._outbound_queue or sctp._sent_queue
                    ):
                        return
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise LinkLost(f"channel {self.label!r}: not all was acknowledged within {within_s:g} s") from None
        raise LinkLost(f"channel {self.label!r} was lost")

    def close(self) -> None:
        """It is over, here and at the peer."""
        if self._below:
            self._below.close()
        self.end()

    # For the session

    def bind(self, below: RTCDataChannel, *, is_preferred: bool = True) -> None:
        """Have this below. Messages are taken from all that are, ours go to the last preferred one."""
        below.on("message", self._message)
        if self._is_over or not is_preferred:
            return
        self._below = below
        below.bufferedAmountLowThreshold = self.bufferedAmountLowThreshold
        below.on("open", lambda: self._opened(below))
        below.on("close", lambda: self._closed(below))
        below.on("bufferedamountlow", lambda: self._low(below))
        if below.readyState == "open":
            self._opened(below)

    def unbind(self) -> None:
        """The connection below has gone."""
        below, self._below = self._below, None
        if below is not None and not self._is_over:
            self._changed.set()
            self.emit("lost")

    def end(self) -> None:
        """It is over."""
        if not self._is_over:
            self._is_over, self._below = True, None
            self._changed.set()
            self.emit("close")
            self.remove_all_listeners()

    def _opened(self, below: RTCDataChannel) -> None:
        if below is self._below:
            self.opened_times += 1
            self._changed.set()
            self.emit("open")

    def _closed(self, below: RTCDataChannel) -> None:
        """The peer has closed it, or the connection has."""
        if below is self._below:
            if below.transport.state == "connected":
                self.end()
            else:
                self.unbind()

    def _low(self, below: RTCDataChannel) -> None:
        if below is self._below:
            self._changed.set()
            self.emit("bufferedamountlow")

    def _message(self, data: str | bytes) -> None:
        if not self.emit("message", data):
            log.debug("a message that nobody takes", channel=self.label, bytes=len(data))
