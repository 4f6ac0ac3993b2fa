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

from tests import conversing, device_minimal
from tests.conversing import Person, Speech, Voice, Watch
from tests.rig import until

pytestmark = [pytest.mark.needs("flite"), pytest.mark.timeout(300)]
LIMIT_S = 60.0  # for what people say and hear, which goes by the clock, on a busy machine
NAME = "study"
STORIES = {
    "an old man": "This story is about an old man, who lived alone by the sea and looked for his boat every day.",
    "a house in the forest": "This story is about a house in the forest, where nobody had lived for ten years.",
    "a kitchen in the morning": "This story is about a kitchen in the morning, where somebody had left the radio on.",
}
TEXT = " ".join(['Say "Good morning.".', *STORIES.values()])


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
    device = conversing.entry(NAME, person.device.port, TEXT, "rms", enabled=False)
    with conversing.voice(tmp_path_factory.mktemp("voice"), speech, [device]) as its:
        yield its


@pytest.fixture
def talking(voice: Voice) -> Iterator[Voice]:
    """The same, while somebody is there; else the bot would ask whether anybody is."""
    voice.post(f"/v1/devices/{NAME}/enable")
    until(lambda: voice.texts(NAME, "assistant") and voice.is_quiet(NAME), LIMIT_S)
    yield voice
    voice.post(f"/v1/devices/{NAME}/disable")


def kill_child(voice: Voice, person: Person) -> None:
    """The one that holds the conversation."""
    os.kill(voice.child_at(person.device.port), signal.SIGKILL)


def kill_leader(voice: Voice, person: Person) -> None:
    """The leader; all below it ends with it."""
    voice.kill()
    voice.start()


def kill_device(voice: Voice, person: Person) -> None:
    """The device's ears and mouth."""
    person.device.kill()
    person.device.start()


def texts(voice: Voice) -> list[str]:
    """All that was said."""
    return [line["text"] for line in voice.lines(NAME)]


@pytest.mark.parametrize(
    ("about", "which", "kill"),
    [
        ("an old man", "stt", kill_child),
        ("a house in the forest", "tts", kill_leader),
        ("a kitchen in the morning", "llm", kill_device),
    ],
    ids=["stt, child", "tts, leader", "llm, audio_io"],
)
def test_killed_in_the_middle_of_a_question_and_of_its_answer(
    talking: Voice, person: Person, speech: Speech, about: str, which: str, kill: Callable[..., None]
) -> None:
    voice = talking
    before, began = texts(voice), len(person.device.played())
    for_s = person.say(f"what is the story about {about}")
    time.sleep(for_s / 4)
    speech.kill(which)
    times = Watch()
    speech.start(which)
    times.told(f"{which} serves again")
    until(lambda: person.heard_s(began) > 1.0, LIMIT_S)
    times.told("a second of the answer was heard")
    said, held = texts(voice), conversing.holds(person.device).count("held")
    assert said[: len(before)] == before and len(said) == len(before) + 2
    assert STORIES[about].startswith(said[-1].rstrip("—-. ")), "the question was understood"

    times = Watch()
    kill(voice, person)
    until(lambda: conversing.holds(person.device).count("held") > held, LIMIT_S)
    times.told("called again")
    began = 0 if kill is kill_device else len(person.device.played())
    until(lambda: person.heard_s(began) > 0.1, LIMIT_S)
    times.told("and speaks")
    voice.wait()
    until(lambda: len(texts(voice)) > len(said) and voice.is_quiet(NAME), LIMIT_S)
    now = texts(voice)
    print(now)
    assert now[: len(said) - 1] == said[:-1], "what was said before is known"
    assert now[len(said) - 1].startswith(said[-1].rstrip("—-. ")), "what was heard counts"
    assert STORIES[about].endswith(now[-1]) and len(now[-1].split()) > 5, "and it goes on with the rest"
    assert conversing.never_two(person.device) and conversing.holds(person.device).count("held") == held + 1


@pytest.mark.long  # without a recogniser test_voice_leader.py has it, and e2e/test_voice_postgres.py on PostgreSQL
def test_of_two_backends_one_calls_and_the_other_takes_over(speech: Speech, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'both.sqlite'}"
    with device_minimal.device() as device:
        entry = conversing.entry("shared", device.port, 'Say "Good morning.".', "rms")
        start = partial(conversing.voice, its=speech, devices=[entry], PLANARIA_VOICE_STORE=store)
        with start(tmp_path / "one") as one, start(tmp_path / "two") as two:
            until(lambda: device.is_called)
            talk = device.talk
            talk.until(lambda: talk.of("response.audio.done"))
            time.sleep(0.5)
            holder, other = (one, two) if one.is_connected("shared") else (two, one)
            assert not other.is_connected("shared") and other.device("shared")["state"] == "elsewhere"
            assert len(device.talks) == 1
            lines = holder.lines("shared")
            assert lines and lines == other.lines("shared")
            times = Watch()
            holder.kill()
            until(lambda: other.is_connected("shared"))
            times.told("the other one has taken over")
            time.sleep(0.5)
            assert other.lines("shared")[: len(lines)] == lines
            assert (device.most, len(device.talks)) == (1, 2)
            holder.start()
            holder.wait()
            time.sleep(1.0)
            assert other.is_connected("shared") and not holder.is_connected("shared")
            assert (device.most, len(device.talks)) == (1, 2)
