"""What is said to the speaking and the answering service, whatever it is: spoken, answered or Refused."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.errors import Refused
from procs.speech.llm import chat, respond, situation
from procs.speech.stt import files
from procs.speech.tts import timing, voices
from procs.speech.tts.clauses import LONGEST_BREAK_S, LONGEST_WORD, Clauses, spoken
from tests.examples import some_of

NOW = datetime(2026, 3, 4, tzinfo=UTC)
words = st.text(max_size=30) | st.sampled_from(
    ["Mr.", "no,", "end.", "<break", 'time="2s"/>', "<break/>", "—", "x" * 300]
)
phone = st.sampled_from(["pau", "ax", "iy", "t", "s", "m"])
said = st.text(max_size=60) | st.sampled_from(
    [
        "...",
        "hello",
        "what are you",
        "bye",
        "eight",
        "is it a dog",
        "give up",
        "hint",
        "oui",
        "je ne sais pas",
        "repeat",
    ]
)
instructions = st.fixed_dictionaries(
    {"type": st.sampled_from(["constant", "smalltalk", "quiz_show", "news", "unmute_explanation", "guess_animal"])},
    optional={"language": st.sampled_from(situation.LANGUAGES), "text": st.text(max_size=200)},
)


@settings(deadline=None, max_examples=some_of(150))
@given(st.lists(words, max_size=30))
def test_no_word_is_lost_between_clauses(messages: list[str]) -> None:
    clauses = Clauses()
    found = [clause for message in messages for clause in clauses.feed(message)] + clauses.end()
    if not any("<" in message for message in messages):
        assert [word for clause in found for word in clause.words] == " ".join(messages).split()
    for clause in found:
        assert 0.0 <= clause.pause_s <= LONGEST_BREAK_S
        for word in clause.words:
            for ascii_only in (True, False):
                plain = spoken(word, ascii_only=ascii_only)
                assert len(plain) <= LONGEST_WORD and not set(plain) & set(" \0\n\x1b[]<>`") and plain.isprintable()


@settings(deadline=None, max_examples=some_of(100))
@given(st.lists(phone, max_size=20), st.lists(st.lists(phone, max_size=4), max_size=8), st.text(max_size=40))
def test_words_are_in_order_whatever_is_heard(names: list[str], alone: list[list[str]], rubbish: str) -> None:
    heard = [timing.Phone(name, at / 10, (at + 1) / 10) for at, name in enumerate(names)]
    spans = timing.spans(heard, alone)
    times = [time for span in spans for time in span]
    assert len(spans) == len(alone) and times == sorted(times)
    assert not times or times[-1] <= len(names) / 10
    with suppress(ValueError):
        timing.phones(rubbish)
    with suppress(Refused):
        voices.of(rubbish)


@settings(deadline=None, max_examples=some_of(200))
@given(
    st.lists(st.tuples(st.booleans(), said), max_size=12),
    instructions | st.none(),
    st.integers(),
    st.text(max_size=200),
)
def test_there_is_always_an_answer(
    turns: list[tuple[bool, str]], told: dict[str, Any] | None, seed: int, prompt: str
) -> None:
    messages = [("system", prompt), *(("user" if is_user else "assistant", text) for is_user, text in turns)]
    for _ in range(3):
        answer = respond.reply(situation.of(messages, {"instructions": told}, seed, NOW))
        assert answer.strip() and len(answer) < 2000
        messages += [("assistant", answer), ("user", "...")]


@settings(deadline=None, max_examples=some_of(100))
@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(["messages", "model", "stream", "n", "metadata", "seed"]),
        st.none()
        | st.integers()
        | st.text(max_size=9)
        | st.lists(st.dictionaries(st.text(max_size=5), st.text(), max_size=2)),
    ).map(msgspec.json.encode)
)
def test_a_request_is_read_or_refused(body: bytes) -> None:
    with suppress(Refused):
        chat.request(body)


@given(
    st.sampled_from([b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"\x1a\x45\xdf\xa3", b""]), st.binary(max_size=400)
)
@settings(max_examples=some_of(60), deadline=None)
def test_a_file_is_sound_or_refused(begin: bytes, rest: bytes) -> None:
    with suppress(Refused):
        assert all(piece.dtype == "int16" for piece in files.decoded(begin + rest))
