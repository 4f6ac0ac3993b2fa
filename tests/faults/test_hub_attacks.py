"""What hostile devices, and people who are losing their rights just now, try at a real hub."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from websockets.sync.client import connect

from tests import hub_rig
from tests.faults.test_hub_accounts import NAME, PASSWORD, Page, made
from tests.faults.test_hub_devices import hello, known, proof
from tests.hub_rig import Http, Process, Talker, device, paired, talking, viewer


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One hub that takes the published ways."""
    with hub_rig.process(tmp_path_factory.mktemp("hub"), PLANARIA_COMPAT="1") as running:
        yield running


@pytest.fixture(scope="module")
def admin(hub: Process) -> Http:
    """Its first account."""
    return hub.admin


def row(name: str, pid: int = 7, **more: object) -> dict[str, object]:
    """A process, as a device tells of it."""
    zeros = dict.fromkeys(("age_s", "restarts_hour", "restarts", "memory", "failures", "wait_s"), 0)
    return {"name": name, "pid": pid, "state": "SERVING", "last_end": "", "last_end_at": ""} | zeros | more


def test_a_suite_that_grows_on_its_way_reaches_the_page(hub: Process, admin: Http) -> None:
    paired(hub, admin, "grows")
    rows = [row(f"p{n}", recovery={"bounds_s": [15] * 64}) for n in range(440)]
    frame = json.dumps({"type": "suite", "payload": {"at": "", "processes": rows}}, separators=(",", ":"))
    with device(hub, "grows", caps=["suite"]) as camera, viewer(hub, admin.token) as page:
        page.say("subscribe", {"suite": ["grows"]})
        camera.hear("suite_watch")
        camera.ws.send(frame.replace("15", "1e15"))
        assert len(page.hear("suite")["payload"]["processes"]) == 440
        assert page.is_alive() and camera.is_alive()


def test_more_devices_than_go_into_one_frame_are_all_told(hub: Process, admin: Http) -> None:
    ids = {"many-0", "many-1", "many-2"}
    names: dict[str, object] = {f"{n:03}" + "\x01" * 160: {} for n in range(950)}  # six bytes each in JSON
    with contextlib.ExitStack() as online:
        for device_id in ids:
            paired(hub, admin, device_id)
            camera = online.enter_context(device(hub, device_id))
            camera.say("capabilities", {"device_id": device_id, "streams": names})
            assert camera.is_alive()
        with viewer(hub, admin.token) as page:
            page.say("subscribe", {"devices": True})
            told = {each["device_id"] for each in page.hear("devices")["payload"]["devices"]}
            while not told >= ids:
                told.add(page.hear("device_changed")["payload"]["device"]["device_id"])
            assert page.is_alive()


# ---- rights that end while something is under way


def test_who_has_logged_out_says_no_hello_on_a_connection_of_before(hub: Process, admin: Http) -> None:
    made(admin, "leaver")
    page, origin = Page(hub, "leaver"), f"http://127.0.0.1:{hub.port}"
    sent = {"Cookie": f"{NAME}={page.cookie}", "Origin": origin}
    with connect(hub.ws("/ws/viewer"), additional_headers=sent, proxy=None) as ws:
        assert page("DELETE", "/api/session", Origin=origin).status == 200
        talker = Talker(ws)
        talker.say("hello")
        assert talker.closing() == (1008, "Invalid token")


@contextlib.contextmanager
def held(who: Http, method: str, path: str, body: object) -> Iterator[Callable[[], int]]:
    """A request of which the first byte of the body has come; a call sends the rest, and returns the status."""
    data = json.dumps(body).encode()
    lines = (f"{method} {path} HTTP/1.1", "Host: hub", f"Authorization: Bearer {who.token}")

    def rest() -> int:
        link.sendall(data[1:])
        return int(link.recv(1000).split()[1])

    with socket.create_connection(("127.0.0.1", who.port), timeout=10) as link:
        link.sendall("\r\n".join((*lines, f"Content-Length: {len(data)}", "", "")).encode() + data[:1])
        time.sleep(0.5)  # for the hub to have it
        yield rest


def test_a_device_deleted_during_its_proof_is_not_let_in_as_the_next_one(hub: Process, admin: Http) -> None:
    """SQLite gives the key of the newest row, once it is gone, to the next: pairing codes and events would be its."""
    known(hub, "lure")
    code = hub.http("POST", "/api/pairing/generate?device_id=lure").json["code"]
    assert admin("POST", "/api/devices/pair", {"pairing_code": code}).status == 200
    with talking(hub, "/ws/device") as camera:
        said = hello("lure")
        camera.say("hello", said)
        nonce = camera.hear("challenge")["payload"]["nonce"]
        assert admin("DELETE", "/api/devices/lure").status == 200
        known(hub, "the next one")
        camera.say("challenge_resp", {"proof": proof(said, nonce)})
        assert camera.closing() == (1008, "Device not found")


def test_who_is_no_admin_any_more_makes_no_other_one_by_a_body_held_back(hub: Process, admin: Http) -> None:
    key = made(admin, "deposed", is_admin=True)
    heir = {"username": "heir", "password": PASSWORD, "is_admin": True}
    with held(hub.http.as_user("deposed", PASSWORD), "POST", "/api/users", heir) as rest:
        assert admin("PATCH", f"/api/users/{key}", {"is_admin": False}).status == 200
        assert rest() == 401


def test_whose_share_is_taken_away_gives_it_to_nobody_by_a_body_held_back(hub: Process, admin: Http) -> None:
    paired(hub, admin, "held")
    for name in ("partner", "friend"):
        made(admin, name)
    shares = "/api/devices/held/shares"
    assert admin("PUT", f"{shares}/partner", {"role": "owner"}).status == 200
    with held(hub.http.as_user("partner", PASSWORD), "PUT", f"{shares}/friend", {"role": "owner"}) as rest:
        assert admin("DELETE", f"{shares}/partner").status == 200
        assert rest() == 404
    assert admin("GET", shares).json == []
