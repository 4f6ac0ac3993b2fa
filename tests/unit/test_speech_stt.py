"""What decides what is heard: utterances out of likely chunks, pauses, which words of a changing guess are told."""

from __future__ import annotations

import io
import itertools
import wave
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.errors import Refused
from procs.media.ogg import OggWriter
from procs.speech.stt import files, gate, words
from procs.speech.stt.gate import CHUNK_S, Gate, Is
from procs.speech.stt.hearing import DELAY_STEPS, MAX_MARKERS, Hearing
from procs.speech.stt.pause import scores
from procs.speech.stt.sounds import MAX_GAP, Sounds
from procs.speech.stt.words import Spoken, Words, plain
from procs.wire.moshi import STEP, EndWord, Marker, Samples, Step, Word

PAUSE_S = 0.48


def utterances(probabilities: Sequence[float]) -> list[list[int]]:
    """The numbers of the chunks in each, as the recogniser gets them."""
    gated, found = Gate(PAUSE_S), list[list[int]]()
    for number, probability in enumerate(probabilities):
        heard = gated.take(bytes([number % 256]), probability)
        assert gated.is_open == (heard.kind is Is.SPEECH)
        if heard.starts_at >= 0:
            found.append(list(range(heard.starts_at, heard.starts_at + len(heard.sound))))
            assert list(heard.sound) == [each % 256 for each in found[-1]]
        elif heard.kind is not Is.SILENCE:
            found[-1].append(number)
    return found


def test_an_utterance_has_what_came_before_it_and_ends_after_the_pause() -> None:
    quiet, loud = [0.0] * 40, [0.9] * 20
    (one,) = utterances(quiet + loud + quiet)
    assert one == list(range(40 + gate.NEEDED - gate.PRE_ROLL - gate.LOOKED_AT, 40 + 20 + round(PAUSE_S / CHUNK_S)))
    assert len(utterances(quiet + loud + [0.0] * 8 + loud + quiet)) == 1, "a shorter pause is none"
    assert len(utterances(quiet + loud + quiet + loud + quiet)) == 2
    assert utterances([*quiet, 0.9, 0.9, *quiet, 0.9, *quiet]) == [], "a click is not speech"
    assert [len(each) * CHUNK_S <= gate.MAX_S + 1 for each in utterances([0.9] * 2000)] == [True] * 3


def test_a_pause_is_the_end_of_a_turn_after_the_silence_that_was_set() -> None:
    assert scores(float("inf"), PAUSE_S) == [1.0] * 4, "nobody has said anything"
    assert scores(0.0, PAUSE_S) == [0.0] * 4
    for pause_s in (0.2, PAUSE_S, 3.0):
        assert scores(pause_s, pause_s)[2] > 0.6 > scores(pause_s * 0.95, pause_s)[2]
    for silence_s in (0.1, 0.3, 1.0):
        assert sorted(scores(silence_s, PAUSE_S), reverse=True) == scores(silence_s, PAUSE_S)


def said(text: str) -> list[Spoken]:
    """A guess."""
    return [Spoken(word, float(at), at + 0.9) for at, word in enumerate(text.split())]


def test_a_word_is_told_once_guesses_agree_on_it_and_the_rest_at_the_end() -> None:
    told = Words()
    early = [told.guess(said("turn on the kitchen lights please")) for _ in range(words.AGREE)]
    assert [word.text for word in itertools.chain(*early)] == ["turn", "on"] and not any(early[:-1])
    assert told.guess(said("turn in the kitchen")) == [], "what was told can't be taken back"
    assert [word.text for word in told.end(said("turn in the kitchen lights"))] == ["the", "kitchen", "lights"]
    assert [word.text for word in Words().end(said("yes"))] == ["yes"]
    segments = [
        ("<s>", 0.0, 0.1),
        ("the(2)", 0.1, 0.2),
        ("[SPEECH]", 0.2, 0.3),
        ("++NOISE++", 0.3, 0.4),
        ("<sil>", 1, 2),
    ]
    assert plain(segments) == [Spoken("the", 0.1, 0.2)]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=12), max_size=60), st.lists(st.sampled_from("abc")))
def test_words_are_told_in_the_order_of_their_times(guesses: list[list[str]], last: list[str]) -> None:
    told, out = Words(), list[Spoken]()
    for guess in guesses:
        out += told.guess(said(" ".join(guess)))
    out += told.end(said(" ".join(last)))
    times = [word.start_s for word in out]
    assert times == sorted(set(times))


