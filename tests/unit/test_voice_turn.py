"""Conversations, as one would hear them: whose turn it is, what an interruption leaves, what survives a failure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import pytest

from procs.errors import Refused
from procs.messages.voice import Line, Role
from procs.voice.conversation.actions import Ask, Drop, FlushEars, Keep, Sound, Tell
from procs.voice.conversation.history import BUDGET, HELLO
from procs.wire import realtime as wire
from procs.wire.conversation import Constant, News, QuizShow
from tests.golden import transcript
from tests.voice_stage import ASKED_S, MIDNIGHT, SENT_S, SPEAKER_S, SPOKEN_S, WORD_S, Stage

GREETING = "Hello there, how are you today?"
LONG = "Once upon a time there was a flatworm that lived in a pond and could not be killed at all."
BOTH = pytest.mark.parametrize("ours", [True, False], ids=["ours", "published"])


def talking(stage: Stage, question: str = "tell me a story", *, for_s: float = 2.0) -> None:
    """Greet, have the user ask, and come into the middle of the reply."""
    stage.begin(6)
    stage.says(question)
    spoken = len(stage.at(wire.ResponseCreated))
    while len(stage.at(wire.ResponseCreated)) == spoken:
        stage.run(0.1)
    stage.run(for_s)
    assert stage.talk.turn == "bot_speaking"


# Turns


@BOTH
def test_the_bot_greets_and_then_answers(ours: bool) -> None:
    stage = Stage([GREETING, "I am fine."], ours=ours)
    stage.begin(4)
    assert stage.dialogue == ["bot: " + GREETING]
    turns: list[str] = [stage.talk.turn]
    stage.says("and how are you")
    stage.run(1.5)
    turns.append(stage.talk.turn)
    stage.run(1)
    turns.append(stage.talk.turn)
    assert turns == ["waiting_for_user", "user_speaking", "bot_speaking"]
    stage.run(3)
    assert stage.dialogue == ["bot: " + GREETING, "user: and how are you", "bot: I am fine."]
    assert stage.speaker.words == GREETING + " I am fine."
    assert [ask.temperature for ask in stage.asked] == [0.7, 0.3]


def test_it_is_silent_until_it_is_told_what_to_be() -> None:
    stage = Stage([GREETING], silent=True)
    stage.begin(1)
    stage.says("is anybody there")
    stage.run(10)
    assert stage.asked == [] and stage.dialogue == []
    stage.do(stage.talk.update(QuizShow(), "Quiz show", stage.now))
    stage.run(4)
    assert stage.dialogue == ["bot: " + GREETING]
    assert stage.events(wire.ResponseCreated)[0].response.voice == "Quiz show"
    assert stage.asked[0].metadata == {"instructions": {"type": "quiz_show"}}


def test_a_turn_ends_by_a_pause_and_once_the_recogniser_has_told_all() -> None:
    stage = Stage(["Hi.", "Fine."])
    stage.begin(3)
    stage.says("one two three")
    stage.run(6)
    stopped, flushed, asked = stage.at(wire.SpeechStopped)[0], stage.at(FlushEars)[0], stage.at(Ask)[1]
    assert stopped == flushed < asked
    assert [message.content for message in stage.asked[1].messages[1:]] == [HELLO, "Hi.", "one two three"]


@BOTH
def test_the_shares_of_a_wait_are_all_of_it_and_one_is_our_own(ours: bool) -> None:
    stage = Stage(["Hi.", "Fine, thank you."], ours=ours)
    stage.begin(3)
    ended = stage.now + 3 * WORD_S
    stage.says("one two three")
    stage.run(6)
    shares = {name: stage.seen(f"planaria_voice_{name}_seconds") for name in ("pause", "flush", "llm", "tts", "ours")}
    assert all(len(values) == 1 for values in shares.values()), "a greeting is not waited for"
    sent = [when for when, action in stage.log if isinstance(action, Sound) and action.first][1] + SENT_S
    assert sum(values[0] for values in shares.values()) == pytest.approx(sent - ended, abs=0.01), (
        "but for 6 ms of the detector"
    )
    assert shares["ours"] == pytest.approx([ASKED_S + SPOKEN_S + SENT_S])


@pytest.mark.parametrize("at_end", [False, True], ids=["as they come", "at the end of the utterance"])
def test_words_that_come_during_the_flush_belong_to_the_turn(at_end: bool) -> None:
    stage = Stage(["Hi.", "Fine."], at_end=at_end)
    stage.begin(3)
    stage.says("please wait")
    while not stage.at(FlushEars):
        stage.run(0.02)
    stage.do(stage.talk.word("for", 9.0, stage.now))
    stage.do(stage.talk.word("me", 9.2, stage.now))
    stage.run(4)
    assert stage.dialogue[1] == "user: please wait for me"
    assert len(stage.asked) == 2 and len(stage.events(wire.SpeechStarted)) == 1


def test_who_goes_on_before_the_first_sound_is_answered_as_a_whole() -> None:
    stage = Stage(["Hi.", "Too early.", "All of it."])
    stage.begin(3)
    stage.says("i would like")
    while len(stage.asked) < 2:
        stage.run(0.02)
    stage.do(stage.talk.word("some", 9.0, stage.now))
    assert isinstance(stage.log[-1][1], Keep) or stage.at(Drop)
    stage.do(stage.talk.word("tea", 9.2, stage.now))
    stage.run(5)
    assert stage.dialogue == ["bot: Hi.", "user: i would like some tea", "bot: All of it."]
    assert stage.at(Drop) and "Too" not in stage.speaker.words
    assert stage.asked[2].messages[-1].content == "i would like some tea"


def test_a_voice_that_goes_on_holds_the_reply_back_until_it_is_known_what_it_says() -> None:
    stage = Stage(["Hi.", "Too early.", "Much better."])
    stage.begin(3)
    stage.says("i would like")
    while not stage.at(FlushEars):
        stage.run(0.02)
    stage.says("some more tea")
    stage.run(9)
    assert stage.dialogue == ["bot: Hi.", "user: i would like some more tea", "bot: Much better."]
    assert "early" not in stage.speaker.words


def test_the_events_and_their_order_are_the_published_ones() -> None:
    stage = Stage(["Hi.", "It is noon."], ours=False)
    stage.begin(3)
    stage.says("what time")
    stage.run(6)
    assert stage.told == [
        "response.created",
        "unmute.response.text.delta.ready",
        "response.text.done",
        "sound",
        "response.text.delta",
        "unmute.additional_outputs",
        "response.audio.done",
        "conversation.item.input_audio_transcription.delta",
        "input_audio_buffer.speech_started",
        "conversation.item.input_audio_transcription.delta",
        "input_audio_buffer.speech_stopped",
        "response.created",
        "unmute.response.text.delta.ready",
        "response.text.done",
        "sound",
        "response.text.delta",
        "sound",
        "response.text.delta",
        "sound",
        "response.text.delta",
        "unmute.additional_outputs",
        "response.audio.done",
    ]
    assert [event.delta for event in stage.events(wire.Transcription)] == ["", "what", "time"]
    assert [event.delta for event in stage.events(wire.TextReady)] == ["Hi.", "It", " is", " noon."]
    assert [event.delta for event in stage.events(wire.TextDelta)] == ["Hi.", "It", "is", "noon."]
    assert [event.text for event in stage.events(wire.TextDone)] == ["Hi.", "It is noon."]


@pytest.mark.parametrize("kind", [wire.ResponseCreated, wire.TextDelta, wire.TextDone, wire.AudioDone])
def test_an_event_has_the_shape_of_the_golden_one(kind: type[wire.Event]) -> None:
    stage = Stage(["Hello there."], ours=False, voice="Watercooler")
    stage.begin(3)
    tag = kind.__struct_config__.tag
    golden = next(said.frame for said in transcript("realtime") if said.frame.get("type") == tag)
    made = json.loads(wire.encode(stage.events(kind)[0]))
    made.pop("event_id")
    assert made == golden


# Interruptions


def test_words_interrupt_for_good_and_only_what_was_heard_stays() -> None:
    stage = Stage([GREETING, LONG, "Very well."])
    talking(stage, for_s=3.0)
    stage.says("stop it please")
    stage.run(7)
    kinds = [type(action.event) for _, action in stage.log if isinstance(action, Tell)]
    paused, flushed = kinds.index(wire.Pause), kinds.index(wire.Flush)
    assert paused < flushed < kinds.index(wire.Interrupted)
    heard = stage.speaker.words.removeprefix(GREETING + " ").removesuffix(" Very well.")
    assert LONG.startswith(heard) and heard.count(" ") > 4
    assert stage.dialogue == [
        "bot: " + GREETING,
        "user: tell me a story",
        f"bot: {heard}—",
        "user: stop it please",
        "bot: Very well.",
    ]
    assert stage.asked[-1].messages[-2].content == heard, "without the dash"
    assert stage.seen("planaria_voice_interruptions") == [1.0]
    assert stage.seen("planaria_voice_onset_to_paused_seconds")[0] < 0.05


def test_a_speaker_of_ours_falls_silent_with_the_voice_and_not_with_the_first_word() -> None:
    stage = Stage([GREETING, LONG, "Very well."])
    talking(stage)
    stage.says("stop it please")
    began = stage.now
    stage.run(7)
    last = max(when for when, word in stage.speaker.ear if stage.speaker.made[word - 1] in LONG.split())
    assert last - began < 0.15


def test_at_a_published_speaker_at_most_a_third_of_a_second_is_heard_on() -> None:
    stage = Stage([GREETING, LONG, "Very well."], ours=False)
    talking(stage)
    stage.says("stop it please")
    began = stage.now
    stage.run(7)
    assert stage.speaker.most_s <= 0.32 + SPEAKER_S
    last = max(when for when, word in stage.speaker.ear if stage.speaker.made[word - 1] in LONG.split())
    assert last - began < 0.1 + 0.32 + SPEAKER_S + 0.02
    heard = stage.speaker.words.removeprefix(GREETING + " ").removesuffix(" Very well.")
    assert stage.dialogue[2] == f"bot: {heard}—"
    assert not stage.events(wire.Pause) and not stage.events(wire.Flush) and len(stage.events(wire.Interrupted)) == 1


@BOTH
@pytest.mark.parametrize("seconds", [0.2, 1.5])
def test_after_a_cough_the_bot_goes_on_and_nothing_is_lost(ours: bool, seconds: float) -> None:
    stage = Stage([GREETING, LONG], ours=ours)
    talking(stage)
    stage.coughs(seconds)
    stage.run(10)
    assert stage.speaker.words == f"{GREETING} {LONG}"
    assert stage.speaker.seconds == pytest.approx(len(f"{GREETING} {LONG}".split()) * WORD_S)
    assert stage.dialogue[2] == "bot: " + LONG and len(stage.asked) == 2
    assert not stage.events(wire.Interrupted)
    assert stage.seen("planaria_voice_false_interruptions") == [1.0]
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(stage.speaker.ear)]
    assert max(gap for gap in gaps if gap < 2.5) > 0.3, "it did stand still"


@pytest.mark.parametrize("nod", ["uh huh", "mm", "yeah", "ok", "oui oui", "d'accord"])
def test_a_nod_is_no_interruption(nod: str) -> None:
    stage = Stage([GREETING, LONG])
    talking(stage)
    stage.says(nod)
    stage.run(9)
    assert stage.speaker.words == f"{GREETING} {LONG}"
    assert stage.dialogue == ["bot: " + GREETING, "user: tell me a story", "bot: " + LONG]


@BOTH
def test_who_goes_on_as_the_first_sound_goes_out_has_said_one_thing(ours: bool) -> None:
    stage = Stage(["Hi.", "Too early.", "All of it."], ours=ours)
    stage.begin(3)
    stage.says("i would like")
    before = len(stage.at(Sound))
    while len(stage.at(Sound)) == before:
        stage.run(0.01)
    stage.do(stage.talk.word("some", 9.0, stage.now))
    stage.run(0.2)
    stage.do(stage.talk.word("tea", 9.2, stage.now))
    stage.run(5)
    early = ["bot: Too—"] if not ours else []
    merged = ["user: i would like", *early, "user: some tea"] if early else ["user: i would like some tea"]
    assert stage.dialogue == ["bot: Hi.", *merged, "bot: All of it."]


def test_a_nod_that_goes_on_is_one() -> None:
    stage = Stage([GREETING, LONG, "Sorry."])
    talking(stage)
    stage.says("yeah but wait")
    stage.run(7)
    assert stage.dialogue[-2:] == ["user: yeah but wait", "bot: Sorry."]


def test_a_nod_at_the_very_end_is_an_answer() -> None:
    stage = Stage(["Do you want some tea?", "Here you are."])
    stage.begin(0.3)
    stage.says("yes", after=0.9)
    stage.run(6)
    assert stage.dialogue[-2:] == ["user: yes", "bot: Here you are."]


def test_a_recogniser_that_never_gives_a_mark_back_does_not_silence_the_bot() -> None:
    stage = Stage([GREETING, LONG])
    talking(stage)
    stage.hears_flush = False
    stage.coughs()
    stage.run(15)
    assert stage.speaker.words == f"{GREETING} {LONG}"


def test_something_that_hums_does_not_silence_it_either() -> None:
    stage = Stage([GREETING, LONG])
    talking(stage)
    stage.coughs(60)
    stage.run(20)
    assert stage.speaker.words == f"{GREETING} {LONG}"


@BOTH
def test_without_a_detector_the_score_tells(ours: bool) -> None:
    stage = Stage([GREETING, LONG, "Very well."], ours=ours)
    stage.listens()
    talking(stage)
    for _ in range(4):
        stage.do(stage.talk.step(0.1, stage.now))
        stage.run(0.08)
    held = stage.speaker.seconds
    assert bool(stage.events(wire.Pause)) is ours
    stage.run(0.5)
    stage.do(stage.talk.step(0.1, stage.now))
    stage.run(14)
    assert stage.speaker.seconds > held
    assert stage.speaker.words.startswith(f"{GREETING} {LONG}")


def test_in_the_first_seconds_a_published_speakers_echo_does_not_interrupt() -> None:
    stage = Stage([LONG], ours=False)
    stage.begin(0.5)
    stage.coughs(0.4)
    stage.run(2)
    times = [when for when, word in stage.speaker.ear]
    assert max(after - before for before, after in itertools.pairwise(times)) < 0.1


# Silence


@BOTH
def test_a_long_silence_is_broken_and_after_three_it_is_a_goodbye(ours: bool) -> None:
    stage = Stage(["Hi.", "Still there?", "Hm.", "Well then, goodbye!"], ours=ours)
    stage.begin(60)
    assert stage.dialogue == [
        "bot: Hi.",
        "user: ...",
        "bot: Still there?",
        "user: ...",
        "bot: Hm.",
        "user: ...",
        "bot: Well then, goodbye!",
    ]
    assert stage.left == ["goodbye"] and len(stage.asked) == 4
    done = stage.at(wire.AudioDone)
    assert stage.at(wire.SpeechStopped)[0] - done[0] == pytest.approx(7.0, abs=0.5)
    assert not stage.events(wire.SpeechStarted)


def test_a_model_that_does_not_know_how_to_say_goodbye_is_left_too() -> None:
    stage = Stage(["Hi.", "Still there?"])
    stage.begin(120)
    assert stage.left == ["nobody answers"] and len(stage.asked) == 4


def test_after_the_goodbye_whoever_speaks_is_answered() -> None:
    stage = Stage(["Hi. Bye!", "Welcome back."])
    stage.begin(30)
    assert stage.left == ["goodbye"] and len(stage.asked) == 1
    stage.says("hello again")
    stage.run(5)
    assert stage.dialogue == ["bot: Hi. Bye!", "user: hello again", "bot: Welcome back."]


# Orders


def test_an_announcement_waits_for_the_end_of_what_is_said() -> None:
    stage = Stage([LONG])
    stage.begin(2)
    stage.do(stage.talk.say("Dinner is ready.", stage.now))
    assert stage.talk.unsaid == 1
    while stage.dialogue != ["bot: " + LONG, "bot: Dinner"]:
        stage.run(0.02)
    assert stage.talk.unsaid == 0, "from its first word on"
    stage.run(2)
    assert stage.speaker.words == f"{LONG} Dinner is ready."
    assert stage.dialogue == ["bot: " + LONG, "bot: Dinner is ready."] and len(stage.asked) == 1


def test_announcements_are_not_without_number() -> None:
    stage = Stage([LONG])
    stage.begin(2)
    for count in range(8):
        stage.do(stage.talk.say(f"Number {count}.", stage.now))
    with pytest.raises(Refused, match="8 announcements wait"):
        stage.talk.say("One more.", stage.now)


def test_an_announcement_does_not_speak_into_a_voice() -> None:
    stage = Stage(["Hi.", "Fine."])
    stage.begin(3)
    stage.coughs(2)
    stage.run(0.5)
    stage.do(stage.talk.say("Dinner is ready.", stage.now))
    stage.run(1.5)
    assert stage.speaker.words == "Hi."
    stage.run(3)
    assert stage.speaker.words == "Hi. Dinner is ready."
    stage.coughs(100)
    stage.run(1)
    stage.do(stage.talk.say("Come on.", stage.now))
    stage.run(15.5)
    assert stage.dialogue[-1] == "bot: Come on.", "what hums is no voice"


def test_an_announcement_that_somebody_speaks_into_before_it_was_heard_is_not_lost() -> None:
    stage = Stage(["Hi.", "Fine."])
    stage.begin(3)
    stage.do(stage.talk.say("Dinner is ready.", stage.now))
    stage.do(stage.talk.word("hello", 3.0, stage.now))
    stage.run(1)
    assert stage.talk.unsaid == 1, "it waits again"
    stage.run(11)
    assert stage.dialogue == ["bot: Hi.", "user: hello", "bot: Fine.", "bot: Dinner is ready."]


@BOTH
def test_muted_it_hears_nothing_and_expects_nothing(ours: bool) -> None:
    stage = Stage(["Hi.", "Fine."], ours=ours)
    stage.begin(3)
    stage.do(stage.talk.muted(True, stage.now))
    stage.says("can you hear me")
    stage.run(30)
    assert stage.dialogue == ["bot: Hi."] and len(stage.asked) == 1
    assert [event.muted for event in stage.events(wire.Mute)] == ([False, True] if ours else [])
    stage.begin()
    assert [event.muted for event in stage.events(wire.Mute)] == ([False, True, True] if ours else [])
    stage.do(stage.talk.muted(False, stage.now))
    stage.says("and now")
    stage.run(5)
    assert stage.dialogue[1:] == ["user: and now", "bot: Fine."]


def test_a_device_that_was_muted_hears_again_though_it_was_away_when_that_was_wanted() -> None:
    stage = Stage(["Hi."])
    stage.begin(3)
    stage.do(stage.talk.muted(True, stage.now))
    stage.lose()
    stage.do(stage.talk.muted(False, stage.now))
    stage.begin(1)
    assert [event.muted for event in stage.events(wire.Mute)] == [False, True, False]


def test_an_update_changes_voice_and_prompt_from_the_next_reply_on() -> None:
    stage = Stage(["Hi.", "Oui."])
    stage.begin(3)
    with pytest.raises(Refused, match="must be one of Watercooler"):
        stage.talk.update(News(), "Nobody", stage.now)
    stage.do(stage.talk.update(Constant("Answer like a pirate.", "fr"), "espeak:fr", stage.now))
    stage.says("hello")
    stage.run(5)
    assert len(stage.asked) == 2 and "Answer like a pirate." in stage.asked[1].messages[0].content
    assert stage.events(wire.ResponseCreated)[1].response.voice == "espeak:fr"


# Failures


def test_a_recogniser_that_dies_in_the_middle_of_a_turn_costs_nothing_that_was_heard() -> None:
    stage = Stage(["Hi.", "Fine."])
    stage.begin(3)
    for word in ("turn", "on"):
        stage.do(stage.talk.word(word, 1.0, stage.now))
    stage.do(stage.talk.ears_lost(stage.now))
    for word in ("turn", "on", "the", "light"):
        stage.do(stage.talk.word(word, 1.0, stage.now))
    stage.run(10)
    assert stage.dialogue == ["bot: Hi.", "user: turn on the light", "bot: Fine."]


@pytest.mark.parametrize("flushing", [False, True])
def test_a_turn_is_answered_even_if_no_recogniser_comes_back(flushing: bool) -> None:
    stage = Stage(["Hi.", "Fine."])
    stage.begin(3)
    stage.hears_flush = False
    stage.says("who are you")
    while not (stage.at(FlushEars) if flushing else stage.events(wire.SpeechStarted)):
        stage.run(0.02)
    stage.do(stage.talk.ears_lost(stage.now))
    stage.run(12)
    assert stage.dialogue[-1] == "bot: Fine."


def test_a_model_that_fails_is_asked_once_more() -> None:
    stage = Stage([OSError("no route"), GREETING])
    stage.begin(4)
    assert stage.dialogue == ["bot: " + GREETING]
    assert [ask.reply for ask in stage.asked] == [1, 1] and not stage.events(wire.Error)


@pytest.mark.parametrize("failure", [OSError("no route"), "", "  "])
def test_a_model_that_fails_twice_is_apologised_for(failure: str | Exception) -> None:
    stage = Stage([failure, failure, "Here I am."])
    stage.begin(6)
    assert len(stage.asked) == 2 and stage.dialogue[0].startswith("bot: I am sorry")
    assert [(event.error.type, "language model" in event.error.message) for event in stage.events(wire.Error)] == [
        ("warning", True)
    ]
    stage.says("try again")
    stage.run(5)
    assert stage.dialogue[-1] == "bot: Here I am."


def test_a_model_that_fails_in_the_middle_has_said_what_it_said() -> None:
    stage = Stage([GREETING])
    stage.begin(0.12)
    stage.do(stage.talk.llm_failed(1, "gone", stage.now))
    stage.run(3)
    said = stage.dialogue[0].removeprefix("bot: ")
    assert said and GREETING.startswith(said) and len(stage.asked) == 1 and len(stage.events(wire.AudioDone)) == 1


@BOTH
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_synthesiser_that_fails_goes_on_with_the_word_that_has_no_sound(ours: bool, after: int) -> None:
    stage = Stage([GREETING], ours=ours)
    stage.tts_fails_after = [after]
    stage.begin(4)
    assert stage.speaker.words == GREETING and stage.dialogue == ["bot: " + GREETING]
    assert stage.speaker.seconds == pytest.approx(len(GREETING.split()) * WORD_S)
    assert [event.delta for event in stage.events(wire.TextDelta)] == GREETING.split()


def test_what_a_synthesiser_can_not_say_is_in_the_history_as_not_spoken() -> None:
    stage = Stage([GREETING, "Now I can."])
    stage.tts_fails_after = [2, 1]
    stage.begin(4)
    assert stage.speaker.words == "Hello there, how"
    assert stage.dialogue == ["bot: Hello there, how (not spoken, the voice failed: are you today?)"]
    assert [event.error.type for event in stage.events(wire.Error)] == ["warning"]
    assert stage.talk.turn == "waiting_for_user" and len(stage.events(wire.AudioDone)) == 1
    stage.says("go on")
    stage.run(5)
    assert stage.dialogue[-1] == "bot: Now I can."


def test_a_device_that_tells_nothing_is_taken_to_play() -> None:
    stage = Stage([LONG], mute_speaker=True)
    stage.begin(12)
    assert stage.speaker.words == LONG and stage.dialogue == ["bot: " + LONG]


def test_a_synthesiser_that_hangs_does_not_hold_the_conversation_for_ever() -> None:
    stage = Stage([GREETING])
    stage.begin()
    stage.do(stage.talk.llm_word(1, "Hello you", stage.now))
    stage._queue.clear()
    stage.run(47)
    assert stage.events(wire.Error)[0].error.message == "a reply got stuck"
    assert len(stage.events(wire.AudioDone)) == 1


# Connections


@BOTH
def test_after_a_lost_connection_the_bot_goes_on_with_what_was_not_heard(ours: bool) -> None:
    stage = Stage([LONG], ours=ours)
    stage.begin(2.5)
    stage.lose()
    heard = stage.speaker.words
    stage.run(3)
    assert stage.speaker.words == heard, "nothing is sent to nobody"
    stage.begin(10)
    assert len(stage.asked) == 1, "the model is not asked again"
    whole = stage.speaker.words
    assert "I am back." in whole
    before, after = whole.split(" I am back. ")
    assert LONG.startswith(before) and LONG.endswith(after)
    again = len(before.split()) + len(after.split()) - len(LONG.split())
    assert again in (0, 1, 2), "at most the words at the cut are said again"
    assert [line.split(": ")[0] for line in stage.dialogue] == ["bot", "bot", "bot"]
    assert stage.dialogue[0].endswith("—") and stage.dialogue[1] == "bot: I am back."


def test_what_nobody_has_heard_anything_of_is_said_without_an_apology() -> None:
    stage = Stage([GREETING])
    stage.begin(0.15)
    stage.lose()
    stage.run(20)
    stage.begin(4)
    assert stage.dialogue == ["bot: " + GREETING] and stage.speaker.words == GREETING and len(stage.asked) == 1


def test_a_connection_that_is_lost_twice_apologises_for_each_only_once() -> None:
    stage = Stage([LONG])
    stage.begin(2)
    for _ in range(3):
        stage.lose()
        stage.run(1)
        stage.begin(0.4)
    stage.run(8)
    assert stage.speaker.words.endswith(" and could not be killed at all.")
    assert stage.dialogue.count("bot: I am back.") == 1 and stage.asked == stage.asked[:1]


def said(*turns: str, final: bool = True) -> Sequence[Line]:
    """Lines, the user's first."""
    roles: tuple[Role, Role] = ("user", "assistant")
    last = len(turns)
    return [Line(number, roles[(number + 1) % 2], text, final or number < last) for number, text in enumerate(turns, 1)]


