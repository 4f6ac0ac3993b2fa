"""A conversation in which all goes wrong at once: afterwards it listens and answers again."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from procs.errors import Refused
from procs.voice.conversation.actions import Ask, Drop, Speak
from tests.voice_stage import Stage

LONG = "Once upon a time there was a flatworm that lived in a pond and could not be killed at all."
BOT: list[str | Exception] = ["Hi.", LONG, "Well, goodbye!", OSError("gone"), "", "What do you mean by that?"]
USER = ["stop", "yeah", "what is the time now", "ok", "one two three four five six"]


def reconnected(stage: Stage, chance: random.Random) -> None:
    """Perhaps to a device of the other kind."""
    stage.lose()
    stage.run(chance.random() * 4)
    stage.talk.ours = stage.ours = chance.random() < 0.5
    stage.speaker.tells = stage.ours and chance.random() < 0.8
    stage.begin()


def announced(stage: Stage) -> None:
    """Unless too many wait."""
    with suppress(Refused):
        stage.do(stage.talk.say("Dinner is ready.", stage.now))


def happens(stage: Stage, chance: random.Random) -> None:
    """Any of what may."""
    reply = len(stage.asked) + chance.randrange(-2, 2)
    events: list[Callable[[], object]] = [
        *[lambda: stage.says(chance.choice(USER))] * 4,
        lambda: stage.coughs(chance.random() * 3),
        lambda: reconnected(stage, chance),
        lambda: setattr(stage, "hears_flush", chance.random() < 0.7),
        lambda: stage.tts_fails_after.append(chance.randrange(5)),
        lambda: announced(stage),
        lambda: stage.do(stage.talk.ears_lost(stage.now)),
        lambda: stage.do(stage.talk.muted(chance.random() < 0.3, stage.now)),
        lambda: stage.do(stage.talk.llm_failed(reply, "gone", stage.now)),
        lambda: stage.do(stage.talk.tts_failed(reply, "gone", stage.now)),
        lambda: None,
    ]
    chance.choice(events)()
    stage.run(chance.random() * chance.choice([0.3, 3, 9]))


@pytest.mark.parametrize("seed", range(12))
def test_after_any_mishaps_it_listens_and_answers(seed: int) -> None:
    chance = random.Random(seed)
    stage = Stage([*chance.choices(BOT, k=40), "Fine."], ours=chance.random() < 0.5, at_end=chance.random() < 0.5)
    stage.begin(chance.random() * 5)
    for _ in range(40):
        happens(stage, chance)
    stage.hears_flush, stage.tts_fails_after = True, []
    stage.do(stage.talk.muted(False, stage.now))
    stage.run(120)
    assert stage.talk.turn == "waiting_for_user"
    asked = len(stage.asked)
    stage.says("are you there")
    stage.run(15)
    assert len(stage.asked) > asked
    _check_lines(stage)
    _check_dropped(stage)


def _check_lines(stage: Stage) -> None:
    """What was kept is what is known."""
    lines, kept = stage.talk.lines, {line.number: line for line in stage.kept}
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert [line.text for line in lines if line.final] == [kept[line.number].text for line in lines if line.final]


def _check_dropped(stage: Stage) -> None:
    """Nothing more is wanted of what was dropped."""
    dropped: set[int] = set()
    for _, action in stage.log:
        if isinstance(action, Drop):
            dropped.add(action.reply)
        elif isinstance(action, Ask | Speak):
            assert action.reply not in dropped
