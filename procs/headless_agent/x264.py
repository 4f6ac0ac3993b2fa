"""H.264 in process: PyAV's libx264, zero delay, one picture in, one access unit out."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import av
from av.video.frame import PictureType

from procs.errors import EncoderFailed
from procs.headless_agent.options import Producer

_BT709 = 1
_LIMITED_RANGE = 1


class AccessUnit(NamedTuple):
    """One coded picture in Annex-B; keyframes carry SPS and PPS."""

    data: bytes
    is_keyframe: bool


class X264:
    """Constant bit rate with a small buffer: only then does x264 take a lower rate while it runs."""

    name = "x264"

    def __init__(self, chosen: Producer, pixel_format: str) -> None:
        self._chosen, self._pixel_format = chosen, pixel_format
        self._context = self._open(chosen, pixel_format)
        self.bitrate = self._ceiling = chosen.bitrate

    @staticmethod
    def _open(chosen: Producer, pixel_format: str) -> av.VideoCodecContext:
        context = av.VideoCodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = chosen.width, chosen.height, pixel_format
        context.time_base, context.framerate = Fraction(1, chosen.fps), Fraction(chosen.fps, 1)
        context.gop_size, context.max_b_frames = chosen.gop, 0
        context.bit_rate = chosen.bitrate
        context.color_range, context.colorspace = _LIMITED_RANGE, _BT709
        context.color_primaries, context.color_trc = _BT709, _BT709
        context.options = {
            "preset": chosen.x264_preset,
            "tune": chosen.x264_tune,
            "maxrate": str(chosen.bitrate),
            "bufsize": str(chosen.vbv_bits),
            "threads": str(chosen.threads),
            "forced-idr": "1",
            "sc_threshold": "0",  # keyframes come when they are due or asked for, and never else
        }
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(f"x264 does not open at {chosen.width}x{chosen.height}: {error}") from None
        return context

    def encode(self, picture: av.VideoFrame, index: int, *, keyframe: bool) -> AccessUnit:
        """The access unit of one picture. `index` counts periods of 1/fps and only grows."""
        picture.pts = index
        picture.pict_type = PictureType.I if keyframe else PictureType.NONE
        try:
            packets = self._context.encode(picture)
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(f"x264 failed at picture {index}: {error}") from None
        if len(packets) != 1:
            raise EncoderFailed(f"x264 gave {len(packets)} units for picture {index}, not 1: it holds pictures back")
        return AccessUnit(bytes(packets[0]), packets[0].is_keyframe)

    def set_bitrate(self, bits_per_s: int) -> None:
        """Encode at another rate from the next picture on.

        x264 goes no higher than the rate it was opened at, so a higher one opens it anew, with a keyframe.
        """
        if bits_per_s > self._ceiling:
            self._chosen, self._ceiling = replace(self._chosen, bitrate=bits_per_s), bits_per_s
            self._context = self._open(self._chosen, self._pixel_format)
        self._context.bit_rate = bits_per_s
        self.bitrate = bits_per_s
