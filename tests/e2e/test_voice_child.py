"""A conversation's process with the real speech services: with a device of ours, with one that knows only what is
published and is as bad as devices are, and with a browser."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from procs import proc
from procs.audio_io.files import speech
from procs.messages.voice import Incoming, MuteWanted, SayWanted, Services
from procs.wire import realtime as wire
from tests import audio_rig, realtime_device, speech_rig, voice_child
from tests.realtime_backend import RATE, Sound, pieces
from tests.rig import free_port, until
from tests.speech_rig import Service
from tests.voice_child import Leader

LIMIT_S = 45.0
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen " * 2
Running = dict[str, Service]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("speech")
    with contextlib.ExitStack() as stack:
        yield {each: stack.enter_context(speech_rig.service(each, folder)) for each in ("stt", "tts", "llm")}


@pytest.fixture(scope="module")
def leader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leader]:
    with voice_child.leading(tmp_path_factory.mktemp("l")) as its:
        yield its


def where(running: Running, **other: Any) -> Services:
    fields = {
        "stt": [running["stt"].url],
        "tts": [running["tts"].url],
        "llm": f"http://127.0.0.1:{running['llm'].port}",
    }
    return Services(**{**fields, **other})


def heard(leader: Leader, child: str, *words: str) -> bool:
    """Whether the user's side of the conversation has these."""
    return all(word in leader.said(child, "user") for word in words)


def is_sound(pcm: Sound) -> bool:
    return len(pcm) > RATE // 2 and int(np.abs(pcm).max()) > 1000


@pytest.mark.long  # the whole backend does it in tests/e2e/test_voice.py and tests/faults
def test_a_conversation_with_a_device_of_ours(running: Running, leader: Leader, tmp_path: Path) -> None:
    with audio_rig.device(tmp_path / "d", "--input", "say:What is the weather like in London?") as device:
        leader.start("ours", where(running), name="ours", host="127.0.0.1", port=device.port)
        until(lambda: heard(leader, "ours", "weather", "london"), LIMIT_S)
        until(lambda: [its["role"] for _, its in sorted(leader.lines["ours"].items())][:3]
              == ["assistant", "user", "assistant"], LIMIT_S)  # fmt: skip
        until(lambda: leader.lines["ours"][3]["final"], LIMIT_S)
        assert leader.lines["ours"][3]["text"] and is_sound(device.played())
        beat = leader.beats["ours"]
        assert (beat["protocol"], beat["state"], beat["refused"]) == ("planaria.realtime.v1", "connected", 0)
        assert beat["services"] == {"stt": "", "tts": "", "llm": ""} and beat["microphone"] == "ok"
        for part in ("pause", "flush", "llm", "tts", "ours"):
            assert all(value > 0 for value in leader.figure("ours", f"planaria_voice_{part}_seconds")), part
        assert leader.figure("ours", "planaria_voice_ours_seconds")
        assert leader.figure("ours", "worker_stt_active_sessions") == [1.0]
        leader.kill("ours")
        until(lambda: "ours" in leader.ended)


@pytest.mark.long  # the whole backend does it in tests/e2e/test_voice.py and tests/faults
def test_a_published_device_hears_a_reply_as_published(running: Running, leader: Leader) -> None:
    question = speech("What is the weather like in London?")
    with realtime_device.device(free_port(), question, mute_s=8.0, token="secret") as device:
        leader.start("pub", where(running), name="pub", host="127.0.0.1", port=device.port, token="secret")
        until(lambda: heard(leader, "pub", "weather", "london"), LIMIT_S)
        (call,) = device.calls
        until(lambda: call.kinds().count("response.audio.done") == 2, LIMIT_S)
    assert call.subprotocol == "realtime" and call.token == "Bearer secret"
    kinds = [event["type"] for event in call.events]
    assert kinds[0] == "session.update" and "planaria" not in " ".join(kinds)
    started = kinds.index("input_audio_buffer.speech_started")
    stopped = kinds.index("input_audio_buffer.speech_stopped")
    first, second = [index for index, kind in enumerate(kinds) if kind == "response.created"]
    assert first < started < stopped < second
    said = [event["delta"] for event in call.events if event["type"] == "response.text.delta"]
    done = [event["text"] for event in call.events if event["type"] == "response.text.done"]
    assert " ".join(said).split() == " ".join(done).split()
    assert is_sound(call.heard())


