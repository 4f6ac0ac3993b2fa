"""A device's suite through the hub: with a real warden under a real supervisord, and with devices that misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from procs import proc
from tests import hub_rig
from tests.faults.test_device_and_hub import Hub, claim
from tests.faults.test_warden import Supervised, supervised, toy
from tests.hub_rig import Talker, device, paired, talking, viewer
from tests.json_hub import JsonHub
from tests.linked import Linked, linked, state_of
from tests.rig import free_port, until

ID = "pi-cam-001"
SUITE = f"/api/devices/{ID}/suite"


# ---- all of it is real


@pytest.fixture
def real_hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "hub")
    made.sign_in()
    yield made
    made.end()


@contextlib.contextmanager
def suite_of(run_dir: Path, hub: Hub, **environ: str) -> Iterator[Supervised]:
    """supervisord, a warden, a program and a ws_link that is paired with the hub."""
    settings = {"BACKEND_URL": hub.backend, "DEVICE_ID": ID, "GO2RTC_HTTP": f"http://127.0.0.1:{free_port()}"}
    settings |= {"PLANARIA_SUITE": "test"} | environ
    link = f"""
[program:ws_link]
command="{sys.executable}" -m procs.ws_link
environment={",".join(f'{name}="{value}"' for name, value in settings.items())}
startsecs=3
"""
    with supervised(run_dir, toy("keeper") + link) as running:
        until(lambda: (state := state_of(run_dir)) and state.mux, 15)
        claim(hub, run_dir)
        yield running


def seen(hub: Hub, name: str) -> dict[str, Any]:
    """A process, as the hub tells of it; {} while it does not."""
    status, body = hub.ask("GET", SUITE)
    return next((each for each in json.loads(body)["processes"] if each["name"] == name), {}) if status == 200 else {}


def serving(hub: Hub, name: str, other_than: int = 0) -> dict[str, Any]:
    """The same, once it is another process and serves."""
    return until(
        lambda: row if (row := seen(hub, name)).get("state") == "SERVING" and row["pid"] != other_than else {}, 20
    )


def restart(hub: Hub, name: str, pid: int) -> tuple[int, str]:
    status, body = hub.ask("POST", f"{SUITE}/restart", {"process": name, "pid": pid})
    return status, json.loads(body).get("detail", "")


def test_a_restart_over_the_wire_kills_that_process_and_it_serves_again(run_dir: Path, real_hub: Hub) -> None:
    with suite_of(run_dir, real_hub):
        for name in ("keeper", "warden", "ws_link"):
            old = serving(real_hub, name)
            assert restart(real_hub, name, old["pid"]) == (200, "")
            new = serving(real_hub, name, other_than=old["pid"])
            assert not proc.is_alive(old["pid"])
            assert (new["last_end"], new["restarts"]) == ("restarted from the page", 1)
            assert sum(new["recovery"]["counts"]) == 1 and new["recovery"]["worst_ms"] > 0
            assert restart(real_hub, name, old["pid"]) == (200, ""), "asked again, it has been done"
        assert restart(real_hub, "keeper", os.getpid())[0] == 409
        assert "has pid" in restart(real_hub, "keeper", old["pid"])[1]
        assert "does not run" in restart(real_hub, "nobody", 1)[1]
        path = f"/api/devices/{ID}/events"

        def restarts() -> list[str]:
            return [e["text"] for e in real_hub.json("GET", path)["events"] if e["kind"] == "restarted"]

        texts = until(lambda: restarts() if len(restarts()) >= 3 else None)
        assert {text.partition(":")[0] for text in texts} == {"keeper", "warden", "ws_link"} and len(texts) == 3
        assert all("restarted from the page, back after" in text for text in texts)


def test_a_device_may_refuse_restarts(run_dir: Path, real_hub: Hub) -> None:
    with suite_of(run_dir, real_hub, PLANARIA_REMOTE_RESTART="off"):
        old = serving(real_hub, "keeper")
        status, why = restart(real_hub, "keeper", old["pid"])
        assert status == 409 and "PLANARIA_REMOTE_RESTART is off" in why
        assert seen(real_hub, "keeper")["pid"] == old["pid"]


def test_ws_link_killed_in_the_middle_of_a_restart(run_dir: Path, real_hub: Hub) -> None:
    with suite_of(run_dir, real_hub) as running:
        old, warden = serving(real_hub, "keeper"), running.pid("warden")
        os.kill(warden, signal.SIGSTOP)  # so that the restart is under way, and stays so until it is replaced
        answers: list[tuple[int, str]] = []
        asking = threading.Thread(target=lambda: answers.append(restart(real_hub, "keeper", old["pid"])))
        asking.start()
        time.sleep(0.3)
        os.kill(running.pid("ws_link"), signal.SIGKILL)
        asking.join(30)
        assert answers == [(200, "")]
        assert serving(real_hub, "keeper", other_than=old["pid"])["last_end"] == "restarted from the page"


def test_hub_and_warden_of_one_machine(tmp_path: Path, run_dir: Path) -> None:
    with supervised(run_dir, toy("keeper")) as running, hub_rig.process(run_dir) as hub:
        keeper, admin = running.serving("keeper"), hub.admin
        rows = until(lambda: admin("GET", "/api/suite").json["processes"])
        assert {row["name"] for row in rows} == {"keeper", "warden", "supervisord"}
        with viewer(hub, admin.token) as page:
            page.say("subscribe", {"suite": [""]})
            assert page.hear("suite")["payload"]["device_id"] == ""
            assert admin("POST", "/api/suite/restart", {"process": "keeper", "pid": keeper}).json == {"ok": True}
            until(lambda: row_of(page.hear("suite"), "keeper")["restarts"] == 1)
        again = admin("POST", "/api/suite/restart", {"process": "keeper", "pid": os.getpid()})
        assert again.status == 409 and "has pid" in again.detail
        bob = admin.new_user("bob")
        assert [bob("GET", "/api/suite").status, hub.http("GET", "/api/suite").status] == [403, 401]
        assert bob("POST", "/api/suite/restart", {"process": "keeper", "pid": keeper}).status == 403
        with viewer(hub, bob.token) as page:
            page.say("subscribe", {"suite": [""]})
            assert page.hear("device_gone")["payload"] == {"device_id": ""}


def row_of(frame: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in frame["payload"]["processes"] if row["name"] == name)


def test_a_hub_alone_has_no_suite(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run") as hub:
        answer = hub.admin("GET", "/api/suite")
        assert answer.status == 503 and answer.headers["Retry-After"], "none yet"


# ---- devices of the test's own


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub_rig.Process]:
    with hub_rig.process(tmp_path_factory.mktemp("hub"), PLANARIA_COMPAT="1") as running:
        paired(running, running.admin, ID)
        yield running


def process(pid: int = 7, **more: Any) -> dict[str, Any]:
    row = {"name": "proxy:proxy_0", "pid": pid, "state": "SERVING", "age_s": 5.0, "restarts_hour": 0, "restarts": 0}
    row |= {"last_end": "", "last_end_at": "", "memory": 50_000_000, "failures": 0, "wait_s": 0.0}
    return row | {"recovery": {"bounds_s": [1.0], "counts": [0, 0]}} | more


def told(pid: int = 7, **more: Any) -> dict[str, Any]:
    said = {"at": "2026-01-01T12:00:00", "processes": [process(pid, **more)], "troubles": []}
    return said | {"tunnel": [], "watching": []}


def later(work: Any) -> tuple[threading.Thread, list[Any]]:
    """Do something beside; its result will stand in the list."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def silent(peer: Talker, within_s: float) -> bool:
    """Whether nothing comes for so long."""
    with contextlib.suppress(TimeoutError):
        peer.ws.recv(within_s)
        return False
    return True


