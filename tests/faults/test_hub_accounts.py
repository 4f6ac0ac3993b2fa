"""Accounts at a real hub: the page's cookie and what other sites can't do with it, roles on every route, tokens for
programs, the last admin, and that what is taken away ends at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from procs.hub.app import ROUTES
from procs.hub.openapi import plain_path
from tests import hub_rig
from tests.hub_rig import ADMIN_PASSWORD, Answer, Http, Process
from tests.rig import until

PASSWORD = "a good password"
NAME = "planaria_session"
ROLES = ("owner", "viewer")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One hub that takes the published ways."""
    with hub_rig.process(tmp_path_factory.mktemp("hub"), PLANARIA_COMPAT="1") as running:
        yield running


@pytest.fixture(scope="module")
def admin(hub: Process) -> Http:
    """Its first account."""
    return hub.admin


def made(admin: Http, username: str, **more: object) -> int:
    """An account; its id."""
    answer = admin("POST", "/api/users", {"username": username, "password": PASSWORD, **more})
    assert answer.status == 200, answer.body
    return int(answer.json["id"])


def cookie_of(answer: Answer) -> Morsel[str]:
    """The one cookie that an answer sets."""
    ((_, morsel),) = SimpleCookie(answer.headers["Set-Cookie"]).items()
    return morsel


class Page:
    """A browser's page, which has a cookie and no token."""

    def __init__(self, hub: Process, username: str, password: str = PASSWORD, **headers: str) -> None:
        self.http = hub.http
        answer = self.http("POST", "/api/session", {"username": username, "password": password}, headers=headers)
        assert answer.status == 200, answer.body
        self.cookie = cookie_of(answer).value

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http(method, path, body, headers={"Cookie": f"{NAME}={self.cookie}"} | named)


# The cookie


def test_a_log_in_of_the_page_is_a_cookie_that_no_script_reads(hub: Process) -> None:
    answer = hub.http("POST", "/api/session", {"username": "admin", "password": ADMIN_PASSWORD})
    cookie = cookie_of(answer)
    assert cookie.key == NAME and cookie.value not in answer.body.decode()
    assert cookie["httponly"] and cookie["samesite"] == "Strict" and cookie["path"] == "/" and not cookie["domain"]
    assert cookie["max-age"] == str(30 * 86_400)
    assert answer.json == {"user": {"id": 1, "username": "admin", "email": "", "is_admin": True}}
    page = Page(hub, "admin", ADMIN_PASSWORD)
    shown = page("GET", "/api/session")
    assert shown.json == answer.json | {"version": shown.json["version"], "views": shown.json["views"]}
    assert shown.headers["Cache-Control"] == "no-store"
    assert hub.http("GET", "/api/devices", token=page.cookie).status == 401, "a cookie is no access token"
    out = page("DELETE", "/api/session")
    assert out.status == 200 and cookie_of(out).value == "" and cookie_of(out)["max-age"] == "0"
    assert page("GET", "/api/session").status == page("GET", "/api/devices").status == 401


