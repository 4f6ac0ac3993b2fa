"""A machine that is only a part of it: what `make up` starts for some ROLES, what it says is missing, and the first
password, in a clone as a person runs it."""

from __future__ import annotations

import http.client
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import hub_rig
from tests.clone import Clone
from tests.rig import free_port, until

pytestmark = pytest.mark.timeout(300)  # the first `make up` installs from the package index
COMMON = {"supervisord", "keeper", "warden"}
DEVICE = {"ws_link", "proxy:proxy_0", "proxy:proxy_1", "webrtc_peer"}


def up(clone: Clone, roles: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`make up ROLES=...`, which has to work."""
    done = clone.run("make", "--no-print-directory", "up", f"ROLES={roles}", environ=environ)
    assert done.returncode == 0, done.stderr
    return done


def status(clone: Clone) -> dict[str, Any]:
    """What `status --json` says; it has to find all well."""
    done = clone.cli("status", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def names(found: dict[str, Any]) -> set[str]:
    """Of the processes that status shows."""
    return {process["name"] for process in found["processes"]}


def log_in(clone: Clone, password: str) -> int:
    """The status of a log-in as admin."""
    connection = http.client.HTTPConnection(clone.hub, timeout=20)
    connection.request("POST", "/api/auth/login", json.dumps({"username": "admin", "password": password}))
    answer = connection.getresponse()
    connection.close()
    return answer.status


def test_a_hub_alone_needs_no_go2rtc_and_keeps_its_accounts(down: Clone) -> None:
    _forget(down)
    done = up(down, "hub")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("sign in admin ")]
    password = line.split()[3]
    assert "rtsp://" not in done.stdout and "proxy/" not in done.stdout, "what is not here is not praised"
    found = status(down)
    assert names(found) == COMMON | {"hub"}
    assert found["hub"] == {
        "url": f"http://{down.hub}/", "devices_online": 0, "data_links": 0, "viewers": 0, "said": ""
    }  # fmt: skip
    assert (found["device"], found["streams"], found["degraded"]) == (None, [], [])
    table = down.make("status").stdout
    assert "DEVICES ONLINE" in table and "go2rtc" not in table and "STREAM" not in table
    assert not (down.root / "run/go2rtc").is_symlink(), "nothing was fetched that does not run"
    none = down.cli("password")
    assert (none.returncode, none.stdout) == (8, "") and "was shown already" in none.stderr
    assert log_in(down, password) == 200
    another = down.cli("password", "--reset").stdout.strip()
    assert (log_in(down, password), log_in(down, another)) == (401, 200)
    assert _clean(down) == ["hub.sqlite", "hub.sqlite-shm", "hub.sqlite-wal"]
    assert down.run("sh", "-c", "mv away .venv && mv bin go2rtc/bin").returncode == 0
    up(down, "hub")
    assert log_in(down, another) == 200
    wrong = down.cli("up", environ={"PLANARIA_ROLES": "hub", "PLANARIA_HUB": "0.0.0.0:1", "PLANARIA_HUB_CERT": "x"})
    assert wrong.returncode == 2 and "must both be set, or neither" in wrong.stderr


def _forget(clone: Clone) -> None:
    for path in (clone.root / "run").glob("*"):
        if path.is_file() or path.is_symlink():
            path.unlink()


def _clean(clone: Clone) -> list[str]:
    """What `make clean` leaves in run/. What takes long to fetch is put aside."""
    assert clone.run("sh", "-c", "mv .venv away && mv go2rtc/bin bin").returncode == 0
    assert clone.make("clean").returncode == 0
    assert clone.living() == []
    return sorted(path.name for path in (clone.root / "run").iterdir())


def test_a_device_whose_hub_is_away_comes_up_and_says_so(down: Clone, tmp_path: Path) -> None:
    backend = f"ws://{down.hub}/ws/device"  # where a hub of its own would listen
    done = up(down, "device streams", BACKEND_URL=backend)
    said = f"hub {backend}: connecting for"
    assert said in done.stdout and "scripts/pair.py" in done.stdout and "sign in" not in done.stdout
    found = status(down)
    assert names(found) == COMMON | DEVICE | {"go2rtc"}
    assert found["hub"] is None and [each for each in found["degraded"] if each.startswith(said)]
    assert (found["device"]["state"], found["device"]["hub"]) == ("connecting", backend)
    assert found["device"]["sessions"] == 0 and "WATCH SESSIONS" in down.make("status").stdout
    before = down.living()
    assert "already up" in up(down, "device streams", BACKEND_URL=backend).stderr and down.living() == before
    none = down.cli("password")
    assert none.returncode == 2 and "the role hub is off here" in none.stderr
    with hub_rig.process(tmp_path / "hub", PLANARIA_HUB=down.hub) as hub:
        until(lambda: hub.metric("devices_online") == 1, 40)
        found = until(lambda: now if (now := status(down))["device"]["state"] == "connected" else None)
        assert found["degraded"] == []


def test_a_device_of_a_go2rtc_elsewhere(down: Clone) -> None:
    backend, go2rtc = f"ws://127.0.0.1:{free_port()}/ws/device", f"http://127.0.0.1:{free_port()}"
    done = up(down, "device tun", BACKEND_URL=backend, GO2RTC_HTTP=go2rtc)
    found = status(down)
    assert names(found) == COMMON | DEVICE | {"tun_pump"}
    assert found["tunnel"]["interface"] == "", "idle: not configured"
    assert "AGENT_ID and SIGNALING_URL in .env" in done.stdout
    assert f"go2rtc {go2rtc}: [Errno 111] Connection refused: there is nothing to be reached" in done.stdout
    assert "rtsp://" not in done.stdout
    assert down.cli("status").returncode == 0


def test_a_hub_that_can_not_start_is_said_in_its_own_words(down: Clone) -> None:
    nowhere = f"postgresql://me@127.0.0.1:{free_port()}/nothing"
    environ = {"PLANARIA_ROLES": "hub", "PLANARIA_UP_LIMIT_S": "6", "DATABASE_URL": nowhere}
    done = down.cli("up", environ=environ)
    assert done.returncode == 8 and "hub: it does not serve" in done.stderr
    assert "Can't create a connection to host 127.0.0.1" in done.stderr, "the end of its log"
    assert down.living() == []


def test_a_hub_that_could_never_start_is_refused_at_once(down: Clone) -> None:
    environ = {"PLANARIA_ROLES": "hub", "PLANARIA_HUB_CERT": "missing.pem", "PLANARIA_HUB_KEY": "missing.pem"}
    done = down.cli("up", environ=environ)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "PLANARIA_HUB_CERT='missing.pem'" in done.stderr


def test_an_unknown_role_is_one_line(down: Clone) -> None:
    done = down.cli("up", environ={"PLANARIA_ROLES": "hub stream"})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "PLANARIA_ROLES='hub stream'" in done.stderr and "hub device streams" in done.stderr