def test_another_life_of_it_knows_what_was_said_and_waits() -> None:
    stage = Stage(["As I said."], lines=said("my name is ada", "Hello, ada."))
    stage.begin(30)
    assert stage.asked == [], "no second greeting"
    stage.says("what is my name")
    stage.run(5)
    assert [message.content for message in stage.asked[0].messages[1:]] == [
        "my name is ada",
        "Hello, ada.",
        "what is my name",
    ]
    assert [line.number for line in stage.talk.lines] == [1, 2, 3, 4]


def asked(text: str, seconds_ago: float, *, final: bool = True) -> list[Line]:
    """A greeting, and then a question."""
    at = MIDNIGHT.timestamp() + Stage().now - seconds_ago
    return [Line(1, "assistant", "Hello.", True, at - 5), Line(2, "user", text, final, at)]


@pytest.mark.parametrize("final", [True, False], ids=["killed while it was answered", "killed while it was heard"])
def test_another_life_of_it_answers_what_nobody_has_answered(final: bool) -> None:
    stage = Stage(["Ada."], lines=asked("what is my name", 5, final=final))
    stage.begin(5)
    assert stage.dialogue == ["bot: Hello.", "user: what is my name", "bot: Ada."] and stage.talk.lines[1].final
    assert [message.content for message in stage.asked[0].messages[1:]] == [HELLO, "Hello.", "what is my name"]
    stage.lose()
    stage.begin(5)
    assert len(stage.asked) == 1, "once"


