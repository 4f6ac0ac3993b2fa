"""Sound beside the pictures: a tone, or a file in a loop, as AAC or Opus, on the pictures' clock."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
from av.container import OutputContainer

from procs.errors import ConfigError
from procs.headless_agent.options import Producer
from procs.media import mpegts

RATE = 48_000
TONE_HZ = 480  # a hundred samples a period
TONE_LEVEL = 0.1
BITRATE = {"aac": 128_000, "opus": 96_000}
CATCH_UP_S = 1.0  # sound that is later than this is left out, as pictures are
_CODECS = {"aac": "aac", "opus": "libopus"}
_PRIMING = {"aac": 1024, "opus": 312}  # samples of silence that the encoder puts in front
_BLOCK = 960
_BYTES_A_SAMPLE = 4  # two channels of 16 bits


def tone() -> Iterator[av.AudioFrame]:
    """A sine wave without end, in blocks."""
    period = RATE // TONE_HZ
    wave = array("h")
    for sample in range(_BLOCK + period):
        value = round(32767 * TONE_LEVEL * math.sin(2 * math.pi * (sample % period) / period))
        wave.extend((value, value))
    data, at = wave.tobytes(), 0
    while True:
        frame = av.AudioFrame(format="s16", layout="stereo", samples=_BLOCK)
        frame.sample_rate = RATE
        start = at % period * _BYTES_A_SAMPLE
        frame.planes[0].update(data[start : start + _BLOCK * _BYTES_A_SAMPLE])
        at += _BLOCK
        yield frame


def file(path: str) -> Iterator[av.AudioFrame]:
    """The first sound track of a file, over and over, without what can't be decoded in it. Raises ConfigError where
    there is no sound at all."""
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise ConfigError(f"audio={path!r}: has no sound in it")
            while True:
                heard, failure = 0, "its sound is empty"
                for packet in container.demux(container.streams.audio[0]):
                    try:
                        frames = packet.decode()
                    except av.FFmpegError as error:
                        failure = f"cannot be decoded: {error.strerror}"
                        continue
                    heard += len(frames)
                    yield from frames
                if not heard:
                    raise ConfigError(f"audio={path!r}: {failure}")
                container.seek(0)
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(f"audio={path!r}: cannot be decoded: {error.strerror or error}") from None


class Audio:
    """An encoder in a container of ours. `origin`: the time of sample 0 in ticks of mpegts.CLOCK_HZ."""

    def __init__(self, chosen: Producer, container: OutputContainer, origin: int) -> None:
        stream = container.add_stream(_CODECS[chosen.audio_codec], rate=RATE, layout="stereo")
        self._stream = cast(av.AudioStream, stream)
        self._stream.bit_rate = BITRATE[chosen.audio_codec]
        self._container, self._origin = container, origin
        self._priming = _PRIMING[chosen.audio_codec]
        self._blocks = blocks(tone() if chosen.audio == "tone" else file(str(Path(chosen.audio).expanduser())))
        self._samples = 0  # encoded so far

    def put_until(self, seconds: float) -> None:
        """Write the sound up to a moment after sample 0, and one packet more: libavformat keeps a picture back until
        it has sound that comes after it."""
        target = round(seconds * RATE) + self._priming
        if target - self._samples > CATCH_UP_S * RATE:
            self._samples = target
        while self._samples <= target + self._frame_samples:
            for packet in self._stream.encode(next(self._blocks)):
                sample = self._samples - self._priming
                packet.pts = packet.dts = self._origin + sample * mpegts.CLOCK_HZ // RATE
                packet.time_base = mpegts.TICK
                self._samples += self._frame_samples
                self._container.mux(packet)

    @property
    def _frame_samples(self) -> int:
        return self._stream.codec_context.frame_size or _BLOCK


def blocks(source: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Sound as the encoders take it, whatever it was; a file may change its rate or layout on the way."""
    to_ours = _resampler()
    for sound in source:
        sound.pts = None  # counted by us
        try:
            yield from to_ours.resample(sound)
        except ValueError:
            to_ours = _resampler()
            yield from to_ours.resample(sound)


def _resampler() -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout="stereo", rate=RATE)
