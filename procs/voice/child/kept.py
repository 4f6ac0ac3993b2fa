"""The last of the microphone, in steps of 80 ms: what goes to a recogniser, and again to the next if one breaks. Pure.

While nobody speaks it is half a second, for a recogniser that misses the beginning of a word gets the word wrong.
While somebody does it is all that was not settled, by words or a flush, and 15 s at most.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from procs.wire import moshi

STEP_S = moshi.STEP / moshi.RATE
PRE_ROLL = 7  # steps
MOST = 188


class Kept:
    """Steps are counted from the first sound that ever came."""

    def __init__(self) -> None:
        self._steps: deque[moshi.Samples] = deque()
        self._rest = np.empty(0, np.int16)
        self.first = 0  # step that is kept

    @property
    def end(self) -> int:
        """The step that comes next."""
        return self.first + len(self._steps)

    def add(self, pcm: moshi.Samples, *, all_wanted: bool) -> bool:
        """More sound; returns whether there is a step more."""
        pcm = np.concatenate((self._rest, pcm))
        whole = len(pcm) - len(pcm) % moshi.STEP
        self._steps.extend(pcm[at : at + moshi.STEP] for at in range(0, whole, moshi.STEP))
        self._rest = pcm[whole:].copy()
        self.settle(self.end - (MOST if all_wanted else PRE_ROLL))
        return whole > 0

    def settle(self, step: int) -> None:
        """What was before this step is wanted no more."""
        while self._steps and self.first < step:
            self._steps.popleft()
            self.first += 1

    def at(self, step: int) -> moshi.Samples:
        """One that is kept."""
        return self._steps[step - self.first]
