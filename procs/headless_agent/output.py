"""Access units to stdout, in the form that go2rtc passes on without holding a picture back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import av

from procs.headless_agent.encoder import AccessUnit
from procs.headless_agent.options import Producer
from procs.media import mpegts
from procs.media.annexb import LookAhead, SetsFirst
from procs.pipes import Stdout

if TYPE_CHECKING:
    from procs.headless_agent.audio import Audio


class Output(Protocol):
    """Takes access units in order."""

    def put(self, unit: AccessUnit, index: int) -> None:
        """Write one unit; `index` counts periods of 1/fps since the first picture."""


class MpegTs:
    """MPEG-TS (media/mpegts.py), its first picture at `start_ns` of CLOCK_MONOTONIC."""

    def __init__(self, chosen: Producer, stdout: Stdout, start_ns: int) -> None:
        self._fps, self._origin = chosen.fps, mpegts.ticks(start_ns)
        self._container = mpegts.open_muxer(stdout)
        self._stream = self._container.add_mux_stream("h264", rate=chosen.fps, width=chosen.width, height=chosen.height)
        self._stream.time_base = mpegts.TICK
        self._sets_first = SetsFirst()
        self._audio: Audio | None = None
        if chosen.audio != "none":
            from procs.headless_agent.audio import Audio  # here: most streams have no sound

            self._audio = Audio(chosen, self._container, self._origin)

    def put(self, unit: AccessUnit, index: int) -> None:
        if self._audio:
            self._audio.put_until(index / self._fps)
        packet = av.Packet(self._sets_first.push(unit.data))
        packet.stream, packet.time_base = self._stream, mpegts.TICK
        packet.pts = packet.dts = self._origin + index * mpegts.CLOCK_HZ // self._fps
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
