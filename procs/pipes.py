"""Writing to whoever reads our stdout: never blocked for longer than a limit, whatever kind of thing stdout is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import time
from collections.abc import Callable

from procs.errors import ConfigError, OutputBlocked, OutputClosed

PIPE_BYTES = 256 * 1024  # holds a keyframe, so that a write does not wait for the reader's next turn
_SLICE_S = 0.5  # how often a blocked write beats


class Stdout:
    """Writes all of what it is given, within a limit of time; it blocks no longer than that."""

    def __init__(self, limit_s: float, chunk: int, beat: Callable[[], None]) -> None:
        self._limit_s, self._chunk, self._beat = limit_s, chunk, beat
        self.descriptor, self._write_some = _take_over(1)

    def write(self, data: bytes) -> int:
        """Write everything. Raises OutputBlocked after the limit and OutputClosed when the reader is gone."""
        view, deadline = memoryview(data), time.monotonic() + self._limit_s
        while view:
            try:
                view = view[self._write_some(self.descriptor, view[: self._chunk]) :]
            except BlockingIOError:
                self._wait(deadline)
            except BrokenPipeError:
                raise OutputClosed("stdout: the reader has closed it") from None
            except OSError as error:
                raise OutputClosed(f"stdout: {error.strerror}") from None
        return len(data)

    def _wait(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise OutputBlocked(f"stdout: the reader has taken nothing for {self._limit_s:g} s")
        self._beat()  # we wait on purpose: no hang
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        poll.poll(min(left, _SLICE_S) * 1000)


def _take_over(descriptor: int) -> tuple[int, Callable[[int, memoryview], int]]:
    """A descriptor of our own for an output, and how to write to it without ever blocking. What was there becomes
    /dev/null, so that nothing that prints can get into the stream.

    O_NONBLOCK belongs to the open file and would change it for everybody who shares our stdout: so a pipe is opened
    anew, a socket is told at each write, and a pipe of somebody else's, which can't be opened, gets only what fits.
    """
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError as error:
        raise OutputClosed(f"stdout: {error.strerror}") from None
    if os.isatty(descriptor):
        raise ConfigError("stdout is a terminal: send the stream into a pipe or a file")
    own = os.dup(descriptor)
    write: Callable[[int, memoryview], int] = os.write  # a file never blocks for long
    if stat.S_ISSOCK(mode):
        write = _send
    elif stat.S_ISFIFO(mode):
        own, write = _reopened(own)
        with contextlib.suppress(PermissionError):  # the user's quota of pipe memory is used up; 64 KiB work too
            fcntl.fcntl(own, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
    return own, write


def _reopened(pipe: int) -> tuple[int, Callable[[int, memoryview], int]]:
    try:
        own = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return pipe, _write_what_fits
    os.close(pipe)
    return own, os.write


def _send(descriptor: int, data: memoryview) -> int:
    import socket  # here: 8 ms, and most outputs are pipes

    with socket.socket(fileno=os.dup(descriptor)) as connection:
        return connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _write_what_fits(descriptor: int, data: memoryview) -> int:
    """A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7))."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data[: select.PIPE_BUF])
