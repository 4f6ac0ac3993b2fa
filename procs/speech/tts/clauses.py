"""Words come one after another; a synthesiser needs a clause. Pure.

A clause ends with a sentence, at a comma once there is enough to say, or where it gets long: the first one early, so
that something is heard soon.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

LONGEST_WORDS = 16
LONGEST_CHARACTERS = 200
LONGEST_WORD = 48  # that is spoken; of what is longer, the beginning: a key or an address, which nobody follows
AT_A_COMMA_WORDS = 5  # at least
FIRST_WORDS = 2
SENTENCE_PAUSE_S = 0.3
CLAUSE_PAUSE_S = 0.12
LONGEST_BREAK_S = 10.0

_BREAK = re.compile(r"<break(?:\s+time\s*=\s*[\"']?([0-9]{1,4}(?:\.[0-9]{1,3})?)(ms|s)[\"']?)?\s*/?>", re.IGNORECASE)
_BREAK_OPEN = re.compile(r"<break\b[^>]{0,40}\Z", re.IGNORECASE)  # cut in two between the words of a message
_CLOSING = "\"')]}»”’"
_ABBREVIATIONS = (
    "mr.",
    "mrs.",
    "ms.",
    "dr.",
    "st.",
    "prof.",
    "sr.",
    "jr.",
    "vs.",
    "e.g.",
    "i.e.",
    "m.",
    "mme.",
    "mlle.",
)
_STRAIGHT = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " ", "\u2026": "..."})
# Brackets: [[...]] would be phonemes to espeak-ng. The rest is what the published server leaves out as well.
_UNSPOKEN = re.compile(r"[\x00-\x1f\x7f*_`:()\[\]{}<>|\\^~\u2010-\u2015]")
_SIGNS = "%&$+=@#\u20ac\u00a3\u00b0"


class Clause(NamedTuple):
    """What is spoken in one go: words as they were sent, and the silence after them. One without words is a break."""

    words: tuple[str, ...]
    pause_s: float


class Clauses:
    """Of one reply."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._open = ""  # the beginning of a <break> whose end has not come
        self._is_first = True

    def feed(self, text: str) -> list[Clause]:
        """The clauses that a message makes whole."""
        text, self._open = self._open + (" " if self._open else "") + text, ""
        if cut := _BREAK_OPEN.search(text):
            text, self._open = text[: cut.start()], cut[0]
        found: list[Clause] = []
        at = 0
        for each in _BREAK.finditer(text):
            found += self._take(text[at : each.start()].split())
            found += [*self._say(CLAUSE_PAUSE_S), Clause((), _seconds(each))]
            at = each.end()
        return found + self._take(text[at:].split())

    def end(self) -> list[Clause]:
        """What is left when no more comes."""
        left, self._open = self._open, ""
        return [*self._take(left.split()), *self._say(SENTENCE_PAUSE_S)]

    def _take(self, words: list[str]) -> list[Clause]:
        found: list[Clause] = []
        for word in words:
            self._words.append(word)
            pause_s = _pause_after(word)
            enough = FIRST_WORDS if self._is_first else AT_A_COMMA_WORDS
            if pause_s == SENTENCE_PAUSE_S or (pause_s and len(self._words) >= enough):
                found += self._say(pause_s)
            elif len(self._words) >= LONGEST_WORDS or sum(map(len, self._words)) > LONGEST_CHARACTERS:
                found += self._say(0.0)
        return found

    def _say(self, pause_s: float) -> list[Clause]:
        if not self._words:
            return []
        words, self._words, self._is_first = tuple(self._words), [], False
        return [Clause(words, pause_s)]


def _pause_after(word: str) -> float:
    """How long a speaker stops there; 0 where they go on."""
    bare = word.rstrip(_CLOSING)
    if bare.endswith((".", "!", "?", "\u2026")):
        is_initial = len(bare) == 2 and bare[0].isupper() and bare[0] != "I" and bare[1] == "."
        return 0.0 if is_initial or bare.lower() in _ABBREVIATIONS else SENTENCE_PAUSE_S
    return CLAUSE_PAUSE_S if bare.endswith((",", ";", ":", "\u2013", "\u2014")) else 0.0


def _seconds(of: re.Match[str]) -> float:
    value = float(of[1] or 0.5) / (1000 if (of[2] or "").lower() == "ms" else 1)
    return min(value, LONGEST_BREAK_S)


def spoken(word: str, *, ascii_only: bool) -> str:
    """What of a word a synthesiser is given, "" for one that is no sound: a dash, a smiley. flite knows only ASCII."""
    plain = _UNSPOKEN.sub("", word.translate(_STRAIGHT))
    if ascii_only:
        plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    else:
        plain = "".join(c for c in plain if unicodedata.category(c)[0] in "LMNPZ" or c in _SIGNS)
    plain = "".join(plain.split())[:LONGEST_WORD]
    return plain if any(c.isalnum() or c in _SIGNS for c in plain) else ""
