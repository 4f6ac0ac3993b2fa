"""A conversation's links to the speech services, with services that do as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.server import ServerConnection

from procs.voice.child import llm, stt, tts
from procs.voice.child.figures import Figures
from procs.voice.child.kept import MOST, PRE_ROLL
from procs.voice.conversation.actions import Ask
from procs.wire.conversation import ChatMessage
from tests.rig import free_port
from tests.voice_ends import Message, Model, Speech, hears, pack, services, speaks, step, until

clients: list[aiohttp.ClientSession] = []


def run(test: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test
        while clients:  # a child keeps its own until it dies
            await clients.pop().close()

    asyncio.run(main())


class Ears:
    """A recogniser's link, and what it told."""

    def __init__(self, *urls: str, always: bool = False) -> None:
        self.told: list[stt.Told] = []
        self.figures = Figures()
        self.link = stt.Recogniser(services(stt=list(urls)), self.figures, self.told.append, always=always)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Ears]:
        task = asyncio.ensure_future(self.link.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def figure(self, name: str) -> float:
        return sum(value for each, value in self.figures.take() if each == name)


def loudness(messages: list[Message]) -> list[int]:
    """What each step of sound holds, as it was told by `step`."""
    return [round(each["pcm"][0] * 32768) for each in messages if each["type"] == "Audio"]


def test_a_recogniser_is_called_when_somebody_speaks_and_hears_what_was_just_before() -> None:
    async def test() -> None:
        async with Speech(hears).running() as server, Ears(server.url).running() as ears:
            for number in range(1, 21):
                ears.link.hear(step(number))
            ears.link.voice(False)  # as it is told when a device is gone
            await asyncio.sleep(0.1)
            assert server.sessions == []
            ears.link.voice(True)
            ears.link.hear(step(21))
            await until(lambda: server.count("Audio") == PRE_ROLL + 1)
            assert loudness(server.told) == list(range(21 - PRE_ROLL, 22))
            assert await until(lambda: ears.told)
            assert ears.told[0] == stt.Pause(0.3)

    run(test())


def test_what_goes_to_a_recogniser_is_counted_while_its_session_lasts() -> None:
    """Half a minute of silence is not waited for, nor is who kills the conversation."""

    async def test() -> None:
        async with Speech(hears).running() as server, Ears(server.url).running() as ears:
            ears.link.voice(True)
            for number in range(10):
                ears.link.hear(step(number))
            await until(lambda: len(ears.told) == 10)
            await server.say("Word", text="hello", start_time=0.08)
            await until(lambda: len(ears.told) == 11)
            told = dict(ears.figures.take())
            kinds = ("worker_stt_sent_frames", "worker_stt_recv_frames", "worker_stt_recv_words")
            assert [told[name] for name in kinds] == [10, 10, 1]
            assert not [each for each in ears.figures.take() if each[0] in kinds], "once"

    run(test())


def test_who_is_silent_for_a_while_gives_the_slot_back_and_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stt, "KEEP_S", 0.3)

    async def test() -> None:
        async with Speech(hears).running() as server, Ears(server.url).running() as ears:
            ears.link.voice(True)
            ears.link.hear(step(1))
            await until(lambda: server.count("Audio"))
            ears.link.voice(False)
            while server.sockets[0].state.name == "OPEN":
                ears.link.hear(step(2))
                await asyncio.sleep(0.02)
            assert stt.Lost() not in ears.told and ears.link.problem == ""
            ears.link.voice(True)
            await until(lambda: len(server.sessions) == 2)

    run(test())


def test_where_nothing_tells_when_somebody_speaks_it_is_always_there() -> None:
    async def test() -> None:
        async with Speech(hears).running() as server, Ears(server.url, always=True).running():
            await until(lambda: server.sessions)

    run(test())


