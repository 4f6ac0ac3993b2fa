"""A child's end of webrtc_peer.children: every unit comes through here, and zmq.asyncio would be half of its cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import zmq

from procs import bus
from procs.errors import Refused
from procs.messages import MAX_BODY_BYTES, encode


class Line:
    """`take(message, body)` gets what comes. Its errors go to the future that `broken` is."""

    def __init__(self, run_dir: Path, name: str, take: Callable[[bytes, bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sock = bus.work_connector(context, run_dir, name, bus.WEBRTC_PEER_CHILDREN)
        self._take = take
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(cast(int, self._sock.getsockopt(zmq.FD)), self._read)

    async def connected(self, within_s: float) -> None:
        """Wait until something that is said goes somewhere. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not cast(int, self._sock.getsockopt(zmq.EVENTS)) & zmq.POLLOUT:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.002)

    def say(self, message: msgspec.Struct, body: bytes = b"") -> bool:
        """Send at once or not at all. Raises Refused when it is larger than the leader takes."""
        if len(body) > MAX_BODY_BYTES:
            raise Refused(f"a body of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}")
        try:
            self._sock.send_multipart([encode(message), body], zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            # ZeroMQ signals a change once; sending may have taken the signal for what has come.
            self._loop.call_soon(self._read)
        return True

    def _read(self) -> None:
        while not self.broken.done():
            try:
                frames: list[Any] = self._sock.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) == 2:
                try:
                    self._take(frames[0], frames[1])
                except Exception as error:  # handed on whole: whoever waits for `broken` raises it
                    self.broken.set_exception(error)
