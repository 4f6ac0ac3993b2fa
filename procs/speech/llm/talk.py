"""What all rules share: a conversation so far, words made comparable, and a choice of what was not said yet. Pure."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

SILENCE = "..."  # what a backend sends for a user who says nothing
END = "bye!"  # at the end of a reply it makes the published backend hang up, in French, too


class Turn(NamedTuple):
    """Who said what."""

    is_user: bool
    text: str


class Talk(NamedTuple):
    """A conversation, and what is asked of the one who answers."""

    turns: Sequence[Turn]
    language: str  # en or fr
    kind: str = "smalltalk"  # an instruction's type
    text: str = ""  # of a constant instruction
    headlines: Sequence[str] = ()
    seed: int = 0
    now: datetime | None = None  # where the one who asks is

    @property
    def asked(self) -> str:
        """What the user has said last, plain."""
        return plain(self.turns[-1].text) if self.turns and self.turns[-1].is_user else ""

    @property
    def said(self) -> list[str]:
        """What we have said, plain."""
        return [plain(turn.text) for turn in self.turns if not turn.is_user]

    @property
    def is_opening(self) -> bool:
        """Whether nothing has been said by us."""
        return not any(not turn.is_user for turn in self.turns)

    @property
    def silences(self) -> int:
        """How many times in a row the user has now said nothing."""
        count = 0
        for turn in reversed(self.turns):
            if turn.is_user and turn.text.strip().replace("\u2026", SILENCE) != SILENCE:
                break
            count += turn.is_user
        return count

    def chance(self, salt: str) -> random.Random:
        """The same for the whole of a conversation."""
        return random.Random(f"{self.seed} {salt}")

    def new(self, options: Iterable[str]) -> str:
        """The first that has not been said; "" when all have."""
        said = self.said
        return next((each for each in options if not any(plain(each) in earlier for earlier in said)), "")

    def shuffled(self, options: Sequence[str], salt: str) -> list[str]:
        """In an order of this conversation's own."""
        return self.chance(salt).sample(options, len(options))


def plain(text: str) -> str:
    """Lower case, without accents and punctuation: what a recogniser and a person who types have in common."""
    bare = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[^a-z0-9]+", " ", bare.replace("'", "")).split())


def has(asked: str, pattern: str) -> bool:
    """Whether whole words of plain text match a pattern."""
    return re.search(rf"\b(?:{pattern})\b", asked) is not None


def sentences(text: str) -> Iterator[str]:
    """Of a text, each with its end."""
    for each in re.split(r"(?<=[.!?])\s+|\n+", text):
        if each.strip():
            yield " ".join(each.split())


def is_near(word: str, wanted: str) -> bool:
    """Whether a word is another with at most one letter wrong, as a recogniser has it; short ones must be right."""
    if word == wanted or len(wanted) < 5 or abs(len(word) - len(wanted)) > 1:
        return word == wanted
    if len(word) > len(wanted):
        word, wanted = wanted, word
    at = next((i for i, (a, b) in enumerate(zip(word, wanted, strict=False)) if a != b), len(word))
    return word[at + (len(word) == len(wanted)) :] == wanted[at + 1 :]


def mentions(asked: str, wanted: str) -> bool:
    """Whether plain text holds a word or a few, well enough."""
    words, parts = asked.split(), wanted.split()
    return any(
        all(is_near(word, part) for word, part in zip(words[at : at + len(parts)], parts, strict=True))
        for at in range(len(words) - len(parts) + 1)
    )
