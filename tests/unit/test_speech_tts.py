"""Words into clauses, phones into words, sound into steps."""

from __future__ import annotations

import numpy as np
import pytest

from procs.errors import Refused
from procs.speech.tts import timing, voices
from procs.speech.tts.clauses import Clause, Clauses, spoken
from procs.speech.tts.timing import Span
from procs.speech.tts.track import Track
from procs.wire.moshi import RATE, STEP


def said(*messages: str) -> list[Clause]:
    """All clauses of a reply."""
    clauses = Clauses()
    return [clause for message in messages for clause in clauses.feed(message)] + clauses.end()


def test_the_first_clause_is_short_and_later_commas_wait_for_enough() -> None:
    found = said("Well then, yes,", "I", "think, dear Dr.", "J. Smith, so do I.", "Really")
    assert [" ".join(clause.words) for clause in found] == [
        "Well then,",
        "yes, I think, dear Dr. J. Smith,",
        "so do I.",
        "Really",
    ]
    assert found[0].pause_s < found[2].pause_s


def test_what_never_ends_is_cut() -> None:
    assert max(len(clause.words) for clause in said("and so on " * 40)) == 16
    assert all(len(" ".join(clause.words)) < 400 for clause in said("x" * 190 + " " + "y" * 190 + " z"))


def test_a_break_is_understood_whole_or_cut_between_words() -> None:
    for messages in (['One <break time="1.5s"/> two'], ["One", "<break", 'time="1500ms"', "/>", "two"]):
        assert said(*messages) == [Clause(("One",), 0.12), Clause((), 1.5), Clause(("two",), 0.3)]
    assert said('<break time="900s"/>') == [Clause((), 10.0)]
    assert said("<break") == [Clause(("<break",), 0.3)]


@pytest.mark.parametrize(
    ("word", "ascii_only", "expected"),
    [
        ("*Hello*", True, "Hello"),
        ("isn\u2019t", True, "isn't"),
        ("[[pho]]", False, "pho"),
        ("caf\u00e9\0", True, "cafe"),
        ("caf\u00e9", False, "caf\u00e9"),
        ("\u2014", False, ""),
        ("\U0001f600", False, ""),
        ("\u65e5\u672c", True, ""),
        ("x" * 500, True, "x" * 48),
    ],
)
def test_only_what_can_be_spoken_is(word: str, ascii_only: bool, expected: str) -> None:
    assert spoken(word, ascii_only=ascii_only) == expected


def test_phones_find_their_words_though_they_sound_otherwise_in_a_sentence() -> None:
    printed = "pau:0.2 hh:0.3 ax:0.4 l:0.5 ow:0.6 \npau:0.1 dh:0.2 iy:0.3 eh:0.4 n:0.5 d:0.6 pau:0.8 \n"
    alone = timing.words_alone("pau hh eh l ow pau \npau dh ax pau \npau eh n d pau \n")
    spans = timing.spans(timing.phones(printed), [alone[0], [], *alone[1:]])
    assert [round(at, 3) for span in spans for at in span] == [0.2, 0.6, 0.6, 0.6, 0.7, 0.9, 0.9, 1.2]


def test_broken_phones_are_refused_and_none_are_no_error() -> None:
    for printed in ("hh:x", "hh", "hh:nan", "hh:0.5 ax:0.2"):
        with pytest.raises(ValueError, match=r"phone|float"):
            timing.phones(printed)
    assert timing.spans([], [["hh"], []]) == [Span(0.0, 0.0)] * 2
    assert timing.spans(timing.phones("hh:0.5"), []) == []


def test_steps_hold_every_sample_once_and_words_come_before_their_sound() -> None:
    track, sound = Track(), np.arange(5000, dtype=np.int16)
    steps = track.add(sound, ["a", "b"], [Span(0.0, 0.05), Span(0.1, 0.2)], 0.1)
    steps += track.add(sound[:0], ["c"], [Span(0.0, 0.0)], 0.0) + track.end()
    assert [[word.text for word in step.words] for step in steps] == [["a"], ["b"], [], ["c"]]
    assert steps[3].words[0].start_s == pytest.approx(5000 / RATE + 0.1, abs=0.001)
    assert all(len(step.pcm) == STEP for step in steps)
    assert (np.concatenate([step.pcm for step in steps])[:5000] == sound).all()
    only_a_word = Track()
    assert only_a_word.add(sound[:0], ["\u2014"], [Span(0.0, 0.0)], 0.0) == []
    assert [word.text for step in only_a_word.end() for word in step.words] == ["\u2014"]


def test_voices_by_name() -> None:
    assert str(voices.of("rms")) == "rms"
    assert str(voices.of("espeak:en-gb+f2")) == "espeak:en-gb+f2"
    assert voices.of("unmute-prod-website/p329_022.wav") == voices.DEFAULT == voices.of("who knows")
    assert str(voices.of("unmute-prod-website/freesound/519189_request-42---hmm-i-dont-knowwav.mp3")) == "rms"
    assert str(voices.of("unmute-prod-website/freesound/440565_why-is-there-educationwav.mp3")) == "awb"
    assert str(voices.of("unmute-prod-website/developer-1.mp3")) == "rms"
    assert voices.of("unmute-prod-website/developpeuse-3.wav").program == "espeak-ng"
    for wrong in ("espeak:", "espeak:fr;ls", "espeak:../x", "espeak:-h"):
        with pytest.raises(Refused):
            voices.of(wrong)


def test_a_clause_of_more_sounds_than_can_be_laid_beside_each_other_is_divided_by_their_number() -> None:
    heard = [timing.Phone("s", i * i / 1000, (i + 1) ** 2 / 1000) for i in range(2 * timing.MOST_PHONES)]
    words = [["s"] * timing.MOST_PHONES] * 2
    assert timing.spans(heard, words) == timing.by_length(words, heard[0].start_s, heard[-1].end_s)
