"""The hub's calls of the voice backend beside it: who may, what is told, what is refused, and where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from procs import bus
from procs.messages.requests import ProcessState, Reply, SuiteState
from procs.messages.voice import Do, Line, VoiceDevice, VoiceState
from tests import hub_rig
from tests.desk import Leader, answering, voice_device, voice_leader
from tests.hub_rig import Http, Process

SAY = "/api/voice/kitchen/say"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub as it runs in the suite."""
    folder = tmp_path_factory.mktemp("hub") / "run"
    with hub_rig.process(folder, command=hub_rig.IMPATIENT_HUB, PLANARIA_COMPAT="1") as running:
        yield running


@pytest.fixture(scope="module")
def admin(hub: Process) -> Http:
    """Its first account."""
    return hub.admin


@pytest.fixture
def leader(hub: Process) -> Iterator[Leader]:
    """The backend beside it."""
    with voice_leader(hub.run_dir, voice_device("attic"), voice_device("hall"), voice_device("kitchen")) as running:
        yield running


def refused(who: Http, method: str, path: str, body: object = None) -> tuple[int, str]:
    """The status and the words of a refusal."""
    answer = who(method, path, body)
    return answer.status, answer.detail


# --- who may ------------------------------------------------------------------------------------------

CALLS = [("GET", "/api/voice"), ("GET", "/api/voice/kitchen/lines"), ("POST", SAY)]
CALLS += [
    ("POST", f"/api/voice/kitchen/{what}") for what in ("mute", "unmute", "reconnect", "enable", "disable", "forget")
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_admins_may_and_nobody_else(hub: Process, admin: Http, leader: Leader, method: str, path: str) -> None:
    user = admin.new_user(f"user-{time.monotonic_ns()}")
    body = {"text": "hello"} if path == SAY else None
    assert hub.http(method, path, body).status == 401
    assert refused(user, method, path, body) == (403, "Only an admin may do this")
    assert leader.done == []
    assert admin(method, path, body).status == 200


def test_a_token_that_may_only_look_changes_nothing(hub: Process, admin: Http, leader: Leader) -> None:
    made = admin("POST", "/api/tokens", {"name": "screen", "role": "viewer", "days": 1}).json
    screen = Http(hub.port, made["token"])
    for method, path in CALLS:
        answer = screen(method, path, {"text": "hello"} if path == SAY else None)
        assert answer.status == (200 if method == "GET" else 403), path
    assert leader.done == []


@pytest.mark.parametrize("origin", ["http://evil.example", None])
def test_another_sites_page_makes_nothing_be_said(hub: Process, leader: Leader, origin: str | None) -> None:
    wanted = {"username": "admin", "password": hub_rig.ADMIN_PASSWORD}
    session = hub.http("POST", "/api/session", wanted)
    headers = {"Cookie": str(session.headers["Set-Cookie"]).partition(";")[0], "Sec-Fetch-Site": "cross-site"}
    sent = headers | ({"Origin": origin} if origin else {})
    assert hub.http("POST", SAY, {"text": "hello"}, headers=sent).status == 403
    assert leader.done == []


# --- what is told -------------------------------------------------------------------------------------


def test_all_devices_are_told_of_though_they_come_in_parts(admin: Http, leader: Leader) -> None:
    leader.state = VoiceState(True, [], ["devices.json: devices[3].port=0: must be 1 to 65535"], {"stt": "no answer"})
    leader.change("hall", microphone="is not there", muted=True)
    french = '{"type": "constant", "text": "Parle.", "language": "fr"}'
    leader.devices["kitchen"] = replace(leader.devices["kitchen"], instructions=french)
    leader.devices["attic"] = replace(leader.devices["attic"], instructions='{"type": 3')
    told = admin("GET", "/api/voice").json
    assert [each["name"] for each in told["devices"]] == ["attic", "hall", "kitchen"]
    assert (told["is_configured"], told["services"]) == (True, {"stt": "no answer"})
    assert told["problems"] == ["devices.json: devices[3].port=0: must be 1 to 65535"]
    attic, hall, kitchen = told["devices"]
    assert (kitchen["instructions_type"], kitchen["language"], attic["instructions_type"]) == ("constant", "fr", "")
    assert hall["microphone"] == "is not there" and hall["is_muted"] and not attic["is_muted"]
    assert attic["since"].startswith("20") and attic["state"] == "connected" and attic["turn"] == "waiting_for_user"
    assert {"instructions", "token", "owner"} & attic.keys() == set()


def test_a_device_without_a_conversation_has_no_times(hub: Process, admin: Http) -> None:
    held = VoiceDevice("far", "192.0.2.9", 1, "", "{}", True, True, 5.0, "elsewhere")
    with voice_leader(hub.run_dir, held):
        (device,) = admin("GET", "/api/voice").json["devices"]
    assert (device["state"], device["since"], device["microphone"], device["services"]) == ("elsewhere", None, "", {})


def test_lines_are_told_once_and_again_where_they_change(admin: Http, leader: Leader) -> None:
    leader.hears("kitchen", Line(1, "user", "Good morning", True, 1_700_000_000.0))
    leader.hears("kitchen", Line(2, "assistant", "Good", False))
    first = admin("GET", "/api/voice/kitchen/lines").json
    assert [(each["number"], each["role"], each["text"], each["is_final"]) for each in first["lines"]] == [
        (1, "user", "Good morning", True),
        (2, "assistant", "Good", False),
    ]
    assert [each["at"] for each in first["lines"]] == ["2023-11-14T22:13:20", None]
    after = f"/api/voice/kitchen/lines?after={first['next']}"
    assert admin("GET", after).json == {"lines": [], "next": first["next"]}
    leader.hears("kitchen", Line(2, "assistant", "Good morning to you", True))
    (line,) = admin("GET", after).json["lines"]
    assert (line["number"], line["text"], line["is_final"]) == (2, "Good morning to you", True)


# --- what is done -------------------------------------------------------------------------------------


def test_what_is_asked_for_is_done(admin: Http, leader: Leader) -> None:
    assert admin("POST", SAY, {"text": "Dinner is ready, Zoë 🐙"}).json == {"message": "Begun"}
    for what in ("mute", "unmute", "reconnect", "disable", "enable", "forget"):
        assert admin("POST", f"/api/voice/kitchen/{what}").status == 200
    assert leader.done[0] == Do("kitchen", "say", "Dinner is ready, Zoë 🐙")
    assert [each.what for each in leader.done[1:]] == ["mute", "unmute", "reconnect", "disable", "enable", "forget"]


def test_what_is_to_be_said_is_said_once_though_it_takes_long(admin: Http, leader: Leader) -> None:
    """All else is asked again and again until it is answered."""
    leader.slow_s = hub_rig.IMPATIENT_S / 2
    assert admin("POST", SAY, {"text": "hello"}).status == 200
    leader.slow_s = 0.0
    assert admin("GET", "/api/voice").status == 200  # what had been asked meanwhile came before this
    assert leader.done == [Do("kitchen", "say", "hello")]


def test_nobody_knows_whether_it_was_said(admin: Http, leader: Leader) -> None:
    leader.slow_s = hub_rig.IMPATIENT_S + 0.5
    status, why = refused(admin, "POST", SAY, {"text": "hello"})
    assert status == 503 and "before you try again" in why


@pytest.mark.parametrize("text", ["", "   ", "two\nlines", "a" * 1001, "\x00", 7, None])
def test_a_text_that_nobody_can_say_is_refused(admin: Http, leader: Leader, text: object) -> None:
    status, why = refused(admin, "POST", SAY, {"text": text})
    assert status == 400 and "text" in why
    assert leader.done == []


@pytest.mark.parametrize("body", [{}, [], {"text": "a", "volume": 11}, b"{", b"\xff"])
def test_so_is_what_is_no_such_wish(admin: Http, leader: Leader, body: object) -> None:
    assert admin("POST", SAY, body).status == 400
    assert leader.done == []


@pytest.mark.parametrize("after", ["-1", "x", "1e99", str(2**63), ""])
def test_so_is_what_is_no_number(admin: Http, leader: Leader, after: str) -> None:
    assert admin("GET", f"/api/voice/kitchen/lines?after={after}").status == 400


@pytest.mark.parametrize("name", ["cellar", "kitchen%2Fx", "%00", "%F0%9F%90%99", "a" * 65, "%20"])
def test_there_is_no_other_device(admin: Http, leader: Leader, name: str) -> None:
    for method, what in (("GET", "lines"), ("POST", "mute"), ("POST", "say")):
        body = {"text": "hello"} if what == "say" else None
        assert refused(admin, method, f"/api/voice/{name}/{what}", body) == (404, "No such voice device")


def test_nor_is_anything_else_done(admin: Http, leader: Leader) -> None:
    assert admin("POST", "/api/voice/kitchen/explode").status in (404, 405)
    assert leader.done == []


def test_the_backends_own_refusal_is_told_in_its_words(admin: Http, leader: Leader) -> None:
    leader.refuses = "it is not connected"
    assert refused(admin, "POST", SAY, {"text": "hello"}) == (409, "it is not connected")
    assert refused(admin, "POST", "/api/voice/kitchen/mute") == (409, "it is not connected")


# --- where there is none ------------------------------------------------------------------------------


def warden(state: str, last_end: str = "") -> SuiteState:
    """What the warden says of the backend's process."""
    return SuiteState([ProcessState("voice", 0, state, 1.0, None, 1, last_end, 0, 0, 0.0)], [])


@pytest.mark.parametrize("method_path", CALLS)
@pytest.mark.parametrize("suite", [warden("STOPPED"), SuiteState([], [])], ids=["off", "unknown"])
def test_where_none_is_to_run_there_is_none(
    hub: Process, admin: Http, method_path: tuple[str, str], suite: SuiteState
) -> None:
    """Found out at once: nobody is waited for who is not to come."""
    method, path = method_path
    with answering(hub.run_dir, bus.WARDEN_STATE, lambda _: Reply(0, True, body=suite)):
        body = {"text": "hello"} if path == SAY else None
        assert refused(admin, method, path, body) == (404, "No voice backend runs on this machine")


@pytest.mark.parametrize("has_run", [True, False])
def test_one_that_is_down_is_told_of_with_why(hub: Process, admin: Http, has_run: bool) -> None:
    socket = bus.path(hub.run_dir, bus.VOICE_STATE)
    if has_run:
        socket.touch()  # as one leaves it that was killed
    suite = warden("BACKOFF", "exit 2")
    try:
        with answering(hub.run_dir, bus.WARDEN_STATE, lambda _: Reply(0, True, body=suite)):
            answer = admin("GET", "/api/voice")
    finally:
        socket.unlink(missing_ok=True)
    assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0
    assert answer.detail == "The voice backend of this machine does not answer; it ended last by exit 2"


def test_without_a_warden_what_has_been_there_is_down(hub: Process, admin: Http) -> None:
    assert refused(admin, "GET", "/api/voice") == (404, "No voice backend runs on this machine")
    socket = bus.path(hub.run_dir, bus.VOICE_STATE)
    socket.touch()
    try:
        assert refused(admin, "GET", "/api/voice") == (503, "The voice backend of this machine does not answer")
    finally:
        socket.unlink()


def test_one_that_talks_nonsense_is_no_error_of_the_hubs(hub: Process, admin: Http) -> None:
    with answering(hub.run_dir, bus.VOICE_STATE, lambda _: Reply(0, True)):
        answers = [admin("GET", "/api/voice"), admin("GET", "/api/voice/kitchen/lines")]
    assert [each.status for each in answers] == [503, 503]
    assert all("something else than was asked" in each.detail for each in answers)