def test_who_goes_on_asking_is_answered_as_a_whole_by_another_life() -> None:
    stage = Stage(["Hm.", "In London it is fine."], lines=asked("what is the weather", 1, final=False))
    stage.says("in london")
    stage.begin(5)
    assert stage.asked[-1].messages[-1].content == "what is the weather in london"
    assert stage.speaker.words == "In London it is fine."


@pytest.mark.parametrize(("text", "seconds_ago"), [("what is my name", 40), ("...", 1)])
def test_nobody_waits_for_an_answer_to_what_was_said_long_ago_or_to_a_silence(text: str, seconds_ago: float) -> None:
    stage = Stage(["Ada."], lines=asked(text, seconds_ago))
    stage.begin(5)
    assert stage.asked == []


def test_what_was_said_to_another_life_of_it_stays_as_it_was() -> None:
    stage = Stage(["Fine."], lines=said("my name is ada"))
    stage.begin(1)
    stage.says("hello")
    stage.run(5)
    assert stage.dialogue == ["user: my name is ada", "user: hello", "bot: Fine."]
    assert stage.asked[0].messages[1].content == "my name is ada hello"


@BOTH
def test_a_connection_that_nobody_says_is_lost_begins_anew_too(ours: bool) -> None:
    stage = Stage([LONG], ours=ours)
    stage.begin(2)
    stage.coughs(5)
    stage.run(1)
    stage.begin(8.5)
    assert "I am back." in stage.speaker.words and stage.speaker.words.endswith(" killed at all.")