def test_a_mark_goes_after_the_sound_with_silence_after_it_and_comes_back_once() -> None:
    async def test() -> None:
        async with Speech(hears).running() as server, Ears(server.url).running() as ears:
            ears.link.voice(True)
            ears.link.hear(step(5))
            ears.link.flush(7)
            ears.link.hear(step(6))
            await until(lambda: stt.Flushed(7) in ears.told)
            await until(lambda: 6 in loudness(server.told))
            marker = next(index for index, each in enumerate(server.told) if each["type"] == "Marker")
            assert loudness(server.told[:marker]) == [5] and server.told[marker]["id"] == 7
            assert loudness(server.told[marker:]) == [0] * stt.FLUSH_STEPS + [6]
            await server.say("Marker", id=7)
            await server.say("Word", text="hello", start_time=0.08 + 0.08 * stt.FLUSH_STEPS)
            word = await until(lambda: next((each for each in ears.told if isinstance(each, stt.Word)), None))
            assert word == stt.Word("hello", 0.08)  # the silence in between was nobody's
            assert ears.told.count(stt.Flushed(7)) == 1

    run(test())


def test_a_mark_is_answered_at_once_where_nothing_was_heard_and_in_time_where_nobody_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stt, "FLUSH_S", 0.2)

    async def test() -> None:
        async with Speech().running() as server, Ears(server.url).running() as ears:
            ears.link.flush(1)
            assert ears.told == [stt.Flushed(1)]
            ears.link.voice(True)
            await until(lambda: server.sessions)
            ears.link.flush(2)
            await until(lambda: stt.Flushed(2) in ears.told)

    run(test())


def test_one_that_breaks_gives_way_to_another_which_hears_what_was_not_settled() -> None:
    async def first_forgets_marks(server: Speech, socket: ServerConnection, message: Message) -> None:
        if message["type"] == "Audio" or len(server.sessions) > 1:
            await hears(server, socket, message)

    async def test() -> None:
        async with Speech(first_forgets_marks).running() as server, Ears(server.url).running() as ears:
            ears.link.voice(True)
            for number in range(1, 6):
                ears.link.hear(step(number))
            await until(lambda: server.count("Audio") == 5)
            await server.say("Word", text="one", start_time=0.0)
            await server.say("EndWord", stop_time=0.16)
            await until(lambda: stt.EndWord(0.16) in ears.told)
            ears.link.flush(3)
            await until(lambda: server.count("Marker"))
            server.sockets[0].transport.abort()
            await until(lambda: stt.Flushed(3) in ears.told)
            assert stt.Lost() in ears.told
            marker = next(index for index, each in enumerate(server.told) if each["type"] == "Marker")
            assert loudness(server.told[:marker]) == [3, 4, 5]
            await server.say("Word", text="two", start_time=0.08 * stt.FLUSH_STEPS)
            words = await until(lambda: [each for each in ears.told if isinstance(each, stt.Word)][1:])
            assert words == [stt.Word("two", 0.16)]

    run(test())


def test_a_word_that_is_longer_than_any_is_none() -> None:
    async def shouts(_: Speech, socket: ServerConnection, message: Message) -> None:
        await socket.send(pack({"type": "Word", "text": "a" * (stt.MOST_WORD + 1), "start_time": 0.0}))

    async def test() -> None:
        async with Speech(shouts).running() as server, Ears(server.url, always=True).running() as ears:
            await until(lambda: server.sessions)
            ears.link.hear(step(1))
            await until(lambda: ears.told)
            assert set(ears.told) == {stt.Lost()}

    run(test())


def test_what_waits_for_a_recogniser_that_is_not_there_is_bounded() -> None:
    async def test() -> None:
        ears = Ears(f"ws://127.0.0.1:{free_port()}", always=True)
        async with ears.running():
            for number in range(MOST + 50):
                ears.link.hear(step(number))
            assert ears.link._kept.end - ears.link._kept.first == MOST
            await until(lambda: ears.link.problem)
            assert "nothing listens there" in ears.link.problem
            assert ears.figure("worker_stt_hard_misses") >= 1

    run(test())


async def used(server: Speech, before: int) -> None:
    """Wait for a session more."""
    await until(lambda: len(server.sessions) > before)


def test_one_that_has_no_room_is_counted_apart_and_another_is_used() -> None:
    async def test() -> None:
        async with Speech(hears).running() as full, Speech(hears).running() as server:
            full.full = True
            for _ in range(20):  # in any order: that the full one comes first is but likely
                ears = Ears(full.url, server.url, always=True)
                async with ears.running():
                    await used(server, len(server.sessions))
                    seen = dict(ears.figures.take())
                    assert "worker_stt_hard_misses" not in seen
                    if "worker_stt_misses" in seen:
                        return
            raise AssertionError("the full one was never tried first")

    run(test())


