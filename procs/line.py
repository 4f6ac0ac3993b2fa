"""One end of an endpoint of two frames (a struct, a body) in an event loop, where much goes through: zmq.asyncio would
be half of its cost."""

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

# As plain numbers, and without the *_multipart of pyzmq and its exceptions for what is no error: twice as fast.
_EVENTS, _HAS_MORE, _READABLE = int(zmq.EVENTS), int(zmq.RCVMORE), int(zmq.POLLIN)
_NOW, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
Take = Callable[[str, bytes, bytes], None]
_IN_A_ROW = 256  # messages; then others get their turn, however much one of them says


class Line:
    """`take(name, message, body)` gets what comes; at the end that connects the name is "". Its errors go to the future
    that `broken` is."""

    def __init__(self, sock: zmq.Socket[bytes], take: Take) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock: Any = sock
        self._take = take
        self._parts = 3 if sock.type == zmq.ROUTER else 2
        self._will_look = False
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(cast(int, sock.getsockopt(zmq.FD)), self._read)

    async def connected(self, within_s: float) -> None:
        """Wait until something that is said goes somewhere. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not self._sock.getsockopt(zmq.EVENTS) & zmq.POLLOUT:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.002)

    def say(self, message: msgspec.Struct, body: bytes = b"", *, to: str = "") -> bool:
        """Send at once or not at all; who binds names the other. Raises Refused when it is larger than the other side
        takes."""
        return self.send(encode(message), body, to=to)

    def send(self, message: bytes, body: bytes, *, to: str = "") -> bool:
        """The same of a message that is encoded already."""
        if len(body) > MAX_BODY_BYTES:
            raise Refused(f"a body of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}")
        try:
            if to:
                self._sock.send(to.encode(), _MORE)
            self._sock.send(message, _MORE)
            self._sock.send(body, _NOW)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        finally:
            self._look_soon()  # ZeroMQ signals a change once; sending may have taken the signal for what has come
        return True

    def _look_soon(self) -> None:
        if not self._will_look:
            self._will_look = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._will_look = False
        sock = self._sock
        for _ in range(_IN_A_ROW):
            if self.broken.done() or not sock.getsockopt(_EVENTS) & _READABLE:
                return
            frames = [sock.recv(_NOW)]
            while sock.getsockopt(_HAS_MORE):
                frames.append(sock.recv(_NOW))
            if len(frames) == self._parts:
                name = frames[0].decode(errors="replace") if self._parts == 3 else ""
                try:
                    self._take(name, frames[-2], frames[-1])
                except Exception as error:  # handed on whole: whoever waits for `broken` raises it
                    self.broken.set_exception(error)
        self._look_soon()


def binder(run_dir: Path, endpoint: str, take: Take) -> Line:
    """The end at which all others meet."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    return Line(bus.work_binder(context, run_dir, endpoint), take)


def connector(run_dir: Path, endpoint: str, name: str, take: Take) -> Line:
    """The end of one of the others, under its name there."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    return Line(bus.work_connector(context, run_dir, name, endpoint), take)
