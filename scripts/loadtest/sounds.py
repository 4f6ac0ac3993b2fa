"""What the users of a load test say: WAV files, or sentences by flite; and a cough. Encoded once, for all of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from procs.audio_io import files
from procs.errors import ConfigError, NotHere
from procs.media.opus import RATE, Encoder, Samples

COUGH = "cough.wav"  # in a folder of sounds: one that was recorded
VOICES = ("rms", "slt", "awb")  # of flite, in turn
SENTENCES = (
    "how do you listen to me",
    "which part of you can think",
    "how does your voice speak to me",
    "may I interrupt you while you talk",
    "are you fast or are you slow",
)
_FAINT = 0.02  # of the loudest sample: less than that, at both ends, is no part of what is said
_COUGH_LEVEL = 9000.0


class Sounds(NamedTuple):
    """Opus packets of 20 ms each."""

    said: list[list[bytes]]
    cough: list[bytes]
    silence: bytes


def load(folder: Path | None) -> Sounds:
    """From the WAV files of a folder in the order of their names, or made here. Raises ConfigError, NotHere."""
    found = _files(folder) if folder else _made()
    cough = files.read(folder / COUGH) if folder and (folder / COUGH).is_file() else made_up_cough()
    silence = Encoder().encode(np.zeros(RATE, np.int16))[-1]
    return Sounds([packets_of(pcm, silence) for pcm in found], packets_of(cough, silence), silence)


def _files(folder: Path) -> list[Samples]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".wav" and path.name != COUGH)
    except OSError as error:
        raise ConfigError(f"--audio-dir={str(folder)!r}: cannot be read: {error.strerror}") from None
    if not paths:
        raise ConfigError(f"--audio-dir={str(folder)!r}: there is no .wav file to be said in it")
    found = [trimmed(files.read(path)) for path in paths]
    silent = [path.name for path, pcm in zip(paths, found, strict=True) if not len(pcm)]
    if silent:
        raise ConfigError(f"--audio-dir={str(folder)!r}: there is nothing but silence in {', '.join(silent)}")
    return found


def _made() -> list[Samples]:
    try:
        return [trimmed(files.speech(text, voice)) for voice in VOICES for text in SENTENCES]
    except NotHere as error:
        raise NotHere(f"{error}; apt-get install flite, or --audio-dir with sounds of your own") from None


def trimmed(pcm: Samples) -> Samples:
    """Without the silence before and after it: latencies are counted from the first sound, and from the last."""
    loudness = np.abs(pcm.astype(np.int32))
    loud = np.flatnonzero(loudness > max(1, int(loudness.max(initial=0) * _FAINT)))
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else pcm[:0]


def packets_of(pcm: Samples, silence: bytes) -> list[bytes]:
    """An even number of them, since two go on a page."""
    encoder = Encoder()
    packets = encoder.encode(pcm) + encoder.flush()
    return packets + [silence] * (len(packets) % 2)


@functools.cache
def made_up_cough() -> Samples:
    """Two short bursts of noise, a fifth of a second in all: nothing that anybody would take for a word."""
    noise = np.random.default_rng(10)
    parts = [_burst(noise, 0.09), np.zeros(round(0.04 * RATE)), 0.6 * _burst(noise, 0.07)]
    cough: Samples = (_COUGH_LEVEL * np.concatenate(parts)).astype(np.int16)
    return cough


def _burst(noise: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    count = round(seconds * RATE)
    rough = np.convolve(noise.standard_normal(count), np.ones(4) / 4, "same")
    at = np.arange(count) / RATE
    shaped = rough * np.minimum(1.0, at / 0.004) * np.exp(-at / (seconds / 3))
    burst: NDArray[np.float64] = shaped / np.abs(shaped).max()
    return burst
