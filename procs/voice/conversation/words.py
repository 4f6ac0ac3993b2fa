"""Words: of a language model's text, of a synthesiser's, and of a user's who may mean nothing by them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

SILENCE = "..."  # stands for a user who says nothing
CUT = "—"  # at the end of what was interrupted
_LONGEST = 200  # characters of one word: who never writes a blank is cut
_STRAIGHT = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "*": None, "_": None, "`": None})
_WORD = re.compile(r"\s*\S+")
_LETTERS = re.compile(r"[^\W_]+")
_GOODBYE = re.compile(r"\b(?:bye|goodbye|au revoir)[\s.!?…\"'»)]*\Z", re.IGNORECASE)
# What people say to show that they listen.
_NODDING = (
    "uh huh hu um mm mhm mmm mmhm hm hmm ah aha oh yeah yes yep ok okay right sure"
    " oui ouais d accord hein euh bah ben voilà"
)
_NODS = frozenset(_NODDING.split())
_MOST_NODS = 4  # more of them in a row are an answer


class Rechunker:
    """Text in pieces of any size, into whole words, each with the blank before it."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, delta: str) -> list[str]:
        """The words that are whole by now."""
        text = self._rest + delta
        written = text.rstrip()  # its end is a word's: else blanks without end would be tried from each of them on
        found: list[str] = _WORD.findall(written)
        rest = text[len(written) :] or (found.pop() if found else "")
        words = [_one_blank(word) for word in found]
        if len(rest) > _LONGEST:
            words, rest = [*words, _one_blank(rest)] if rest.strip() else words, ""
        self._rest = rest
        return words

    @property
    def is_empty(self) -> bool:
        """Whether no part of a word waits."""
        return not self._rest.strip()

    def end(self) -> list[str]:
        """What is left."""
        rest, self._rest = self._rest, ""
        return [_one_blank(rest)] if rest.strip() else []


def _one_blank(word: str) -> str:
    return " " + word.lstrip() if word[0].isspace() else word


def speakable(word: str) -> str:
    """A word without what is written and not spoken; "" if nothing is left."""
    return word.translate(_STRAIGHT).strip()


def letters(text: str) -> str:
    """What two writings of the same words have in common."""
    return "".join(_LETTERS.findall(text.lower()))


def are_nods(words: Sequence[str]) -> bool:
    """Whether all that was said is that somebody listens: no interruption."""
    plain = [part for word in words for part in _LETTERS.findall(word.lower())]
    return len(plain) <= _MOST_NODS and all(part in _NODS for part in plain)


def is_goodbye(text: str) -> bool:
    """Whether it ends with one."""
    return _GOODBYE.search(text) is not None


def covered(sent: Sequence[str], spoken: Sequence[str]) -> int:
    """How many of the words that were sent are in what was spoken. Synthesisers may cut words in their own way, so
    letters are counted."""
    wanted = sum(len(letters(word)) for word in spoken)
    for count, word in enumerate(sent):
        if wanted <= 0:
            return count
        wanted -= len(letters(word))
    return len(sent)
