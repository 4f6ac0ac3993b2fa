"""All that the hub's description of its calls allows, and much that it does not, asked of a real hub: no answer is an
error of the hub's own, and none is other than described."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub_rig
from tests.hub_rig import ADMIN_PASSWORD, Process, Talker

# What ends the log-in with which all else is asked, or begins another.
LOGINS = "^/api/auth/logout$|^/api/session$"
# A device's own answers are anything.
PROXIED = "/proxy"
OF_DEVICE = r"^/api/devices/\{id\}"
# All but allow_header_conformance: aiohttp takes `pair` in /api/devices/pair for a device's id, too, and allows more.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,positive_data_acceptance,missing_required_header,ignored_auth,unsupported_method"
)
CONFIG = """\
hooks = "hooks.py"
[auth]
auto-signup = false
[[operations]]
include-path = "/api/auth/register"
checks.positive_data_acceptance.expected-statuses = [200, 400]  # as published, for a name that somebody has
"""
# Hardly any id that is made up is a device's. One that was deleted would answer nothing more.
DEVICE = """\
[parameters]
"path.id" = "cam"
"path.name" = "door"
"path.username" = "somebody"
[[operations]]
include-path = "/api/devices/{id}"
include-method = "DELETE"
enabled = false
"""
# JSON Schema takes 2.0 for an integer; the hub does not.
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
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with hub_rig.process(tmp_path_factory.mktemp("hub") / "run", PLANARIA_COMPAT="1") as running:
        yield running


def signed_in(hub: Process) -> str:
    """The cookie of a page at which the admin has signed in."""
    answer = hub.http("POST", "/api/session", {"username": "admin", "password": ADMIN_PASSWORD})
    assert answer.status == 200, answer.body
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


def ask_all(hub: Process, folder: Path, config: str, *flags: str) -> None:
    """Have Schemathesis ask by such a cookie. Fails the test with what it says when something is wrong."""
    (folder / "schemathesis.toml").write_text(config)
    (folder / "hooks.py").write_text(HOOKS)
    origin, cookie = f"http://127.0.0.1:{hub.port}", signed_in(hub)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{origin}/api/openapi.json", "--checks", CHECKS]
    command += ["-H", f"Cookie: {cookie}", "-H", f"Origin: {origin}", "--continue-on-failure", "--no-color"]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "4", "--seed", "1", "--warnings", "off"]
    command += ["--generation-database", "none", "--request-timeout", "15", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout
    assert "unforeseen" not in hub.said()
    still = hub.http("GET", "/api/session", headers={"Cookie": cookie})
    assert still.status == 200, "else most of it was only refused"


def test_every_call_answers_as_it_is_described(hub: Process, tmp_path: Path) -> None:
    ask_all(hub, tmp_path, CONFIG, "--exclude-path-regex", f"{LOGINS}|{PROXIED}|{OF_DEVICE}/")


def serve(talker: Talker) -> None:
    """Answer all that a device is asked with a picture."""
    with contextlib.suppress(Exception):  # the test is over
        while frame := talker.hear("proxy_http", 60):
            body = base64.b64encode(b"\xff\xd8 a picture").decode()
            answer = {"rid": frame["payload"]["rid"], "status": 200, "headers": {}, "body_b64": body}
            talker.say("proxy_http_resp", answer)


def test_every_call_of_a_device_answers_as_it_is_described(hub: Process, tmp_path: Path) -> None:
    owner = hub.admin
    hub_rig.paired(hub, owner, "cam")
    owner.new_user("somebody")
    with hub_rig.device(hub, "cam") as talker:
        talker.say("capabilities", {"device_id": "cam", "streams": {"door": {"producers": [], "consumers": []}}})
        threading.Thread(target=serve, args=(talker,), daemon=True).start()
        ask_all(hub, tmp_path, CONFIG + DEVICE, "--include-path-regex", OF_DEVICE, "--exclude-path-regex", PROXIED)
        assert owner("GET", "/api/devices/cam/streams/door/thumbnail").status == 200
