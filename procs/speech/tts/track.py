"""A reply's sound and words, laid one after another and cut into steps. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from procs.speech.tts.timing import Span
from procs.wire.moshi import RATE, STEP, Samples, TimedText


class Step(NamedTuple):
    """80 ms of sound, and the words that begin in it, which are told before it."""

    words: list[TimedText]
    pcm: Samples


class Track:
    """Of one reply."""

    def __init__(self) -> None:
        self._left = np.zeros(0, np.int16)
        self._words: deque[TimedText] = deque()
        self._samples = 0  # added so far
        self._cut = 0  # of them, those that are in a step

    @property
    def seconds(self) -> float:
        """How long it is so far."""
        return self._samples / RATE

    def add(self, pcm: Samples, words: Sequence[str], spans: Sequence[Span], pause_s: float) -> list[Step]:
        """A clause with the silence after it; what steps it fills."""
        now_s = self._samples / RATE
        self._words += [
            TimedText(word, round(now_s + span.start_s, 3), round(now_s + span.stop_s, 3))
            for word, span in zip(words, spans, strict=True)
        ]
        return self._steps(np.concatenate([pcm, np.zeros(round(pause_s * RATE), np.int16)]))

    def end(self) -> list[Step]:
        """The last step, filled up with silence, and every word that is left."""
        missing = -len(self._left) % STEP or (STEP if self._words and not len(self._left) else 0)
        steps = self._steps(np.zeros(missing, np.int16))
        if steps:
            steps[-1].words.extend(self._words)
            self._words.clear()
        return steps

    def _steps(self, pcm: Samples) -> list[Step]:
        self._samples += len(pcm)
        self._left = np.concatenate([self._left, pcm])
        whole = len(self._left) // STEP
        found = [self._step(self._left[i * STEP : (i + 1) * STEP]) for i in range(whole)]
        self._left = self._left[whole * STEP :]
        return found

    def _step(self, pcm: Samples) -> Step:
        self._cut += STEP
        words = []
        while self._words and self._words[0].start_s * RATE < self._cut:
            words.append(self._words.popleft())
        return Step(words, pcm)
