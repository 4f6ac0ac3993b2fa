"""The microphone: a room's echo, the wake word, mute. Speech is flite's; who recognises it is pocketsphinx."""

from __future__ import annotations

import random
import sys
from functools import cache

import numpy as np
import pytest
from pocketsphinx import Decoder

from procs.audio_io import echo, wake
from procs.audio_io.ear import Ear
from procs.audio_io.echo import Beside, Canceller, HalfDuplex, Nothing, WebRtc
from procs.audio_io.files import speech
from procs.audio_io.makers import Wanted, make
from procs.audio_io.resample import Resampler
from procs.audio_io.sound import BLOCK, RATE, Heard, Pcm
from procs.errors import ConfigError

pytestmark = pytest.mark.needs("flite")
FAR = "what is the weather like in london"
NEAR = "turn on the radio in the kitchen"


@cache
def said(text: str, voice: str = "slt") -> Pcm:
    """A sentence with a second of silence before and after it, the same for all."""
    return np.pad(speech(text, voice), RATE)


def noisy(pcm: Pcm) -> Pcm:
    """With the noise of a quiet microphone."""
    noise = np.random.default_rng(3).standard_normal(len(pcm)) * 10
    return np.clip(pcm + noise, -32768, 32767).astype(np.int16)


def room(pcm: Pcm) -> Pcm:
    """What comes back of it: 6 dB down, after 40 ms, with 100 ms of tail."""
    tail = RATE // 10
    answer = np.random.default_rng(1).standard_normal(tail) * np.exp(-6.9 * np.arange(tail) / tail)
    answer[0] = 3
    answer *= 0.5 / np.sqrt((answer**2).sum())
    return np.convolve(pcm, np.pad(answer, (RATE // 25, 0)))[: len(pcm)].astype(np.int16)


def heard(canceller: Canceller, microphone: Pcm, speaker: Pcm, word: str = "") -> list[Heard]:
    """All blocks through an ear."""
    ear = Ear(canceller, wake.choose(word))
    ear.prepare()
    ear.delay(0.04)
    blocks = []
    for start in range(0, len(microphone) - BLOCK + 1, BLOCK):
        ear.spoken(speaker[start : start + BLOCK])
        blocks.append(ear.hear(microphone[start : start + BLOCK]))
    return blocks


def words(blocks: list[Heard]) -> str:
    """What pocketsphinx understands of it, asked as our recogniser asks it: only where there is speech."""
    if not any(block.speech for block in blocks):
        return ""
    decoder = Decoder(loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(Resampler(RATE, 16_000)(sound(blocks)).tobytes(), full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    return str(best.hypstr) if best else ""


def sound(blocks: list[Heard]) -> Pcm:
    return np.concatenate([block.pcm for block in blocks])


def test_nobody_is_heard_in_an_echo_with_or_without_the_canceller() -> None:
    speaker = said(FAR, "rms")
    back = noisy(room(speaker))
    untouched = heard(Nothing("none"), back, speaker)
    assert any(block.speech for block in untouched), "the room has no echo"
    for canceller in (WebRtc(gain=False), HalfDuplex()):
        blocks = heard(canceller, back, speaker)
        assert words(blocks) == "", canceller.kind
    assert canceller.kind == "half-duplex"


def test_who_speaks_alone_is_understood_and_who_interrupts_is_noticed() -> None:
    near, silence = noisy(said(NEAR)), np.zeros_like(said(NEAR))
    assert words(heard(WebRtc(gain=False), near, silence)) == NEAR
    assert np.array_equal(sound(heard(HalfDuplex(), near, silence)), near[: len(near) // BLOCK * BLOCK])
    speaker = np.resize(said(FAR, "rms"), len(near) + 4 * RATE)  # it has said something before
    microphone = noisy(room(speaker))
    microphone[4 * RATE :] = np.clip(microphone[4 * RATE :].astype(int) + near, -32768, 32767)
    blocks = heard(WebRtc(gain=False), microphone, speaker)
    said_before = [block.speech for block in blocks[: 4 * RATE // BLOCK]]
    assert not any(said_before) and any(block.speech for block in blocks[5 * RATE // BLOCK :])


def test_cards_that_take_and_give_in_fits_leave_no_echo() -> None:
    speaker = np.resize(said(FAR, "rms")[RATE // 2 :], 12 * RATE)
    back = noisy(np.pad(room(speaker), (RATE // 10, 0)))  # a card's own delay
    ear, beside, chance = Ear(WebRtc(gain=False), wake.choose("")), Beside(), random.Random(1)
    ear.prepare()
    late: list[Pcm] = []
    blocks = []
    for start in range(0, len(speaker), BLOCK):
        late.append(speaker[start : start + BLOCK])
        if chance.random() > 0.3:
            for block in late:
                beside.put(block)
            late.clear()
        ear.spoken(beside.take())
        blocks.append(ear.hear(back[start : start + BLOCK]))
    assert not any(block.speech for block in blocks)
    assert np.std(sound(blocks[100:])) < np.std(back) / 30


def test_clocks_that_part_are_brought_together_again() -> None:
    beside = Beside()
    for many, few in ((2, 1), (1, 2)):
        for n in range(60):
            for _ in range(many):
                beside.put(np.full(BLOCK, n, np.int16))
            last = [int(beside.take()[0]) for _ in range(few)]
    for n in range(100, 130):
        beside.put(np.full(BLOCK, n, np.int16))
        last = [*last, int(beside.take()[0])]
    assert last[-5:] == list(range(last[-5], last[-5] + 5)) and 126 <= last[-1] <= 128, last


def test_without_its_library_the_canceller_is_half_duplex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "livekit.rtc", None)
    canceller = WebRtc(gain=False)
    blocks = heard(canceller, noisy(room(said(FAR))), said(FAR))
    assert canceller.kind == "half-duplex" and not any(block.speech for block in blocks)


def test_the_wake_word_opens_the_microphone_for_a_while() -> None:
    asleep, woken, question = said(NEAR), said("okay nabu"), said(NEAR)
    later = np.zeros(10 * RATE, np.int16)
    microphone = np.concatenate((asleep, woken, question, later, asleep))
    blocks = heard(Nothing("cancelled"), microphone, np.zeros_like(microphone), "okay_nabu")
    first = next(n for n, block in enumerate(blocks) if block.awake) * BLOCK
    last = max(n for n, block in enumerate(blocks) if block.awake) * BLOCK
    assert len(asleep) + RATE < first < len(asleep) + len(woken)
    asked = len(asleep) + len(woken) + len(question)
    assert asked - 2 * RATE + wake.AWAKE_S * RATE < last < asked + wake.AWAKE_S * RATE
    assert not any(block.pcm.any() or block.speech for block in blocks if not block.awake)
    assert words([block for block in blocks if block.awake]) == NEAR


def test_mute_is_silence() -> None:
    ear = Ear(Nothing("none"), wake.choose(""))
    ear.prepare()
    ear.mute(True)
    loud = said(NEAR)[RATE : RATE + BLOCK * 20]
    assert not sound([ear.hear(loud[start : start + BLOCK]) for start in range(0, len(loud), BLOCK)]).any()
    ear.mute(False)
    assert ear.hear(loud[:BLOCK]).pcm.any()


def test_settings_that_cannot_be_are_refused() -> None:
    for wanted, why in (
        (Wanted(echo="some"), "is one of auto, half-duplex, none"),
        (Wanted(wake_word="computer"), "is one of okay_nabu"),
        (Wanted(no_audio=True, input="/nowhere.wav"), "No such file"),
        (Wanted(no_audio=True, output="/nowhere/x.wav"), "cannot be written"),
    ):
        with pytest.raises(ConfigError, match=why):
            make(wanted)
    assert echo.choose("auto", gain=False).kind == "cancelled"
