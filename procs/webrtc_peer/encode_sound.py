"""Sound of any codec that a stream has to Opus or G.711, in pieces of 20 ms. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, cast

import av

from procs import log
from procs.messages.watch import Unit

PIECE_US = 20_000
SLIP_US = 60_000  # by so much may what was decoded part from the stream's own clock before it is set anew
OPUS_BITS = 96_000
Codec = Literal["opus", "pcma", "pcmu"]


class _Form(NamedTuple):
    """How libav has a codec."""

    encoder: str
    decoder: str
    rate: int
    layout: str


_FORMS = {
    "opus": _Form("libopus", "libopus", 48_000, "stereo"),
    "pcma": _Form("pcm_alaw", "pcm_alaw", 8_000, "mono"),
    "pcmu": _Form("pcm_mulaw", "pcm_mulaw", 8_000, "mono"),
    "aac": _Form("aac", "aac", 0, ""),  # its frames say it
}


class Sound:
    """Keeps the time of the stream: each piece has that of the sound in it. `skipped` counts what can't be decoded."""

    def __init__(self, codec: Codec) -> None:
        self._codec, self._form = codec, _FORMS[codec]
        self._source = ""
        self._number = self.skipped = 0

    def put(self, units: list[tuple[Unit, bytes]]) -> Iterator[tuple[Unit, bytes]]:
        """What comes out when these go in."""
        for unit, data in units:
            if unit.codec != self._source:
                self._source = unit.codec
                self._begin(unit.time_us)
            if abs(unit.time_us - self._expected_us) > SLIP_US:
                self._begin(unit.time_us)
            try:
                yield from self._encoded(data)
            except (av.FFmpegError, ValueError) as error:  # the latter: another rate or layout than before
                self.skipped += 1
                log.debug("sound that can't be decoded", codec=unit.codec, why=str(error))
                self._begin(unit.time_us)

    def ask_keyframe(self) -> None:
        """There are none in sound."""

    def set_bitrate(self, bits_per_s: int) -> None:
        """It is a small part of what a viewer gets."""

    def _begin(self, time_us: int) -> None:
        self._since_us = self._expected_us = self._out_us = time_us
        self._decoded = 0
        source, form = _FORMS[self._source], self._form
        self._decoder = cast(av.AudioCodecContext, av.CodecContext.create(source.decoder, "r"))
        if source.rate:
            self._decoder.sample_rate, self._decoder.layout = source.rate, source.layout
        samples = form.rate * PIECE_US // 1_000_000
        self._resampler = av.AudioResampler(format="s16", layout=form.layout, rate=form.rate, frame_size=samples)
        self._encoder = cast(av.AudioCodecContext, av.CodecContext.create(form.encoder, "w"))
        self._encoder.sample_rate, self._encoder.layout, self._encoder.format = form.rate, form.layout, "s16"
        if self._codec == "opus":
            self._encoder.bit_rate = OPUS_BITS
            self._encoder.options = {"frame_duration": str(PIECE_US // 1000), "application": "lowdelay"}

    def _encoded(self, data: bytes) -> Iterator[tuple[Unit, bytes]]:
        for decoded in self._decoder.decode(av.Packet(data)):
            self._decoded += decoded.samples
            self._expected_us = self._since_us + self._decoded * 1_000_000 // decoded.sample_rate
            decoded.pts = None
            for piece in self._resampler.resample(decoded):
                for packet in self._encoder.encode(piece):
                    self._number += 1
                    yield Unit("audio", self._codec, self._number, self._out_us), bytes(packet)
                    self._out_us += PIECE_US
