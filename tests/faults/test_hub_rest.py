"""REST of the hub, call by call as it was published, and what was added: fields, statuses, owners, bounds."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import hub_rig
from tests.hub_rig import Http, Process

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\Z")

# What the page is told of a device that has never come, besides what was published.
ADDED: dict[str, object] = {"role": "owner", "state": "never seen", "agent_version": "", "caps": [], "streams": []}
ADDED |= {"has_suite": False, "connected_at": None}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One hub that takes the published ways."""
    folder = tmp_path_factory.mktemp("hub")
    with hub_rig.process(folder, command=hub_rig.IMPATIENT_HUB, PLANARIA_COMPAT="1") as running:
        yield running


@pytest.fixture(scope="module")
def ann(hub: Process) -> Http:
    """Somebody with an account."""
    return hub.http.new_user("ann")


@pytest.fixture(scope="module")
def bob(hub: Process) -> Http:
    """Somebody else."""
    return hub.http.new_user("bob")


def test_health(hub: Process) -> None:
    answer = hub.http("GET", "/health")
    assert answer.status == 200 and set(answer.json) == {"status", "timestamp"}
    assert answer.json["status"] == "healthy" and ISO.match(answer.json["timestamp"])


def test_an_account(hub: Process) -> None:
    wanted = {"username": "carl", "email": "carl@example.com", "password": "carl's password"}
    made = hub.http("POST", "/api/auth/register", wanted)
    assert made.status == 200 and set(made.json) == {"access_token", "token_type", "user"}
    assert made.json["token_type"] == "bearer"
    assert made.json["user"] == {"id": made.json["user"]["id"], "username": "carl", "email": "carl@example.com"}
    again = hub.http("POST", "/api/auth/register", wanted)
    assert again.status == 400 and "already registered" in again.detail
    same_mail = hub.http("POST", "/api/auth/register", wanted | {"username": "karl"})
    assert same_mail.status == 400
    login = hub.http("POST", "/api/auth/login", {"username": "carl", "password": "carl's password"})
    assert login.status == 200 and login.json["user"] == made.json["user"]
    wrong = hub.http("POST", "/api/auth/login", {"username": "carl", "password": "not carl's"})
    nobody = hub.http("POST", "/api/auth/login", {"username": "nobody", "password": "not carl's"})
    assert wrong.status == nobody.status == 401 and wrong.body == nobody.body


def test_an_address_is_not_needed(hub: Process) -> None:
    for name in ("fred", "gina"):
        wanted = {"username": name, "email": "", "password": "some password"}
        assert hub.http("POST", "/api/auth/register", wanted).status == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"username": "a:b"}, "username"),
        ({"username": ""}, "username"),
        ({"username": "a" * 65}, "username"),
        ({"username": "a\x00b"}, "username"),
        ({"username": 5}, "username"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 1025}, "password"),
        ({"email": "no address"}, "email"),
    ],
)
def test_a_poor_account_is_refused_with_the_field(hub: Process, change: dict[str, object], said: str) -> None:
    wanted = {"username": "dora", "email": "d@example.com", "password": "dora's password"} | change
    answer = hub.http("POST", "/api/auth/register", wanted)
    assert answer.status == 400 and said in answer.detail.lower(), answer.body


def test_a_device_from_registration_to_deletion(hub: Process, ann: Http) -> None:
    first = hub.http("POST", "/api/devices/register", {"device_id": "cam-1", "device_name": "Porch"})
    again = hub.http("POST", "/api/devices/register", {"device_id": "cam-1", "device_name": "Other"})
    assert first.status == again.status == 200 and set(first.json) == {"device_id", "message"}
    assert first.json["device_id"] == again.json["device_id"] == "cam-1"

    code = hub.http("POST", "/api/pairing/generate?device_id=cam-1")
    assert code.status == 200 and set(code.json) == {"code", "expires_at", "ttl"} and code.json["ttl"] == 300
    assert re.fullmatch(r"\d{6}", code.json["code"]) and ISO.match(code.json["expires_at"])
    done = hub.http("POST", f"/api/devices/pair?token={ann.token}", {"pairing_code": code.json["code"]})
    assert done.status == 200 and done.json["device"] == {"device_id": "cam-1", "device_name": "Porch"}
    assert set(done.json) == {"message", "device"}

    shown = {"device_id": "cam-1", "device_name": "Porch", "device_type": "camera", "is_online": False}
    for listed in (hub.http("GET", f"/api/devices?token={ann.token}"), ann("GET", "/api/devices")):
        (one,) = [device for device in listed.json if device["device_id"] == "cam-1"]
        assert one == shown | ADDED | {"id": one["id"], "last_seen": None, "owner": "ann"}
    assert ann("GET", "/api/devices/cam-1/status").json == {
        "device_id": "cam-1", "is_online": False, "last_seen": None
    }  # fmt: skip

    assert ann("PATCH", "/api/devices/cam-1", {"device_name": " \u00a0 "}).status == 400
    renamed = ann("PATCH", "/api/devices/cam-1", {"device_name": "Back door"})
    assert renamed.status == 200 and renamed.json["device_name"] == "Back door"
    assert ann("DELETE", "/api/devices/cam-1").status == 200
    assert ann("GET", "/api/devices/cam-1/status").status == 404
    assert "cam-1" not in ann("GET", "/api/devices").body.decode()


