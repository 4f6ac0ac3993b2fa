"""How a bench sees that a process serves again: each sign tells when it was first seen after a moment."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from procs.errors import Unhealthy
from procs.kinds import Address
from tests.viewers import RtspViewer

T = TypeVar("T")
LIMIT_S = 20.0
LOOK_EVERY_S = 0.001


class Sign(Protocol):
    """Something that only a process that serves can do. Times are of time.monotonic()."""

    def seen_s(self, since_s: float) -> float:
        """When it was first seen after `since_s`; 0 if it was not yet."""


def wait_for(look: Callable[[], T], what: str, every_s: float = LOOK_EVERY_S, within_s: float = LIMIT_S) -> T:
    """What `look` gives once it is true. It is asked all the time. Raises Unhealthy if that takes too long."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise Unhealthy(f"{what}: not within {within_s:g} s")
        time.sleep(every_s)
    return found


class Asked:
    """It does what it is asked. `ask` raises OSError or Unhealthy while it does not."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask

    def seen_s(self, since_s: float) -> float:
        try:
            self._ask()
        except (OSError, http.client.HTTPException, Unhealthy):
            return 0.0
        return time.monotonic()


def page(address: Address, path: str) -> Asked:
    """An HTTP page is there."""

    def ask() -> None:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=1)
        try:
            connection.request("GET", path)
            if connection.getresponse().status != 200:
                raise ConnectionRefusedError(path)
        finally:
            connection.close()

    return Asked(ask)


class Locked:
    """It has the lock of a file (procs/life.py), which it takes when it is about to do its work."""

    def __init__(self, path: Path) -> None:
        self._path, self._flock = path, struct.Struct("hhqqi4x")  # of fcntl(2), on 64-bit Linux

    def seen_s(self, since_s: float) -> float:
        return time.monotonic() if self.holder() else 0.0

    def holder(self) -> int:
        """The pid of whoever has it, or 0."""
        question = self._flock.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        with self._path.open("rb+") as file:
            kind, *_, pid = self._flock.unpack(fcntl.fcntl(file, fcntl.F_GETLK, question))
        return 0 if kind == fcntl.F_UNLCK else int(pid)


class Fifo:
    """Pictures come out of a FIFO. It is read all the time."""

    def __init__(self, path: Path) -> None:
        self._arrivals: list[float] = []
        # For writing too: then a dead writer is no end of file.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_over = False
        threading.Thread(target=self._read, name="fifo", daemon=True).start()

    def seen_s(self, since_s: float) -> float:
        return next((at for at in self._arrivals if at > since_s), 0.0)

    def close(self) -> None:
        """Read no longer."""
        self._is_over = True

    def _read(self) -> None:
        while not self._is_over:
            if select.select([self._descriptor], [], [], 0.2)[0]:
                with contextlib.suppress(BlockingIOError):  # go2rtc's own reader was quicker; it is just leaving
                    os.read(self._descriptor, 1 << 20)
                    self._arrivals = [*self._arrivals[-50:], time.monotonic()]
        os.close(self._descriptor)


class Watched:
    """Pictures come to an RTSP viewer, who stays connected for as long as go2rtc lives."""

    def __init__(self, rtsp: Address, stream: str) -> None:
        self._rtsp, self._stream = rtsp, stream
        self._viewer: RtspViewer | None = None

    def seen_s(self, since_s: float) -> float:
        if not self._viewer or self._viewer.ended:
            self._viewer = RtspViewer(self._rtsp, self._stream)
            self._viewer.start()
        first = 0.0
        for arrival in reversed(self._viewer.arrivals):
            if arrival.at_ns <= since_s * 1e9:
                break
            first = arrival.at_ns / 1e9
        return first

    def gap_ms(self, since_s: float) -> float:
        """The longest pause between two pictures since then; 0 before it is over."""
        return (self._viewer and self._viewer.gap_ms(int(since_s * 1e9))) or 0.0

    def close(self) -> None:
        """Watch no longer."""
        if self._viewer:
            self._viewer.leave()