def test_another_life_of_it_goes_on_where_it_was_cut_off() -> None:
    stage = Stage(["And they lived on."], lines=said("a story please", "Once upon a", final=False))
    stage.begin(6)
    assert stage.speaker.words == "I am back. And they lived on."
    assert stage.dialogue[1] == "bot: Once upon a—"
    assert stage.asked[0].messages[-1].role == "user" and "Go on" in stage.asked[0].messages[-1].content
    assert "Go on" not in " ".join(stage.dialogue)


# History


def test_a_long_history_keeps_the_prompt_and_what_is_newest() -> None:
    lines = [Line(n, ("user", "assistant")[(n + 1) % 2], f"turn {n} " + "x" * 500, True) for n in range(1, 181)]
    stage = Stage(["Fine."], lines=lines)
    stage.begin()
    stage.says("and now")
    stage.run(5)
    messages = stage.asked[0].messages
    assert messages[0].role == "system" and messages[-1].content == "and now"
    assert sum(len(message.content) for message in messages) <= BUDGET + len(HELLO)
    assert messages[-2].content.startswith("turn 180") and len(messages) > 10


def test_lines_are_kept_as_they_grow_but_not_with_every_word() -> None:
    stage = Stage([LONG])
    stage.begin(8)
    kept = stage.kept
    assert kept[-1] == stage.talk.lines[0] and kept[-1].final and kept[-1].text == LONG
    times = [when for when, action in stage.log if isinstance(action, Keep)]
    assert min(after - before for before, after in itertools.pairwise(times[:-1])) >= 0.5
    assert all(LONG.startswith(line.text) for line in kept)