def test_published_devices_never_see_a_frame_of_it(hub: hub_rig.Process) -> None:
    admin = hub.admin
    with viewer(hub, admin.token) as page, device(hub, ID, caps=["mux1"]) as camera:
        page.say("subscribe", {"devices": True, "suite": [ID], "events": [ID]})
        page.hear("devices")
        assert admin("GET", SUITE).status == 409
        assert admin("POST", f"{SUITE}/restart", {"process": "hub", "pid": 7}).status == 409
        assert silent(camera, 2)
        for kind, payload in (("suite", told()), ("suite_restarted", {"ok": True}), ("suite_event", {"process": "x"})):
            camera.say(kind, payload)
            assert "not agreed on" in camera.hear("error")["payload"]["message"]
        assert camera.is_alive()


def test_a_suite_is_asked_for_once_and_told(hub: hub_rig.Process) -> None:
    admin = hub.admin
    assert admin("GET", SUITE).status == 503, "offline"
    with device(hub, ID, caps=["suite"]) as camera:
        asking = [later(lambda: admin("GET", SUITE)) for _ in range(3)]
        assert camera.hear()["payload"] == {"for_s": 0}
        time.sleep(0.5)
        camera.say("suite", told())
        for thread, answers in asking:
            thread.join(10)
            assert answers[0].json == told()
        assert silent(camera, 0.5), "three who ask at a time are one question"
        camera.say("suite", {"at": "", "processes": [{"name": "x"}]})
        assert "suite: " in camera.hear("error")["payload"]["message"]


