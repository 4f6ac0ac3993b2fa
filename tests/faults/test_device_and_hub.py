"""Our device with our hub, as processes: proof, data connections, a pairing code, and who may stand in for whom."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procs import bus, rpc
from procs.errors import Refused
from procs.messages.requests import Pair, PairingCode
from tests import warm
from tests.faults.test_agent import Agent, agent
from tests.hub_rig import CHEAP_HUB, lay_out_store
from tests.linked import linked, state_of
from tests.rig import Go2rtc, clean_environ, free_port, go2rtc, until

PASSWORD = "correct horse battery staple"


class Hub:
    """A hub process of our own, and somebody who is signed in at it."""

    def __init__(self, run_dir: Path, cert: Path | None = None) -> None:
        self.port, self.run_dir, self.token = free_port(), run_dir, ""
        self.backend = f"{'wss' if cert else 'ws'}://localhost:{self.port}/ws/device"
        self.trust = ssl.create_default_context(cafile=cert) if cert else None
        self.tls = {"PLANARIA_HUB_CERT": str(cert), "PLANARIA_HUB_KEY": str(cert)} if cert else {}
        run_dir.mkdir(mode=0o700)
        lay_out_store(run_dir)
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        more = {"PLANARIA_HUB": f"127.0.0.1:{self.port}", "PLANARIA_ADMIN_PASSWORD": PASSWORD} | self.tls
        with (self.run_dir / "hub.log").open("ab") as out:
            environ = clean_environ(PLANARIA_RUN_DIR=str(self.run_dir), **more)
            self.process = warm.start(CHEAP_HUB, "procs.hub.shell", environ, stdout=out, stderr=out)
        until(self._answers, 20)

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def sign_in(self) -> None:
        """Be admin from now on."""
        login = {"username": "admin", "password": PASSWORD}
        self.token = self.json("POST", "/api/auth/login", login)["access_token"]

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """One request."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=40)
        if self.trust:
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=40, context=self.trust)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: object = None) -> Any:
        """The same for one that has to go well."""
        status, answer = self.ask(method, path, body)
        assert status == 200, answer
        return json.loads(answer)

    def end(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "hub")
    made.sign_in()
    yield made
    made.end()


@pytest.fixture(scope="module")
def camera() -> Iterator[Go2rtc]:
    with go2rtc({"workers": 1, "producer": {"width": 320, "height": 180, "fps": 30}}) as running:
        yield running


def claim(hub: Hub, run_dir: Path) -> None:
    """Make the device of a run directory ours."""
    with rpc.Requester(run_dir, bus.WS_LINK_STATE) as requester:
        code = requester.ask(Pair(), within_s=10, idempotent=False).body
    assert isinstance(code, PairingCode) and code.ttl == 300
    assert hub.json("POST", "/api/devices/pair", {"pairing_code": code.code})["device"]["device_id"]
    until(lambda: (state := state_of(run_dir)) and state.paired == code.code)


def reached(running: Agent, hub: Hub, device_id: str) -> bool:
    status, body = hub.ask("GET", f"/api/devices/{device_id}/proxy/api/streams")
    return status == 200 and "omega-0" in json.loads(body)


def test_a_new_device_proves_itself_is_paired_and_is_reached(run_dir: Path, hub: Hub, camera: Go2rtc) -> None:
    go2rtc_http = camera.url("").rstrip("/")
    words = ["--device-id", "pi-cam-001", "--backend", hub.backend, "--go2rtc-http", go2rtc_http]
    with agent(run_dir, *words) as running:
        until(lambda: (state := state_of(run_dir)) and state.mux, 15)
        assert hub.ask("GET", "/api/devices/pi-cam-001/proxy/api/streams")[0] == 404, "nobody's yet"
        claim(hub, run_dir)
        until(lambda: reached(running, hub, "pi-cam-001"), 15)
        assert hub.ask("GET", "/api/devices/pi-cam-001/proxy/api/config")[0] == 403
        os.kill(running.child("procs.ws_link"), signal.SIGKILL)
        assert all(reached(running, hub, "pi-cam-001") for _ in range(20)), "data connections do not need ws_link"
        hub.end()
        hub.start()
        until(lambda: reached(running, hub, "pi-cam-001"), 15)


@pytest.mark.needs("openssl")
def test_a_hub_with_a_certificate_of_its_own_making(run_dir: Path, tmp_path: Path, camera: Go2rtc) -> None:
    cert = tmp_path / "both.pem"
    made = ["-keyout", str(cert), "-out", str(tmp_path / "cert.pem"), "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True)
    cert.write_bytes(cert.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    hub = Hub(tmp_path / "hub", cert)
    try:
        hub.sign_in()
        words = ["--device-id", "pi-cam-001", "--backend", hub.backend, "--go2rtc-http", camera.url("").rstrip("/")]
        with agent(run_dir, *words, PLANARIA_HUB_CA=str(cert)) as running:
            until(lambda: (state := state_of(run_dir)) and state.mux, 15)
            claim(hub, run_dir)
            until(lambda: reached(running, hub, "pi-cam-001"), 15)
    finally:
        hub.end()


def test_the_wrong_secret_is_refused_and_the_right_one_replaces(tmp_path: Path, hub: Hub) -> None:
    places = [tmp_path / name for name in ("first", "copy", "thief")]
    for place in places:
        place.mkdir(mode=0o700)
    with linked(places[0], hub.backend, "--device-id", "pi-cam-001", DEVICE_SECRET="right") as first:
        first.until(lambda state: state.state == "connected")
        with linked(places[2], hub.backend, "--device-id", "pi-cam-001", DEVICE_SECRET="wrong") as thief:
            assert "Wrong credential" in thief.until(lambda state: state.state == "refused").said
            assert first.until(lambda state: True).state == "connected"
        with linked(places[1], hub.backend, "--device-id", "pi-cam-001", DEVICE_SECRET="right") as copy:
            copy.until(lambda state: state.state == "connected")
            assert "Replaced by new connection" in first.until(lambda state: state.state != "connected").said
            assert "replaced by another connection" in first.logged()


def test_a_restart_under_the_same_identity_is_back_at_once(run_dir: Path, hub: Hub) -> None:
    with linked(run_dir, hub.backend) as link:
        device_id = link.until(lambda state: state.state == "connected").device_id
        for _ in range(3):
            link.kill()
            link.start()
            assert link.until(lambda state: state.state == "connected").device_id == device_id
        assert "replaced by" not in link.logged()


def test_a_hub_that_lost_its_store_gets_to_know_the_device_anew(run_dir: Path, hub: Hub) -> None:
    with linked(run_dir, hub.backend) as link:
        link.until(lambda state: state.state == "connected")
        hub.end()
        shutil.rmtree(hub.run_dir)
        hub.run_dir.mkdir(mode=0o700)
        hub.start()
        link.until(lambda state: state.state == "connected", 30)


def ask_for_ever(requester: rpc.Requester) -> None:
    for _ in range(100):
        requester.ask(Pair(), within_s=5, idempotent=False)


def test_a_device_that_asks_for_too_many_codes_is_told_so(run_dir: Path, hub: Hub) -> None:
    with linked(run_dir, hub.backend) as link, rpc.Requester(run_dir, bus.WS_LINK_STATE) as requester:
        link.until(lambda state: state.state == "connected")
        with pytest.raises(Refused, match="Too many pairing codes"):
            ask_for_ever(requester)