@pytest.mark.long  # the whole backend does it in tests/e2e/test_voice.py and tests/faults
def test_who_speaks_over_the_bot_is_listened_to(running: Running, leader: Leader) -> None:
    with realtime_device.device(free_port(), speech("Stop please, tell me about cats."), mute_s=9.0) as device:
        leader.start("barge", where(running), name="barge", host="127.0.0.1", port=device.port)
        until(lambda: leader.beats["barge"].get("turn") == "bot_speaking", LIMIT_S)
        leader.tell("barge", SayWanted(LONG))
        (call,) = device.calls
        until(lambda: "unmute.interrupted_by_vad" in call.kinds(), LIMIT_S)
        until(lambda: heard(leader, "barge", "cats"), LIMIT_S)
        said = [its["text"] for its in leader.lines["barge"].values() if its["text"].startswith("one two")]
        assert said and len(said[0].split()) < len(LONG.split())


@pytest.mark.long  # the whole backend does it in tests/e2e/test_voice.py and tests/faults
def test_a_device_that_talks_rubbish_is_understood_all_the_same(running: Running, leader: Leader) -> None:
    with realtime_device.device(free_port(), speech("Tell me about cats."), mute_s=6.0, rubbish=True) as device:
        leader.start("bad", where(running), name="bad", host="127.0.0.1", port=device.port)
        until(lambda: heard(leader, "bad", "cats"), LIMIT_S)
        assert leader.beats["bad"]["refused"] > 50 and leader.beats["bad"]["connections"] == 1
        assert len(device.calls) == 1


@pytest.mark.long  # the whole backend does it in tests/e2e/test_voice.py and tests/faults
def test_a_device_that_reboots_is_called_again_and_goes_on_where_it_was(running: Running, leader: Leader) -> None:
    with realtime_device.device(free_port(), speech("Tell me about cats."), mute_s=6.0) as device:
        leader.start("boots", where(running), name="boots", host="127.0.0.1", port=device.port, reconnect_delay=0.3)
        until(lambda: heard(leader, "boots", "cats"), LIMIT_S)
        until(lambda: leader.beats["boots"]["turn"] == "waiting_for_user", LIMIT_S)
        lines = dict(leader.lines["boots"])
        device.crash()
        until(lambda: leader.beats["boots"]["state"] != "connected", LIMIT_S)
        device.boot()
        until(lambda: leader.beats["boots"]["state"] == "connected", LIMIT_S)
        until(lambda: leader.said("boots", "user").count("cats") == 2, LIMIT_S)
        assert [leader.lines["boots"][number]["text"] for number in lines] == [its["text"] for its in lines.values()]
        assert leader.beats["boots"]["connections"] == 2 and leader.figure("boots", "planaria_voice_reconnect_seconds")


def test_a_recogniser_that_dies_is_replaced_by_another(running: Running, leader: Leader, tmp_path: Path) -> None:
    with speech_rig.service("stt", tmp_path) as dies, realtime_device.device(
        free_port(), speech("Tell me about cats."), mute_s=4.0
    ) as device:  # fmt: skip
        both = where(running, stt=[dies.url, running["stt"].url])
        leader.start("two", both, name="two", host="127.0.0.1", port=device.port)
        until(lambda: leader.beats["two"].get("state") == "connected", LIMIT_S)
        for pid in (*proc.children(dies.process.pid), dies.process.pid):
            os.kill(pid, signal.SIGKILL)
        until(lambda: heard(leader, "two", "cats"), LIMIT_S)


def test_who_is_muted_is_not_heard(running: Running, leader: Leader) -> None:
    with realtime_device.device(free_port(), speech("Tell me about cats."), mute_s=2.0) as device:
        leader.start("mute", where(running), name="mute", host="127.0.0.1", port=device.port, muted=True)
        until(lambda: leader.beats["mute"].get("muted"), LIMIT_S)
        time.sleep(7.0)
        assert "cats" not in leader.said("mute", "user")
        assert not leader.figure("mute", "worker_stt_sessions")  # who is silent holds no slot of a recogniser
        leader.tell("mute", MuteWanted(False))
        until(lambda: not leader.beats["mute"]["muted"], LIMIT_S)


