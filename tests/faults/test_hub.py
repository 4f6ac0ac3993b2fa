"""The hub killed, starved of its store and badly started: what was said to be done is done, and it comes back."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import select
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procs.hub.store.models import SCHEMA
from procs.wire import challenge
from tests import hub_rig
from tests.hub_rig import ADMIN_PASSWORD, Process
from tests.rig import clean_environ, free_port, until


def store_of(hub: Process) -> contextlib.closing[sqlite3.Connection]:
    """Its store, looked at by somebody else."""
    return contextlib.closing(sqlite3.connect(hub.run_dir / "hub.sqlite", isolation_level=None))


class Writer(threading.Thread):
    """Registers one device after another, through kills; `done` are those that the hub has said are known."""

    def __init__(self, hub: Process, name: str) -> None:
        super().__init__()
        self._hub, self._prefix = hub, name
        self.done: list[str] = []
        self.broken = 0
        self.stop = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            device_id = f"{self._prefix}-{number}"
            try:
                if self._hub.http("POST", "/api/devices/register", {"device_id": device_id}).status == 200:
                    self.done.append(device_id)
            except (OSError, http.client.HTTPException):
                self.broken += 1
                time.sleep(0.05)


def test_what_it_has_said_is_done_outlives_a_kill(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run") as hub:
        writers = [Writer(hub, name) for name in "ab"]
        for writer in writers:
            writer.start()
        for _ in range(4):
            before = sum(len(writer.done) for writer in writers)
            until(lambda before=before: sum(len(w.done) for w in writers) > before + 5)  # type: ignore[misc]
            time.sleep(random.uniform(0, 0.1))
            hub.restart()
        for writer in writers:
            writer.stop.set()
            writer.join()
        with store_of(hub) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            kept = {row[0] for row in store.execute("SELECT device_id FROM devices")}
        said = {device_id for writer in writers for device_id in writer.done}
        assert said <= kept, said - kept
        assert sum(writer.broken for writer in writers) > 0, "no kill met a write"


def test_killed_at_any_moment_of_its_first_start_it_has_one_admin_in_the_end(tmp_path: Path) -> None:
    environ = {"PLANARIA_ADMIN_PASSWORD": ""}
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    port = free_port()
    settings = {"PLANARIA_HUB": f"127.0.0.1:{port}", "PLANARIA_RUN_DIR": str(run_dir), "PLANARIA_SUITE": "test"}
    hub = Process(run_dir, port, clean_environ(**settings, **environ), run_dir / "hub.log")
    for after_s in (0.3, 0.6, 0.8, 1.0, 1.2, 1.4):
        hub.start()
        time.sleep(after_s)
        hub.kill()
    hub.start()
    try:
        hub.wait()
        file = run_dir / "admin-password"
        assert file.stat().st_mode & 0o777 == 0o600
        hub.http.as_user("admin", file.read_text().strip())
        assert file.read_text().strip() not in hub.said()
        with store_of(hub) as store:
            assert store.execute("SELECT count(*) FROM users").fetchone() == (1,)
    finally:
        hub.kill()


def test_its_socket_is_held_for_it_so_that_nobody_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as held:
        port = held.getsockname()[1]
        with hub_rig.process(tmp_path / "run", stdin=held.fileno(), PLANARIA_HUB=f"127.0.0.1:{port}") as hub:
            hub.kill()
            answers: list[int] = []
            askers = [
                threading.Thread(target=lambda: answers.append(hub.http("GET", "/health").status)) for _ in range(10)
            ]
            for asker in askers:
                asker.start()
            time.sleep(0.5)
            assert not answers
            hub.start()
            for asker in askers:
                asker.join()
            assert answers == [200] * 10


def test_devices_and_people_come_back_to_it(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run", PLANARIA_COMPAT="1") as hub:
        admin = hub.admin
        hub_rig.paired(hub, admin, "cam")
        with hub_rig.device(hub, "cam", device_secret="s"):
            until(lambda: _last_seen(hub))
            hub.restart()
        assert admin("GET", "/api/devices/cam/status").json["is_online"] is False
        with hub_rig.device(hub, "cam", device_secret="s"), hub_rig.viewer(hub, admin.token) as viewer:
            assert admin("GET", "/api/devices/cam/status").json["is_online"] is True
            viewer.say("watch_request", {"device_id": "cam"})
            assert viewer.hear("watch_ready")


def _last_seen(hub: Process) -> float | None:
    with store_of(hub) as store:
        (seen,) = store.execute("SELECT last_seen FROM devices").fetchone()
        return seen if seen is None else float(seen)


def test_a_store_that_somebody_holds_is_said_to_be_away_and_nothing_else_stops(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run", PLANARIA_COMPAT="1") as hub:
        admin = hub.admin
        hub_rig.paired(hub, admin, "cam")
        with hub_rig.device(hub, "cam") as device, store_of(hub) as other:
            other.execute("BEGIN EXCLUSIVE")
            start = time.monotonic()
            away: list[hub_rig.Answer] = []
            asker = threading.Thread(
                target=lambda: away.append(hub.http("POST", "/api/devices/register", {"device_id": "new"}))
            )
            asker.start()
            while asker.is_alive():
                asked = time.monotonic()
                assert device.is_alive() and admin("GET", "/api/devices").status == 200
                assert time.monotonic() - asked < 1.0
                time.sleep(0.2)
            assert away[0].status == 503 and away[0].headers["Retry-After"] and away[0].detail
            assert time.monotonic() - start < 12
            other.execute("ROLLBACK")
            assert hub.http("POST", "/api/devices/register", {"device_id": "new"}).status == 200


def test_a_change_is_whole_though_whoever_asked_has_left(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run", PLANARIA_COMPAT="1") as hub:
        admin = hub.admin
        hub_rig.paired(hub, admin, "cam")
        with hub_rig.device(hub, "cam") as device, store_of(hub) as other:
            other.execute("BEGIN EXCLUSIVE")
            with socket.create_connection(("127.0.0.1", hub.port)) as asker:
                said = f"DELETE /api/devices/cam HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {admin.token}\r\n\r\n"
                asker.sendall(said.encode())
                time.sleep(0.5)
            time.sleep(0.3)
            assert device.is_alive()
            other.execute("ROLLBACK")
            assert device.closing() == (1008, "Device not found")


def test_two_that_start_at_once_on_one_store_do_not_collide(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    hubs = []
    for name in ("one", "other"):
        run_dir = tmp_path / name
        run_dir.mkdir(mode=0o700)
        port = free_port()
        settings = {"PLANARIA_HUB": f"127.0.0.1:{port}", "PLANARIA_RUN_DIR": str(run_dir), "DATABASE_URL": store}
        settings |= {"PLANARIA_SUITE": "test", "PLANARIA_ADMIN_PASSWORD": ADMIN_PASSWORD}
        hubs.append(Process(run_dir, port, clean_environ(**settings), run_dir / "hub.log"))
    for hub in hubs:
        hub.start()
    try:
        for hub in hubs:
            hub.wait()
            assert hub.admin("GET", "/api/devices").json == []
        assert sum("first start" in hub.said() for hub in hubs) == 1
    finally:
        for hub in hubs:
            hub.kill()


def test_the_device_of_its_own_suite_is_the_admins(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    adopt = {"device_id": "local", "verifier": challenge.verifier("secret", "local").to_text(), "name": "This machine"}
    (run_dir / "hub-adopt.json").write_text(json.dumps(adopt))
    with hub_rig.process(run_dir) as hub:
        (device,) = hub.admin("GET", "/api/devices").json
        assert (device["device_id"], device["device_name"]) == ("local", "This machine")
        ann = hub.admin.new_user("ann")
        code = hub.admin("POST", "/api/pairing/generate?device_id=local").json["code"]
        assert ann("POST", "/api/devices/pair", {"pairing_code": code}).status == 200
        hub.restart()
        assert hub.admin("GET", "/api/devices").json == [], "what was given away is given away"
        assert len(ann("GET", "/api/devices").json) == 1
        hub.kill()
        (run_dir / "hub-adopt.json").write_text("{}")
        assert ended(hub) == (2, "hub-adopt.json: cannot be read")
        (run_dir / "hub-adopt.json").unlink()
        hub.start()
        hub.wait()


def ended(hub: Process) -> tuple[int, str]:
    """How a start that can't be ends: its code, and what of its last line is known to be said."""
    hub.start()
    code = hub.process.wait(20)
    line = json.loads(hub.said().splitlines()[-1])
    assert line["level"] == "error" and "trace" not in line
    known = ("hub-adopt.json: cannot be read", "somebody else listens there", "another version, 9999", "without TLS")
    return code, next((text for text in known if text in line["event"]), line["event"])