def test_one_that_accepts_and_hangs_costs_half_a_second_and_no_more() -> None:
    async def test() -> None:
        async with Speech(hears).running() as hung, Speech(hears).running() as server:
            hung.silent = True
            async with Ears(hung.url, server.url, always=True).running():
                await until(lambda: server.sessions, 3.0)

    run(test())


class Mouth:
    """A synthesiser's link, and what it told."""

    def __init__(self, *urls: str) -> None:
        self.told: list[tts.Told] = []
        self.spoken: list[tts.Spoken] = []
        self.figures = Figures()
        self.link = tts.Synthesiser(services(tts=list(urls), speech_key="k"), self.figures, self._take)

    def _take(self, told: tts.Told) -> None:
        self.spoken.append(told) if isinstance(told, tts.Spoken) else self.told.append(told)

    def kinds(self) -> list[str]:
        return [type(each).__name__ for each in self.told]


def test_a_reply_is_spoken_in_a_session_that_was_opened_before_its_first_word() -> None:
    async def test() -> None:
        async with Speech(speaks).running() as server:
            mouth = Mouth(server.url)
            mouth.link.prepare(1, "slt")
            await until(lambda: server.sessions)
            mouth.link.prepare(1, "slt")  # the model was asked once more
            began = time.monotonic()
            mouth.link.speak(1, "hello there", "slt")
            mouth.link.end(1)
            await until(lambda: tts.Done(1) in mouth.told)
            assert mouth.kinds() == ["Word", "Sound", "Word", "Sound", "Done"]
            (spoken,) = mouth.spoken
            first = next(each.at for each in mouth.told if isinstance(each, tts.Sound))
            assert spoken.reply == 1 and began < spoken.at <= first, "it has left after it was to be said"
            await asyncio.sleep(0.05)
            assert len(server.sessions) == 1
            assert server.paths[0].startswith("/api/tts_streaming?format=PcmMessagePack&voice=slt")
            assert [each["type"] for each in server.told] == ["Text", "Eos"]

    run(test())


def test_who_waits_for_a_synthesiser_waits_for_it_and_not_for_us() -> None:
    async def test() -> None:
        server = Speech(speaks)
        mouth = Mouth(server.url)
        mouth.link.speak(1, "hello there", "slt")
        asked = time.monotonic()
        await asyncio.sleep(0.1)
        async with server.running():
            await until(lambda: mouth.spoken)
            assert mouth.spoken[0].at <= asked

    run(test())


def test_a_session_that_broke_before_its_first_word_or_has_another_voice_is_opened_anew() -> None:
    async def test() -> None:
        async with Speech(speaks).running() as server:
            mouth = Mouth(server.url)
            mouth.link.prepare(1, "slt")
            await until(lambda: server.sessions)
            server.sockets[0].transport.abort()
            await asyncio.sleep(0.1)
            assert mouth.told == []
            mouth.link.speak(1, "hello", "slt")
            mouth.link.end(1)
            await until(lambda: tts.Done(1) in mouth.told)
            mouth.link.prepare(2, "slt")
            mouth.link.speak(2, "salut", "espeak:fr")
            mouth.link.end(2)
            await until(lambda: tts.Done(2) in mouth.told)
            assert "voice=espeak%3Afr" in server.paths[-1]

    run(test())


def test_a_session_that_breaks_in_the_middle_is_told_and_the_next_word_opens_another() -> None:
    async def breaks(server: Speech, socket: Any, message: Message) -> None:
        await speaks(server, socket, message)
        if message.get("text") == "now":
            socket.transport.abort()

    async def test() -> None:
        async with Speech(breaks).running() as server:
            mouth = Mouth(server.url)
            mouth.link.speak(1, "now", "slt")
            await until(lambda: "Failed" in mouth.kinds())
            mouth.link.speak(1, "again", "slt")
            mouth.link.end(1)
            await until(lambda: tts.Done(1) in mouth.told)

    run(test())