def test_by_https_the_cookie_is_of_this_host_alone(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run", PLANARIA_HUB_INSECURE="1") as hub:
        answer = hub.http("POST", "/api/session", {"username": "admin", "password": ADMIN_PASSWORD})
        cookie = cookie_of(answer)
        assert cookie.key == f"__Host-{NAME}" and cookie["secure"] and cookie["path"] == "/"
        for name, status in ((f"__Host-{NAME}", 200), (NAME, 401)):
            assert hub.http("GET", "/api/session", headers={"Cookie": f"{name}={cookie.value}"}).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "http://127.0.0.1:{port}.evil.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_another_sites_page_changes_nothing_by_the_cookie(
    hub: Process, admin: Http, headers: dict[str, str], status: int
) -> None:
    """CSRF: of every call that changes something, and of logging somebody in as somebody else."""
    sent = {name: value.format(port=hub.port) for name, value in headers.items()}
    page = Page(hub, "admin", ADMIN_PASSWORD)
    if admin("GET", "/api/devices/csrf").status == 404:
        hub_rig.paired(hub, admin, "csrf")
    before = hub.refused("request of another site's page")
    tried = [
        page("PATCH", "/api/devices/csrf", {"device_name": "Theirs"}, **sent),
        page("POST", "/api/tokens", {"name": "x", "role": "owner"}, **sent),
        page("DELETE", "/api/devices/csrf/shares/nobody", **sent),
        page("POST", "/api/session", {"username": "admin", "password": ADMIN_PASSWORD}, **sent),
    ]
    assert [answer.status for answer in tried] == ([403] * 4 if status == 403 else [200, 200, 404, 200])
    page = Page(hub, "admin", ADMIN_PASSWORD)
    assert hub.refused("request of another site's page") - before == (len(tried) if status == 403 else 0)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert page("GET", "/api/session", **sent | upgrade).status == status, "a WebSocket is read by whoever opens it"
    # By Sec-Fetch-Site a browser says of every GET who asks; by Origin not, and then the answer can't be read.
    assert page("GET", "/api/session", **sent).status == (200 if "Origin" in sent else status)
    assert page("GET", "/api/session", Sec_Fetch_Mode="navigate", **sent).status == 200
    assert admin("PATCH", "/api/devices/csrf", {"device_name": "Mine"}, headers={"Origin": "null"}).status == 200


def test_nobody_chooses_the_session_of_somebody_else(hub: Process, admin: Http) -> None:
    """Session fixation: a log-in never goes on with what the browser had before, and ends that."""
    made(admin, "fixed")
    page = Page(hub, "fixed")
    for known in (page.cookie, "made-up-by-somebody", ""):
        again = Page(hub, "fixed", Cookie=f"{NAME}={known}")
        assert again.cookie not in (page.cookie, known) and len(again.cookie) >= 43
        assert again("GET", "/api/session").status == 200
    assert page("GET", "/api/session").status == 401, "the one before has ended"


def test_two_cookies_are_none(hub: Process) -> None:
    """One was put there from beside or below this host; nobody can say which."""
    page, before = Page(hub, "admin", ADMIN_PASSWORD), hub.refused("two session cookies")
    for cookies in (f"{NAME}={page.cookie}; {NAME}=x", f"{NAME}=x; {NAME}={page.cookie}", f"{NAME}=x;{NAME}="):
        assert page("GET", "/api/session", Cookie=cookies).status == 401
    assert page("GET", "/api/session", Cookie=f"a=b; {NAME}={page.cookie}; other_{NAME}=x").status == 200
    assert hub.refused("two session cookies") == before + 3


