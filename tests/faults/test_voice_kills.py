"""Whoever is killed in the middle of a sentence: the conversation goes on, with all that was said before, and no device
is ever called twice at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import device_minimal, conversing
from tests.rig import until
from tests.spoken import words, wrong
from tests.conversing import Person, Speech, Voice, Watch

pytestmark = [pytest.mark.needs("flite")]
NAME = "study"
STORIES = {
    "an old man": "This story is about an old man, who lived alone by the sea and looked for his boat every day.",
    "a house in the forest": "This story is about a house in the forest, where nobody had lived for ten years.",
    "the king": "This story is about the king of a small country, who was afraid of the dark and never slept at night.",
}
ANSWERS = {
    "what is the weather like in london": "In london the weather is good in the summer.",
    "set a timer for ten minutes": "The timer is set for ten minutes.",
    "what time does the train leave tomorrow": "The train leaves the station at ten.",
}
TEXT = " ".join(['Say "Good morning.".', *STORIES.values(), *ANSWERS.values()])


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speech]:
    with conversing.speech(tmp_path_factory.mktemp("speech")) as its:
        yield its


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    with conversing.person(tmp_path_factory.mktemp(NAME), voice="slt") as its:
        yield its


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory, speech: Speech, person: Person) -> Iterator[Voice]:
    device = conversing.entry(NAME, person.device.port, TEXT, "rms")
    with conversing.voice(tmp_path_factory.mktemp("voice"), speech, [device]) as its:
        until(lambda: its.texts(NAME, "assistant") and its.is_quiet(NAME))
        yield its


def kill_child(voice: Voice, person: Person, speech: Speech) -> None:
    """The one that holds the conversation."""
    os.kill(voice.child_at(person.device.port), signal.SIGKILL)


def kill_leader(voice: Voice, person: Person, speech: Speech) -> None:
    """The leader; all below it ends with it."""
    voice.kill()
    voice.start()


def kill_device(voice: Voice, person: Person, speech: Speech) -> None:
    """The device's ears and mouth."""
    person.device.kill()
    person.device.start()


def is_prefix(before: list[str], now: list[str]) -> bool:
    """Whether nothing was forgotten. The last of before may have been cut, or gone on."""
    return now[: len(before) - 1] == before[:-1] and len(now) >= len(before)


@pytest.mark.parametrize(
    ("about", "kill"),
    [("an old man", kill_child), ("a house in the forest", kill_leader), ("the king", kill_device)],
    ids=["child", "leader", "audio_io"],
)
def test_killed_while_the_bot_speaks(
    voice: Voice, person: Person, speech: Speech, about: str, kill: Callable[[Voice, Person, Speech], None]
) -> None:
    before = voice.lines(NAME)
    began = len(person.device.played())
    person.say(f"tell me a story about {about}")
    until(lambda: len(voice.lines(NAME)) == len(before) + 2 and person.heard_s(began) > 1.0)
    said = [line["text"] for line in voice.lines(NAME)]
    times = Watch()
    kill(voice, person, speech)
    person.device.wait()
    voice.wait()
    until(lambda: voice.is_connected(NAME))
    times.told("connected again")
    until(person.hears)
    times.told("and speaks")
    until(lambda: voice.is_quiet(NAME))
    told = [line["text"] for line in voice.lines(NAME)]
    print(told)
    assert is_prefix(said, told), "what was said before is known"
    assert told[len(said) - 1].startswith(said[-1].rstrip("—-. ")), "what was heard counts"
    assert conversing.never_two(person.device)


@pytest.mark.parametrize(
    ("asked", "which"), list(zip(ANSWERS, conversing.SPEECH, strict=True)), ids=conversing.SPEECH
)
def test_killed_while_the_user_speaks(voice: Voice, person: Person, speech: Speech, asked: str, which: str) -> None:
    before = [line["text"] for line in voice.lines(NAME)]
    held = conversing.holds(person.device).count("held")
    for_s = person.say(asked)
    time.sleep(for_s / 2)
    times = Watch()
    speech.kill(which)
    speech.start(which)
    times.told(f"{which} serves again")
    until(lambda: ANSWERS[asked] in voice.texts(NAME, "assistant") and voice.is_quiet(NAME))
    times.told("answered")
    told = [line["text"] for line in voice.lines(NAME)]
    print(told[-2:])
    assert told[: len(before)] == before and len(told) == len(before) + 2
    assert wrong(words(asked), words(told[-2])) <= 0.2
    assert held == conversing.holds(person.device).count("held"), "it was not called again"


def test_of_two_backends_one_calls_and_the_other_takes_over(speech: Speech, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'both.sqlite'}"
    with device_minimal.device() as device:
        entry = conversing.entry("shared", device.port, 'Say "Good morning.".', "rms")
        start = partial(conversing.voice, its=speech, devices=[entry], PLANARIA_VOICE_STORE=store)
        with start(tmp_path / "one") as one, start(tmp_path / "two") as two:
            until(lambda: device.is_called)
            talk = device.talk
            talk.until(lambda: talk.of("response.audio.done"))
            time.sleep(1.0)
            holder, other = (one, two) if one.is_connected("shared") else (two, one)
            assert not other.is_connected("shared") and other.device("shared")["state"] == "elsewhere"
            assert len(device.talks) == 1
            lines = holder.lines("shared")
            assert lines and lines == other.lines("shared")
            times = Watch()
            holder.kill()
            until(lambda: other.is_connected("shared"))
            times.told("the other one has taken over")
            time.sleep(1.0)
            assert other.lines("shared")[: len(lines)] == lines
            assert (device.most, len(device.talks)) == (1, 2)
            holder.start()
            holder.wait()
            time.sleep(2.0)
            assert other.is_connected("shared") and not holder.is_connected("shared")
            assert (device.most, len(device.talks)) == (1, 2)
