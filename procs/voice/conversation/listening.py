"""What the user says: the turn so far, and when it is over. Pure."""

from __future__ import annotations

from typing import Literal

from procs.voice.conversation.words import letters

PAUSE = 0.6  # a score above this ends a turn
VOICE = 0.4  # below this somebody speaks
IGNORED_STEPS = 12  # the first of a recogniser's session
_SMOOTH = 0.996  # of a new score, as published: attack and release of 10 ms at steps of 80 ms
FLUSH_S = 3.0  # within which a recogniser gives a mark back
UNHEARD_S = 4.0  # without a word, a voice or a pause: then the turn is over, too
LONGEST_S = 15.0  # without a word, whoever speaks
AGAIN_S = 5.0  # within which a new recogniser has been through what the last one may have heard
MOST_WORDS = 2000  # of a turn

State = Literal["open", "flushing", "answered"]


class Score:
    """How probable it is that nobody speaks."""

    def __init__(self) -> None:
        self.value = 1.0
        self._steps = 0
        self.is_armed = True  # it was high since it was last low

    def step(self, probability: float) -> bool:
        """One more. Whether it counts."""
        self._steps += 1
        if self._steps <= IGNORED_STEPS:
            return False
        self.value += _SMOOTH * (probability - self.value)
        self.is_armed = self.is_armed or self.value > PAUSE
        return True

    @property
    def is_pause(self) -> bool:
        """Nobody speaks."""
        return self.value > PAUSE

    def fell(self) -> bool:
        """Whether somebody has begun to speak, once for each time."""
        fell = self.is_armed and self.value < VOICE
        self.is_armed = self.is_armed and not fell
        return fell


class Listening:
    """The user's turn."""

    def __init__(self) -> None:
        self.score = Score()
        self.words: list[str] = []
        self.state: State = "open"
        self.mark = 0  # the last that was sent
        self._since_flush: list[str] = []  # heard since the recogniser was last at the end of all
        self._again: list[str] = []  # of these, what a new recogniser may hear once more
        self._again_until = float("-inf")
        self.heard_at = float("-inf")
        self._flushed_by = float("inf")

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.words)

    @property
    def is_speaking(self) -> bool:
        """Whether there is a turn that nobody answers yet."""
        return bool(self.words) and self.state != "answered"

    def is_known(self, text: str, now: float) -> bool:
        """Whether a word is only heard again, by another recogniser."""
        if now > self._again_until:
            self._again = []
        if self._again and letters(text) == letters(self._again[0]):
            del self._again[0]
            return True
        self._again = []
        return False

    def hear(self, text: str, now: float) -> bool:
        """A word of this turn. Whether the turn begins, or goes on after it was answered."""
        begins = not self.words or self.state == "answered"
        if begins:
            self.state, self.score.value = "open", 0.0
        self.words = [*self.words, text][-MOST_WORDS:]
        self.note(text, now)
        return begins

    def note(self, text: str, now: float) -> None:
        """A word, of the turn or not."""
        self._since_flush = [*self._since_flush, text][-MOST_WORDS:]
        self.heard_at = now

    def flush(self, now: float) -> int:
        """The recogniser is to give a mark back: this one."""
        self.mark += 1
        self._flushed_by = now + FLUSH_S
        return self.mark

    def flushed(self) -> None:
        """It did."""
        self._since_flush, self._again, self._flushed_by = [], [], float("inf")

    def lost(self, now: float) -> None:
        """It is gone."""
        self._again_until = now + AGAIN_S
        self._again, self.score = list(self._since_flush), Score()

    def over_at(self, voice: float | None) -> float:
        """When the turn is over, whatever the scores are. `voice`: since when somebody speaks; None: nobody."""
        if self.state == "flushing":
            return self._flushed_by
        if not self.is_speaking:
            return float("inf")
        return self.heard_at + (UNHEARD_S if voice is None else LONGEST_S)

    def forget(self) -> None:
        """A new turn, if there is one."""
        self.words, self.state = [], "open"
