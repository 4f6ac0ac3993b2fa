"""Decode what a producer or go2rtc gives, and read back what the pattern and the encoder put in."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import NamedTuple, cast

import av
from av.sidedata.sidedata import SideData, Type
from av.video.frame import PictureType

from procs.media import barcode, sei


class Seen(NamedTuple):
    """One decoded picture: its time in seconds, what its barcode and its SEI say, and whether it is a keyframe."""

    time_s: float
    code: barcode.Code
    stamp: sei.Stamp | None
    keyframe: bool


def code_of(frame: av.VideoFrame) -> barcode.Code:
    """The barcode of a decoded picture."""
    luma = frame.planes[0]
    return barcode.read(memoryview(luma), frame.width, frame.height, luma.line_size)


def stamp_of(frame: av.VideoFrame) -> sei.Stamp | None:
    """The stamp that came with a decoded picture."""
    every = cast("Iterable[SideData]", frame.side_data)  # PyAV's stub names one key only
    payloads = (bytes(data) for data in every if data.type is Type.SEI_UNREGISTERED)
    return next((found for payload in payloads if (found := sei.read_payload(payload))), None)


def frames_of(stream: bytes | str, limit: int = 1_000_000, **options: str) -> list[av.VideoFrame]:
    """Decode up to `limit` pictures of a byte string or an address. Any error of the decoder fails."""
    source = io.BytesIO(stream) if isinstance(stream, bytes) else stream
    frames = []
    with av.open(source, "r", options={"err_detect": "explode", **options}, timeout=20) as container:
        for frame in container.decode(video=0):
            frames.append(frame)
            if len(frames) >= limit:
                break
    return frames


def seen_in(stream: bytes | str, limit: int = 1_000_000, **options: str) -> list[Seen]:
    """What can be read from each decoded picture."""
    return [
        Seen(float(f.time or 0), code_of(f), stamp_of(f), f.pict_type == PictureType.I)
        for f in frames_of(stream, limit, **options)
    ]
