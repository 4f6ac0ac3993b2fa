"""Sound cards that are missing, come, go and come back. There is none here, so PortAudio is the one thing played: a
module in the place of sounddevice, whose cards call as PortAudio's do."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from procs.audio_io import devices, wake
from procs.audio_io.cards import CardSound
from procs.audio_io.ear import Ear
from procs.audio_io.echo import Nothing
from procs.audio_io.sound import BLOCK, RATE
from procs.errors import NotHere
from procs.settings import ROOT

HEADSET = {"name": "USB Headset", "max_input_channels": 1, "max_output_channels": 2, "default_samplerate": 48000.0}
SCREEN = {"name": "HDMI 0", "max_input_channels": 0, "max_output_channels": 2, "default_samplerate": 44100.0}


class PortAudioError(Exception):
    pass


class Stream:
    """Calls every 20 ms while its card is plugged in; takes the card's own rate only."""

    def __init__(self, cards: Cards, microphone: bool, **wanted: Any) -> None:
        self._cards, self._microphone, self._wanted = cards, microphone, wanted
        self._card = cards.known[wanted["device"]]
        if wanted["samplerate"] != self._card["default_samplerate"]:
            raise PortAudioError("Invalid sample rate")
        self.latency, self.samplerate, self.active = 0.05, float(wanted["samplerate"]), False
        self.spoken: list[np.ndarray[Any, Any]] = []

    def start(self) -> None:
        self.active = True
        self._cards.streams.append(self)
        threading.Thread(target=self._call, daemon=True).start()

    def abort(self) -> None:
        self.active = False

    close = abort

    def _call(self) -> None:
        frames = self._wanted["blocksize"]
        wave = (8000 * np.sin(2 * np.pi * 500 * np.arange(frames) / self.samplerate)).astype(np.int16)
        when = SimpleNamespace(currentTime=5.0, outputBufferDacTime=5.05)
        while self.active and self._card in self._cards.plugged:
            data = wave[:, None].copy() if self._microphone else np.zeros((frames, 1), np.int16)
            self._wanted["callback"](data, frames, when, None)
            self.spoken.append(data[:, 0].copy())
            time.sleep(frames / self.samplerate)
        self.active = False


class Cards:
    """sounddevice, as far as it is used. New cards are known only after it began anew."""

    PortAudioError = PortAudioError

    def __init__(self, *plugged: dict[str, Any]) -> None:
        self.plugged = list(plugged)
        self.streams: list[Stream] = []
        self.default = SimpleNamespace(device=[-1, -1])
        self._initialize()

    def _initialize(self) -> None:
        self.known = list(self.plugged)

    def _terminate(self) -> None:
        assert not any(stream.active for stream in self.streams), "PortAudio ends what is open"

    def query_devices(self) -> list[dict[str, Any]]:
        return self.known

    def InputStream(self, **wanted: Any) -> Stream:
        return Stream(self, True, **wanted)

    def OutputStream(self, **wanted: Any) -> Stream:
        return Stream(self, False, **wanted)


async def heard_until(sound: CardSound, look: Callable[[], bool], within_s: float = 20.0) -> int:
    """Hear until that is so; the loudest sample of the last block. A conversation goes on all the time."""
    deadline = time.monotonic() + within_s
    at = loudest = 0
    while not look():
        assert time.monotonic() < deadline, sound.state
        loudest = int(np.abs((await sound.hear()).pcm).max())
        sound.play(np.full(BLOCK, 4000, np.int16), response=1, timestamp=at, first=at == 0)
        at += BLOCK
    return loudest


async def plug_and_pull(sound: CardSound, cards: Cards) -> None:
    """Plug the headset in, converse, pull it out: the conversation goes on in silence."""
    cards.plugged.append(HEADSET)
    sound.flush()
    await heard_until(sound, lambda: sound.state.microphone == sound.state.speaker == "ok")
    microphone, speaker = cards.streams[-2:]
    loudest = await heard_until(
        sound, lambda: len(microphone.spoken) > 20 and abs(int(speaker.spoken[-1][-1]) - 4000) < 50
    )
    assert loudest > 7000
    assert sound.state.output_ms == 50 and sound.cursor.state == "playing"
    cards.plugged.remove(HEADSET)
    await heard_until(sound, lambda: "missing" in sound.state.microphone and "missing" in sound.state.speaker)
    before = sound.cursor.heard_ms
    assert await heard_until(sound, lambda: sound.cursor.heard_ms > before + 500) == 0