def test_guesses_are_limited_whichever_way_they_come(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run") as hub:
        wrong = {"username": "admin", "password": "not the password"}
        said = [hub.http("POST", ("/api/session", "/api/auth/login")[n % 2], wrong).status for n in range(12)]
        assert said[:10] == [401] * 10 and said[-1] == 429
        right = hub.http("POST", "/api/session", {"username": "admin", "password": ADMIN_PASSWORD})
        assert right.status == 429 and int(right.headers["Retry-After"]) > 0 and "Set-Cookie" not in right.headers
        assert hub.refused("too many attempts to log in") >= 2


def test_another_password_by_cookie_ends_all_but_this_page(hub: Process, admin: Http) -> None:
    made(admin, "petra")
    page, other, program = Page(hub, "petra"), Page(hub, "petra"), hub.http.as_user("petra", PASSWORD)
    token = page("POST", "/api/tokens", {"name": "x", "role": "owner"}).json["token"]
    change = {"old_password": PASSWORD, "new_password": "another good one"}
    answer = page("POST", "/api/auth/password", change)
    assert answer.status == 200 and set(answer.json) == {"user"}
    assert page("GET", "/api/session").status == other("GET", "/api/session").status == 401
    assert program("GET", "/api/devices").status == hub.http("GET", "/api/devices", token=token).status == 401
    page.cookie = cookie_of(answer).value
    assert page("GET", "/api/session").status == 200


# Users


def test_users_are_the_admins_business(hub: Process, admin: Http) -> None:
    key = made(admin, "ursula", email="u@example.com")
    again = admin("POST", "/api/users", {"username": "ursula", "password": PASSWORD})
    assert again.status == 409
    for poor in ({"username": "a:b"}, {"password": "short"}, {"email": "none"}, {"is_admin": 1}):
        assert admin("POST", "/api/users", {"username": "x", "password": PASSWORD} | poor).status == 400
    hub_rig.paired(hub, hub.http.as_user("ursula", PASSWORD), "ursulas")
    (one,) = [user for user in admin("GET", "/api/users").json if user["id"] == key]
    assert one == {
        "id": key, "username": "ursula", "email": "u@example.com", "is_admin": False, "devices": 1,
        "created_at": one["created_at"],
    }  # fmt: skip
    page = Page(hub, "ursula")
    assert page("GET", "/api/users").status == 403
    assert admin("PATCH", f"/api/users/{key}", {"is_admin": True}).json["is_admin"] is True
    assert page("GET", "/api/users").status == 200, "it is an admin at once"
    with hub_rig.viewer(hub, hub.http.as_user("ursula", PASSWORD).token) as viewer:
        assert admin("PATCH", f"/api/users/{key}", {"is_admin": False}).status == 200
        assert viewer.closing() == (1008, "Invalid token")
    assert page("GET", "/api/session").status == 401, "a demoted user's log-ins end"
    assert admin("PATCH", f"/api/users/{key}", {"password": "short"}).status == 400
    page = Page(hub, "ursula")
    assert admin("PATCH", f"/api/users/{key}", {"password": "given by the admin"}).status == 200
    assert page("GET", "/api/session").status == 401
    page = Page(hub, "ursula", "given by the admin")
    with hub_rig.viewer(hub, hub.http.as_user("ursula", "given by the admin").token) as viewer:
        assert admin("DELETE", f"/api/users/{key}").status == 200
        assert viewer.closing() == (1008, "Invalid token")
    assert page("GET", "/api/session").status == 401
    for key_ in (str(key), "0", "nobody", "-1", "9" * 30):
        assert admin("DELETE", f"/api/users/{key_}").status == 404
        assert admin("PATCH", f"/api/users/{key_}", {"is_admin": False}).status == 404
    hub_rig.paired(hub, admin, "ursulas")
    assert admin("GET", "/api/devices/ursulas").json["owner"] == "admin", "it was nobody's"


def test_the_last_admin_stays(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run") as hub:
        admin = hub.admin
        for answer in (admin("PATCH", "/api/users/1", {"is_admin": False}), admin("DELETE", "/api/users/1")):
            assert answer.status == 409 and "last admin" in answer.detail
        assert admin("PATCH", "/api/users/1", {"is_admin": True}).status == 200
        other = made(admin, "other", is_admin=True)
        assert admin("PATCH", "/api/users/1", {"is_admin": False}).status == 200
        assert admin("GET", "/api/users").status == 401
        then = hub.http.as_user("other", PASSWORD)
        assert then("DELETE", f"/api/users/{other}").status == 409
        assert then("DELETE", "/api/users/1").status == 200
        hub.restart()
        assert [user["username"] for user in then("GET", "/api/users").json] == ["other"]


# Tokens for programs


def test_a_programs_token_does_what_its_role_allows_and_manages_nobody(hub: Process, admin: Http) -> None:
    hub_rig.paired(hub, admin, "programmed")
    answers = {role: admin("POST", "/api/tokens", {"name": role, "role": role, "days": 1}) for role in ROLES}
    tokens = {role: Http(hub.port, answer.json["token"]) for role, answer in answers.items()}
    for role, program in tokens.items():
        made_ = answers[role].json
        assert set(made_) == {"id", "name", "role", "token", "created_at", "expires_at"} and made_["role"] == role
        (seen,) = [each for each in program("GET", "/api/devices").json if each["device_id"] == "programmed"]
        assert seen["role"] == role
        for method, path, body in (
            ("GET", "/api/tokens", None),
            ("POST", "/api/tokens", {"name": "more", "role": "owner"}),
            ("DELETE", f"/api/tokens/{made_['id']}", None),
            ("GET", "/api/users", None),
            ("POST", "/api/users", {"username": "x", "password": PASSWORD}),
            ("DELETE", "/api/users/1", None),
            ("POST", "/api/auth/password", {"old_password": ADMIN_PASSWORD, "new_password": PASSWORD}),
            ("POST", "/api/auth/renew", None),
        ):
            assert program(method, path, body).status == 403, (role, path)
    assert tokens["owner"]("PATCH", "/api/devices/programmed", {"device_name": "Named"}).status == 200
    viewer = tokens["viewer"]
    for method, path, body in (
        ("PATCH", "/api/devices/programmed", {"device_name": "Not so"}),
        ("DELETE", "/api/devices/programmed", None),
        ("GET", "/api/devices/programmed/shares", None),
        ("PUT", "/api/devices/programmed/shares/admin", {"role": "owner"}),
        ("POST", "/api/devices/pair", {"pairing_code": "000000"}),
        ("POST", "/api/pairing/generate?device_id=programmed", None),
        ("POST", "/api/devices/programmed/proxy/api/restart", None),
    ):
        assert viewer(method, path, body).status == 403, path
    assert viewer("GET", "/api/devices/programmed/status").status == 200


def test_tokens_are_shown_once_dated_and_taken_back(hub: Process, admin: Http) -> None:
    made(admin, "tom")
    tom = hub.http.as_user("tom", PASSWORD)
    for poor in ({"role": "admin"}, {"name": ""}, {"name": "a\x00"}, {"days": 0}, {"days": 3651}, {"days": 1.5}):
        assert tom("POST", "/api/tokens", {"name": "x", "role": "owner"} | poor).status == 400
    token = tom("POST", "/api/tokens", {"name": "<b>cron</b>", "role": "owner"}).json
    program = Http(hub.port, token["token"])
    (listed,) = tom("GET", "/api/tokens").json
    assert listed == {name: token[name] for name in token if name != "token"} | {"last_used": None}
    with hub_rig.viewer(hub, program.token) as viewer:
        (listed,) = tom("GET", "/api/tokens").json
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:00", listed["last_used"]), "to a minute"
        assert admin("DELETE", f"/api/tokens/{token['id']}").status == 404, "somebody else's"
        assert admin("DELETE", "/api/tokens/x").status == 404
        assert tom("DELETE", f"/api/tokens/{token['id']}").status == 200
        assert viewer.closing() == (1008, "Invalid token")
    assert program("GET", "/api/devices").status == 401
    assert tom("GET", "/api/tokens").json == []


# Roles on every route


class Call(NamedTuple):
    """One call, and the statuses that a stranger, a viewer, one who shares it as owner, and whose it is get."""

    method: str
    path: str
    body: object
    stranger: int
    viewer: int
    sharer: int
    owner: int


PASSED = 501  # what the hub says of a path without end, when it would go to a device that was published earlier
OF_DEVICES = [
    Call("GET", "/api/devices/{id}", None, 404, 200, 200, 200),
    Call("GET", "/api/devices/{id}/status", None, 404, 200, 200, 200),
    Call("GET", "/api/devices/{id}/events", None, 404, 200, 200, 200),
    Call("GET", "/api/devices/{id}/shares", None, 404, 403, 200, 200),
    Call("PUT", "/api/devices/{id}/shares/{username}", {"role": "viewer"}, 404, 403, 200, 200),
    Call("DELETE", "/api/devices/{id}/shares/{username}", None, 404, 403, 200, 200),
    Call("PATCH", "/api/devices/{id}", {"device_name": "New"}, 404, 403, 200, 200),
    Call("POST", "/api/devices/{id}/open", {}, 404, 200, 200, 200),
    Call("GET", "/api/devices/{id}/streams/{name}/thumbnail", None, 404, 404, 404, 404),  # it has no such stream
    Call("GET", "/api/devices/{id}/suite", None, 404, 409, 409, 409),  # it has no warden that could tell
    Call("POST", "/api/devices/{id}/suite/restart", {"process": "hub", "pid": 1}, 404, 403, 409, 409),
    Call("GET", "/api/devices/{id}/proxy{path}", None, 404, PASSED, PASSED, PASSED),
    Call("POST", "/api/devices/{id}/proxy{path}", {}, 404, 403, PASSED, PASSED),
    Call("PUT", "/api/devices/{id}/proxy{path}", {}, 404, 403, PASSED, PASSED),
    Call("DELETE", "/api/devices/{id}/proxy{path}", None, 404, 403, PASSED, PASSED),
    Call("POST", "/api/devices/{id}/whep", {}, 404, 415, 415, 415),  # they may, but not with JSON
    Call("PATCH", "/api/devices/{id}/whep/{session}", {}, 404, 404, 404, 404),  # there is no such session
    Call("DELETE", "/api/devices/{id}/whep/{session}", None, 404, 404, 404, 404),
    Call("POST", "/api/pairing/generate", None, 404, 404, 404, 200),
    Call("DELETE", "/api/devices/{id}", None, 404, 403, 403, 200),
]


def test_every_route_of_a_device_has_its_row() -> None:
    rows = {f"{call.method} {call.path}": call for call in OF_DEVICES}
    for route in ROUTES:
        call = f"{route.method} {plain_path(route.path)}"
        if route.method not in ("*", "OPTIONS") and (route.who in ROLES or "/devices/{id}" in call):
            assert (rows[call].viewer == 403) is (route.who == "owner"), call


def test_nobody_gets_in_anywhere_and_only_admins_where_it_is_theirs(hub: Process, admin: Http) -> None:
    made(admin, "nora")
    nora = hub.http.as_user("nora", PASSWORD)
    program = nora("POST", "/api/tokens", {"name": "x", "role": "owner"}).json["token"]
    for route in ROUTES:
        if route.method == "*" or route.who in ("anybody", "machine"):
            continue
        path = re.sub(r"\{\w+\}", "1", plain_path(route.path).replace("{what}", "mute"))
        for token in ("", "made-up"):
            assert hub.http(route.method, path, {}, token=token).status == 401, route.call
        if route.who == "admin":
            for token in (nora.token, program):
                assert hub.http(route.method, path, {}, token=token).status == 403, route.call


def test_each_role_on_every_route(hub: Process, admin: Http) -> None:
    people = {}
    for name in ("stranger", "viewer", "sharer", "owner", "third"):
        made(admin, f"m-{name}")
        people[name] = Page(hub, f"m-{name}")
    assert people["owner"]("GET", "/api/devices").json == []
    hub_rig.paired(hub, hub.http.as_user("m-owner", PASSWORD), "matrix")
    shares = "/api/devices/matrix/shares"
    for name, role in (("viewer", "viewer"), ("sharer", "owner")):
        assert people["owner"]("PUT", f"{shares}/m-{name}", {"role": role}).status == 200
    with hub_rig.device(hub, "matrix", device_secret="secret"):
        for call in OF_DEVICES:
            for name in ("stranger", "viewer", "sharer", "owner"):
                people["owner"]("PUT", f"{shares}/m-third", {"role": "viewer"})
                path = call.path.replace("{id}", "matrix").replace("{username}", "m-third").replace("{name}", "none")
                path = path.replace("{session}", "none")
                path = path.replace("{path}", "/api/stream.mp4")
                path += "?device_id=matrix" if "pairing" in path else ""
                answer = people[name](call.method, path, call.body)
                assert answer.status == getattr(call, name), (name, call, answer.body)
                assert name != "stranger" or answer.detail == "Device not found"
                nobody = hub.http(call.method, path, call.body).status
                assert nobody == (403 if "pairing" in path else 401)
    assert hub.refused("viewer wants more than to look") >= 6


# Sharing


@pytest.fixture
def shared(hub: Process, admin: Http) -> Iterator[tuple[Http, Http]]:
    """Whose the device `shared` is, and with whom they share it."""
    name = f"{time.monotonic_ns()}"
    for who in ("owner", "guest"):
        made(admin, f"{who}-{name}")
    owner, guest = (hub.http.as_user(f"{who}-{name}", PASSWORD) for who in ("owner", "guest"))
    hub_rig.paired(hub, owner, f"shared-{name}")
    assert owner("PUT", f"/api/devices/shared-{name}/shares/guest-{name}", {"role": "viewer"}).status == 200
    yield owner, guest
    owner("DELETE", f"/api/devices/shared-{name}")


def test_who_it_is_shared_with_sees_it_and_may_give_it_up(hub: Process, shared: tuple[Http, Http]) -> None:
    owner, guest = shared
    (one,) = owner("GET", "/api/devices").json
    (seen,) = guest("GET", "/api/devices").json
    assert seen == one | {"role": "viewer"} and one["role"] == "owner" and one["owner"].startswith("owner-")
    assert guest("GET", f"/api/devices/{one['device_id']}").json == seen
    place = f"/api/devices/{one['device_id']}/shares"
    (share,) = owner("GET", place).json
    assert set(share) == {"username", "role", "created_at"} and share["role"] == "viewer"
    assert owner("PUT", f"{place}/{one['owner']}", {"role": "viewer"}).status == 409, "it is theirs"
    assert owner("PUT", f"{place}/{share['username']}", {"role": "admin"}).status == 400
    assert guest("DELETE", f"{place}/{share['username']}").status == 200
    assert guest("GET", f"/api/devices/{one['device_id']}").status == 404
    assert owner("GET", place).json == guest("GET", "/api/devices").json == []
    assert owner("DELETE", f"{place}/{share['username']}").status == 404


def test_names_of_users_are_not_found_out_by_sharing(hub: Process, shared: tuple[Http, Http]) -> None:
    owner, _ = shared
    (one,) = owner("GET", "/api/devices").json
    place = f"/api/devices/{one['device_id']}/shares"
    said = [owner("PUT", f"{place}/nobody{n}", {"role": "viewer"}).status for n in range(21)]
    assert said == [404] * 20 + [429] and hub.refused("too many unknown users") >= 1
    for odd in ("a%3Ab", "%00", "x" * 65, "%ED%A0%80"):
        assert owner("DELETE", f"{place}/{odd}").status in (400, 404)


def test_a_watch_session_ends_with_what_lets_one_watch(hub: Process, shared: tuple[Http, Http]) -> None:
    owner, guest = shared
    (one,) = owner("GET", "/api/devices").json
    device_id, (share,) = one["device_id"], owner("GET", f"/api/devices/{one['device_id']}/shares").json
    with (
        hub_rig.device(hub, device_id, device_secret="secret") as device,
        hub_rig.viewer(hub, guest.token) as viewer,
        hub_rig.viewer(hub, owner.token) as other,
    ):
        sessions = []
        for each in (viewer, other):
            each.say("watch_request", {"device_id": device_id})
            sessions.append(each.hear("watch_ready")["payload"]["session_id"])
        assert owner("DELETE", f"/api/devices/{device_id}/shares/{share['username']}").status == 200
        for end in (device, viewer):
            assert end.hear("watch_ended", 5)["payload"]["session_id"] == sessions[0]
        viewer.say("watch_request", {"device_id": device_id})
        assert viewer.hear("error")["payload"]["message"] == "Device not found"
        assert other.is_alive() and device.is_alive()


def test_who_takes_a_device_over_takes_it_alone(hub: Process, shared: tuple[Http, Http], admin: Http) -> None:
    owner, guest = shared
    (one,) = owner("GET", "/api/devices").json
    place = f"/api/devices/{one['device_id']}"
    until(lambda: owner("GET", f"{place}/events").json["events"])
    code = owner("POST", f"/api/pairing/generate?device_id={one['device_id']}").json["code"]
    assert admin("POST", "/api/devices/pair", {"pairing_code": code}).status == 200
    assert owner("GET", place).status == guest("GET", place).status == 404
    assert admin("GET", f"{place}/shares").json == []
    events = until(lambda: admin("GET", f"{place}/events").json["events"])
    assert [event["kind"] for event in events] == ["paired"], "what was before is not the next one's"
    assert admin("DELETE", place).status == 200


# Events


def test_what_happens_to_a_device_is_listed_and_outlives_the_hub(hub: Process, admin: Http) -> None:
    made(admin, "eve")
    hub_rig.paired(hub, admin, "eventful")
    place = "/api/devices/eventful"
    with (
        hub_rig.device(hub, "eventful", device_secret="secret", agent_version="1.2.3"),
        hub_rig.device(hub, "eventful", device_secret="secret", caps=["mux1"]) as device,
    ):
        streams = {"door": {"producers": [{"url": "exec:...", "format_name": "mpegts"}], "consumers": [{}]}}
        device.say("capabilities", {"device_id": "eventful", "streams": streams})
        assert device.is_alive()
        shown: dict[str, Any] = admin("GET", place).json
        assert shown["streams"] == [{"name": "door", "is_running": True, "watchers": 1}]
        assert (shown["state"], shown["caps"], shown["has_suite"]) == ("online", ["mux1"], False)
        assert shown["connected_at"] and shown["agent_version"] == ""
        with hub_rig.talking(hub, "/ws/device") as wrong:
            wrong.say("hello", {"device_id": "eventful", "device_secret": "wrong"})
            assert wrong.closing() == (1008, "Wrong credential")
    until(lambda: admin("GET", place).json["state"] == "offline")
    admin("PATCH", place, {"device_name": "<img src=x onerror=alert(1)>"})
    admin("PUT", f"{place}/shares/eve", {"role": "owner"})
    admin("DELETE", f"{place}/shares/eve")
    kinds = ["unshared", "shared", "renamed", "disconnected", "refused", "replaced", "connected", "paired"]

    def listed(query: str = "") -> Any:
        return admin("GET", f"{place}/events{query}").json

    until(lambda: [event["kind"] for event in listed()["events"]] == kinds)
    events = listed()["events"]
    hub.restart()
    assert listed() == {"events": events, "more": False}
    texts = [event["text"] for event in events]
    assert texts[0] == "with eve, by admin" and texts[1] == "with eve as owner, by admin"
    assert texts[2] == "from eventful to <img src=x onerror=alert(1)>, by admin"
    assert texts[-2] == "from 127.0.0.1, version 1.2.3" and texts[-1] == "by admin"
    assert listed("?limit=2") == {"events": events[:2], "more": True}
    assert listed(f"?limit=200&before={events[-2]['id']}") == {"events": events[-1:], "more": False}
    for wrong_query in ("?limit=0", "?limit=201", "?limit=x", "?before=-1", "?before=99999999999", "?limit="):
        assert admin("GET", f"{place}/events{wrong_query}").status == 400


def test_a_viewer_hears_what_has_happened_but_not_from_where_and_with_whom(hub: Process, admin: Http) -> None:
    hub_rig.paired(hub, admin, "told")
    made(admin, "told-guest")
    guest = hub.http.as_user("told-guest", PASSWORD)
    assert admin("PUT", "/api/devices/told/shares/told-guest", {"role": "viewer"}).status == 200
    with hub_rig.viewer(hub, admin.token) as owners, hub_rig.viewer(hub, guest.token) as guests:
        for page in (owners, guests):
            page.say("subscribe", {"devices": False, "suite": [], "events": ["told"]})
            assert page.is_alive()
        assert admin("PATCH", "/api/devices/told", {"device_name": "Told"}).status == 200
        with hub_rig.device(hub, "told"):
            (*before, connected), guests_all = events_until(owners, "connected"), events_until(guests, "connected")
    assert "renamed" in [event["kind"] for event in before] and "127.0.0.1" in connected["text"]
    assert [(event["kind"], event["text"]) for event in guests_all] == [("connected", "")]


def events_until(page: hub_rig.Talker, kind: str) -> list[dict[str, Any]]:
    """What a page is told has happened, up to the first of a kind."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["kind"] != kind:
        found.append(page.hear("event")["payload"]["event"])
    return found
