"""Signals between the hub and us, by way of ws_link: one that goes out is sent again until it is taken, and one that
comes is taken once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import zmq.asyncio

from procs import bus, log
from procs.errors import Refused
from procs.messages.watch import SessionsReady, Signal, SignalTaken, decode_to_peer
from procs.unanswered import Kind, Seen, Unanswered

IDENTITY = "webrtc_peer"  # at ws_link
READY_EVERY_S = 1.0
READY_AGAIN_S = 0.02  # while ws_link is not there: it is to know of us before a viewer asks
KEPT_S = 30.0  # a viewer waits no longer for an answer, whatever became of ws_link


class Signalling:
    """`take(signal, body)` gets what comes."""

    def __init__(
        self, context: zmq.asyncio.Context, run_dir: Path, take: Callable[[Signal, bytes], Awaitable[None]]
    ) -> None:
        self._link = bus.work_connector(context, run_dir, IDENTITY, bus.WS_LINK_SESSIONS)
        self._take = take
        self._out, self._seen = Unanswered(KEPT_S), Seen()

    async def announce(self, sessions: Callable[[], list[str]]) -> None:
        """Say that we are there, and which sessions we have, for ever."""
        while True:
            sent = bus.send_work(self._link, SessionsReady(os.getpid(), sessions()))
            await asyncio.sleep(READY_EVERY_S if sent else READY_AGAIN_S)

    async def hear(self) -> None:
        """Take what comes, for ever."""
        while True:
            _, data, body = await bus.receive_work(self._link)
            try:
                message = decode_to_peer(data)
                if isinstance(message, SignalTaken):
                    self._out.taken(message.id)
                    continue
                if self._seen.is_new(message.id):
                    log.debug("frame of the hub", kind=message.kind, session=message.session_id)
                    await self._take(message, body)
                bus.send_work(self._link, SignalTaken(message.id))
            except Refused as reason:
                log.warning("malformed bus message", reason=str(reason))

    def add(self, kind: Kind, session_id: str, body: bytes, now: float) -> None:
        """One more for the hub, which `flush` sends."""
        self._out.add(kind, session_id, body, now)

    def late(self, now: float) -> None:
        """Give up what nobody has taken in time."""
        self._out.late(now)

    def flush(self, now: float) -> None:
        """Send what is due, as far as it goes."""
        for sent in self._out.due(now):
            if not bus.send_work(self._link, sent.signal, sent.body):
                return