async def come_and_go(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = CardSound(Ear(Nothing("none"), wake.choose("")), "", "usb")
    sound.start(asyncio.get_running_loop())
    assert await heard_until(sound, lambda: "apt-get install libportaudio2" in sound.state.speaker) == 0
    assert sound.state.microphone == sound.state.speaker
    monkeypatch.setitem(sys.modules, "sounddevice", cards)
    await heard_until(sound, lambda: "no speaker has 'usb'" in sound.state.speaker)
    assert "shows no microphone" in sound.state.microphone
    await plug_and_pull(sound, cards)
    await plug_and_pull(sound, cards)


def test_cards_come_and_go_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    asyncio.run(come_and_go(Cards(SCREEN), monkeypatch))


def test_cards_are_chosen_by_name_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = Cards(SCREEN, HEADSET, {**HEADSET, "name": "usb"})
    cards.default.device = [-1, 0]
    monkeypatch.setitem(sys.modules, "sounddevice", cards)
    found = devices.devices(devices.library())
    assert [devices.pick(found, side, name).index for side, name in CHOSEN] == [0, 1, 1, 2]
    with pytest.raises(NotHere, match="no microphone has 'hdmi' in its name"):
        devices.pick(found, "microphone", "hdmi")
    assert json.loads(devices.listing(as_json=True))[1]["rate"] == 48000
    assert " >    -    2  44100  HDMI 0" in devices.listing(as_json=False)


ALSA = """
pcm.!default { type plug slave.pcm "nothing" }
pcm.nothing { type null }
pcm.written { type file file "%s" format "raw" slave.pcm "nothing" }
pcm.our-ear { type plug slave.pcm "nothing" }
pcm.our-mouth { type plug slave.pcm "written" }
"""


async def speak_through_portaudio() -> None:
    """In a process of its own, whose ALSA has two cards, neither of which keeps real time."""
    sound = CardSound(Ear(Nothing("none"), wake.choose("")), "our-ear", "our-mouth")
    sound.start(asyncio.get_running_loop())
    await heard_until(sound, lambda: sound.state.microphone == sound.state.speaker == "ok")
    await heard_until(sound, lambda: sound.cursor.heard_ms > 500)
    print(sound.state.output_ms)


@pytest.mark.needs("libportaudio.so.2")
def test_portaudio_itself_takes_what_we_give_it(tmp_path: Path) -> None:
    (tmp_path / "asound.conf").write_text(ALSA % (tmp_path / "spoken.raw"))
    here = "from tests.unit.test_audio_cards import *; asyncio.run(speak_through_portaudio()); os._exit(0)"
    environ = {**os.environ, "ALSA_CONFIG_PATH": str(tmp_path / "asound.conf")}
    command = [sys.executable, "-u", "-c", here]
    done = subprocess.run(command, env=environ, cwd=ROOT, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spoken = np.fromfile(tmp_path / "spoken.raw", "<i2")
    assert np.count_nonzero(np.abs(spoken.astype(int) - 4000) < 50) > 0.3 * RATE
    assert 0 < int(done.stdout) < 1000


@pytest.mark.needs("libportaudio.so.2")
def test_a_configuration_by_which_portaudio_aborts_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "asound.conf").write_text("pcm.nothing { type null }\n")
    environ = {**os.environ, "ALSA_CONFIG_PATH": str(tmp_path / "asound.conf")}
    command = [sys.executable, "-m", "procs.audio_io", "--list-devices"]
    done = subprocess.run(command, env=environ, cwd=ROOT, timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1) and "pcm.!default" in done.stderr


CHOSEN: list[tuple[devices.Side, str]] = [("speaker", ""), ("microphone", ""), ("speaker", "Head"), ("speaker", "usb")]