def test_starts_that_can_not_be_end_with_one_line(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run") as hub:
        with store_of(hub) as store:
            store.execute("UPDATE alembic_version SET version_num = '9999'")
        hub.kill()
        assert ended(hub) == (2, "another version, 9999")
        with store_of(hub) as store:
            store.execute(f"UPDATE alembic_version SET version_num = '{SCHEMA}'")
        with socket.create_server(("127.0.0.1", hub.port)):
            assert ended(hub) == (2, "somebody else listens there")
        with socket.create_server(("0.0.0.0", 0)) as open_air:
            hub.stdin = open_air.fileno()
            assert ended(hub) == (2, "without TLS")
        hub.stdin = subprocess.DEVNULL
        hub.start()
        hub.wait()


@pytest.mark.needs("openssl")
def test_tls(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True)
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    port = free_port()
    settings = {"PLANARIA_HUB": f"127.0.0.1:{port}", "PLANARIA_RUN_DIR": str(run_dir), "PLANARIA_SUITE": "test"}
    settings |= {"PLANARIA_HUB_CERT": str(cert), "PLANARIA_HUB_KEY": str(key)}
    hub = Process(run_dir, port, clean_environ(**settings), run_dir / "hub.log")
    hub.start()
    try:
        trust = ssl.create_default_context(cafile=str(cert))
        until(lambda: _says_by_tls(port, trust))
        old = ssl.create_default_context(cafile=str(cert))
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError, match=r"SSL|EOF"):
            _says_by_tls(port, old, raising=True)
    finally:
        hub.kill()
    hub.environ["PLANARIA_HUB_CERT"] = str(tmp_path / "nowhere.pem")
    code, said = ended(hub)
    assert code == 2 and "PLANARIA_HUB_CERT" in said and "cannot be used" in said


