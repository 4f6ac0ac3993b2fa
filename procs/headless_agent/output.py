"""Access units to stdout, in the form that go2rtc passes on without holding a picture back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

import av

from procs.errors import ConfigError, OutputBlocked, OutputClosed
from procs.headless_agent.options import Producer
from procs.headless_agent.x264 import AccessUnit
from procs.media.annexb import LookAhead

CLOCK_HZ = 90_000
PIPE_BYTES = 256 * 1024  # holds a keyframe, so that a write does not wait for the reader's next turn
_SLICE_S = 0.5  # how often a blocked write beats


class Stdout:
    """Writes all of what it is given, within a limit of time; it blocks no longer than that."""

    def __init__(self, limit_s: float, chunk: int, beat: Callable[[], None]) -> None:
        self._limit_s, self._chunk, self._beat = limit_s, chunk, beat
        self._descriptor, self._write_some = _take_over(1)

    def write(self, data: bytes) -> int:
        """Write everything. Raises OutputBlocked after the limit and OutputClosed when the reader is gone."""
        view, deadline = memoryview(data), time.monotonic() + self._limit_s
        while view:
            try:
                view = view[self._write_some(self._descriptor, view[: self._chunk]) :]
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
        poll.register(self._descriptor, select.POLLOUT)
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
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        return connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _write_what_fits(descriptor: int, data: memoryview) -> int:
    """A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7))."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data[: select.PIPE_BUF])


class Output(Protocol):
    """Takes access units in order."""

    def put(self, unit: AccessUnit, index: int) -> None:
        """Write one unit; `index` counts periods of 1/fps since the first picture."""


class MpegTs:
    """MPEG-TS whose every picture states its length, so that a reader need not wait for the next one.

    Times are those of this machine's monotonic clock, so a restarted producer goes on where the old one's clock
    would be, and a recorder sees the gap as a gap. Pictures over 65,535 bytes can't state a length (ISO/IEC
    13818-1, 2.4.3.7).
    """

    def __init__(self, chosen: Producer, stdout: Stdout, start_ns: int) -> None:
        self._fps = chosen.fps
        self._origin = start_ns * CLOCK_HZ // 1_000_000_000
        self._container = av.open(
            stdout, "w", format="mpegts", options={"omit_video_pes_length": "0", "flush_packets": "1"}
        )
        self._stream = self._container.add_mux_stream("h264", rate=chosen.fps, width=chosen.width, height=chosen.height)
        self._stream.time_base = Fraction(1, CLOCK_HZ)

    def put(self, unit: AccessUnit, index: int) -> None:
        packet = av.Packet(unit.data)
        packet.stream, packet.time_base = self._stream, Fraction(1, CLOCK_HZ)
        packet.pts = packet.dts = self._origin + index * CLOCK_HZ // self._fps
        packet.is_keyframe = unit.is_keyframe
        self._container.mux(packet)


class AnnexB:
    """A bare H.264 stream with look-ahead (media/annexb.py): for readers that take no MPEG-TS."""

    def __init__(self, stdout: Stdout) -> None:
        self._stdout, self._look_ahead = stdout, LookAhead()

    def put(self, unit: AccessUnit, index: int) -> None:
        self._stdout.write(self._look_ahead.push(unit.data))


def open_output(chosen: Producer, stdout: Stdout, start_ns: int) -> Output:
    """The output that the settings name. `start_ns`: CLOCK_MONOTONIC of picture 0."""
    return AnnexB(stdout) if chosen.out == "h264" else MpegTs(chosen, stdout, start_ns)
