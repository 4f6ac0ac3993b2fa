"""When each word of a clause is spoken. Pure.

flite tells when each phone of a clause ends (-psdur), not which word it belongs to. So it is also asked how each word
sounds alone (-ps), and the two are laid beside each other: a word in its sentence sounds almost as it does alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SILENCE = "pau"
_VOWELS = "aeiou"  # the first letter of a vowel's name
_WORST = 1.0
MOST_PHONES = 300  # that are laid beside each other, in a tenth of a second; a clause of usual words has some 80


class Phone(NamedTuple):
    """One sound."""

    name: str
    start_s: float
    end_s: float


class Span(NamedTuple):
    """Of a word, from the beginning of its clause."""

    start_s: float
    stop_s: float


def phones(printed: str) -> list[Phone]:
    """What -psdur has printed, a line an utterance, each with times of its own. Raises ValueError."""
    found: list[Phone] = []
    offset = end = 0.0
    for line in printed.splitlines():
        offset = end
        for entry in line.split():
            name, _, told = entry.rpartition(":")
            start, end = end, offset + float(told)
            if not 0.0 <= start <= end < 1e6:  # nor a nan
                raise ValueError(f"phone {entry!r} ends before it begins")
            found.append(Phone(name, start, end))
    return found


def words_alone(printed: str) -> list[list[str]]:
    """What -ps has printed of words that each were an utterance: how each sounds."""
    return [[name for name in line.split() if name != SILENCE] for line in printed.splitlines()]


def spans(heard: Sequence[Phone], words: Sequence[Sequence[str]]) -> list[Span]:
    """When each word is spoken, given how each sounds alone. One without a sound of its own has no length."""
    sounds = [phone for phone in heard if phone.name != SILENCE]
    if max(len(sounds), sum(map(len, words))) > MOST_PHONES:  # signs and digits, each spoken as a word
        return by_length(words, sounds[0].start_s if sounds else 0.0, sounds[-1].end_s if sounds else 0.0)
    of_word = [index for index, names in enumerate(words) for _ in names]
    paired = _aligned([phone.name for phone in sounds], [name for names in words for name in names])
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for phone, place in zip(sounds, paired, strict=True):
        if of_word:
            word = of_word[place]
            first.setdefault(word, phone.start_s)
            last[word] = phone.end_s
    found: list[Span] = []
    now = sounds[0].start_s if sounds else 0.0
    for index in range(len(words)):
        start = max(now, first.get(index, now))
        now = max(start, last.get(index, start))
        found.append(Span(start, now))
    return found


def by_length(words: Sequence[Sequence[str]], start_s: float, stop_s: float) -> list[Span]:
    """For a synthesiser that tells nothing: by letters (or sounds), each word with one more for the gap after it."""
    weights = [len(word) + 1 if word else 0 for word in words]
    each_s = (stop_s - start_s) / (sum(weights) or 1)
    found: list[Span] = []
    now = start_s
    for weight in weights:
        found.append(Span(now, now + weight * each_s))
        now += weight * each_s
    return found


def _aligned(heard: Sequence[str], known: Sequence[str]) -> list[int]:
    """For each sound that was heard the place in `known` that it belongs to, at the least edit distance."""
    if not known:
        return [0] * len(heard)
    rows = [[float(j) for j in range(len(known) + 1)]]
    for i, name in enumerate(heard, 1):
        above, row = rows[-1], [float(i)]
        for j, other in enumerate(known, 1):
            row.append(min(above[j - 1] + _cost(name, other), above[j] + _WORST, row[j - 1] + _WORST))
        rows.append(row)
    places = [0] * len(heard)
    i, j = len(heard), len(known)
    while i:
        here = rows[i][j]
        if j and here == rows[i - 1][j - 1] + _cost(heard[i - 1], known[j - 1]):
            i, j = i - 1, j - 1
            places[i] = j
        elif here == rows[i - 1][j] + _WORST:
            i -= 1
            places[i] = max(j - 1, 0)
        else:
            j -= 1
    return places


def _cost(one: str, other: str) -> float:
    if one == other:
        return 0.0
    return 0.5 if one[:1] in _VOWELS and other[:1] in _VOWELS else _WORST