def test_to_be_let_in_by_a_service_is_not_to_be_served() -> None:
    """A voice that the synthesiser can't speak with: each session opens, and none says a word."""

    async def speaks_or_not(server: Speech, socket: ServerConnection, message: Message) -> None:
        if server.paths[-1].endswith("voice=slt&cfg_alpha=1.5"):
            await speaks(server, socket, message)
        elif message["type"] == "Text":
            await socket.send(pack({"type": "Error", "message": "no such voice"}))

    async def test() -> None:
        async with Speech(speaks_or_not).running() as server:
            mouth = Mouth(server.url)
            mouth.link.speak(1, "hello", "espeak:xx")
            await until(lambda: "Failed" in mouth.kinds())
            mouth.figures.take()
            mouth.link.prepare(3, "slt")
            await until(lambda: "worker_tts_find_time" in dict(mouth.figures.take()))
            assert mouth.link.problem == "it says: no such voice"
            mouth.link.speak(3, "hello", "slt")
            await until(lambda: "Sound" in mouth.kinds())
            assert mouth.link.problem == ""

    run(test())


def test_nothing_comes_of_a_reply_that_was_dropped() -> None:
    async def test() -> None:
        async with Speech().running() as server:
            mouth = Mouth(server.url)
            mouth.link.speak(1, "hello", "slt")
            await until(lambda: server.told)
            mouth.link.drop(1)
            await until(lambda: server.sockets[0].state.name == "CLOSED")
            assert mouth.told == [] and ("worker_tts_interrupt", 1.0) in mouth.figures.take()

    run(test())


