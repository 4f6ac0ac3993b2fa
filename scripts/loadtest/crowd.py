"""Many users at once, each with one conversation after another, and a word now and then on how far they are."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator

from scripts.loadtest.caller import Place
from scripts.loadtest.sounds import Sounds
from scripts.loadtest.talk import Outcome, Plan, Talk

SPREAD_S = 2.0  # over which users begin, as in the published client
TELL_S = 10.0


async def run(place: Place, sounds: Sounds, plan: Plan, workers: int, count: int) -> list[Outcome]:
    """So many conversations, so many of them at once."""
    outcomes: list[Outcome] = []
    numbers = iter(range(count))
    progress = Progress(count, outcomes, alone=workers == 1)

    async def user(after_s: float) -> None:
        await asyncio.sleep(after_s)
        for number in _left(numbers):
            talk = Talk(place, sounds, plan, number, progress.told)
            outcomes.append(await talk.hold())
            progress.ended(outcomes[-1])

    async with asyncio.TaskGroup() as group:
        users = [group.create_task(user(at * SPREAD_S / workers)) for at in range(min(workers, count))]
        telling = group.create_task(progress.run())
        await asyncio.wait(users)
        telling.cancel()
    return outcomes


def _left(numbers: Iterator[int]) -> Iterator[int]:
    """The next number while there are any, for whoever is free."""
    with contextlib.suppress(StopIteration):
        while True:
            yield next(numbers)


class Progress:
    """Says what goes on, on stderr: each step of a single user, a line each ten seconds of many."""

    def __init__(self, count: int, outcomes: list[Outcome], *, alone: bool) -> None:
        self._count, self._outcomes, self._alone = count, outcomes, alone
        self._begun = time.monotonic()
        self._steps = 0

    def told(self, what: str) -> None:
        """A step of a conversation."""
        self._steps += 1
        if self._alone:
            self._say(what)

    def ended(self, outcome: Outcome) -> None:
        """The end of a conversation."""
        self._say(f"{len(self._outcomes)} of {self._count} conversations: {outcome.why or 'OK'}")

    async def run(self) -> None:
        """Tell of many, for ever."""
        while not self._alone:
            await asyncio.sleep(TELL_S)
            failed = sum(bool(outcome.why) for outcome in self._outcomes)
            done = len(self._outcomes)
            self._say(f"{done} of {self._count} conversations, {failed} not OK, {self._steps} steps in all")

    def _say(self, text: str) -> None:
        print(f"  {time.monotonic() - self._begun:4.0f} s  {text}", file=sys.stderr, flush=True)