class Told:
    """A recogniser that knows what is said: a word for each second of an utterance that has begun."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def begin(self) -> None:
        self.seconds = 0.0

    def take(self, sound: bytes) -> None:
        self.seconds += len(sound) / 32_000

    def end(self) -> None:
        pass

    def segments(self) -> Iterator[tuple[str, float, float]]:
        return ((f"word{at}", float(at), at + 0.5) for at in range(int(self.seconds) + 1))


class Loud:
    """Takes what is loud for speech."""

    def process_chunk(self, chunk: bytes, /) -> float:
        return float(np.abs(np.frombuffer(chunk, np.int16)).max() > 100)


def heard(pieces: list[Samples], mark_after: int = -1) -> list[object]:
    """All that is told of these."""
    hearing, found = Hearing(Told(), Loud(), PAUSE_S), list[object]()
    for number, pcm in enumerate(pieces):
        found += hearing.hear(pcm)
        if number == mark_after:
            hearing.mark(Marker(7))
    return found


def sound(*seconds: float) -> Samples:
    """Silence and a tone in turn."""
    tone = (8000 * np.sin(np.arange(24_000 * 10) * 0.1)).astype(np.int16)
    parts = [tone[: int(s * 24_000)] * np.int16(number % 2) for number, s in enumerate(seconds)]
    return np.concatenate(parts)


@pytest.mark.parametrize("size", [STEP, 480, 7000])
def test_words_come_before_the_pause_and_do_not_depend_on_how_sound_is_cut(size: int) -> None:
    pcm = sound(1.0, 0.96, 2.0)
    told = heard([pcm[at : at + size] for at in range(0, len(pcm), size)])
    texts = [each.text for each in told if isinstance(each, Word)]
    assert texts == ["word0", "word1"]
    starts = [each.start_time for each in told if isinstance(each, Word)]
    assert starts[0] == pytest.approx(1.0 - 0.35, abs=0.08) and starts[1] == pytest.approx(starts[0] + 1.0)
    assert sum(isinstance(each, EndWord) for each in told) == 2
    steps = [each for each in told if isinstance(each, Step)]
    assert [each.step_idx for each in steps] == list(range(len(pcm) // STEP))
    over = next(each for each in steps[20:] if each.prs[2] > 0.6)
    assert told.index(over) > max(told.index(each) for each in told if isinstance(each, Word))
    assert 0.48 <= over.step_idx * 0.08 - 1.96 <= 0.64
    assert [each.prs[2] < 0.4 for each in steps[15:24]] == [True] * 9, "somebody speaks"


def test_a_marker_comes_back_after_the_words_before_it() -> None:
    pcm = sound(1.0, 1.6, 1.0)
    pieces = [pcm[at : at + STEP] for at in range(0, len(pcm), STEP)]
    told = heard(pieces, mark_after=31)
    at = told.index(Marker(7))
    assert all(told.index(each) < at for each in told if isinstance(each, Word))
    steps = sum(isinstance(each, Step) for each in told[:at])
    assert 32 + DELAY_STEPS <= steps <= 32 + DELAY_STEPS + 3
    assert Marker(7) not in heard(pieces[:32], mark_after=31), "what it waits for has to come"


def test_markers_without_sound_are_refused_once_they_are_many() -> None:
    hearing = Hearing(Told(), Loud(), PAUSE_S)
    for number in range(MAX_MARKERS):
        hearing.mark(Marker(number))
    with pytest.raises(Refused):
        hearing.mark(Marker(-1))


def test_pages_that_claim_to_be_lost_make_little_silence() -> None:
    writer, packet = OggWriter(1), bytes((0xF8,))  # 20 ms
    pages = [writer.write([packet] * 50) for _ in range(200)]
    heard = list(Sounds().decoded(b"".join(pages[::10])))
    assert max(map(len, heard)) <= MAX_GAP
    assert sum(map(len, heard)) <= MAX_GAP + 20 * 50 * 480


def test_a_file_of_a_few_samples_a_second_is_refused_before_it_is_gigabytes() -> None:
    made = io.BytesIO()
    with wave.open(made, "wb") as out:
        out.setparams((1, 2, 7, 0, "NONE", ""))
        out.writeframes(bytes(2000))
    with pytest.raises(Refused, match="samples a second"):
        list(files.decoded(made.getvalue()))
