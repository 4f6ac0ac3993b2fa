"""A conversation's process with a device of ours that says what the test wants, and without any speech service."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from procs.media.opus import Encoder
from procs.messages.voice import MuteWanted, SayWanted, Services
from procs.voice.child.hearing import NO_SOUND, SILENT_S
from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio
from tests import voice_child
from tests.realtime_backend import tone
from tests.rig import free_port, until
from tests.voice_child import Leader

NOWHERE = "ws://127.0.0.1:1"
NO_SERVICES = Services(stt=[NOWHERE], tts=[NOWHERE], llm="http://127.0.0.1:1")


class Lent:
    """The device. `told`: the events that it was told."""

    def __init__(self) -> None:
        self.port = free_port()
        self.told: list[dict[str, Any]] = []
        self.socket: ServerConnection | None = None

    def call(self, its: ServerConnection) -> None:
        """One connection."""
        its.send(wire.encode(wire.Hello(name="d", echo="none")))
        self.socket = its
        with suppress(ConnectionClosed):
            for frame in its:
                if isinstance(frame, str):
                    self.told.append(json.loads(frame))
        self.socket = None

    @property
    def mutes(self) -> list[bool]:
        """What it was told of its microphone."""
        return [each["muted"] for each in self.told if each["type"] == "planaria.mute"]


@pytest.fixture
def device() -> Iterator[Lent]:
    its = Lent()
    ours = [Subprotocol(wire.OURS)]
    with serve(its.call, "127.0.0.1", its.port, subprotocols=ours, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield its
        server.shutdown()
        if its.socket:
            its.socket.close()
    thread.join()


@pytest.fixture(scope="module")
def leader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leader]:
    with voice_child.leading(tmp_path_factory.mktemp("l")) as its:
        yield its


@contextmanager
def hanging() -> Iterator[str]:
    """A language model that accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as its:
        yield f"http://127.0.0.1:{its.getsockname()[1]}"


def test_a_muted_device_that_is_called_again_is_told_once_and_its_first_beat_says_so(
    leader: Leader, device: Lent, tmp_path: Path
) -> None:
    with hanging() as model:
        services = Services(stt=[NOWHERE], tts=[NOWHERE], llm=model)
        leader.start("muted", services, name="muted", host="127.0.0.1", port=device.port, muted=True)
        until(lambda: leader.beats["muted"].get("state") == "connected")
        assert leader.beats["muted"]["muted"] and "stt" not in leader.beats["muted"]["services"], "it is not ready yet"
        leader.tell("muted", MuteWanted(True))
        until(lambda: device.mutes)
        leader.tell("muted", MuteWanted(False))
        until(lambda: not leader.beats["muted"]["muted"])
    until(lambda: len(device.mutes) > 1)
    assert device.mutes == [True, False]
    assert "not ready" not in leader.log.read_text() and leader.beats["muted"]["refused"] == 0
    leader.kill("muted")


def test_what_is_to_be_said_is_told_of_once_it_is_done_with(leader: Leader, device: Lent) -> None:
    with hanging() as model:
        services = Services(stt=[NOWHERE], tts=[NOWHERE], llm=model)
        leader.start("says", services, name="says", host="127.0.0.1", port=device.port)
        until(lambda: leader.beats["says"].get("turn") == "bot_speaking")  # or is about to: the model says nothing
        leader.tell("says", SayWanted("Dinner is ready."))
        until(lambda: "llm" in leader.beats["says"]["services"])
        assert leader.beats["says"]["said"] == 0
    until(lambda: leader.beats["says"]["said"] == 1)  # as far as it can be, without a voice
    assert "Dinner is ready" in leader.said("says", "assistant")
    leader.kill("says")


def test_a_device_that_sends_no_sound_is_told_of_until_it_does_and_not_while_it_is_muted(
    leader: Leader, device: Lent
) -> None:
    leader.start("deaf", NO_SERVICES, name="deaf", host="127.0.0.1", port=device.port, muted=True)
    until(lambda: leader.beats["deaf"].get("state") == "connected")
    time.sleep(SILENT_S + 1.5)  # more than a beat
    assert leader.beats["deaf"]["problem"] == "", "it may do so while it is muted"
    leader.tell("deaf", MuteWanted(False))
    until(lambda: leader.beats["deaf"]["problem"] == NO_SOUND)
    assert leader.beats["deaf"]["state"] == "connected"
    packets = Encoder(frame_ms=20).encode(tone(0.5))

    def is_well() -> bool:
        assert device.socket
        for number, packet in enumerate(packets):
            device.socket.send(pack_audio(AudioFrame(packet, number, number * 480)))
        return not leader.beats["deaf"]["problem"]

    until(is_well, every_s=0.5)
    assert leader.log.read_text().count(NO_SOUND) == 1
    leader.kill("deaf")


def test_a_device_without_a_sound_card_is_told_of(leader: Leader, device: Lent) -> None:
    """Though it is connected: nobody there is heard, and nobody hears anything."""

    def told(microphone: str, speaker: str) -> None:
        assert device.socket
        device.socket.send(wire.encode(wire.State(muted=False, awake=True, microphone=microphone, speaker=speaker)))

    leader.start("bare", NO_SERVICES, name="bare", host="127.0.0.1", port=device.port)
    until(lambda: leader.beats["bare"].get("state") == "connected")
    told("missing: no card", "missing: no card; plug one in")
    why = "its microphone: missing: no card; its speaker: missing: no card; plug one in"
    until(lambda: leader.beats["bare"]["problem"] == why)
    told("opening", "ok")
    until(lambda: leader.beats["bare"]["problem"] == "")
    leader.kill("bare")
