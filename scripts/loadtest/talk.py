"""One conversation: a greeting, turns, speaking over the bot, a cough while it speaks, and a connection made again."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from procs.wire import realtime
from scripts.loadtest import figures
from scripts.loadtest.caller import Caller, Failed, Place, call
from scripts.loadtest.figures import Heard, Spoken
from scripts.loadtest.sounds import Sounds

UPDATED_S = 10.0
BEGUN_S = 20.0  # the first sound of a reply
DONE_S = 120.0  # all of it
NOTICED_S = 10.0  # that somebody speaks over the bot
MOMENT_S = 1.0  # a reply that ends so soon after the speech over it says nothing of who noticed what
AFTERWARDS_S = 5.0
THINKING_S = 0.6  # between a reply and the next question
INTO_S = 1.5  # how long the bot speaks before somebody speaks over it, or coughs


class Plan(NamedTuple):
    """What users do."""

    turns: int = 3
    barge_in: bool = True
    cough: bool = True
    reconnect: bool = True


class Outcome(NamedTuple):
    """How a conversation went; `why` is empty if it was as it should be."""

    why: str
    seen: dict[str, list[float]]
    counts: Counter[str]


class Talk:
    """A user, for one conversation."""

    def __init__(self, place: Place, sounds: Sounds, plan: Plan, number: int, told: Callable[[str], None]) -> None:
        self._place, self._sounds, self._plan, self._told = place, sounds, plan, told
        first = number % len(sounds.said)
        self._next: Iterator[list[bytes]] = itertools.cycle(sounds.said[first:] + sounds.said[:first])
        self._seen: dict[str, list[float]] = {}
        self._counts: Counter[str] = Counter()

    async def hold(self) -> Outcome:
        """All of it, or as far as it went."""
        why = ""
        try:
            self._see({"late": await call(self._place, self._converse)})
            if self._plan.reconnect:
                await self._again()
        except Failed as failed:
            why = str(failed)
        return Outcome(why, self._seen, self._counts)

    async def _converse(self, caller: Caller) -> None:
        await _updated(caller)
        await self._greeting(caller)
        for _ in range(self._plan.turns):
            await self._turn(caller)
        if self._plan.barge_in:
            await self._barge_in(caller)
        if self._plan.cough:
            await self._cough(caller)

    async def _greeting(self, caller: Caller) -> None:
        """The bot speaks first."""
        if not await caller.until(lambda heard: _has(heard, realtime.AudioDelta), BEGUN_S):
            raise Failed(f"no greeting within {BEGUN_S:g} s")
        if not await caller.until(lambda heard: _has(heard, realtime.AudioDone), DONE_S):
            raise Failed(f"a greeting without an end within {DONE_S:g} s")

    async def _turn(self, caller: Caller) -> None:
        spoken = await self._ask(caller)
        await self._answered(caller, spoken)
        found = figures.of_turn(caller.heard, spoken)
        self._see(found)
        self._count("turns", f"answered after {found['end_of_speech_to_sound']:.2f} s")

    async def _ask(self, caller: Caller) -> Spoken:
        await asyncio.sleep(THINKING_S)
        caller.heard.clear()
        return await caller.say(next(self._next))

    async def _begun(self, caller: Caller, spoken: Spoken) -> None:
        def is_there(heard: Sequence[Heard]) -> bool:
            return _has(figures.reply_to(heard, spoken), realtime.AudioDelta)

        if not await caller.until(is_there, BEGUN_S):
            raise Failed(f"no sound of a reply within {BEGUN_S:g} s")

    async def _answered(self, caller: Caller, spoken: Spoken) -> None:
        await self._begun(caller, spoken)
        if not await caller.until(lambda heard: _has(figures.reply_to(heard, spoken), realtime.AudioDone), DONE_S):
            raise Failed(f"a reply without an end within {DONE_S:g} s")

    async def _is_speaking(self, caller: Caller) -> bool:
        """Ask something, and wait until the bot is in the middle of its reply; False where that was too short."""
        spoken = await self._ask(caller)
        await self._begun(caller, spoken)
        await asyncio.sleep(INTO_S)
        return not _has(figures.reply_to(caller.heard, spoken), realtime.AudioDone)

    async def _barge_in(self, caller: Caller) -> None:
        if not await self._is_speaking(caller):
            return self._count("barge_in_too_late", "the reply was too short to speak over it")
        over = await caller.say(next(self._next))
        await caller.until(lambda heard: _ended(heard, over.began), NOTICED_S)
        if not _has(_since(caller.heard, over.began), realtime.Interrupted):
            return await self._unnoticed(caller, over)
        await self._answered(caller, over)
        found = figures.of_barge_in(caller.heard, over.began)
        self._see(found)
        return self._count("barge_in_noticed" if found else "barge_in_too_late", "the bot was spoken over")

    async def _unnoticed(self, caller: Caller, over: Spoken) -> None:
        """The bot said all that there was. What was said over it may be answered all the same."""
        done = figures.first(caller.heard, realtime.AudioDone, over.began)
        if done and done.at < over.ended + MOMENT_S:
            self._count("barge_in_too_late", "the reply was over before the bot could notice that it was spoken over")
        else:
            self._count("barge_in_unnoticed", "the bot did not notice that it was spoken over")
        if await caller.until(lambda heard: _has(_since(heard, over.ended), realtime.ResponseCreated), AFTERWARDS_S):
            await self._answered(caller, over)

    async def _cough(self, caller: Caller) -> None:
        if not await self._is_speaking(caller):
            return self._count("cough_too_late", "the reply was too short for a cough")
        cough = await caller.say(self._sounds.cough)
        if not await caller.until(lambda heard: _ended(heard, cough.began), DONE_S):
            raise Failed(f"a reply without an end within {DONE_S:g} s")
        found = figures.of_cough(caller.heard, cough.began)
        self._see(found)
        return self._count("cough_went_on" if found else "cough_interrupted", "somebody coughed")

    async def _again(self) -> None:
        begun = time.monotonic()

        async def see(caller: Caller) -> None:
            self._see({"reconnect": (await _updated(caller)).at - begun})

        await call(self._place, see)

    def _see(self, found: dict[str, float]) -> None:
        for name, value in found.items():
            self._seen.setdefault(name, []).append(value)

    def _count(self, name: str, told: str) -> None:
        self._counts[name] += 1
        self._told(told)


async def _updated(caller: Caller) -> Heard:
    """The answer to session.update."""
    if not await caller.until(lambda heard: _has(heard, realtime.SessionUpdated), UPDATED_S):
        raise Failed(f"no session.updated within {UPDATED_S:g} s")
    return next(each for each in caller.heard if each.kind is realtime.SessionUpdated)


def _has(heard: Sequence[Heard], kind: type[realtime.Event]) -> bool:
    return any(each.kind is kind for each in heard)


def _since(heard: Sequence[Heard], at: float) -> list[Heard]:
    return [each for each in heard if each.at >= at]


def _ended(heard: Sequence[Heard], began: float) -> bool:
    after = _since(heard, began)
    return _has(after, realtime.AudioDone) or _has(after, realtime.Interrupted)
