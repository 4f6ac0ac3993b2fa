"""One voice backend and those it talks with, all of it real: devices that it calls, a browser that calls it, speech
that is made, heard and answered without a GPU, a network or a sound card."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from procs.settings import ROOT
from tests import audio_rig, conversing, device_minimal, spoken
from tests.browser_minimal import Browser, Talk
from tests.conversing import Person, Speech, Voice
from tests.rig import until
from tests.spoken import MOST_WRONG, Sound, words, wrong

pytestmark = [pytest.mark.needs("flite"), pytest.mark.timeout(300)]
LIMIT_S = 60.0  # for what people say and hear, which goes by the clock, on a busy machine
GOLDEN = [json.loads(line) for line in (ROOT / "tests/golden/realtime.jsonl").read_text().splitlines()]
WELCOME = "Good morning, and welcome."
WEATHER = "In london the weather is good in the summer."
STORY = "This story is about a brave little dog, who lived in a house by the river with an old man and his children."
TEXT = (
    f'Say "{WELCOME}". {WEATHER} The train leaves the station at ten.'
    f" In the sky the moon is far away. The timer is set for ten minutes. {STORY}"
)
ASK_STORY = "tell me a story about a brave little dog"
ASK_WEATHER = "what is the weather like in london"
KITCHEN = (ASK_WEATHER, "goodbye")
HALL = ("set a timer for ten minutes", "goodbye")
BOT = "rms"


class Cast(NamedTuple):
    """Who takes part. In the study somebody says what a test wants; others come for their own test alone, since to
    listen to a silent room costs as much as to a loud one."""

    speech: Speech
    study: Person
    voice: Voice


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    folder = tmp_path_factory.mktemp("cast")
    with contextlib.ExitStack() as held:
        speech, study = conversing.together(
            held, conversing.speech(folder / "speech"), conversing.person(folder / "study", voice="slt")
        )
        entries = [conversing.entry("study", study.device.port, TEXT, BOT, enabled=False)]
        yield Cast(speech, study, held.enter_context(conversing.voice(folder / "voice", speech, entries)))


@pytest.fixture
def listening(cast: Cast) -> Iterator[Person]:
    """The one at the study, greeted before or now."""
    voice = cast.voice
    voice.post("/v1/devices/study/enable")
    until(lambda: voice.texts("study", "assistant") and voice.is_quiet("study"), LIMIT_S)
    yield cast.study
    voice.post("/v1/devices/study/disable")  # or the bot would ask whether anybody is there


def tell(voice: Voice, who: Person, text: str) -> int:
    """Ask for the story, and wait until a second of it was heard. Returns where it begins in what is played."""
    before, lines = len(who.device.played()), len(voice.lines("study"))
    who.say(text)
    until(lambda: len(voice.lines("study")) > lines and who.heard_s(before) > 1.0, LIMIT_S)
    return before


def test_who_speaks_over_an_answer_stops_it_and_only_what_was_heard_is_remembered(
    cast: Cast, listening: Person, tmp_path: Path
) -> None:
    voice = cast.voice
    began = tell(voice, listening, ASK_STORY)
    orders, lines = len(listening.speaker()), len(voice.lines("study"))
    spoke = time.monotonic()
    listening.say(ASK_WEATHER)
    until(lambda: "flush" in [what for _, what, _ in listening.speaker()[orders:]], LIMIT_S)
    (paused_at, first, heard_ms), *_ = listening.speaker()[orders:]
    print(f"paused {1000 * (paused_at - spoke):.0f} ms after it was begun to be said")
    assert first == "pause", "at once, and for good once there were words"
    until(lambda: len(voice.lines("study")) == lines + 2 and voice.is_quiet("study"), LIMIT_S)
    story, asked, answer = (line["text"] for line in voice.lines("study")[-3:])
    assert story and STORY.startswith(story.rstrip("—-. ")) and len(story) < 0.8 * len(STORY)
    assert wrong(words(ASK_WEATHER), words(asked)) <= MOST_WRONG
    assert answer == WEATHER
    played = cast.speech.transcribed(listening.device.played()[began:], tmp_path)
    print(f"heard {heard_ms} ms, remembered {story!r}, played {' '.join(played)!r}")
    assert wrong(words(f"{story} {answer}"), played) <= 2 * MOST_WRONG
    assert abs(len(words(f"{story} {answer}")) - len(played)) <= 3, "no more and no less than was heard"


@pytest.mark.long  # unit/test_voice_turn.py has what is no word, and the test above what is
def test_a_cough_and_a_short_sound_cost_nothing_of_an_answer(cast: Cast, listening: Person, tmp_path: Path) -> None:
    voice = cast.voice
    began = tell(voice, listening, ASK_STORY)
    orders, lines = len(listening.speaker()), len(voice.lines("study"))
    listening.utter(spoken.cough())
    time.sleep(0.8)
    listening.say("ah")
    until(lambda: listening.is_silent() and voice.is_quiet("study"), LIMIT_S)
    told = [what for _, what, _ in listening.speaker()[orders:]]
    print(told)
    assert told[:2] == ["pause", "resume"] and "flush" not in told
    assert len(voice.lines("study")) == lines and voice.lines("study")[-1]["text"] == STORY
    assert wrong(words(STORY), cast.speech.transcribed(listening.device.played()[began:], tmp_path)) <= MOST_WRONG


def test_two_devices_are_greeted_and_asked_and_answered(cast: Cast, tmp_path: Path) -> None:
    """At the same time. At each somebody asks a question and says goodbye, each after the reply to the one before: rms
    in the kitchen, where slt answers, and slt in the hall."""
    voice = cast.voice
    (tmp_path / "turns").mkdir()
    for number, text in enumerate(KITCHEN):
        audio_rig.wav(tmp_path / f"turns/{number}.wav", spoken.speech(text, "rms"))
    with contextlib.ExitStack() as held:
        kitchen, hall = conversing.together(
            held,
            audio_rig.device(tmp_path / "kitchen", "--input", str(tmp_path / "turns")),
            audio_rig.device(tmp_path / "hall", "--input", f"say:{'|'.join(HALL)}"),
        )
        voice.post("/v1/devices", conversing.entry("kitchen", kitchen.port, TEXT, "slt"))
        voice.post("/v1/devices", conversing.entry("hall", hall.port, TEXT, BOT))
        asked, found, told, played = list[str](), list[str](), list[str](), list[str]()  # in words, at both
        for name, device, questions in (("kitchen", kitchen, KITCHEN), ("hall", hall, HALL)):
            until(lambda: len(voice.texts(name, "assistant")) == 3 and voice.is_quiet(name), 2 * LIMIT_S)  # noqa: B023
            voice.post(f"/v1/devices/{name}/disable")
            assert [line["role"] for line in voice.lines(name)] == ["assistant", "user"] * 2 + ["assistant"]
            said, answers = voice.texts(name, "user"), voice.texts(name, "assistant")
            asked += words(" ".join(questions))
            found += words(" ".join(said))
            told += words(" ".join(answers))
            played += cast.speech.transcribed(device.played(), tmp_path)
            assert answers[0] == WELCOME and answers[-1].endswith("bye!")
            assert all(answer in TEXT for answer in answers[:-1]), "the question was understood"
        rate, again = wrong(asked, found), wrong(told, played)
        print(f"word error rate {rate:.2f} of the users', {again:.2f} of the bots'", asked, found, told, played)
        assert rate <= MOST_WRONG and again <= MOST_WRONG


@pytest.fixture(scope="module")
def published(cast: Cast) -> Iterator[device_minimal.Device]:
    """A device that was written from what is published alone, and is called."""
    with device_minimal.device() as its:
        cast.voice.post("/v1/devices", conversing.entry("published", its.port, TEXT, BOT))
        until(lambda: its.is_called)
        yield its


def fields(of: Any, under: str = "") -> set[str]:
    """Names of fields, and of those inside."""
    return {f"{under}{name}" for name in of} | {
        name for key, value in of.items() if isinstance(value, dict) for name in fields(value, f"{under}{key}.")
    }


def in_order(talk: Talk, *kinds: str) -> bool:
    """Whether one came of each of these types, in this order, whatever was between."""
    told = iter(event["type"] for event in list(talk.events))
    return all(kind in told for kind in kinds)


ANSWER = ("response.created", "response.text.delta", "response.audio.done")  # "text.done" is where the model ends
QUESTION = ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped")


def greeted(talk: Talk) -> None:
    """Wait until the bot has said good morning."""
    talk.until(lambda: talk.of("response.audio.done"), LIMIT_S)
    assert " ".join(event["delta"] for event in talk.of("response.text.delta")) == WELCOME


def in_the_story(talk: Talk) -> None:
    """Wait until a few words of it were said."""
    told = len(words(WELCOME)) + 3
    talk.until(lambda: len(talk.of("response.created")) == 2 and len(talk.of("response.text.delta")) > told, LIMIT_S)


def answered(talk: Talk) -> Sound:
    """Wait for the answer to the question about the weather; what was heard last by then."""
    done = talk.until(lambda: [each for each in talk.of("response.text.done") if each["text"] == WEATHER], LIMIT_S)[0]
    talk.until(lambda: talk.of("response.audio.done")[-1]["at"] > done["at"], LIMIT_S)
    assert in_order(talk, *ANSWER, *QUESTION, "response.created", "unmute.interrupted_by_vad", *QUESTION[1:], *ANSWER)
    return talk.heard[-5 * spoken.RATE :]


def understood(talk: Talk, sound: Sound, speech: Speech, folder: Path) -> None:
    """Fails the test unless each has understood the other: that sound ends with the answer."""
    asked, said = words(f"{ASK_STORY} {ASK_WEATHER}"), words(WEATHER)
    found, heard = words(" ".join(talk.words)), speech.transcribed(sound, folder)[-len(said) :]
    print(f"{wrong(asked, found):.2f} of {found}, {wrong(said, heard):.2f} of {heard}")
    assert wrong(asked, found) <= MOST_WRONG and wrong(said, heard) <= 2 * MOST_WRONG


def test_published_peers(cast: Cast, published: device_minimal.Device, tmp_path: Path) -> None:
    """A device and a browser that know only what is published, at the same time."""
    with Browser(cast.voice.url) as browser:
        time.sleep(0.5)
        assert not browser.of("response.created"), "the bot says nothing before it knows how to be"
        browser.update({"type": "constant", "text": TEXT, "language": "en"}, BOT)
        browser.until(lambda: browser.of("session.updated"))
        assert browser.of("session.updated")[0]["session"]["voice"] == BOT
        talks = (published.talk, browser)
        for talk in talks:
            greeted(talk)
            talk.say(spoken.speech(ASK_STORY))
        for talk in talks:
            in_the_story(talk)
            talk.say(spoken.speech(ASK_WEATHER))
        answers = [answered(talk) for talk in talks]
        browser.send("response.cancel")
        problem = browser.until(lambda: browser.of("error"))[0]["error"]
    assert problem["type"] == "invalid_request_error" and problem["message"]
    assert browser.not_published() == []
    for talk, sound in zip(talks, answers, strict=True):
        understood(talk, sound, cast.speech, tmp_path)
    look_at_golden(published.talk)
    assert published.most == 1 and len(published.talks) == 1


def look_at_golden(talk: Talk) -> None:
    """What a device is told is as the published transcript has it."""
    assert talk.events[0]["type"] == "session.update", "it says at first how the conversation is to be"
    talked = {event["type"] for event in talk.events}
    assert talked <= device_minimal.SAID_TO_DEVICES.keys()
    golden = [line["frame"] for line in GOLDEN if line["from"] == "backend" and line["frame"].get("type") in talked]
    assert len(golden) >= 8
    for frame in golden:
        for event in talk.of(frame["type"]):
            assert fields(frame) <= fields(event), event