def test_a_restart_is_asked_again_over_the_next_connection(hub: hub_rig.Process) -> None:
    admin, asked = hub.admin, {"process": "ws_link", "pid": 7}
    with device(hub, ID, caps=["suite"]) as camera:
        thread, answers = later(lambda: admin("POST", f"{SUITE}/restart", asked))
        first = camera.hear("suite_restart")
    with device(hub, ID, caps=["suite"]) as camera:
        second = camera.hear("suite_restart")
        assert (first["payload"], first["request_id"]) == (second["payload"], second["request_id"])
        camera.say("suite_restarted", {"ok": True}, request_id="of nobody")
        camera.say("suite_restarted", {"ok": True}, request_id=second["request_id"])
        thread.join(10)
        assert answers[0].json == {"ok": True}
        thread, answers = later(lambda: admin("POST", f"{SUITE}/restart", asked))
        question = camera.hear("suite_restart")["request_id"]
        camera.say("suite_restarted", {"ok": False, "reason": "ws_link has pid 8 by now"}, request_id=question)
        thread.join(10)
        assert (answers[0].status, answers[0].detail) == (409, "ws_link has pid 8 by now")
        assert camera.is_alive()
    for wrong in (
        {"process": "", "pid": 7},
        {"process": "x", "pid": 0},
        {"process": "x"},
        {"process": "x", "pid": "7"},
    ):
        assert admin("POST", f"{SUITE}/restart", wrong).status == 400


def test_who_may_only_look_restarts_nothing(hub: hub_rig.Process) -> None:
    admin = hub.admin
    bob, eve = admin.new_user("bob"), admin.new_user("eve")
    assert admin("PUT", f"/api/devices/{ID}/shares/bob", {"role": "viewer"}).status == 200
    with device(hub, ID, caps=["suite"]) as camera:
        thread, answers = later(lambda: bob("GET", SUITE))
        camera.hear("suite_watch")
        camera.say("suite", told())
        thread.join(10)
        assert answers[0].status == 200
        for who, status in ((bob, 403), (eve, 404), (hub.http, 401)):
            assert who("POST", f"{SUITE}/restart", {"process": "hub", "pid": 7}).status == status
        assert eve("GET", SUITE).status == 404 and silent(camera, 0.5)
        with viewer(hub, bob.token) as page:
            page.say("subscribe", {"devices": True, "suite": [ID], "events": [ID]})
            assert [row["role"] for row in page.hear("devices")["payload"]["devices"]] == ["viewer"]
            camera.hear("suite_watch")
            camera.say("suite", told())
            assert page.hear("suite")["payload"] == {"device_id": ID} | told()
            assert admin("DELETE", f"/api/devices/{ID}/shares/bob").status == 200
            assert page.hear("device_gone")["payload"] == {"device_id": ID}
            camera.say("suite", told(pid=9))
            camera.say("suite_event", {"process": "x", "pid": 1, "reason": "y"})
            assert silent(page, 3), "no more of it"