def test_a_code_is_good_once_and_only_the_last_one(hub: Process, ann: Http, bob: Http) -> None:
    hub.http("POST", "/api/devices/register", {"device_id": "once"})
    old, code = (hub.http("POST", "/api/pairing/generate?device_id=once").json["code"] for _ in range(2))
    assert old == code or ann("POST", "/api/devices/pair", {"pairing_code": old}).status == 404
    assert ann("POST", "/api/devices/pair", {"pairing_code": code}).status == 200
    again = bob("POST", "/api/devices/pair", {"pairing_code": code})
    assert again.status == 404 and again.detail == "Invalid or expired pairing code"


def test_whose_it_is_can_hand_it_on_and_nobody_else_can_take_it(hub: Process, ann: Http, bob: Http) -> None:
    hub_rig.paired(hub, ann, "handed-on")
    taken = hub.http("POST", "/api/pairing/generate?device_id=handed-on")
    assert taken.status == 403 and "owner" in taken.detail
    assert bob("POST", "/api/pairing/generate?device_id=handed-on").status == 404
    code = ann("POST", "/api/pairing/generate?device_id=handed-on").json["code"]
    assert bob("POST", "/api/devices/pair", {"pairing_code": code}).status == 200
    assert ann("GET", "/api/devices/handed-on/status").status == 404
    assert bob("GET", "/api/devices/handed-on/status").status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/devices/{}/status", None),
        ("PATCH", "/api/devices/{}", {"device_name": "Mine now"}),
        ("DELETE", "/api/devices/{}", None),
        ("POST", "/api/devices/{}/open", None),
        ("POST", "/api/pairing/generate?device_id={}", None),
    ],
)
def test_somebody_elses_looks_like_nobodys(
    hub: Process, ann: Http, bob: Http, method: str, path: str, body: object
) -> None:
    hub.http("POST", "/api/devices/register", {"device_id": "anns"})
    if ann("GET", "/api/devices/anns/status").status == 404:
        hub_rig.paired(hub, ann, "anns")
    theirs, nobodys = (bob(method, path.format(device), body) for device in ("anns", "nowhere"))
    assert theirs.status == nobodys.status == 404 and theirs.body == nobodys.body
    assert ann("GET", "/api/devices/anns/status").status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/devices"),
        ("POST", "/api/devices/pair"),
        ("GET", "/api/devices/x/status"),
        ("PATCH", "/api/devices/x"),
        ("DELETE", "/api/devices/x"),
        ("POST", "/api/devices/x/open"),
        ("POST", "/api/auth/renew"),
        ("POST", "/api/auth/logout"),
        ("POST", "/api/auth/password"),
    ],
)
def test_nothing_without_a_token(hub: Process, method: str, path: str) -> None:
    without, wrong = hub.http(method, path), hub.http(method, path, token="wrong")
    assert without.status == wrong.status == 401
    assert without.headers["WWW-Authenticate"].startswith("Bearer")


def test_renewal_and_the_end_of_a_login(hub: Process, ann: Http) -> None:
    mine = hub.http.as_user("ann", "a good password")
    renewed = mine("POST", "/api/auth/renew")
    assert renewed.status == 200 and renewed.json["access_token"] not in ("", mine.token)
    new = Http(hub.port, renewed.json["access_token"])
    assert mine("GET", "/api/devices").status == new("GET", "/api/devices").status == 200
    assert new("POST", "/api/auth/logout").status == 200
    assert mine("GET", "/api/devices").status == new("GET", "/api/devices").status == 401
    assert ann("GET", "/api/devices").status == 200, "another log-in of the same user"


def test_another_password_ends_every_login(hub: Process) -> None:
    eve = hub.http.new_user("eve", "the old password")
    wrong = eve("POST", "/api/auth/password", {"old_password": "not this one", "new_password": "the new password"})
    short = eve("POST", "/api/auth/password", {"old_password": "the old password", "new_password": "new"})
    assert (wrong.status, short.status) == (401, 400)
    changed = eve(
        "POST", "/api/auth/password", {"old_password": "the old password", "new_password": "the new password"}
    )
    assert changed.status == 200
    assert eve("GET", "/api/devices").status == 401
    assert Http(hub.port, changed.json["access_token"])("GET", "/api/devices").status == 200
    assert hub.http("POST", "/api/auth/login", {"username": "eve", "password": "the old password"}).status == 401
    hub.http.as_user("eve", "the new password")


