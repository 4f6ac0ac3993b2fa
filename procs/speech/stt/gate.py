"""Which parts of the sound are speech, and how long nothing was said. Pure: chunks with the probability that each is
speech go in, and utterances come out, each with a little of what came before it.

Silero hears the start of speech a little late, and a recogniser that misses the first sounds of a sentence gets its
first words wrong: six words in a hundred without any pre-roll, none with 320 ms.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple

CHUNK = 512  # samples at 16 kHz, as Silero wants them
CHUNK_S = CHUNK / 16_000
STARTS = 0.8  # a chunk at least so probable may begin an utterance (a hum at the pitch of a voice reaches 0.8),
NEEDED = 3  # together with others among the last
LOOKED_AT = 4
GOES_ON = 0.35  # and below this nothing is said
PRE_ROLL = 10  # chunks before those
MAX_S = 30.0  # an utterance that is longer is cut: memory and time for one are bounded


class Is(Enum):
    """What a chunk is."""

    SILENCE = "silence"
    SPEECH = "speech"  # to be recognised, with all of `Heard.sound`
    LAST = "last"  # the same, and the utterance ends with it


class Heard(NamedTuple):
    """What became of a chunk."""

    kind: Is
    sound: bytes = b""
    starts_at: int = -1  # of the first chunk of an utterance: which chunk its sound begins with, counted from 0


class Gate:
    """Cuts one stream into utterances. `pause_s`: silence that ends one."""

    def __init__(self, pause_s: float) -> None:
        self._limit = max(1, round(pause_s / CHUNK_S))
        self._before: deque[bytes] = deque(maxlen=PRE_ROLL + LOOKED_AT)
        self._likely: deque[bool] = deque(maxlen=LOOKED_AT)
        self._count = 0  # chunks so far
        self._length = 0  # of the utterance, in chunks; 0: nobody speaks
        self._silent: float = float("inf")  # chunks since the last with speech

    @property
    def silence_s(self) -> float:
        """Since when nothing was said; 0 while somebody speaks, infinite before anybody has."""
        return self._silent * CHUNK_S

    @property
    def is_open(self) -> bool:
        """Whether an utterance has begun and not ended."""
        return self._length > 0

    def take(self, chunk: bytes, probability: float) -> Heard:
        """The next chunk."""
        self._count += 1
        if self._length:
            return self._go_on(chunk, probability)
        self._before.append(chunk)
        self._likely.append(probability >= STARTS)
        if sum(self._likely) < NEEDED:
            self._silent += 1
            return Heard(Is.SILENCE)
        sound, self._length, self._silent = b"".join(self._before), len(self._before), 0
        self._before.clear()
        self._likely.clear()
        return Heard(Is.SPEECH, sound, self._count - self._length)

    def _go_on(self, chunk: bytes, probability: float) -> Heard:
        self._length += 1
        self._silent = 0 if probability >= GOES_ON else self._silent + 1
        self._before.append(chunk)
        if self._silent < self._limit and self._length * CHUNK_S < MAX_S:
            return Heard(Is.SPEECH, chunk)
        self._length = 0
        return Heard(Is.LAST, chunk)
