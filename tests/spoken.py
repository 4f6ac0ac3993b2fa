"""Somebody who speaks, by flite, and how well it was understood. Nothing of ours is in it."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RATE = 24_000
MOST_WRONG = 0.15  # word error rate of what speech_stt makes of flite's slt and rms
Sound = NDArray[np.int16]


def wav(text: str, voice: str) -> bytes:
    """int16 at 16 kHz."""
    said = subprocess.run(["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"], capture_output=True, check=True)
    return said.stdout[44:]


@functools.cache
def speech(text: str, voice: str = "slt") -> Sound:
    """At the protocol's rate."""
    half = np.frombuffer(wav(text, voice), np.int16)
    at = np.arange(len(half) * 3 // 2) / 1.5
    return np.interp(at, np.arange(len(half)), half).astype(np.int16)


def silence(seconds: float) -> Sound:
    """Nothing."""
    return np.zeros(round(seconds * RATE), np.int16)


def cough() -> Sound:
    """A burst of noise that dies away, as loud as a voice: a quarter of a second."""
    at = np.arange(RATE // 4) / RATE
    noise = np.random.default_rng(9).normal(0, 6000, len(at)) * np.exp(-at / 0.06)
    return noise.clip(-32768, 32767).astype(np.int16)


def words(text: str) -> list[str]:
    """As a recogniser writes them."""
    return re.findall(r"[a-z']+", text.lower().replace("\u2019", "'"))


def wrong(said: Sequence[str], found: Sequence[str]) -> float:
    """Word error rate: the fewest words to put in, take out or change, by how many were said."""
    row = list(range(len(found) + 1))
    for at, word in enumerate(said, 1):
        before, row[0] = row[0], at
        for to, other in enumerate(found, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != other))
    return row[-1] / len(said)