def test_without_any_service_the_device_stays_connected_and_is_told(leader: Leader) -> None:
    nowhere = f"ws://127.0.0.1:{free_port()}"
    with realtime_device.device(free_port(), None) as device:
        services = Services(stt=[nowhere], tts=[nowhere], llm=nowhere.replace("ws:", "http:"))
        leader.start("none", services, name="none", host="127.0.0.1", port=device.port)
        until(lambda: leader.beats["none"].get("state") == "connected", LIMIT_S)
        until(lambda: leader.beats["none"]["services"]["llm"], LIMIT_S)
        until(lambda: any(event["type"] == "error" for event in device.calls[0].events), LIMIT_S)
        assert leader.states["none"].count("connected") == 1


@pytest.mark.long  # the whole backend does it in tests/e2e/test_voice.py and tests/faults
def test_a_device_that_accepts_and_hangs_is_given_up_and_called_again_once_it_is_well(leader: Leader) -> None:
    nowhere = Services(stt=["ws://127.0.0.1:1"], tts=["ws://127.0.0.1:1"], llm="http://127.0.0.1:1")
    port = free_port()
    with realtime_device.hanging(port) as accepted:
        leader.start("hangs", nowhere, name="hangs", host="127.0.0.1", port=port, reconnect_delay=1.0)
        until(lambda: leader.beats["hangs"].get("problem", "").startswith("does not answer"), LIMIT_S)
        assert len(accepted) == 1 and leader.beats["hangs"]["connections"] == 0
    with realtime_device.device(port, None):
        until(lambda: leader.beats["hangs"]["state"] == "connected", LIMIT_S)


def test_one_that_is_not_to_be_dialled_again_ends(leader: Leader) -> None:
    nowhere = "ws://127.0.0.1:1"
    services = Services(stt=[nowhere], tts=[nowhere], llm="http://127.0.0.1:1")
    leader.start("once", services, name="once", host="127.0.0.1", port=free_port(), auto_reconnect=False)
    until(lambda: leader.ended.get("once") == 0, LIMIT_S)
    assert leader.beats["once"]["state"] == "over" and "nothing listens" in leader.beats["once"]["problem"]


@pytest.mark.long  # the whole backend does it in tests/e2e/test_voice.py and tests/faults
def test_a_browser_talks_through_the_leader(running: Running, leader: Leader) -> None:
    def say(**event: Any) -> None:
        leader.tell("web", Incoming(), json.dumps(event).encode())

    leader.start("web", where(running), instructions="")
    until(lambda: leader.beats["web"], LIMIT_S)
    session = {"instructions": {"type": "smalltalk"}, "voice": "Watercooler", "allow_recording": False}
    say(type="session.update", session=session)
    say(type="session.update", session={**session, "voice": "nobody"})

    def kinds() -> list[str]:
        return [json.loads(body)["type"] for _, body in list(leader.frames["web"])]

    until(lambda: "response.created" in kinds(), LIMIT_S)
    until(lambda: "error" in kinds(), LIMIT_S)
    assert kinds()[0] == "session.updated" and kinds().count("session.updated") == 1
    for page in pieces(
        np.concatenate((np.zeros(6 * RATE, np.int16), speech("Tell me about cats."), np.zeros(RATE * 2, np.int16)))
    ):
        say(type="input_audio_buffer.append", audio=base64.b64encode(page).decode())
        time.sleep(0.04)
    until(lambda: heard(leader, "web", "cats"), LIMIT_S)
    until(lambda: kinds().count("response.created") >= 2, LIMIT_S)
    assert not any(kind.startswith("planaria") for kind in kinds())


def test_a_device_that_changes_all_the_time_does_not_busy_the_leader(tmp_path: Path) -> None:
    """It serves all others, too."""

    def restless(socket: ServerConnection) -> None:
        socket.send(wire.encode(wire.Hello(name="d", echo="none")))
        for number in range(3000):
            state = wire.State(muted=bool(number % 2), awake=True, microphone=f"{number}", speaker="ok")
            socket.send(wire.encode(state))
        for _ in socket:
            pass

    nobody = "127.0.0.1:1"
    services = Services(stt=[f"ws://{nobody}"], tts=[f"ws://{nobody}"], llm=f"http://{nobody}")
    with serve(restless, "127.0.0.1", free_port(), subprotocols=[Subprotocol(wire.OURS)]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        with voice_child.leading(tmp_path) as its:
            its.start("restless", services, name="d", host="127.0.0.1", port=port)
            until(lambda: its.beats["restless"].get("microphone") == "2999", LIMIT_S)
            assert its.beaten < 1500
        server.shutdown()
