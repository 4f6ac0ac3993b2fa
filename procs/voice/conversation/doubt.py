"""Somebody's voice was heard while the bot speaks, or is about to: does it mean to interrupt? Pure.

The bot stands still meanwhile. Words tell; a voice that ends without any was a cough, or none at all.
"""

from __future__ import annotations

from procs.voice.conversation.words import are_nods

ENDED_S = 3.0  # after a voice that has ended, without any word
LONGEST_S = 8.0  # in all: something hums


class Doubt:
    """One of them. `by_score`: it was a recogniser that noticed."""

    def __init__(self, now: float, *, by_score: bool) -> None:
        self.by_score = by_score
        self.words: list[str] = []
        self.mark: int | None = None
        self._latest = now + LONGEST_S
        self._ended_by = float("inf")

    def hear(self, word: str) -> bool:
        """A word. Whether it settles the matter: it is an interruption."""
        self.words.append(word)
        return not are_nods(self.words)

    def goes_on(self) -> None:
        """There is the voice again."""
        self.mark, self._ended_by = None, float("inf")

    def ends(self, now: float, mark: int) -> None:
        """The voice is over. Once the mark is back, all words are known."""
        self.mark, self._ended_by = mark, now + ENDED_S

    @property
    def over_at(self) -> float:
        """When it is nothing, at the latest."""
        return min(self._latest, self._ended_by)