def test_live_says_what_changes_and_nothing_else(hub: hub_rig.Process) -> None:
    admin = hub.admin
    with viewer(hub, admin.token) as page:
        page.say("subscribe", {"devices": True, "suite": [ID], "events": [ID]})
        (row,) = page.hear("devices")["payload"]["devices"]
        assert (row["device_id"], row["is_online"]) == (ID, False)
        with device(hub, ID, caps=["suite"], agent_version="9") as camera:
            row = page.hear("device_changed")["payload"]["device"]
            assert (row["state"], row["agent_version"], row["has_suite"]) == ("online", "9", True)
            assert page.hear("event")["payload"]["event"]["kind"] in ("connected", "disconnected")
            camera.hear("suite_watch")
            camera.say("suite", told())
            assert page.hear("suite")["payload"]["processes"] == told()["processes"]
            for number in range(20):
                camera.say("capabilities", {"device_id": ID, "streams": {f"s{number}": {}}})
                camera.say("suite", told(restarts=number))
            changed = [page.hear("device_changed")["payload"]["device"]["streams"][0]["name"]]
            while changed[-1] != "s19":
                changed.append(page.hear("device_changed")["payload"]["device"]["streams"][0]["name"])
            assert len(changed) <= 2, "what comes together goes together"
            assert row_of(page.hear("suite"), "proxy:proxy_0")["restarts"] == 19
            camera.say("suite_event", {"process": "hub", "pid": 8, "reason": "SIGKILL", "took_ms": 300.0})
            event = until(lambda: (e := page.hear("event")["payload"])["event"]["kind"] == "restarted" and e)
            assert event["event"]["text"] == "hub: SIGKILL, back after 300 ms" and event["device_id"] == ID
            listed = admin("GET", f"/api/devices/{ID}/events").json["events"]
            assert event["event"] in listed
            camera.say("suite", told(restarts=19, age_s=99.0))
            assert camera.is_alive() and silent(page, 4), "nothing has changed"
            page.say("subscribe", {"devices": True})
            page.hear("devices")
            camera.say("suite", told(pid=10))
            assert silent(page, 2)
        assert page.hear("device_changed")["payload"]["device"]["state"] == "offline"


@pytest.mark.long
def test_a_lease_is_renewed_only_while_somebody_looks(hub: hub_rig.Process) -> None:
    admin = hub.admin
    with device(hub, ID, caps=["suite"]) as camera:
        with viewer(hub, admin.token) as page:
            page.say("subscribe", {"suite": [ID]})
            assert camera.hear("suite_watch")["payload"] == {"for_s": 20.0}
            assert camera.hear("suite_watch", 12)["payload"] == {"for_s": 20.0}
        assert silent(camera, 12), "nobody looks"


@pytest.mark.parametrize(
    "wrong",
    [{"suite": [ID] * 17}, {"events": "x"}, {"devices": 1}, {"suite": [7]}, {"events": ["a/b"]}],
)
def test_a_subscription_that_is_none_is_refused(hub: hub_rig.Process, wrong: dict[str, Any]) -> None:
    with viewer(hub, hub.admin.token) as page:
        page.say("subscribe", wrong)
        assert "subscribe: " in page.hear("error")["payload"]["message"] and page.is_alive()


def test_the_page_says_hello_by_its_cookie(hub: hub_rig.Process) -> None:
    login = {"username": "admin", "password": hub_rig.ADMIN_PASSWORD}
    cookie = hub.http("POST", "/api/session", login).headers["Set-Cookie"].partition(";")[0]
    origin = f"http://127.0.0.1:{hub.port}"

    def hello(cookie: str, origin: str) -> str:
        headers = {"Cookie": cookie, "Origin": origin}
        with connect(hub.ws("/ws/viewer"), additional_headers=headers, proxy=None, compression=None) as ws:
            ws.send(json.dumps({"type": "hello", "payload": {}}))
            try:
                return str(json.loads(ws.recv(10))["type"])
            except ConnectionClosed as end:
                return end.rcvd.reason if end.rcvd else ""

    assert hello(cookie, origin) == "hello_ack"
    assert hello("planaria_session=x", origin) == "Expected hello message"
    with pytest.raises(Exception, match="HTTP 403"):
        hello(cookie, "http://evil.example")
    with talking(hub, "/ws/viewer") as stranger:
        stranger.say("hello")
        assert stranger.closing() == (1008, "Expected hello message")


