"""Whatever a device or a viewer sends, the hub refuses or takes it, and the link lives."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests import fleet, golden, hub_rig
from tests.examples import some_of
from tests.hub_rig import Process, Talker

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=40)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
SAID = [
    s.frame for name in ("device", "viewer") for s in golden.transcript(name) if not s.is_close and s.sender != "hub"
]
SAID.append({"type": "suite", "payload": {"at": "", "processes": [fleet.process("hub")], **fleet.CARRIES}})
TYPES = sorted({frame["type"] for frame in SAID} | {"data_ticket", "watch_ended", "hello_ack", "challenge_resp"})
TYPES += ["suite", "suite_event", "suite_restarted", "subscribe", "watch_resume"]

PATHS = [
    *("/api/auth/login", "/api/auth/register", "/api/devices/register", "/api/devices/pair", "/api/devices/%s"),
    *("/api/devices/%s/status", "/api/devices/%s/open", "/api/devices/%s/proxy/%s", "/api/devices?token=%s"),
    *("/api/pairing/generate?device_id=%s", "/%s"),
    *("/api/devices/%s/whep", "/api/devices/pi-cam-001/whep?stream=%s", "/api/devices/pi-cam-001/whep/%s"),
]


@st.composite
def frames(draw: st.DrawFn) -> str | bytes:
    """Frames that are nearly right, or not at all."""
    way = draw(st.integers(0, 4))
    if way == 0:
        return draw(st.binary(max_size=200))
    if way == 1:
        return draw(st.text(st.characters(codec="utf-8"), max_size=200))
    if way == 2:
        return json.dumps({"type": draw(st.sampled_from(TYPES)), "payload": draw(JSON), "request_id": draw(JSON)})
    frame: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(SAID))))
    if frame["payload"]:
        field = draw(st.sampled_from(sorted(frame["payload"])))
        frame["payload"][field] = draw(JSON)
    text = json.dumps(frame)
    return text if way == 3 else text[: draw(st.integers(0, len(text)))]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One hub for all."""
    with hub_rig.process(tmp_path_factory.mktemp("hub"), PLANARIA_COMPAT="1") as running:
        hub_rig.paired(running, running.admin, "pi-cam-001")
        yield running


@pytest.fixture(scope="module")
def talkers(hub: Process) -> Iterator[list[Talker]]:
    """A device and a viewer that stay connected throughout."""
    with (
        hub_rig.device(hub, "pi-cam-001", instance="i", caps=["suite"]) as device,
        hub_rig.talking(hub, "/ws/viewer") as viewer,
    ):
        viewer.say("hello", {"token": hub.admin.token, "caps": ["resume"]})
        viewer.say("subscribe", {"suite": ["pi-cam-001"]})
        yield [device, viewer]


@settings(max_examples=some_of(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(frames(), min_size=1, max_size=5), who=st.integers(0, 1))
def test_any_frames(hub: Process, talkers: list[Talker], said: list[str | bytes], who: int) -> None:
    talker = talkers[who]
    for frame in said:
        talker.ws.send(frame)
    assert talker.is_alive()
    assert hub.process.poll() is None


@settings(max_examples=some_of(60), deadline=None)
@given(said=frames(), path=st.sampled_from(["/ws/device", "/ws/viewer", "/ws/signal"]))
def test_any_first_frame(hub: Process, said: str | bytes, path: str) -> None:
    with connect(hub.ws(path), compression=None, close_timeout=1, proxy=None) as ws:
        ws.send(said)
        with contextlib.suppress(ConnectionClosed):  # by what was said
            ws.send(json.dumps({"type": "nothing", "payload": {}}))
        code, reason = Talker(ws).closing()
    assert code == 1008 and reason


@settings(max_examples=some_of(100), deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]),
    path=st.sampled_from(PATHS),
    part=st.text(st.characters(codec="latin-1", exclude_characters=" \r\n#"), max_size=20),
    body=st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_request(hub: Process, method: str, path: str, part: str, body: bytes) -> None:
    target = "".join(c if c.isascii() and c.isprintable() else f"%{ord(c):02X}" for c in path.replace("%s", part))
    answer = hub.http(method, target, body)
    assert answer.status < 500, (answer.status, answer.body)


def test_nothing_unforeseen_was_logged(hub: Process) -> None:
    assert '"trace"' not in hub.said()
