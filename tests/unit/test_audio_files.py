"""Ears and mouth without a card: who speaks when, and what is left in the file."""

from __future__ import annotations

import asyncio
import errno
import wave
from pathlib import Path

import numpy as np
import pytest

from procs.audio_io.files import FileSound, Script, WavFile, read, script_of, speech
from procs.audio_io.makers import Wanted, make
from procs.audio_io.sound import BLOCK, BLOCK_S, RATE, Cursor, Pcm, Playing
from procs.errors import ConfigError, NotHere

TURN = 10  # blocks


def turn(level: int) -> Pcm:
    return np.full(TURN * BLOCK - 100, level, np.int16)


def missing() -> Pcm:
    raise NotHere("no such voice")


def said(
    script: Script, seconds: float, response: int = 0, state: Playing = "done", listening: bool = True
) -> list[int]:
    """What is said meanwhile, block by block."""
    cursor = Cursor(response, state, 0, 0)
    return [int(script.block(cursor, listening)[5]) for _ in range(round(seconds / BLOCK_S))]


def test_turns_wait_for_the_reply_to_the_one_before() -> None:
    script = Script([lambda: turn(1), missing, lambda: turn(2), lambda: turn(3)], patience_s=2.0)
    script.prepare()
    assert not any(said(script, 5, listening=False)), "nobody listens"
    assert not any(said(script, 1, response=1, state="playing")), "the greeting"
    greeted = said(script, 1, response=1)
    assert greeted == [0] * 24 + [1] * TURN + [0] * (26 - TURN)
    assert not any(said(script, 9, response=2, state="paused")), "the reply"
    assert said(script, 0.8, response=2, state="flushed") == [0] * 24 + [2] * TURN + [0] * (16 - TURN)
    assert said(script, 2.2, response=2).index(3) * BLOCK_S > 1.8, "no reply came"
    assert not any(said(script, 9, response=3))


def test_a_script_that_loops_begins_again() -> None:
    script = Script([missing, lambda: turn(1)], patience_s=0.1, loop=True)
    script.prepare()
    assert sum(said(script, 1)) > 2 * TURN
    script = Script([missing], patience_s=0.1, loop=True)
    script.prepare()
    assert not any(said(script, 1))


def test_what_input_may_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.wav file in it"):
        script_of(str(tmp_path), patience_s=1, loop=False)
    (tmp_path / "words.wav").write_text("no sound at all")
    with pytest.raises(ConfigError, match="cannot be read"):
        script_of(str(tmp_path / "words.wav"), patience_s=1, loop=False)
    for name, rate, channels in (("b.wav", 8000, 1), ("a.wav", 44100, 2)):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((channels, 2, rate, 0, "NONE", ""))
            tone = 8000 * np.sin(2 * np.pi * 500 * np.arange(rate) / rate)
            file.writeframes(np.repeat(tone.astype("<i2"), channels).tobytes())
    for name in ("a.wav", "b.wav"):
        sound = read(tmp_path / name)
        assert abs(len(sound) - RATE) < 50 and np.abs(np.fft.rfft(sound[:RATE])).argmax() in (499, 500, 501)
    script = script_of(str(tmp_path), patience_s=0.1, loop=False)
    script.prepare()
    heard = said(script, 4)
    assert sum(map(bool, heard)) > 80, "a, b, and words left out"


def test_the_file_can_be_read_while_it_grows(tmp_path: Path) -> None:
    file = WavFile(tmp_path / "out.wav")
    for _ in range(120):
        file.write(np.full(BLOCK, 7, np.int16))
    with wave.open(str(tmp_path / "out.wav")) as grown:
        assert (grown.getframerate(), grown.getnchannels()) == (RATE, 1)
        assert grown.getnframes() == 100 * BLOCK, "what was written since the last second is not told yet"


def test_a_full_disk_costs_the_file_alone() -> None:
    async def hear() -> str:
        sound = make(Wanted(no_audio=True))
        assert isinstance(sound, FileSound)
        sound._output = FullDisk.__new__(FullDisk)
        sound.start(asyncio.get_running_loop())
        for _ in range(5):
            await sound.hear()
        return sound.state.speaker

    assert asyncio.run(hear()) == "missing: the output cannot be written: No space left on device"


class FullDisk(WavFile):
    def write(self, pcm: Pcm) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.needs("flite")
def test_generated_speech_is_heard_and_the_reply_is_in_the_file(tmp_path: Path) -> None:
    async def converse() -> Pcm:
        wanted = Wanted(no_audio=True, input="say:hello; $(date) -o /tmp", output=str(tmp_path / "o.wav"), patience_s=0)
        sound = make(wanted)
        sound.start(asyncio.get_running_loop())
        heard = [await sound.hear() for _ in range(10)]
        sound.volume(50)
        sound.play(np.full(10 * BLOCK, 4000, np.int16), response=1, timestamp=5, first=True)
        sound.finish()
        while not any(block.speech for block in heard) or sound.cursor != Cursor(1, "done", 200, 0):
            heard.append(await asyncio.wait_for(sound.hear(), 20))
        heard += [await sound.hear() for _ in range(50)]
        assert sound.state.microphone == sound.state.speaker == "ok" and sound.state.echo == "cancelled"
        return np.concatenate([block.pcm for block in heard])

    spoken = asyncio.run(converse())
    assert np.abs(spoken).max() > 5000
    written = read(tmp_path / "o.wav")
    assert abs(np.count_nonzero(written > 1900) - 10 * BLOCK) < BLOCK and written.max() == 2000
    assert len(speech("hello there")) > RATE / 3