# ---- ws_link with a hub of the test's own


@contextlib.contextmanager
def published(run_dir: Path, *caps: str) -> Iterator[tuple[Supervised, JsonHub, Linked]]:
    """A suite, its ws_link, and a hub with these capabilities."""
    with (
        supervised(run_dir, toy("keeper")) as running,
        JsonHub(caps=caps) as hub,
        linked(run_dir, hub.backend, "--device-id", ID, PLANARIA_SUITE="test") as link,
    ):
        yield running, hub, link


def test_ws_link_says_nothing_of_a_suite_to_a_published_hub(run_dir: Path) -> None:
    with published(run_dir) as (running, hub, link):
        link.until(lambda state: state.state == "connected")
        os.kill(running.serving("keeper"), signal.SIGKILL)
        hub.send("suite_watch", {"for_s": 20})
        hub.send("suite_restart", {"process": "keeper", "pid": running.serving("keeper")}, "r")
        link.until(lambda state: sum(state.refused.values()) >= 2)
        time.sleep(2)
        assert not [kind for kind in hub.frames if kind.startswith("suite")]


def test_the_lease_runs_out(run_dir: Path) -> None:
    with published(run_dir, "suite") as (running, hub, link):
        link.until(lambda state: state.state == "connected")
        first = running.serving("keeper")
        time.sleep(2)
        assert "suite" not in hub.frames, "nobody looks"
        hub.send("suite_watch", {"for_s": 5})
        assert row_of(hub.got("suite"), "keeper")["pid"] == first
        os.kill(first, signal.SIGKILL)
        second = running.serving("keeper", other_than=first)
        until(lambda: row_of(hub.frames["suite"][-1], "keeper")["pid"] == second)
        event = hub.got("suite_event")["payload"]
        assert (event["process"], event["pid"], event["reason"]) == ("keeper", second, "SIGKILL")
        time.sleep(5)
        count = len(hub.frames["suite"])
        os.kill(second, signal.SIGKILL)
        running.serving("keeper", other_than=second)
        hub.got("suite_event", 2)
        assert len(hub.frames["suite"]) == count, "the lease is over"
        hub.send("suite_watch", {"for_s": 0})
        hub.got("suite", count + 1)


def test_ends_are_told_though_ws_link_and_the_hub_were_away(run_dir: Path) -> None:
    with published(run_dir, "suite") as (running, hub, link):
        link.until(lambda state: state.state == "connected")
        pids = [running.serving("keeper")]
        for number in range(3):
            if number == 1:
                link.kill()
            os.kill(pids[-1], signal.SIGKILL)
            pids.append(running.serving("keeper", other_than=pids[-1]))
            if number == 0:
                hub.got("suite_event")
                until(lambda: (run_dir / "ws_link.told").exists())
                time.sleep(0.2)
        link.start()
        hub.got("suite_event", 3)
        time.sleep(2)
        assert [frame["payload"]["pid"] for frame in hub.frames["suite_event"]] == pids[1:], "each once"


@pytest.mark.long
def test_without_a_warden_the_hub_is_told_so(run_dir: Path) -> None:
    with JsonHub(caps=("suite",)) as hub, linked(run_dir, hub.backend, PLANARIA_SUITE="test") as link:
        link.until(lambda state: state.state == "connected")
        hub.send("suite_watch", {"for_s": 0})
        payload = hub.got("suite")["payload"]
        assert payload["processes"] == [] and "does not answer" in payload["troubles"][0]
        hub.send("suite_restart", {"process": "hub", "pid": 7}, "r1")
        answer = hub.got("suite_restarted")
        assert answer["request_id"] == "r1" and answer["payload"]["ok"] is False
