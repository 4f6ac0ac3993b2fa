"""Where a voice begins and ends, by the real detector: synthetic voices, and what is none."""

from __future__ import annotations

import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from procs.voice.onset import CHUNK, NEEDED, OFFSET_S, Onset, silero
from procs.wire.moshi import RATE

Sound = NDArray[np.int16]
CHANCE = np.random.default_rng(1)


def onset() -> Onset:
    detector = silero()
    assert detector is not None
    return Onset(detector)


def noise(seconds: float, level: float) -> Sound:
    return CHANCE.normal(0, level, round(seconds * RATE)).astype(np.int16)


def spoken(folder: Path, text: str, voice: str) -> Sound:
    """By flite, without the silence around it."""
    path = folder / f"{voice}.wav"
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", path], check=True, timeout=20)
    with wave.open(str(path)) as file:
        sound = soxr.resample(np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate(), RATE)
    loud = np.flatnonzero(np.abs(sound) > 600)
    trimmed: Sound = sound[loud[0] : loud[-1]].astype(np.int16)
    return trimmed


def edges(ear: Onset, sound: Sound, piece: int = 480) -> list[tuple[float, bool]]:
    """When each was told."""
    told = []
    for start in range(0, len(sound), piece):
        told += [((start + piece) / RATE, edge) for edge in ear.feed(sound[start : start + piece])]
    return told


@pytest.mark.needs("flite")
@pytest.mark.parametrize("level", [3, 300])
@pytest.mark.parametrize("voice", ["slt", "rms", "awb"])
def test_a_voice_begins_and_ends(tmp_path: Path, voice: str, level: float) -> None:
    said = spoken(tmp_path, "what is the weather like in london", voice)
    sound = np.concatenate((np.zeros(2 * RATE, np.int16), said, np.zeros(RATE, np.int16)))
    told = edges(onset(), sound + noise(len(sound) / RATE, level)[: len(sound)])
    assert [edge for _, edge in told] == [True, False]
    (began, _), (ended, _) = told
    assert 0 < began - 2 <= 0.2
    assert 0 < ended - (2 + len(said) / RATE) <= OFFSET_S + 0.2


@pytest.mark.needs("flite")
@pytest.mark.parametrize("word", ["yes", "no", "stop", "uh huh"])
def test_one_short_word_is_a_voice(tmp_path: Path, word: str) -> None:
    sound = np.concatenate((noise(0.2, 5), spoken(tmp_path, word, "slt"), noise(1, 5)))
    assert [edge for _, edge in edges(onset(), sound)] == [True, False]


@pytest.mark.needs("flite")
def test_the_length_of_pieces_changes_nothing(tmp_path: Path) -> None:
    sound = np.concatenate((noise(1, 5), spoken(tmp_path, "good morning", "slt"), noise(1, 5)))
    told = [[edge for _, edge in edges(onset(), sound, piece)] for piece in (1, 333, 1920, len(sound))]
    assert told == [[True, False]] * 4


def cough(seconds: float) -> Sound:
    """A burst of noise that dies away."""
    burst = np.convolve(CHANCE.normal(0, 1, round(seconds * RATE)), np.hanning(9) / 4, "same")
    return (12_000 * burst * np.exp(-3 * np.arange(len(burst)) / len(burst))).clip(-32768, 32767).astype(np.int16)


def tone(hertz: float, level: float = 6000.0) -> Sound:
    made: Sound = (level * np.sin(2 * np.pi * hertz * np.arange(3 * RATE) / RATE)).astype(np.int16)
    return made


@pytest.mark.parametrize(
    "sound",
    [
        noise(5, 5),
        noise(5, 2000),
        tone(120),
        tone(440),
        np.concatenate((noise(1, 5), cough(0.05), noise(1, 5))),
        np.concatenate((noise(1, 5), cough(0.15), noise(1, 5))),
        np.concatenate((noise(1, 5), cough(0.3), noise(1, 5))),
        np.concatenate((noise(1, 5), np.full(48, 20_000, np.int16), noise(1, 5))),
    ],
    ids=["quiet", "noise", "hum", "tone", "click", "short cough", "cough", "knock"],
)
def test_what_is_no_voice_is_none(sound: Sound) -> None:
    assert edges(onset(), sound) == []


def test_silence_and_steady_noise_are_not_looked_at() -> None:
    quiet, loud = onset(), onset()
    edges(quiet, noise(10, 3))
    edges(loud, noise(10, 1500))
    assert quiet.looks == 0
    assert loud.looks < 0.15 * 10 * RATE / CHUNK, "only until it is known how loud it is"


class Told:
    """A detector that was told what to say."""

    def __init__(self, probabilities: list[float]) -> None:
        self.probabilities = probabilities

    def process_chunk(self, chunk: bytes) -> float:
        assert len(chunk) == 2 * 512
        return self.probabilities.pop(0) if self.probabilities else 0.0


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.9] * NEEDED, [True, False]),
        ([0.9] * (NEEDED - 1) + [0.49] + [0.9] * (NEEDED - 1), []),
        ([0.9] * NEEDED + [0.1] * 7 + [0.4] + [0.1] * 7 + [0.4] * 20, [True]),
    ],
    ids=["enough", "too short", "pauses within"],
)
def test_a_voice_is_what_lasts_and_ends_when_it_is_silent_for_long(
    probabilities: list[float], expected: list[bool]
) -> None:
    count = max(len(probabilities), NEEDED + 8 if False in expected else 0)
    ear = Onset(Told(probabilities))
    assert ear.feed(np.full(count * CHUNK, 1000, np.int16)) == expected
