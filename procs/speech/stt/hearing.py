"""One session's hearing: messages of the caller in, messages to the caller out. It has neither clock nor socket: all
times are those of the sound."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import soxr

from procs.errors import Refused
from procs.speech.stt.gate import CHUNK, CHUNK_S, Gate, Is
from procs.speech.stt.pause import scores
from procs.speech.stt.words import Spoken, Words, plain
from procs.wire import moshi
from procs.wire.moshi import EndWord, FromStt, Marker, Samples, Step, Word

RATE = 16_000
GUESS_EVERY = 4  # chunks
DELAY_STEPS = 6  # by which words come later than their sound, as the published model has it: 0.48 s
MAX_MARKERS = 1000  # that wait
MAX_DELAY_STEPS = 25  # a marker waits no longer for somebody who speaks on


class Recogniser(Protocol):
    """Tells the words of one utterance (pocket.py)."""

    def begin(self) -> None:
        """An utterance begins."""

    def take(self, sound: bytes) -> None:
        """More of it."""

    def end(self) -> None:
        """It has ended."""

    def segments(self) -> Iterator[tuple[str, float, float]]:
        """The best guess so far."""


class Detector(Protocol):
    """Tells speech from all else (Silero)."""

    def process_chunk(self, chunk: bytes, /) -> float:
        """How probable it is that this is speech."""


class Hearing:
    """What is heard in one stream of sound."""

    def __init__(self, recogniser: Recogniser, detector: Detector, pause_s: float) -> None:
        self._recogniser, self._detector, self._pause_s = recogniser, detector, pause_s
        self._resampler = soxr.ResampleStream(moshi.RATE, RATE, 1, dtype="int16")
        self._gate = Gate(pause_s)
        self._words = Words()
        self._starts_s = 0.0  # of the utterance
        self._left = np.empty(0, np.int16)  # less than a step
        self._rest = b""  # of a chunk
        self._chunks = self._steps = 0
        self._markers: deque[tuple[int, int]] = deque()  # id, the step before which it came

    def mark(self, marker: Marker) -> None:
        """It is sent back when all sound before it has been dealt with. Raises Refused for too many."""
        if len(self._markers) >= MAX_MARKERS:
            raise Refused("more than 1000 markers without sound after them")
        self._markers.append((marker.id, self._steps + bool(len(self._left))))

    def hear(self, pcm: Samples) -> Iterator[FromStt]:
        """More sound, of any length. It is dealt with as the messages are fetched: first the words of a step, then the
        Step."""
        pcm = np.concatenate((self._left, pcm))
        whole = len(pcm) - len(pcm) % moshi.STEP
        self._left = pcm[whole:]
        for at in range(0, whole, moshi.STEP):
            sound = self._rest + self._resampler.resample_chunk(pcm[at : at + moshi.STEP]).tobytes()
            end = len(sound) - len(sound) % (2 * CHUNK)
            self._rest = sound[end:]
            for start in range(0, end, 2 * CHUNK):
                yield from self._told(self._chunk(sound[start : start + 2 * CHUNK]))
            yield Step(self._steps, scores(self._gate.silence_s, self._pause_s), len(self._left))
            self._steps += 1
            yield from self._due()

    def end(self) -> Iterator[FromStt]:
        """No more will come: as if silence followed."""
        yield from self.hear(np.zeros(MAX_DELAY_STEPS * moshi.STEP, np.int16))

    def _chunk(self, chunk: bytes) -> list[Spoken]:
        self._chunks += 1
        heard = self._gate.take(chunk, self._detector.process_chunk(chunk))
        if heard.kind is Is.SILENCE:
            return []
        if heard.starts_at >= 0:
            self._starts_s, self._words = heard.starts_at * CHUNK_S, Words()
            self._recogniser.begin()
        self._recogniser.take(heard.sound)
        if heard.kind is Is.LAST:
            self._recogniser.end()
            return self._words.end(plain(self._recogniser.segments()))
        return [] if self._chunks % GUESS_EVERY else self._words.guess(plain(self._recogniser.segments()))

    def _told(self, words: list[Spoken]) -> Iterator[FromStt]:
        for word in words:
            yield Word(word.text, round(self._starts_s + word.start_s, 3))
            yield EndWord(round(self._starts_s + word.stop_s, 3))

    def _due(self) -> Iterator[FromStt]:
        """Markers whose time has come: the delay is over, and so is what was being said, if that is soon."""
        while self._markers:
            waited = self._steps - self._markers[0][1]
            if waited < DELAY_STEPS or (self._gate.is_open and waited < MAX_DELAY_STEPS):
                return
            yield Marker(self._markers.popleft()[0])
