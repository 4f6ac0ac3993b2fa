"""What the voice backend answers over HTTP and the bus: the published fields, ours, and who is let in. One real leader
with children that only dial and beat (tests/voice_children.py)."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procs import bus, rpc
from procs.errors import Refused
from procs.messages.requests import Describe
from procs.messages.voice import Do, Listen, VoiceState, VoiceTold
from procs.voice import sayings
from procs.voice.services import ASK_S
from scripts import reach
from tests import voice_rig
from tests.rig import until
from tests.voice_rig import Backend, FakeDevice


@pytest.fixture(scope="module")
def device() -> Iterator[FakeDevice]:
    """One device."""
    with voice_rig.devices() as (made,):
        yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, device: FakeDevice) -> Iterator[Backend]:
    """One backend."""
    with voice_rig.services() as environ, voice_rig.backend(tmp_path_factory.mktemp("v"), environ=environ) as its:
        yield its


@pytest.fixture
def backend(running: Backend, device: FakeDevice) -> Backend:
    """The same, with a kitchen that is connected and a door that is disabled."""
    running.write(device.entry("kitchen", token="s3cret"), device.entry("front door", enabled=False))
    running.until_state("kitchen", "connected")
    until(lambda: len(running("GET", "/v1/devices").json["devices"]) == 2)
    return running


def test_the_root_says_what_is_where(backend: Backend) -> None:
    found = backend("GET", "/").json
    assert found["service"] == "auto-connect"
    published = {name: found["endpoints"][name] for name in ("health", "devices", "status", "metrics")}
    assert published == {
        "health": "/v1/health", "devices": "/v1/devices", "status": "/v1/devices/status", "metrics": "/metrics",
    }  # fmt: skip


def test_devices_are_listed_with_the_published_fields_and_no_token(backend: Backend, device: FakeDevice) -> None:
    found = backend("GET", "/v1/devices")
    assert found.json["total_count"] == 2
    assert found.json["devices"][0] == {
        "name": "kitchen", "host": "127.0.0.1", "port": device.port, "voice": "Watercooler", "enabled": True,
        "auto_reconnect": True, "reconnect_delay": 0.1,
    }  # fmt: skip
    one = backend("GET", "/v1/devices/kitchen")
    assert one.json["has_token"] is True
    assert one.json["instructions"] == {"type": "smalltalk"}
    for answer in (found, one, backend("GET", "/v1/devices/status")):
        assert b"s3cret" not in answer.body


def test_the_status_has_the_published_fields(backend: Backend, device: FakeDevice) -> None:
    found = backend("GET", "/v1/devices/status").json
    assert found["summary"] == {"total": 2, "enabled": 1, "connected": 1}
    assert abs(found["timestamp"] - time.time()) < 60, "of a clock that others have, too"
    published = {
        "connected": True, "device_host": "127.0.0.1", "device_port": device.port, "voice": "Watercooler",
        "auto_reconnect": True, "enabled": True,
    }  # fmt: skip
    assert published.items() <= found["devices"]["kitchen"].items()
    assert found["devices"]["front door"]["state"] == "disabled"
    assert found["devices"]["front door"].keys() == found["devices"]["kitchen"].keys(), "whoever reads them has one way"
    assert found["devices"]["front door"]["muted"] is None, "nobody has asked"


def test_health_is_well_while_it_can_serve(backend: Backend) -> None:
    answer = backend("GET", "/v1/health")
    assert answer.status == 200
    assert answer.json == {
        "status": "healthy",
        "service": "auto-connect",
        "devices": {"total": 2, "enabled": 1, "connected": 1},
        "message": "all devices are connected",
        "services": {"stt_up": True, "tts_up": True, "llm_up": True},
        "ok": True,
    }


def test_what_a_conversation_lacks_is_seen_wherever_one_looks(backend: Backend, device: FakeDevice) -> None:
    """Though each service says that it is up: nobody there is served."""
    backend("POST", "/v1/devices/kitchen/say", {"text": "its model: HTTP 500: on fire"})
    why = "the language model failed when last asked: HTTP 500: on fire"
    until(lambda: backend.device("kitchen")["problem"] == why)
    assert backend.device("kitchen")["services"] == {"stt": "", "tts": "", "llm": "HTTP 500: on fire"}
    assert backend("GET", "/v1/devices/status").json["devices"]["kitchen"]["problem"] == why
    health = backend("GET", "/v1/health")
    assert (health.status, health.json["status"]) == (200, "degraded")
    assert health.json["message"] == f"kitchen: {why}"
    with rpc.Requester(backend.folder / "run", bus.VOICE_STATE) as asker:
        state = asker.ask(Describe()).body
    assert isinstance(state, VoiceState)
    assert reach.missing_voice(state) == [f"voice device kitchen: {why}"], "as make status has it"
    backend("POST", "/v1/devices/kitchen/say", {"text": "its model: "})
    until(lambda: backend.device("kitchen")["problem"] == "")
    assert backend("GET", "/v1/health").json["status"] == "healthy"
    before = device.calls
    assert backend("DELETE", "/v1/devices/kitchen/lines").status == 200
    until(lambda: device.calls == before + 1)


def test_devices_stay_while_their_file_is_away(backend: Backend, device: FakeDevice) -> None:
    before = device.calls
    text = backend.file.read_text()
    backend.file.unlink()
    why = "devices.json: is gone; its 2 devices stay as before"
    until(lambda: backend("GET", "/v1/devices/status").json["problems"] == [why])
    health = backend("GET", "/v1/health").json
    assert (health["status"], health["message"]) == ("degraded", why)
    backend.file.write_text(text)
    until(lambda: backend("GET", "/v1/health").json["status"] == "healthy")
    backend.file.write_text('{"dev')
    until(lambda: "line 1, column 2" in backend("GET", "/v1/health").json["message"])
    said = backend.said().splitlines()
    assert "line 1, column 2" in said[-1], "and not that it was read"
    assert (device.now, device.calls) == (1, before), "nobody was hung up on"
    backend.write()
    until(lambda: device.now == 0)
    assert backend("GET", "/v1/health").json["message"] == "idle: no device is enabled"


def test_a_backend_without_its_file_says_so(tmp_path: Path) -> None:
    with voice_rig.backend(tmp_path) as its:
        assert f"idle: not configured: no {its.file}" in its.said()


def test_voices_and_an_example_that_can_be_used(backend: Backend) -> None:
    voices = backend("GET", "/v1/voices").json
    assert {"Watercooler", "Quiz show", "Développeuse"} <= {each["name"] for each in voices}
    assert all(each["good"] and each["source"]["path_on_server"] for each in voices)
    example = backend("GET", "/v1/config/example").json
    assert set(example) == {"example_config", "description", "note"}
    for entry in example["example_config"]["devices"]:
        answer = backend("POST", "/v1/devices", entry | {"name": f"example {entry['name']}", "enabled": False})
        assert answer.status == 201, answer.body


def test_devices_are_added_changed_and_removed(backend: Backend, device: FakeDevice) -> None:
    assert backend("POST", "/v1/devices", device.entry("hall")).status == 201
    backend.until_state("hall", "connected")
    assert backend("POST", "/v1/devices", device.entry("hall")).status == 409
    before = device.calls
    answer = backend("PUT", "/v1/devices/hall", {"instructions": "Be brief.", "voice": "slt"})
    assert (answer.status, answer.json["instructions"]["text"]) == (200, "Be brief.")
    until(lambda: device.calls == before + 1)
    back = backend("PUT", "/v1/devices/hall", {"instructions": None, "voice": None})
    assert (back.status, back.json["instructions"], back.json["voice"]) == (200, {"type": "smalltalk"}, "Watercooler")
    until(lambda: device.calls == before + 2)
    for gone in ({"host": None}, {"colour": None}):
        assert backend("PUT", "/v1/devices/hall", gone).status == 422
    wrong = backend("PUT", "/v1/devices/hall", {"port": 70000, "colour": "red"})
    assert wrong.status == 422
    assert "port=70000: must be 1 to 65535; colour: unknown field" in wrong.json["detail"]
    assert backend("PUT", "/v1/devices/attic", {"port": 1}).status == 404
    assert backend("DELETE", "/v1/devices/hall").status == 200
    assert backend("GET", "/v1/devices/hall").status == 404
    until(lambda: device.now == 1)
    until(lambda: b'device="hall"' not in backend("GET", "/metrics").body)
    assert [each["name"] for each in json.loads(backend.file.read_text())["devices"]] == ["kitchen", "front door"]


def test_a_device_says_what_it_is_told_and_forgets_it(backend: Backend) -> None:
    assert backend("POST", "/v1/devices/kitchen/say", {"text": "dinner is ready"}).status == 200
    until(lambda: backend.lines("kitchen") == ["dinner is ready"])
    told = backend("GET", "/v1/devices/kitchen/lines").json
    assert told["lines"][0]["role"] == "assistant"
    assert backend("GET", f"/v1/devices/kitchen/lines?after={told['next']}").json["lines"] == []
    for body in ({}, {"text": 7}, {"text": "  "}, {"text": "word " * 401}):
        answer = backend("POST", "/v1/devices/kitchen/say", body)
        assert (answer.status, answer.json["detail"][:34]) == (422, "text: must be 1 to 2000 characters")
    assert backend("POST", "/v1/devices/front door/say", {"text": "x"}).json["detail"] == "front door is disabled"
    assert backend("DELETE", "/v1/devices/kitchen/lines").status == 200
    assert backend.lines("kitchen") == []
    backend.until_state("kitchen", "connected")


def test_what_is_to_be_said_outlives_the_child_and_is_said_once(backend: Backend, device: FakeDevice) -> None:
    def anew(method: str, path: str) -> None:
        before = device.calls
        assert backend(method, path).status == 200
        until(lambda: device.calls == before + 1)
        backend.until_state("kitchen", "connected")

    def said(*texts: str) -> None:
        for text in texts:
            assert backend("POST", "/v1/devices/kitchen/say", {"text": text}).status == 200

    forget, reconnect = ("DELETE", "/v1/devices/kitchen/lines"), ("POST", "/v1/devices/kitchen/reconnect")
    anew(*forget)
    backend("POST", "/v1/devices/kitchen/mute")
    anew(*reconnect)
    said("one", "two")
    anew(*reconnect)
    said("three")
    backend("POST", "/v1/devices/kitchen/unmute")
    until(lambda: backend.lines("kitchen") == ["one", "two", "three"])
    anew(*reconnect)
    said("four")
    until(lambda: backend.lines("kitchen") == ["one", "two", "three", "four"])
    backend("POST", "/v1/devices/kitchen/mute")
    said(*map(str, range(sayings.MOST)))
    full = backend("POST", "/v1/devices/kitchen/say", {"text": "one more"})
    assert (full.status, full.json["detail"]) == (409, "8 announcements wait already at kitchen")
    anew(*forget)
    backend("POST", "/v1/devices/kitchen/unmute")
    said("all else is forgotten")
    until(lambda: backend.lines("kitchen") == ["all else is forgotten"])
    anew(*forget)


def test_what_was_said_at_a_device_that_is_removed_stays_until_it_is_deleted(
    backend: Backend, device: FakeDevice
) -> None:
    assert backend("POST", "/v1/devices", device.entry("hall")).status == 201
    backend.until_state("hall", "connected")
    backend("POST", "/v1/devices/hall/say", {"text": "remember this"})
    until(lambda: backend.lines("hall") == ["remember this"])
    assert backend("DELETE", "/v1/devices/hall").status == 200
    until(lambda: backend.metric("planaria_voice_leases") == 1)
    assert backend.lines("hall") == ["remember this"]
    assert backend("DELETE", "/v1/devices/hall/lines").status == 200
    for method in ("GET", "DELETE"):
        assert backend(method, "/v1/devices/hall/lines").status == 404, "nobody of that name has said anything"
    assert backend("POST", "/v1/devices", device.entry("hall")).status == 201
    assert backend.lines("hall") == []


def test_a_mute_outlives_the_child(backend: Backend) -> None:
    assert backend("POST", "/v1/devices/kitchen/mute").status == 200
    until(lambda: backend.device("kitchen").get("muted"))
    before, connections = (backend.device("kitchen")[name] for name in ("since", "connections"))
    assert backend("POST", "/v1/devices/kitchen/reconnect").json == {
        "message": "Reconnection initiated for device kitchen", "device": "kitchen",
    }  # fmt: skip
    until(lambda: (its := backend.device("kitchen"))["state"] == "connected" and its["since"] > before)
    assert backend.device("kitchen")["muted"]
    assert backend.device("kitchen")["connections"] == connections + 1, "of all children"
    backend("POST", "/v1/devices/kitchen/unmute")
    until(lambda: not backend.device("kitchen")["muted"])


def test_devices_are_enabled_and_disabled(backend: Backend, device: FakeDevice) -> None:
    assert backend("POST", "/v1/devices/front door/enable").status == 200
    backend.until_state("front door", "connected")
    assert backend("POST", "/v1/devices/front door/disable").status == 200
    until(lambda: device.now == 1)
    assert backend.device("front door")["state"] == "disabled"
    for name in ("front door", "nobody"):
        assert backend("POST", f"/v1/devices/{name}/reconnect").status == 404, "as published"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("POST", "/v1/devices", b"{", 400),
        ("POST", "/v1/devices", [], 400),
        ("POST", "/v1/devices", b'{"name": "\\ud800", "host": "a"}', 422),
        ("POST", "/v1/devices", {"name": "a", "host": "a", "port": 99999}, 422),
        ("POST", "/v1/devices", {"name": "kitchen", "host": "a"}, 409),
        ("POST", "/v1/devices/kitchen/say", b'{"text": "\\ud800"}', 422),
        ("POST", "/v1/devices", b"x" * 100_000, 413),
        ("POST", "/v1/voices", None, 405),
        ("GET", "/v1/devices/kitchen/lines?after=x", None, 400),
        ("GET", "/v1/realtime", None, 400),
    ],
)
def test_what_is_asked_wrongly_is_answered_in_json(
    backend: Backend, method: str, path: str, body: object, status: int
) -> None:
    answer = backend(method, path, body)
    assert answer.status == status
    assert answer.json["detail"]


def test_pages_from_elsewhere_are_not_let_in(backend: Backend) -> None:
    assert backend("GET", "/v1/voices", Origin="https://evil.example").status == 403
    assert backend("POST", "/v1/devices/kitchen/mute", Host="evil.example").status == 403, "a name that leads here"
    assert backend("POST", "/v1/devices/kitchen/mute", Host="127.evil.example").status == 403, "another one"
    assert backend("GET", "/v1/voices", Origin="http://127.0.0.1.evil.example").status == 403
    near = backend("GET", "/v1/voices", Origin="http://localhost:3000")
    assert (near.status, near.headers["Access-Control-Allow-Origin"]) == (200, "http://localhost:3000")
    assert backend("OPTIONS", "/v1/devices/kitchen", Origin="http://localhost:3000").status == 204


def test_metrics_are_those_of_what_happened(backend: Backend) -> None:
    assert backend.metric("worker_active_sessions") == 1
    assert backend.metric('planaria_voice_connected{device="kitchen"}') == 1
    until(lambda: backend.metric("worker_stt_sessions_total") >= 1)
    assert backend.metric('planaria_voice_llm_seconds_count{device="kitchen"}') >= 1
    assert backend.metric("worker_health_ok_count") >= 1


def test_a_key_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    key = "a-key-of-sixteen-or-more"
    with (
        voice_rig.services() as environ,
        voice_rig.backend(tmp_path, environ={"PLANARIA_VOICE_KEY": key, **environ}) as its,
    ):
        until(lambda: its("GET", "/v1/health").status == 200)  # as published: a health check has no key
        refused = its("GET", "/v1/devices")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert its("GET", "/v1/devices", Authorization="Bearer wrong").status == 401
        assert its("GET", f"/v1/devices?auth_id={key}").status == 401, "not where PLANARIA_COMPAT is off"
        assert its("GET", "/v1/devices", Authorization=f"Bearer {key}").status == 200


# The bus


def test_the_bus_tells_of_more_devices_than_go_into_one_message(backend: Backend) -> None:
    text = "You are a lamp. " * 200
    many = [{"name": f"lamp {n:03}", "host": "127.0.0.1", "enabled": False, "instructions": text} for n in range(100)]
    backend.write(*many)
    until(lambda: len(backend("GET", "/v1/devices").json["devices"]) == 100)
    found: list[str] = []
    with rpc.Requester(backend.folder / "run", bus.VOICE_STATE) as asker:
        more, rounds = True, 0
        while more:
            body = asker.ask(Describe(found[-1] if found else "")).body
            assert isinstance(body, VoiceState)
            found += [its.name for its in body.devices]
            more, rounds = body.more, rounds + 1
    assert found == [its["name"] for its in many]
    assert rounds > 1


def test_a_service_that_hangs_holds_up_nobody_who_asks_over_the_bus(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        port = hanging.getsockname()[1]
        environ = {"KYUTAI_STT_URL": f"ws://127.0.0.1:{port}", "KYUTAI_TTS_URL": "ws://127.0.0.1:1"}
        with voice_rig.backend(tmp_path, environ=environ | {"KYUTAI_LLM_URL": "http://127.0.0.1:1"}) as its:
            with rpc.Requester(its.folder / "run", bus.VOICE_STATE) as asker:
                state = asker.ask(Describe(), within_s=ASK_S / 2).body
            assert isinstance(state, VoiceState) and state.services["stt"] == "it has not answered yet"
            assert its("GET", "/v1/health").json["message"].startswith(f"STT is down (ws://127.0.0.1:{port}: no answer")


def test_the_bus_does_and_tells_what_rest_does(backend: Backend) -> None:
    with rpc.Requester(backend.folder / "run", bus.VOICE_STATE) as asker:
        state = asker.ask(Describe()).body
        assert isinstance(state, VoiceState)
        assert (state.configured, state.problems, state.services["stt"]) == (True, [], "")
        assert {its.name: its.state for its in state.devices} == {"kitchen": "connected", "front door": "disabled"}
        asker.ask(Do("kitchen", "say", "over the bus"), idempotent=False)
        until(lambda: "over the bus" in backend.lines("kitchen"))
        told = asker.ask(Listen("kitchen")).body
        assert isinstance(told, VoiceTold)
        assert told.lines[-1].text == "over the bus"
        with pytest.raises(Refused, match="front door is disabled"):
            asker.ask(Do("front door", "mute"))
        with pytest.raises(Refused, match="no device is called 'attic'"):
            asker.ask(Do("attic", "mute"))
        asker.ask(Do("kitchen", "forget"))
        until(lambda: "over the bus" not in backend.lines("kitchen"))


def test_who_starts_it_by_hand_is_told_what_is_down(backend: Backend, tmp_path: Path) -> None:
    nobody = {"KYUTAI_TTS_URL": "ws://127.0.0.1:1", "KYUTAI_LLM_URL": "http://127.0.0.1:1"}
    with voice_rig.services() as environ, voice_rig.backend(tmp_path, environ=environ | nobody) as its:
        until(lambda: "llm is down, so nobody can be served" in its.said())
        assert "tts is down" in its.said() and "KYUTAI_TTS_URL" in its.said() and "stt is down" not in its.said()
    assert "is down" not in backend.said()
