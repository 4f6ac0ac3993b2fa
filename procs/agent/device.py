"""A TUN or TAP that is open: what the kernel has for us, and what we have for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import TYPE_CHECKING

from procs.agent.lane import vnet
from procs.errors import NotHere

if TYPE_CHECKING:
    import asyncio

BATCH, LARGE_BATCH = 64, 16  # frames of one turn of the event loop, and those among them that hold many packets
MAX_PACKET = 65536
_MAX_FRAME, _LARGE = vnet.HEAD + MAX_PACKET, 16_384
_SETPERSIST, _SETOFFLOAD = 0x400454CB, 0x400454D0
_OFFLOADS = {"csum": 0x1, "tso": 0xE, "uso": 0x60}  # of both versions of IP; USO is there since Linux 6.2
Take = Callable[[list[bytes]], bool | None]


class TunDevice:
    """An open interface. What it gives and takes are packets; of a claimed one frames (procs/agent/lane/vnet.py).
    `dropped` counts packets that the kernel did not take."""

    def __init__(self, fd: int, name: str, max_packet: int = MAX_PACKET, *, is_framed: bool = False) -> None:
        self.fd, self.name, self._is_framed = fd, name, is_framed
        self.dropped = 0
        self._max_packet = self._room = max_packet
        self._is_offloaded = False
        self._take: Take | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # that we read in now
        self._soon: asyncio.Handle | None = None  # where that does not wait for the interface
        self.broken: asyncio.Future[None] | None = None  # since `start`: ends as reading does
        os.set_blocking(fd, False)

    def offload(self, *, on: bool) -> tuple[str, ...]:
        """Whether segments come as one, and without checksums, as far as this kernel does that: what it does (csum,
        tso, uso). Needs no rights. What is on its way already comes as before."""
        self._room, self._is_offloaded = _MAX_FRAME, on
        for most in (("csum", "tso", "uso"), ("csum", "tso")) if on else ():
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.fd, _SETOFFLOAD, sum(_OFFLOADS[word] for word in most))
                return most
        try:
            fcntl.ioctl(self.fd, _SETOFFLOAD, 0)
        except OSError as error:
            raise self._gone(error) from None
        return ()

    def start(self, take: Take) -> None:
        """From now on `take` gets what comes, as many at once as there are, in the running event loop. As long as it
        answers True it is called again in the next turn, with nothing if nothing has come."""
        self._take = take
        if not self._loop:
            self._loop = _loop()
            self.broken = self.broken or self._loop.create_future()
            self._soon = self._loop.call_soon(self._turn)

    def pause(self) -> None:
        """Leave the rest to the kernel, until `start`."""
        loop, soon, self._loop, self._soon = self._loop, self._soon, None, None
        if soon:
            soon.cancel()
        elif loop:
            loop.remove_reader(self.fd)

    def _turn(self) -> None:
        soon = self._soon
        try:
            wants_more = self._take(self.read()) if self._take else None
        except Exception as error:  # handed on whole: whoever waits for `broken` raises it
            self.pause()
            if self.broken and not self.broken.done():
                self.broken.set_exception(error)
            return
        if not (loop := self._loop) or self._soon is not soon:  # paused meanwhile, and maybe started again
            return
        if wants_more:
            if not self._soon:
                loop.remove_reader(self.fd)
            self._soon = loop.call_soon(self._turn)
        elif self._soon:
            self._soon = None
            loop.add_reader(self.fd, self._turn)

    def read(self, most: int = BATCH) -> list[bytes]:
        """What is there."""
        found: list[bytes] = []
        fd, room, read, large = self.fd, self._room, os.read, LARGE_BATCH
        try:
            for _ in repeat(None, most):
                found.append(frame := read(fd, room))
                if len(frame) > _LARGE:
                    large -= 1
                    if not large:
                        break
        except BlockingIOError:
            if not self._is_offloaded:  # nothing large is on its way any more, and less room takes less time
                self._room = self._max_packet
        except OSError as error:
            raise self._gone(error) from None
        return found

    def _gone(self, error: OSError) -> NotHere:
        return NotHere(f"{self.name}: {error.strerror}: somebody has removed it")

    def write(self, iovs: Iterable[vnet.Iov]) -> None:
        """Give them to the kernel."""
        fd, write, writev = self.fd, os.write, os.writev
        for iov in iovs:
            try:
                if len(iov) == 1:
                    write(fd, iov[0])
                else:
                    writev(fd, iov)
            except OSError:
                self._again(iov)

    def _again(self, iov: vnet.Iov) -> None:
        """One that was not taken: it is no packet (EINVAL), a queue is full, the interface is down. Or the kernel knows
        no segments of UDP; then it gets them one by one."""
        its: list[bytes] = []
        if self._is_framed and (frame := b"".join(iov))[1]:
            its = vnet.segments(frame)
            if frame[1] == vnet.UDP:
                its = [packet for packet in its if not self._takes(vnet.PLAIN + packet)]
                self.dropped += len(its)
                return
        self.dropped += max(1, len(its))

    def _takes(self, frame: bytes) -> bool:
        try:
            return bool(os.write(self.fd, frame))
        except OSError:
            return False

    async def read_packet(self) -> bytes | None:
        """A packet, or None when there is none right now."""
        return next(iter(self.read(1)), None)

    async def write_packet(self, packet: bytes) -> None:
        """Raises TunError when it is not taken."""
        before = self.dropped
        self.write([[packet]])
        if self.dropped > before:
            raise NotHere(f"{self.name}: the kernel did not take a packet of {len(packet)} bytes")

    async def read_loop(self, callback: Callable[[bytes], None]) -> None:
        """Call back with each packet, until the device is closed."""
        import asyncio

        came = asyncio.Event()
        waiting: list[bytes] = []

        def take(packets: list[bytes]) -> None:
            waiting.extend(packets)
            came.set()

        self.start(take)
        if self.broken:
            self.broken.add_done_callback(lambda _: came.set())
        try:
            while self.fd >= 0:
                await came.wait()
                came.clear()
                if self.broken and self.broken.done():
                    self.broken.result()
                packets, waiting[:] = waiting[:], []
                for packet in packets:
                    callback(packet)
        finally:
            if self.fd >= 0:
                self.pause()

    def persist(self, *, on: bool) -> None:
        """Whether the interface, with its addresses and routes, outlives us."""
        fcntl.ioctl(self.fd, _SETPERSIST, int(on))

    def close(self) -> None:
        """The interface is gone, if nobody else has made it."""
        if self.fd >= 0:
            with contextlib.suppress(RuntimeError):
                self.pause()
            os.close(self.fd)
            self.fd = -1
        if self.broken and not self.broken.done():
            self.broken.set_result(None)

    async def close_async(self) -> None:
        """The same."""
        self.close()


def _loop() -> asyncio.AbstractEventLoop:
    import asyncio  # here: one that takes an interface over again has it before it pays for an event loop

    return asyncio.get_running_loop()
