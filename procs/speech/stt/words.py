"""Which words of a guess that still changes are told, and when. Pure.

A word that was told can't be taken back. So it is told once the last guesses agree on it and on all before it, and
something has followed it; at the end of the utterance all others are, by the last guess, which is the best one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

AGREE = 16  # guesses in a row: two seconds
FOLLOWED_BY = 4  # words: the last ones change most
OVERLAP_S = 0.1  # by which a word of the last guess may begin before the end of one that was told
_NO_WORD = re.compile(r"[<\[+].*|.*[>\]+]")


class Spoken(NamedTuple):
    """A word, and when in the sound it is, in seconds."""

    text: str
    start_s: float
    stop_s: float


def plain(segments: Iterable[tuple[str, float, float]]) -> list[Spoken]:
    """The words among the segments of a guess: no silences, no noises, no marks of how a word was pronounced."""
    return [Spoken(text.partition("(")[0], start, stop) for text, start, stop in segments if not _NO_WORD.match(text)]


class Words:
    """The words of one utterance."""

    def __init__(self) -> None:
        self._guesses: deque[Sequence[Spoken]] = deque(maxlen=AGREE)
        self._told: list[Spoken] = []

    def guess(self, words: Sequence[Spoken]) -> list[Spoken]:
        """Those that may be told now that this is the guess."""
        self._guesses.append(words)
        if len(self._guesses) < AGREE:
            return []
        agreed = 0
        for same in zip(*self._guesses, strict=False):
            if len({word.text for word in same}) > 1:
                break
            agreed += 1
        known = [word.text for word in self._told]
        if [word.text for word in words[: len(known)]] != known:
            return []  # the guess has left the way that was told: only its end can tell how it goes on
        return self._tell(words[len(known) : min(agreed, len(words) - FOLLOWED_BY)])

    def end(self, words: Sequence[Spoken]) -> list[Spoken]:
        """What is left to be told, by the last guess."""
        told, last = [word.text for word in self._told], self._told[-1].stop_s if self._told else 0.0
        if [word.text for word in words[: len(told)]] == told:
            return self._tell(words[len(told) :])
        return self._tell([word for word in words if word.start_s >= last - OVERLAP_S])

    def _tell(self, words: Sequence[Spoken]) -> list[Spoken]:
        self._told += words
        return list(words)