def _says_by_tls(port: int, trust: ssl.SSLContext, *, raising: bool = False) -> bool:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
        except OSError:
            if raising:
                raise
            return False
        assert answer.headers["Strict-Transport-Security"]
        return answer.status == 200


@pytest.fixture
def suite_of_two(tmp_path: Path) -> Iterator[tuple[Process, Any]]:
    """A hub and the ws_link of this very suite."""
    with hub_rig.process(tmp_path / "run") as hub:
        environ = clean_environ(
            BACKEND_URL=hub.ws("/ws/device"), DEVICE_ID="ours", PLANARIA_RUN_DIR=str(tmp_path / "run"),
            PLANARIA_SUITE="test", GO2RTC_HTTP=f"http://127.0.0.1:{free_port()}",
        )  # fmt: skip
        with (tmp_path / "link.log").open("wb") as log:
            link = subprocess.Popen([sys.executable, "-m", "procs.ws_link"], env=environ, stderr=log)
        try:
            yield hub, link
        finally:
            link.kill()
            link.wait()


def test_our_own_device_proves_itself_and_returns_after_a_kill(suite_of_two: tuple[Process, Any]) -> None:
    hub, _ = suite_of_two
    until(lambda: hub.metric("devices_online") == 1)
    hub.restart()
    until(lambda: hub.metric("devices_online") == 1)
    assert hub.metric("hellos_total") == 1


def test_a_client_of_one_byte_a_second_holds_up_nobody(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run") as hub, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", hub.port))) for _ in range(200)]
        for one in slow:
            one.sendall(b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        start = time.monotonic()
        until(lambda: hub.http("GET", "/health").status == 200)
        took_s, still_open = time.monotonic() - start, _without_an_answer(slow)
        assert took_s < 8.0 and still_open == 200, (took_s, still_open)  # none was waited for: each is for 10 s


def _without_an_answer(connections: list[socket.socket]) -> int:
    return len(connections) - len(select.select(connections, [], [], 0)[0])