@BOTH
def test_sound_is_handed_out_no_further_ahead_than_it_may_be(ours: bool) -> None:
    stage = Stage([LONG], ours=ours)
    stage.begin(8)
    assert stage.speaker.most_s <= (1.0 if ours else 0.32) + SPEAKER_S + 0.021
    assert stage.speaker.most_s >= (0.9 if ours else 0.24)
    firsts = [action.first for _, action in stage.log if isinstance(action, Sound)]
    assert firsts[0] and not any(firsts[1:])


# What is easily forgotten


def test_a_cough_shows_that_somebody_is_there() -> None:
    stage = Stage(["Hi.", "Still there?"])
    stage.begin(6)
    stage.coughs()
    stage.run(5)
    assert len(stage.asked) == 1
    stage.run(4)
    assert len(stage.asked) == 2


def test_who_speaks_once_is_waited_for_three_times_again() -> None:
    stage = Stage(["Hi.", "One?", "Two?", "Fine.", "One?", "Two?", "Three?"])
    stage.begin(18)
    stage.says("yes i am here")
    stage.run(60)
    assert [line for line in stage.dialogue if line.startswith("bot")][-1] == "bot: Three?"
    assert stage.left == ["nobody answers"] and len(stage.asked) == 7


def test_the_first_scores_of_a_recogniser_say_nothing() -> None:
    stage = Stage(["Hi.", "Fine."])
    stage.begin(3)
    stage.do(stage.talk.word("hello", 1.0, stage.now))
    for _ in range(12):
        stage.do(stage.talk.step(0.95, stage.now))
    assert not stage.events(wire.SpeechStopped)
    stage.do(stage.talk.step(0.95, stage.now))
    assert stage.events(wire.SpeechStopped)