@pytest.mark.parametrize(
    "said", [{"type": "Audio", "pcm": [0.0] * 24_000}, {"type": "Text", "text": "and", "start_s": 0.0, "stop_s": 1e15}]
)
def test_a_synthesiser_without_end_is_left(said: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its sound and words would fill the memory, at 50 MB a second."""

    async def endless(_: Speech, socket: ServerConnection, message: Message) -> None:
        frame = pack(said)
        while True:
            await socket.send(frame)

    async def test() -> None:
        async with Speech(endless).running() as server:
            mouth = Mouth(server.url)
            mouth.link.prepare(1, "slt")
            mouth.link.speak(1, "Hello.", "slt")
            mouth.link.end(1)
            await until(lambda: mouth.told and isinstance(mouth.told[-1], tts.Failed), 25)
            assert str(mouth.told[-1]).endswith("without end')")

    monkeypatch.setattr(tts, "MOST_S", 30.0)
    monkeypatch.setattr(tts, "MOST_WORDS", 500)
    run(test())


def test_a_synthesiser_that_is_nowhere_is_told_after_some_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts, "PAUSE_S", 0.01)

    async def test() -> None:
        mouth = Mouth(f"ws://127.0.0.1:{free_port()}")
        mouth.link.speak(1, "hello", "slt")
        await until(lambda: mouth.told)
        assert isinstance(mouth.told[0], tts.Failed) and "nothing listens there" in mouth.told[0].why
        assert dict(mouth.figures.take()).keys() >= {"worker_hard_tts_misses", "worker_fatal_service_misses"}

    run(test())


class Mind:
    """A language model's link, and what it told."""

    def __init__(self, server: Model, /, **more: Any) -> None:
        self.told: list[llm.Told] = []
        self.asked: list[llm.Asked] = []
        self.figures = Figures()
        self.link = llm.LanguageModel(services(llm=server.url, **more), self.figures, self._take)
        clients.append(self.link._opened())

    def _take(self, told: llm.Told) -> None:
        self.asked.append(told) if isinstance(told, llm.Asked) else self.told.append(told)

    def ask(self, reply: int = 1, **metadata: Any) -> None:
        self.link.ask(Ask(reply, [ChatMessage("user", "hello there")], 0.7, metadata))

    async def end(self) -> llm.Told:
        ended: llm.Told = await until(
            lambda: next((each for each in self.told if not isinstance(each, llm.Word)), None)
        )
        return ended


def test_an_answer_comes_in_pieces() -> None:
    async def test() -> None:
        async with Model("Hel", "lo").running() as model:
            mind = Mind(model, llm_key="secret")
            mind.ask(instructions={"type": "smalltalk"})
            assert await mind.end() == llm.Done(1)
            assert mind.told[:2] == [llm.Word(1, "Hel"), llm.Word(1, "lo")] and mind.asked == [llm.Asked(1)]
            (asked,) = model.asked
            assert asked["model"] == "one" and asked["stream"] and asked["bearer"] == "Bearer secret"
            assert asked["messages"] == [{"role": "user", "content": "hello there"}]
            assert asked["metadata"] == {"instructions": {"type": "smalltalk"}}

    run(test())


def test_a_model_that_takes_no_metadata_is_asked_without() -> None:
    async def test() -> None:
        async with Model("yes").running() as model:
            model.refuses = "metadata"
            mind = Mind(model)
            for reply in (1, 2):
                mind.told.clear()
                mind.ask(reply, instructions={"type": "news"})
                assert await mind.end() == llm.Done(reply)
            assert ["metadata" in each for each in model.asked] == [True, False, False]

    run(test())


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ([b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'], "broke off"),
        ([b"data: {nothing\n\n"], "not understood"),
        ([b'data: {"error":{"message":"out of memory"}}\n\n'], "out of memory"),
        ([b"data: " + b"x" * 3_000_000], "too long"),
    ],
)
def test_an_answer_that_is_none_is_a_failure(raw: list[bytes], why: str) -> None:
    async def test() -> None:
        async with Model().running() as model:
            model.raw = raw
            mind = Mind(model)
            mind.ask()
            ended = await mind.end()
            assert isinstance(ended, llm.Failed) and why in ended.why

    run(test())


def test_what_was_said_goes_nowhere_else() -> None:
    async def test() -> None:
        async with Model("yes").running() as elsewhere, Model().running() as model:
            model.redirect = f"{elsewhere.url}/v1/chat/completions"
            mind = Mind(model)
            mind.ask()
            assert await mind.end() == llm.Failed(1, "HTTP 307: not here")
            assert elsewhere.asked == []

    run(test())


def test_one_that_never_stops_saying_nothing_stops_nobody_else() -> None:
    """What it sends is read from a buffer, line after line, and no deadline would pass meanwhile."""

    class Response:
        @property
        async def content(self) -> AsyncIterator[bytes]:
            for _ in range(1_000_000):
                yield b": ping\n"

    async def test() -> None:
        async with asyncio.timeout(0.1):
            async for _ in llm._deltas(Response()):  # type: ignore[arg-type]
                pass

    with pytest.raises(TimeoutError):
        run(test())


def test_thoughts_are_not_said() -> None:
    async def test() -> None:
        async with Model().running() as model:
            model.raw = [
                b": comment\n\n",
                b'data: {"choices":[]}\n\n',
                b'data: {"choices":[{"delta":{"role":"assistant","reasoning_content":"hm","content":null}}]}\n\n',
                b'data: {"choices":[{"delta":{"content":"yes"},"finish_reason":null}]}\n\n',
                b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
            ]
            mind = Mind(model)
            mind.ask()
            assert await mind.end() == llm.Done(1) and mind.told[0] == llm.Word(1, "yes")

    run(test())


def test_one_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "FIRST_S", 0.3)
    monkeypatch.setattr(llm, "NEXT_S", 0.3)

    async def test() -> None:
        async with Model().running() as model:
            model.hold.clear()
            for pieces, why in (([], "no word within"), (["a"], "no more words")):
                model.pieces = pieces
                mind = Mind(model, model="m")
                mind.ask()
                ended = await mind.end()
                assert isinstance(ended, llm.Failed) and why in ended.why

    run(test())


def test_a_dropped_request_is_hung_up() -> None:
    async def test() -> None:
        async with Model("a").running() as model:
            model.hold.clear()
            mind = Mind(model)
            mind.ask()
            await until(lambda: mind.told)
            mind.link.drop(1)
            await until(lambda: model.left)
            assert mind.told == [llm.Word(1, "a")]

    run(test())


def test_which_model_must_be_said_where_there_are_several_and_a_status_is_told() -> None:
    async def test() -> None:
        async with Model("a").running() as model:
            model.models = ["one", "two"]
            mind = Mind(model)
            mind.ask()
            ended = await mind.end()
            assert isinstance(ended, llm.Failed) and "set KYUTAI_LLM_MODEL" in ended.why
            model.status = 503
            mind = Mind(model, model="two")
            mind.ask()
            ended = await mind.end()
            assert isinstance(ended, llm.Failed) and ended.why == "HTTP 503: not like this" == mind.link.problem
            model.refusal = ""
            mind = Mind(model, model="two")
            mind.ask()
            ended = await mind.end()
            assert isinstance(ended, llm.Failed) and ended.why == "HTTP 503"

    run(test())
