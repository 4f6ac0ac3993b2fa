"""H.264 to VP8, for viewers who take no H.264. No I/O.

What it can't keep up with it leaves out: of the pictures that have come at once the newest are encoded, and of many
more than that nothing before the last keyframe is even decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.codec.context import Flags
from av.video.frame import PictureType

from procs import log
from procs.messages.watch import Unit

NEWEST = 2  # of those that have come at once
BEHIND = 30  # so many at once are a second or two that nobody needs to see
BITS_PER_PIXEL = 0.08
FPS = 30  # for the encoder's first guess; then it goes by their times
MIN_BITS, MAX_BITS = 200_000, 4_000_000
GOP = 300  # keyframes come when they are asked for
TICKS = 90_000
# Below zero the speed is that, and not what libvpx makes of the time that it thinks it has: a third of the cost.
OPTIONS = {"deadline": "realtime", "cpu-used": "-12", "lag-in-frames": "0", "error-resilient": "default"}


class Picture:
    """`skipped` counts pictures left out, or that can't be decoded."""

    def __init__(self) -> None:
        self._encoder: av.VideoCodecContext | None = None
        self._decoder = _decoder()
        self._needs_keyframe = self._makes_keyframe = True
        self._limit = MAX_BITS
        self._last_ticks = -1
        self._number = self.skipped = 0

    def put(self, units: list[tuple[Unit, bytes]]) -> Iterator[tuple[Unit, bytes]]:
        """What comes out when these go in."""
        if len(units) > BEHIND:
            first = max((at for at, (unit, _) in enumerate(units) if unit.is_keyframe), default=0)
            self.skipped += first
            units = units[first:]
        for at, (unit, data) in enumerate(units):
            frames = self._decoded(unit, data)
            if at < len(units) - NEWEST:
                self.skipped += len(frames)
                continue
            for frame in frames:
                yield from self._encoded(frame, unit.time_us)

    def ask_keyframe(self) -> None:
        """Make the next picture one."""
        self._makes_keyframe = True

    def set_bitrate(self, bits_per_s: int) -> None:
        """Spend so much from now on, at most. libvpx is opened anew for it, so the next picture is a keyframe."""
        self._limit, self._encoder = min(MAX_BITS, max(MIN_BITS, bits_per_s)), None

    def _decoded(self, unit: Unit, data: bytes) -> list[av.VideoFrame]:
        if self._needs_keyframe and not unit.is_keyframe:
            self.skipped += 1
            return []
        try:
            frames = self._decoder.decode(av.Packet(data))
        except av.FFmpegError as error:
            log.debug("a picture that can't be decoded", why=str(error))
            self._decoder, self._needs_keyframe = _decoder(), True
            self.skipped += 1
            return []
        self._needs_keyframe = False
        return frames

    def _encoded(self, frame: av.VideoFrame, time_us: int) -> Iterator[tuple[Unit, bytes]]:
        ours = self._encoder
        if ours is None or (ours.width, ours.height) != (frame.width, frame.height):
            ours = self._encoder = self._open(frame.width, frame.height)
            self._makes_keyframe = True
        plain = frame.reformat(format="yuv420p")
        plain.pts = self._last_ticks = max(time_us * TICKS // 1_000_000, self._last_ticks + 1)
        plain.time_base = Fraction(1, TICKS)
        plain.pict_type = PictureType.I if self._makes_keyframe else PictureType.NONE
        self._makes_keyframe = False
        for packet in ours.encode(plain):
            self._number += 1
            yield Unit("video", "vp8", self._number, time_us, packet.is_keyframe), bytes(packet)

    def _open(self, width: int, height: int) -> av.VideoCodecContext:
        encoder = av.CodecContext.create("libvpx", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, TICKS), Fraction(FPS)
        encoder.gop_size = GOP
        encoder.bit_rate = min(self._limit, max(MIN_BITS, int(width * height * FPS * BITS_PER_PIXEL)))
        encoder.options = OPTIONS
        encoder.thread_count = 1  # more of them wait for each other in loops, on a machine that has other things to do
        return encoder


def _decoder() -> av.VideoCodecContext:
    decoder = av.CodecContext.create("h264", "r")
    decoder.flags |= Flags.low_delay
    decoder.thread_count = 1  # more of them would hold pictures back
    return decoder