def test_open_lets_a_browser_in_at_an_origin_of_one_device(hub: Process, ann: Http) -> None:
    hub_rig.paired(hub, ann, "a b;ü")
    url = urlsplit(ann("POST", "/api/devices/a%20b%3B%C3%BC/open", {"path": "/x?y=z"}).json["url"])
    assert re.fullmatch(rf"d[a-z2-7]{{24}}\.localhost:{hub.port}", url.netloc)
    answer = hub.http("GET", f"{url.path}?{url.query}", headers={"Host": url.netloc})
    assert (answer.status, answer.headers["Location"]) == (303, "/x?y=z")
    ((name, cookie),) = SimpleCookie(answer.headers["Set-Cookie"]).items()
    assert name == "planaria_view" and cookie["httponly"] and cookie["samesite"] == "Lax" and not cookie["secure"]
    assert cookie["path"] == "/" and cookie["max-age"] == str(12 * 3600)
    assert hub.http("GET", "/api/devices", token=cookie.value).status == 401, "a view token is no access token"
    sent = {"Host": url.netloc, "Cookie": f"{name}={cookie.value}"}
    assert hub.http("GET", "/api/devices", headers=sent).status == 503, "the device's own path, and it is away"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe", 400),
        (b'{"device_id": 5}', 400),
        (b'{"device_id": ""}', 400),
        (b'{"device_id": "a/b"}', 400),
        (b'{"device_id": ".."}', 400),
        (b'{"device_id": "a\\u0000"}', 400),
        (json.dumps({"device_id": "x" * 129}).encode(), 400),
        (b'{"device_id": "ok", "verifier": "nonsense"}', 400),
        (b'{"device_id": "ok", "device_type": "a b"}', 400),
        (b"[" * 60_000, 400),
        (b'{"device_id": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
def test_a_wrong_body_is_one_json_error(hub: Process, body: bytes, status: int) -> None:
    answer = hub.http("POST", "/api/devices/register", body)
    assert answer.status == status and isinstance(answer.detail, str) and len(answer.detail) < 400


def test_errors_of_routing_are_json_too(hub: Process) -> None:
    assert hub.http("GET", "/nothing").json == {"detail": "Not Found"}
    wrong = hub.http("DELETE", "/health")
    assert wrong.status == 405 and "GET" in wrong.headers["Allow"] and wrong.json
    assert hub.http("GET", "/ws/device").status == 400


def test_every_answer_is_safe_to_show(hub: Process, ann: Http) -> None:
    for answer in (hub.http("GET", "/health"), ann("GET", "/api/devices"), hub.http("GET", "/nothing")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
        assert "aiohttp" not in str(answer.headers) and "Python" not in str(answer.headers)
    assert ann("GET", "/api/devices").headers["Cache-Control"] == "no-store"


def test_metrics(hub: Process, ann: Http) -> None:
    text = hub.http("GET", "/metrics")
    assert text.status == 200 and text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert re.search(r'^planaria_hub_requests_total\{class="2xx"\} [1-9]', text.body.decode(), re.M)
    for line in text.body.decode().splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) .+|[a-z_]+(\{[a-z]+="[^"\n]*"\})? [0-9.e+]+', line), line
    through_a_proxy = {"X-Forwarded-For": "192.0.2.7"}
    assert hub.http("GET", "/metrics", headers=through_a_proxy).status == 403
    assert ann("GET", "/metrics", headers=through_a_proxy).status == 403
    assert hub.admin("GET", "/metrics", headers=through_a_proxy).status == 200


def test_accounts_are_not_made_by_the_dozen_but_by_admins(hub: Process) -> None:
    admin = hub.admin
    wanted = {"email": "", "password": "some password"}
    answers = [hub.http("POST", "/api/auth/register", wanted | {"username": f"many{n}"}) for n in range(11)]
    assert answers[-1].status == 429 and int(answers[-1].headers["Retry-After"]) > 0
    assert hub.refused("too many registrations") >= 1
    assert admin("POST", "/api/auth/register", wanted | {"username": "one more"}).status == 200


def test_names_that_are_taken_are_not_tried_without_end(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run", PLANARIA_OPEN_REGISTRATION="1") as hub:
        wanted = {"username": "admin", "password": "some password"}
        answers = [hub.http("POST", "/api/auth/register", wanted).status for _ in range(11)]
        assert answers == [400] * 10 + [429]


def test_a_body_that_never_comes_whole_is_not_waited_for(hub: Process) -> None:
    with socket.create_connection(("127.0.0.1", hub.port), timeout=15) as slow:
        slow.sendall(b"POST /api/devices/register HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
