"""What is heard where sound is missing: the last period of the voice over and over, fading; silence after 60 ms.

Pure. `join` is given everything that is spoken, and leads to it from what was made; `make` continues it, `end` ends it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from procs.media.opuspackets import RATE

Pcm = NDArray[np.int16]
FADE = RATE * 60 // 1000  # samples until silence
_STEADY = RATE // 100  # the first 10 ms are as loud as before
_SHORTEST, _LONGEST = RATE // 400, RATE // 66  # periods of a voice
_COMPARED = RATE // 50
_KEPT = _COMPARED + _LONGEST
_JOIN = RATE // 200  # 5 ms
# How loud sample n of a gap is.
_FADING = np.clip((FADE - np.arange(FADE, dtype=np.float32)) / (FADE - _STEADY), 0, 1)


class Concealer:
    """Continues one voice."""

    def __init__(self) -> None:
        self._past = np.zeros(_KEPT, np.int16)
        self._period: Pcm | None = None  # what is repeated in this gap
        self._made = 0  # samples of this gap

    def make(self, samples: int) -> Pcm:
        """So much more of the gap."""
        made = self._continued(self._made, samples)
        self._made += samples
        return made

    def join(self, pcm: Pcm) -> Pcm:
        """This is spoken next. After a gap it fades in, while what would have come of the gap fades out."""
        if self._made and len(pcm):
            count = min(_JOIN, len(pcm))
            new = np.arange(count, dtype=np.float32) / count
            mixed = self._continued(self._made, count) * (1 - new) + pcm[:count] * new
            pcm = np.concatenate((mixed.astype(np.int16), pcm[count:]))
            self._period, self._made = None, 0
        self._past = np.concatenate((self._past, pcm))[-_KEPT:]
        return pcm

    def end(self, samples: int) -> Pcm:
        """Fall silent at once, without a click."""
        made = np.zeros(samples, np.int16)
        count = min(_JOIN, samples)
        falling = 1 - np.arange(count, dtype=np.float32) / count
        made[:count] = (self._continued(self._made, count) * falling).astype(np.int16)
        self._made = FADE
        return made

    def _continued(self, start: int, samples: int) -> Pcm:
        if start >= FADE:
            return np.zeros(samples, np.int16)
        if self._period is None:
            self._period = self._past[-period_of(self._past) :]
        place = np.arange(start, start + samples)
        loud = np.where(place < FADE, _FADING[np.minimum(place, FADE - 1)], 0)
        return (self._period[place % len(self._period)] * loud).astype(np.int16)


def period_of(past: Pcm) -> int:
    """After how many samples the end of this repeats itself best."""
    sound = past[-_KEPT:].astype(np.float32)
    end = sound[-_COMPARED:]
    windows = np.lib.stride_tricks.sliding_window_view(sound, _COMPARED)[:-_SHORTEST]
    power = np.einsum("ij,ij->i", windows, windows)
    likeness = windows @ end / np.sqrt(power + 1.0)
    return len(sound) - _COMPARED - int(np.argmax(likeness))
