"""All that the hub's description of its calls allows, and much that it does not, asked of a real hub: no answer is an
error of the hub's own, and none is other than described."""

from __future__ import annotations

import base64
import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from procs import bus
from procs.hub.app import ROUTES
from procs.hub.openapi import Route, plain_path
from procs.messages.requests import Look, ProcessState, Reply, Restart, SuiteState
from procs.messages.warden import TunnelState
from tests import desk, hub_rig
from tests.hub_rig import ADMIN_PASSWORD, Http, Process, Talker
from tests.unit.test_wire_suite import BOB, WATCHES

# These would end the log-in with which all else is asked.
LOGOUT = "^/api/auth/logout$"
LIMIT_S = 250.0  # 40 s of two processors, and others want them, too
# A device's own answers are anything.
PROXIED = "/proxy"
# All but allow_header_conformance: aiohttp takes `pair` in /api/devices/pair for a device's id, too, and allows more.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,positive_data_acceptance,missing_required_header,ignored_auth,unsupported_method"
)
CONFIG = """\
hooks = "hooks.py"
[auth]
auto-signup = false
[phases.coverage]
unexpected-methods = ["DELETE", "TRACE"]  # one that the hub has elsewhere, one that it has nowhere
[[operations]]
include-name = "DELETE /api/session"
enabled = false
[[operations]]
include-name = "POST /api/auth/register"
checks.positive_data_acceptance.expected-statuses = [200, 400]  # as published, for a name that somebody has
# Hardly any id that is made up is a device's, and hardly any name one of its streams'.
[[operations]]
include-path-regex = '^/api/devices/[{]id[}]/'
parameters = { "path.id" = "cam", "path.name" = "door", "path.username" = "somebody" }
[[operations]]
include-path-regex = "^/api/voice/"
parameters = { "path.name" = "door" }
[[operations]]
include-name = "POST /api/devices/{id}/whep"
checks.positive_data_acceptance.expected-statuses = [201, 400, 401]  # hardly any text is an offer
[[operations]]
include-name = "PATCH /api/devices/{id}/whep/{session}"
checks.positive_data_acceptance.expected-statuses = [204, 400, 401, 404]  # nor is there such a session
"""
# JSON Schema takes 2.0 for an integer; the hub does not. Nor can a schema say which text is SDP.
HOOKS = """\
import schemathesis

def whole(value):
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value

@schemathesis.hook
def map_body(context, body):
    return whole(body)

@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_it_is(context, value):
    return str(value).encode(errors="replace")
"""


@contextlib.contextmanager
def warden(run_dir: Path) -> Iterator[None]:
    """A stand-in for the warden beside a hub, which would else be waited for: one process, which can be killed."""
    process = ProcessState("hub", 7, "SERVING", 1.0, 0.1, 1, "killed", 1 << 20, 0, 0.0)

    def handle(command: object) -> Reply:
        if isinstance(command, Look):
            return Reply(
                0, True, body=SuiteState([process], ["nothing comes"], [], [WATCHES], TunnelState(7, "t", peers=[BOB]))
            )
        assert isinstance(command, Restart)
        return Reply(0, command.pid == process.pid, "it has another pid")

    with desk.answering(run_dir, bus.WARDEN_STATE, handle):
        yield


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    run_dir = tmp_path_factory.mktemp("hub") / "run"
    with (
        hub_rig.process(run_dir, PLANARIA_COMPAT="1") as running,
        warden(run_dir),
        desk.voice_leader(run_dir, desk.voice_device("door")),
    ):
        yield running


class People(NamedTuple):
    """The owner of the device `cam`, somebody who has an account and nothing else, and a page's cookie of the owner."""

    owner: Http
    stranger: Http
    cookie: str


@pytest.fixture(scope="module", autouse=True)
def people(hub: Process) -> People:
    """Let in before anything else is asked: many wrong passwords and codes will come, and slow down the right ones."""
    owner = hub.admin
    hub_rig.paired(hub, owner, "cam")
    owner.new_user("somebody")
    answer = hub.http("POST", "/api/session", {"username": "admin", "password": ADMIN_PASSWORD})
    assert answer.status == 200, answer.body
    cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
    return People(owner, owner.new_user("stranger"), cookie)


def ask_all(hub: Process, cookie: str, folder: Path) -> None:
    """Have Schemathesis ask by such a cookie. Fails the test with what it says when something is wrong."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    (folder / "hooks.py").write_text(HOOKS)
    origin = f"http://127.0.0.1:{hub.port}"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{origin}/api/openapi.json", "--checks", CHECKS]
    command += ["-H", f"Cookie: {cookie}", "-H", f"Origin: {origin}", "--continue-on-failure", "--no-color"]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "4", "--seed", "1", "--warnings", "off"]
    command += ["--generation-database", "none", "--request-timeout", "15"]
    command += ["--exclude-path-regex", f"{LOGOUT}|{PROXIED}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout
    assert "unforeseen" not in hub.said()
    still = hub.http("GET", "/api/session", headers={"Cookie": cookie})
    assert still.status == 200, "else most of it was only refused"


def serve(talker: Talker) -> None:
    """Answer all that a device is asked with a picture."""
    with contextlib.suppress(Exception):  # the test is over
        while frame := talker.hear("proxy_http", LIMIT_S):
            body = base64.b64encode(b"\xff\xd8 a picture").decode()
            answer = {"rid": frame["payload"]["rid"], "status": 200, "headers": {}, "body_b64": body}
            talker.say("proxy_http_resp", answer)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.who != "anybody"], ids=lambda route: route.call)
def test_nobody_may_what_they_may_not(hub: Process, people: People, route: Route) -> None:
    method = "GET" if route.method == "*" else route.method
    path = re.sub(r"{path:.*}", "/", plain_path(route.path) if route.method != "*" else route.path)
    path = path.replace("{id}", "cam" if "devices" in path else "1").replace("{name}", "door")
    path = path.replace("{username}", "somebody").replace("{what}", "mute")
    elsewhere = {"X-Forwarded-For": "192.0.2.1"}  # which is not this machine
    expected = {"user": 401, "viewer": 404, "owner": 404, "admin": 403, "machine": 403}[route.who]
    assert hub.http(method, path, headers=elsewhere).status == (403 if route.who == "machine" else 401)
    if route.who != "user":
        assert people.stranger(method, path, headers=elsewhere).status == expected


@pytest.mark.timeout(LIMIT_S + 50)
def test_every_call_answers_as_it_is_described(hub: Process, people: People, tmp_path: Path) -> None:
    with hub_rig.device(hub, "cam") as talker:
        talker.say("capabilities", {"device_id": "cam", "streams": {"door": {"producers": [], "consumers": []}}})
        threading.Thread(target=serve, args=(talker,), daemon=True).start()
        ask_all(hub, people.cookie, tmp_path)
        assert people.owner("GET", "/api/devices/cam/streams/door/thumbnail").status == 200
