"""Devices against a hub that demands proof: who is let in, who replaces whom, what a connection may send."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from procs.wire import challenge
from tests import hub_rig
from tests.hub_rig import Http, Process, Talker
from tests.rig import until

SECRET = "0123456789abcdef"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub as it is by default."""
    with hub_rig.process(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One that waits for nobody as long."""
    with hub_rig.process(tmp_path_factory.mktemp("impatient"), command=hub_rig.IMPATIENT_HUB) as running:
        yield running


@pytest.fixture(scope="module")
def admin(hub: Process) -> Http:
    """Its first user."""
    return hub.admin


def known(hub: Process, device_id: str, secret: str = SECRET) -> str:
    """Register a device with what checks its secret."""
    verifier = challenge.verifier(secret, device_id).to_text()
    answer = hub.http("POST", "/api/devices/register", {"device_id": device_id, "verifier": verifier})
    assert answer.status == 200
    return device_id


def hello(device_id: str, instance: str = "", **more: object) -> dict[str, object]:
    """The payload of a hello with proof to come."""
    nonce = secrets.token_hex(16)
    return {"device_id": device_id, "caps": ["mux1", "challenge"], "instance": instance, "nonce": nonce, **more}


def proof(said: dict[str, Any], nonce: str, secret: str = SECRET) -> str:
    """What a device answers to a challenge."""
    transcript = challenge.transcript(said["device_id"], said["instance"], said["nonce"], nonce)
    return challenge.proof(challenge.keys(secret, said["device_id"]), transcript)


@contextlib.contextmanager
def device(hub: Process, device_id: str, instance: str = "") -> Iterator[Talker]:
    """A device of ours, proven and let in."""
    said = hello(device_id, instance)
    with hub_rig.talking(hub, "/ws/device") as talker:
        talker.say("hello", said)
        nonce = talker.hear("challenge")["payload"]["nonce"]
        talker.say("challenge_resp", {"proof": proof(said, nonce)})
        answer = talker.hear("hello_ack")["payload"]
        transcript = challenge.transcript(device_id, instance, str(said["nonce"]), nonce)
        assert challenge.check_signature(challenge.keys(SECRET, device_id), transcript, answer["signature"])
        assert answer["caps"] == ["mux1"] and answer["data_path"] == "/ws/data" and answer["mux"]["max_streams"]
        yield talker


def test_who_has_the_secret_is_let_in(hub: Process) -> None:
    with device(hub, known(hub, "proven")) as talker:
        assert talker.is_alive()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"caps": []}, "Challenge required"),
        ({"caps": ["mux1"], "device_secret": SECRET}, "Challenge required"),
        ({"nonce": ""}, "Malformed hello"),
        ({"nonce": "short"}, "Malformed hello"),
    ],
)
def test_who_shows_no_proof_is_turned_away(hub: Process, said: dict[str, object], reason: str) -> None:
    known(hub, "unproven")
    with hub_rig.talking(hub, "/ws/device") as talker:
        talker.say("hello", hello("unproven") | said)
        assert talker.closing() == (1008, reason)


def test_a_device_without_a_verifier_is_turned_away(hub: Process) -> None:
    hub.http("POST", "/api/devices/register", {"device_id": "bare"})
    with hub_rig.talking(hub, "/ws/device") as talker:
        talker.say("hello", hello("bare"))
        assert talker.closing() == (1008, "No credential")
    with device(hub, known(hub, "bare")):  # nobody owned it, so it may bring one
        pass


def test_wrong_proofs_are_refused_logged_and_counted(hub: Process) -> None:
    known(hub, "attacked")
    with device(hub, "attacked") as victim:
        for attempt in range(10):
            said = hello("attacked")
            with hub_rig.talking(hub, "/ws/device") as talker:
                talker.say("hello", said)
                nonce = talker.hear("challenge")["payload"]["nonce"]
                wrong = "nonsense" if attempt == 0 else proof(said, nonce, "guess")
                talker.say("challenge_resp", {"proof": wrong})
                assert talker.closing() == (1008, "Wrong credential")
        with hub_rig.talking(hub, "/ws/device") as talker:
            talker.say("hello", hello("attacked"))
            assert talker.closing() == (1013, "Too many wrong credentials")
        assert victim.is_alive(), "an attacker has replaced the device"
    assert hub.refused("Wrong credential") == 10 and hub.refused("Too many wrong credentials") == 1
    assert "refused: Wrong credential" in hub.said()
    with device(hub, known(hub, "neighbour")):  # at the same address
        pass


def test_what_was_said_once_lets_nobody_in_again(hub: Process) -> None:
    known(hub, "replayed")
    said = hello("replayed", "i1")
    with hub_rig.talking(hub, "/ws/device") as first:
        first.say("hello", said)
        answer = proof(said, first.hear("challenge")["payload"]["nonce"])
        first.say("challenge_resp", {"proof": answer})
        first.hear("hello_ack")
        with hub_rig.talking(hub, "/ws/device") as again:
            again.say("hello", said)
            again.hear("challenge")
            again.say("challenge_resp", {"proof": answer})
            assert again.closing() == (1008, "Wrong credential")
        # What one device's hub asks is of no use to another device, or to another instance.
        with hub_rig.talking(hub, "/ws/device") as other:
            other.say("hello", said | {"instance": "i2"})
            nonce = other.hear("challenge")["payload"]["nonce"]
            other.say("challenge_resp", {"proof": proof(said, nonce)})
            assert other.closing() == (1008, "Wrong credential")
        assert first.is_alive()


def test_nobody_changes_the_verifier_of_a_known_device(hub: Process, admin: Http) -> None:
    known(hub, "mine")
    known(hub, "mine", "the attacker's")
    with device(hub, "mine"):
        pass
    assert admin("GET", "/api/devices/mine/status").status == 404, "nobody's yet"


def test_the_second_connection_replaces_the_first(hub: Process) -> None:
    known(hub, "twice")
    with device(hub, "twice", "i1") as first, device(hub, "twice", "i2") as second:
        assert first.closing() == (1012, "Replaced by new connection")
        assert second.is_alive()
        with device(hub, "twice", "i2") as third:
            assert second.closing() == (1012, "Replaced by new connection")
            assert third.is_alive()


def test_a_code_for_whoever_stands_beside_the_device(hub: Process, admin: Http) -> None:
    assert hub.http("POST", f"/api/pairing/generate?device_id={known(hub, 'beside')}").status == 403
    with device(hub, "beside") as talker:
        talker.say("pairing_request", request_id="q1")
        answer = talker.hear("pairing_code")
        assert answer["request_id"] == "q1" and answer["payload"]["ttl"] == 300
        paired = admin("POST", "/api/devices/pair", {"pairing_code": answer["payload"]["code"]})
        assert paired.status == 200 and paired.json["device"]["device_id"] == "beside"
        assert admin("GET", "/api/devices/beside/status").json["is_online"] is True
        assert admin("DELETE", "/api/devices/beside").status == 200
        assert talker.closing() == (1008, "Device not found")
    with hub_rig.talking(hub, "/ws/device") as talker:
        talker.say("hello", hello("beside"))
        assert talker.closing() == (1008, "Device not found")


def test_guessing_codes_ends_soon(hub: Process) -> None:
    admin = hub.admin
    ann, bob = admin.new_user("ann"), admin.new_user("bob")
    with device(hub, known(hub, "guessed")) as talker:
        talker.say("pairing_request", request_id="q1")
        code = talker.hear("pairing_code")["payload"]["code"]
    wrong = [f"{(int(code) + n) % 1_000_000:06d}" for n in range(1, 11)]
    assert {ann("POST", "/api/devices/pair", {"pairing_code": guess}).status for guess in wrong} == {404}
    for late in (code, *wrong):
        answer = ann("POST", "/api/devices/pair", {"pairing_code": late})
        assert answer.status == 429 and int(answer.headers["Retry-After"]) > 0
    assert bob("POST", "/api/devices/pair", {"pairing_code": code}).status == 429, "the address counts, too"
    assert hub.refused("wrong pairing code") == 10 and hub.refused("too many attempts to pair") == 12
    assert "refused: wrong pairing code" in hub.said()


def test_registration_is_for_admins(hub: Process, admin: Http) -> None:
    wanted = {"username": "anybody", "email": "", "password": "some password"}
    closed = hub.http("POST", "/api/auth/register", wanted)
    assert closed.status == 403 and "PLANARIA_OPEN_REGISTRATION" in closed.detail
    user = admin.new_user("user")
    assert user("POST", "/api/auth/register", wanted).status == 403
    assert hub.http("GET", f"/api/devices?token={admin.token}").status == 401, (
        "tokens in addresses are for compatibility"
    )


def test_tickets_are_asked_for_on_the_connection(hub: Process) -> None:
    with device(hub, known(hub, "worker"), "i1") as talker:
        tickets = set()
        for number in range(3):
            talker.say("data_ticket", request_id=f"t{number}")
            answer = talker.hear("data_ticket")
            assert answer["request_id"] == f"t{number}" and answer["payload"]["path"] == "/ws/data"
            assert answer["payload"]["expires_in_s"] == 30
            tickets.add(answer["payload"]["ticket"])
        assert len(tickets) == 3


def refused(talker: Talker) -> str:
    """The reason of the next refusal; the link lives."""
    reason = str(talker.hear("error")["payload"]["message"])
    assert talker.is_alive()
    return reason


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        "[]",
        "null",
        "{}",
        '{"type": 5, "payload": {}}',
        '{"type": "unknown", "payload": {}}',
        '{"type": "hello", "payload": {"device_id": "frames"}}',
        '{"type": "heartbeat", "payload": []}',
        '{"type": "capabilities", "payload": {}}',
        '{"type": "capabilities", "payload": {"device_id": "other", "streams": {}}}',
        '{"type": "proxy_http_resp", "payload": {"rid": "x", "status": 99}}',
        '{"type": "proxy_http_resp", "payload": {"rid": "x", "status": 200, "headers": {}, "body_b64": ""}}',
        '{"type": "signal_answer", "payload": {"session_id": "x", "sdp": {"type": "answer", "sdp": ""}}}',
        '{"type": "signal_ice", "payload": {"session_id": "x", "candidate": 5}}',
        '{"type": "watch_ended", "payload": {"session_id": "x", "reason": "error"}}',
        '{"type": "challenge_resp", "payload": {"proof": "' + "0" * 64 + '"}}',
        '{"type": "heartbeat", "payload": ' + '{"a":' * 100 + "1" + "}" * 101,
        json.dumps({"type": "capabilities", "payload": {"device_id": "frames", "streams": {"a": "x" * 1_100_000}}}),
        json.dumps({"type": "heartbeat", "payload": {"a": "x" * 2_200_000}}),
    ],
    ids=lambda frame: frame[:60],
)
def test_a_wrong_frame_is_refused_and_the_link_lives(hub: Process, frame: str) -> None:
    with device(hub, known(hub, "frames")) as talker:
        before = hub.refused("frame of a device")
        talker.ws.send(frame)
        assert refused(talker)
        assert hub.refused("frame of a device") == before + 1


def test_other_frames_of_a_websocket(hub: Process) -> None:
    with device(hub, known(hub, "frames")) as talker:
        talker.ws.send(b"\xa1\x01\x00\x00\x00\x00\x00\x01")
        assert talker.ws.ping().wait(10)
        assert talker.is_alive() and hub.refused("binary frame on a text connection") == 1
        talker.say("device_presence", {"device_id": "frames"})
        assert talker.is_alive()


def test_a_message_beyond_all_limits_ends_the_connection(hub: Process) -> None:
    with device(hub, known(hub, "too-much")) as talker:
        with contextlib.suppress(ConnectionClosed):
            talker.ws.send("x" * 5_000_000)
        assert talker.closing()[0] in (1009, 1006)  # the hub does not read the rest, which may reset the connection
    assert hub.http("GET", "/health").status == 200


def test_who_floods_is_read_more_slowly_and_disturbs_nobody(hub: Process) -> None:
    with device(hub, known(hub, "flood")) as flood, device(hub, known(hub, "calm")) as calm:
        frame = json.dumps({"type": "heartbeat", "payload": {}})
        for _ in range(1500):
            flood.ws.send(frame)
        waits = []
        for _ in range(10):
            start = time.monotonic()
            assert calm.is_alive()
            waits.append(time.monotonic() - start)
        assert max(waits) < 1.0, waits
        for _ in range(1500):
            flood.hear("heartbeat_ack")
        assert hub.metric("throttled_frames_total") > 100


def test_who_never_says_hello_is_not_waited_for(impatient: Process) -> None:
    with hub_rig.talking(impatient, "/ws/device") as silent, hub_rig.talking(impatient, "/ws/viewer") as other:
        start = time.monotonic()
        assert silent.closing(15) == (1008, "Expected hello message")
        assert other.closing(15) == (1008, "Expected hello message")
        assert time.monotonic() - start > 0.8 * hub_rig.IMPATIENT_S


def test_headers_that_never_come_whole_are_not_waited_for(impatient: Process) -> None:
    """Though a byte comes ten times a second."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=0.1) as slow, contextlib.suppress(OSError):
        slow.sendall(b"GET / HTTP/1.1\r\n")
        while time.monotonic() - start < 20:
            slow.sendall(b"X")
            with contextlib.suppress(TimeoutError):
                if not slow.recv(100):
                    break
    assert 0.8 * hub_rig.IMPATIENT_S < time.monotonic() - start < 20


def test_nothing_of_a_secret_is_in_the_log(hub: Process, admin: Http) -> None:
    until(lambda: "refused" in hub.said())
    assert SECRET not in hub.said() and admin.token not in hub.said() and hub_rig.ADMIN_PASSWORD not in hub.said()
