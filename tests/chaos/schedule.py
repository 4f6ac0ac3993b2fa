"""What is done to whom, and when: all of it follows from a seed and from who there is. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

CALM_ROUNDS = 8  # and then a storm
PAUSE_S = (0.2, 2.0)  # of health before a fault: within startsecs as well as after it
KINDS = ("killed", "frozen", "looping", "hung")
FAULTS_A_MINUTE = 6
EACH_TARGET, WITHIN_MINUTES = 3, 10.0
# On a bare machine these two bring each other back. Killed within the same milliseconds there is nobody left to do it
# (systemd or Docker would), so no storm takes both.
NEVER_BOTH = ("supervisord", "keeper")


class Hit(NamedTuple):
    """One fault to be done."""

    target: str
    kind: str


class Round(NamedTuple):
    """Faults that are done at the same moment, after a pause."""

    pause_s: float
    hits: tuple[Hit, ...]


def rounds(seed: int, possible: Mapping[str, Sequence[str]]) -> Iterator[Round]:
    """Rounds without end. `possible`: target -> the kinds of fault that can be done to it.

    Targets are dealt like cards, each once before any comes again, and so are the kinds of each target; so wherever the
    time is over, all have had nearly the same.
    """
    dice = random.Random(seed)
    kinds = {name: _dealt(dice, sorted(set(possible[name]) & set(KINDS))) for name in sorted(possible)}
    targets = _dealt(dice, sorted(possible))
    while True:
        for _ in range(CALM_ROUNDS):
            name = next(targets)
            yield Round(dice.uniform(*PAUSE_S), (Hit(name, next(kinds[name])),))
        yield Round(dice.uniform(*PAUSE_S), _storm(dice, possible))


def _storm(dice: random.Random, possible: Mapping[str, Sequence[str]]) -> tuple[Hit, ...]:
    """Two of them up to all of them; mostly kills, which come together most closely."""
    spared = dice.choice(NEVER_BOTH)
    names = sorted(set(possible) - {spared})
    chosen = dice.sample(names, dice.randint(min(2, len(names)), len(names)))
    return tuple(
        Hit(name, "killed" if dice.random() < 0.7 else dice.choice(sorted(set(possible[name]) & set(KINDS))))
        for name in chosen
    )


def _dealt(dice: random.Random, cards: Sequence[str]) -> Iterator[str]:
    while True:
        yield from dice.sample(cards, len(cards))


def least_faults(minutes: float) -> int:
    """How many faults a run of that length has to do, or it proves nothing."""
    return int(FAULTS_A_MINUTE * minutes)


def least_each(minutes: float) -> int:
    """How many of them have to hit each target."""
    return min(EACH_TARGET, int(EACH_TARGET * minutes / WITHIN_MINUTES))
