"""Real H.264 for the media tests: small moving pictures, x264 set up as our producers do, and ffmpeg's decoder."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import cast

import av
from av.sidedata.sidedata import SideData, Type
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame


def luma(frame: VideoFrame) -> tuple[bytes, int]:
    """The luma plane as it lies in memory, and its stride."""
    return bytes(frame.planes[0]), frame.planes[0].line_size


def user_data(frame: VideoFrame) -> list[bytes]:
    """The user_data_unregistered payloads that came with the picture: UUID and content."""
    every = cast("Iterable[SideData]", frame.side_data)  # PyAV's stub names one key only
    return [bytes(side) for side in every if side.type is Type.SEI_UNREGISTERED]


def picture(width: int, height: int, lines: Callable[[int], bytes]) -> VideoFrame:
    """A grey picture whose luma line y is `lines(y)`."""
    frame = VideoFrame(width, height, "yuv420p")
    for plane in frame.planes[1:]:
        plane.update(bytes((128,)) * plane.buffer_size)
    pad = bytes(frame.planes[0].line_size - width)
    frame.planes[0].update(b"".join([lines(y) + pad for y in range(height)]))
    return frame


def moving(count: int, width: int = 160, height: int = 96) -> list[VideoFrame]:
    """Pictures of one noisy texture that moves, so that no two are alike and each costs some bytes."""
    texture = random.Random(1).randbytes(width + 7 * height + 5 * count)

    def shifted(shift: int) -> VideoFrame:
        return picture(width, height, lambda y: texture[7 * y + shift : 7 * y + shift + width])

    return [shifted(5 * index) for index in range(count)]


def encode(frames: Sequence[VideoFrame], bit_rate: int = 1_000_000, **options: str) -> list[bytes]:
    """One Annex-B access unit for each picture, no delay; SPS and PPS in front of every keyframe (each 10th)."""
    encoder = VideoCodecContext.create("libx264", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "threads": "1", **options}
    encoder.pix_fmt, encoder.bit_rate, encoder.gop_size = "yuv420p", bit_rate, 10
    encoder.width, encoder.height = frames[0].width, frames[0].height
    encoder.time_base, encoder.framerate = Fraction(1, 60), Fraction(60)
    units = []
    for pts, frame in enumerate(frames):
        frame.pts = pts
        units += [bytes(packet) for packet in encoder.encode(frame)]
    return units


def decode(units: Iterable[bytes]) -> list[VideoFrame]:
    """All pictures of the stream. Damage that the decoder notices raises."""
    decoder = VideoCodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.options = {"err_detect": "explode"}
    decoder.thread_count = 1
    frames = []
    for unit in units:
        frames += decoder.decode(av.Packet(unit))
    return frames + decoder.decode(None)
