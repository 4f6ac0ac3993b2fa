"""Whole sound files, for recognition: WAV, Ogg, FLAC, MP3, Matroska, decoded by FFmpeg's libraries inside PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
from av.error import FFmpegError

from procs.errors import Refused
from procs.wire.moshi import RATE, Samples

MAX_S = 600.0
RATES = range(4000, 384_001)  # a few bytes at 1 Hz would be gigabytes at ours
# What a file begins with. FFmpeg is not asked to guess: it knows formats that name other files, and would open those.
_KINDS = {
    b"RIFF": "wav",
    b"OggS": "ogg",
    b"fLaC": "flac",
    b"ID3": "mp3",
    b"\xff": "mp3",
    b"\x1a\x45\xdf\xa3": "matroska",
}


def decoded(data: bytes) -> Iterator[Samples]:
    """Its sound, piece by piece. Raises Refused for what is none, or too long."""
    kind = next((kind for begin, kind in _KINDS.items() if data.startswith(begin)), None)
    if kind is None:
        raise Refused("not a sound file: WAV, Ogg, FLAC, MP3 or Matroska is taken")
    resampler = av.AudioResampler("s16", "mono", RATE)
    total = 0
    try:
        with av.open(io.BytesIO(data), "r", format=kind) as file:
            if not file.streams.audio:
                raise Refused("a file without sound")
            for frame in file.decode(audio=0):
                if frame.sample_rate not in RATES:
                    raise Refused(f"a file of {frame.sample_rate} samples a second")
                for piece in resampler.resample(frame):
                    total += piece.samples
                    if total > MAX_S * RATE:
                        raise Refused(f"a file of more than {MAX_S:g} s")
                    yield np.frombuffer(memoryview(piece.planes[0]), np.int16, piece.samples)
    except (FFmpegError, ValueError) as error:
        raise Refused(f"not a sound file: {error}"[:300]) from None
