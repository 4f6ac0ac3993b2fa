"""Access units to stdout, in the form that go2rtc passes on without holding a picture back."""

from __future__ import annotations

import contextlib
import os
import select
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
        self._descriptor = _own_description(1)

    def write(self, data: bytes) -> int:
        """Write everything. Raises OutputBlocked after the limit and OutputClosed when the reader is gone."""
        view, deadline = memoryview(data), time.monotonic() + self._limit_s
        while view:
            try:
                view = view[os.write(self._descriptor, view[: self._chunk]) :]
            except BlockingIOError:
                self._wait(deadline)
            except BrokenPipeError:
                raise OutputClosed("stdout: the reader has closed it") from None
        return len(data)

    def _wait(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise OutputBlocked(f"stdout: the reader has taken nothing for {self._limit_s:g} s")
        self._beat()  # we wait on purpose: no hang
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll(min(left, _SLICE_S) * 1000)


def _own_description(descriptor: int) -> int:
    """A non-blocking descriptor for the same output. A pipe is opened anew, since O_NONBLOCK belongs to the open file
    and would change it for everybody who shares our stdout."""
    if os.isatty(descriptor):
        raise ConfigError("stdout is a terminal: send the stream into a pipe or a file")
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return descriptor  # a file never blocks for long
    import fcntl

    own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(descriptor)  # or the reader would never see that we closed the other
    os.open(os.devnull, os.O_WRONLY)  # takes its number: nothing that prints can get into the stream
    with contextlib.suppress(PermissionError):  # the user's quota of pipe memory is used up; 64 KiB work too
        fcntl.fcntl(own, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return own


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