def test_a_voice_without_a_mark_is_waited_for_three_seconds() -> None:
    stage = Stage([GREETING, LONG])
    talking(stage)
    stage.hears_flush = False
    stage.coughs(0.3)
    stage.run(4)
    times = [when for when, _ in stage.speaker.ear if when > stage.at(wire.ResponseCreated)[1]]
    assert 3 < max(after - before for before, after in itertools.pairwise(times)) < 3.7


def test_the_speaker_has_the_last_word_on_how_much_was_heard() -> None:
    stage = Stage([LONG], mute_speaker=True)
    stage.begin(3.3)
    stage.do(stage.talk.word("stop", 1.0, stage.now))
    stage.do(stage.talk.word("it", 1.0, stage.now))
    guessed = stage.dialogue[0]
    told = wire.Playback(response=1, state="flushed", heard_ms=310.0, buffered_ms=0.0)
    stage.do(stage.talk.playback(told, stage.now))
    assert guessed != stage.dialogue[0] == "bot: Once upon—"
    assert stage.kept[-1].text == "Once upon—"


def test_who_interrupts_the_apology_for_a_lost_connection_does_not_want_the_rest() -> None:
    stage = Stage([LONG, "Fine."])
    stage.begin(2.5)
    stage.lose()
    stage.begin(0.6)
    stage.says("never mind that")
    stage.run(9)
    assert stage.dialogue[-2:] == ["user: never mind that", "bot: Fine."]
    assert not stage.speaker.words.endswith("all.")


def test_a_synthesiser_that_ends_before_the_text_does_is_one_that_failed() -> None:
    stage = Stage([GREETING])
    stage.begin(0.12)
    stage.break_off(1)
    stage.do(stage.talk.tts_done(1, stage.now))
    stage.run(4)
    assert stage.talk.turn == "waiting_for_user" and stage.dialogue == ["bot: " + GREETING]
