"""How sound and words are written on a connection: one class for each of the published formats. Pure."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Mapping
from typing import Protocol, TypeVar

import numpy as np

from procs.errors import Refused
from procs.media.ogg import OggWriter
from procs.wire import moshi
from procs.wire.moshi import RATE, Samples, TimedText

T = TypeVar("T")
_UNKNOWN = 0xFFFFFFFF  # a length; players then read to the end
WAV_HEAD = struct.pack(
    "<4sI4s4sIHHIIHH4sI", b"RIFF", _UNKNOWN, b"WAVE", b"fmt ", 16, 1, 1, RATE, RATE * 2, 2, 16, b"data", _UNKNOWN - 36
)


class Output(Protocol):
    """One connection's, binary frames out. Formats without msgpack have sound alone."""

    def begin(self) -> list[bytes]:
        """Once there is a slot."""

    def word(self, word: TimedText) -> list[bytes]:
        """Before the sound that it is in."""

    def sound(self, pcm: Samples) -> list[bytes]:
        """80 ms."""

    def end(self) -> list[bytes]:
        """After the last."""

    def failed(self, why: str) -> list[bytes]:
        """Before the connection is closed for it."""


class _Messages:
    """What the formats with msgpack share."""

    def begin(self) -> list[bytes]:
        """Ready."""
        return [moshi.encode(moshi.Ready())]

    def word(self, word: TimedText) -> list[bytes]:
        """Text."""
        return [moshi.encode(word)]

    def end(self) -> list[bytes]:
        """The close says it."""
        return []

    def failed(self, why: str) -> list[bytes]:
        """Error."""
        return [moshi.encode(moshi.Error(why))]


class PcmMessagePack(_Messages):
    """Lists of floats, as the published backend asks for."""

    def sound(self, pcm: Samples) -> list[bytes]:
        """Audio."""
        return [moshi.encode(moshi.Audio(pcm))]


class _Bare:
    """What the formats without msgpack share."""

    def begin(self) -> list[bytes]:
        """Nothing."""
        return []

    def word(self, word: TimedText) -> list[bytes]:
        """Nothing."""
        return []

    def end(self) -> list[bytes]:
        """Nothing."""
        return []

    def failed(self, why: str) -> list[bytes]:
        """Nothing: the close says why."""
        return []


class Pcm(_Bare):
    """Single floats, little-endian."""

    def sound(self, pcm: Samples) -> list[bytes]:
        """Them."""
        return [moshi.as_floats(pcm).astype(np.dtype("<f4")).tobytes()]


class Wav(_Bare):
    """A file of unknown length, 16 bit, that is heard while it is made."""

    def begin(self) -> list[bytes]:
        """Its head."""
        return [WAV_HEAD]

    def sound(self, pcm: Samples) -> list[bytes]:
        """Samples."""
        return [pcm.astype("<i2").tobytes()]


class _Opus:
    """Sound as pages of an Ogg-Opus stream, one for each step."""

    def __init__(self) -> None:
        from procs.media.opus import Encoder  # here: PyAV is 80 ms of a start, and the usual backend has no use for it

        self._encoder, self._ogg = Encoder(frame_ms=40), OggWriter(secrets.randbits(32))

    def page(self, pcm: Samples) -> bytes:
        """The next; the first brings the headers."""
        return self._ogg.write(self._encoder.encode(pcm))

    def last(self) -> bytes:
        """What the encoder still had."""
        return self._ogg.write(self._encoder.flush(), end=True)


class OggOpus(_Bare):
    """Pages, as a player of Ogg-Opus reads them."""

    def __init__(self) -> None:
        self._opus = _Opus()

    def sound(self, pcm: Samples) -> list[bytes]:
        """A page."""
        return [self._opus.page(pcm)]

    def end(self) -> list[bytes]:
        """The last page."""
        return [self._opus.last()]


class OggOpusMessagePack(_Messages):
    """Pages in messages."""

    def __init__(self) -> None:
        self._opus = _Opus()

    def sound(self, pcm: Samples) -> list[bytes]:
        """OggOpus."""
        return [moshi.encode(moshi.OggOpus(self._opus.page(pcm)))]

    def end(self) -> list[bytes]:
        """OggOpus."""
        return [moshi.encode(moshi.OggOpus(self._opus.last()))]


_FORMATS: dict[str, type[Output]] = {each.__name__: each for each in (PcmMessagePack, Pcm, OggOpusMessagePack, OggOpus)}


# Of a POST, whose answer is sound alone: its type, and what makes it.
_FILES: dict[str, tuple[str, type[Output]]] = {
    "wav": ("audio/wav", Wav),
    "OggOpus": ("audio/ogg", OggOpus),
    "Pcm": ("application/octet-stream", Pcm),
}


def of(name: str) -> Output:
    """A new connection's output. Raises Refused."""
    return _named(name, _FORMATS)()


def file(name: str) -> tuple[str, Output]:
    """Content type and output of the answer to a POST. Raises Refused."""
    content_type, output = _named(name, _FILES)
    return content_type, output()


def _named(name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise Refused(f"format {name[:40]!r}: must be one of {', '.join(known)}")
    return known[name]
