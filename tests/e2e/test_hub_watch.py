"""Watch sessions across what breaks: connections of viewers and devices, the hub itself, and what lets people watch."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from tests import hub_rig
from tests.hub_rig import CHEAP_HUB, Http, Process, Talker
from tests.rig import until

SECRET = "coturn's and ours alone"
TURN = "turn:turn.example.com:3478?transport=udp,turn:turn.example.com:3478?transport=tcp"
INSTANCE = "0123456789abcdef"
OFFER = {"type": "offer", "sdp": "v=0 offer"}
ANSWER = {"type": "answer", "sdp": "v=0 answer"}
# The same hub, less patient.
RETURN_S, RESTART_S = 1.5, 3.0
HUB = (
    "-c",
    "from procs.hub.viewers import watches\n"
    f"watches.RETURN_S, watches.RESTART_S = {RETURN_S}, {RESTART_S}\n" + CHEAP_HUB[1],
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub with TURN."""
    run_dir = tmp_path_factory.mktemp("hub")
    with hub_rig.process(run_dir, command=HUB, PLANARIA_COMPAT="1", TURN_URLS=TURN, TURN_SECRET=SECRET) as running:
        yield running


@pytest.fixture(scope="module")
def owner(hub: Process) -> Http:
    """Whose device it is."""
    return hub.http.new_user("owner")


@pytest.fixture
def cam(hub: Process, owner: Http, request: pytest.FixtureRequest) -> str:
    """A device of this test's own."""
    device_id = str(request.node.name)
    hub_rig.paired(hub, owner, device_id)
    return device_id


def device(hub: Process, cam: str, instance: str = INSTANCE) -> AbstractContextManager[Talker]:
    """The device: ours by default, with a name for its identity; a published one has none."""
    return hub_rig.device(hub, cam, **({"instance": instance} if instance else {}))


@contextmanager
def resuming(hub: Process, token: str) -> Iterator[Talker]:
    """A viewer that comes back to its sessions."""
    with hub_rig.talking(hub, "/ws/viewer") as talker:
        talker.say("hello", {"token": token, "caps": ["resume", "something newer"]})
        assert talker.hear("hello_ack")["payload"]["caps"] == ["resume"]
        yield talker


def watched(cam: str, viewer: Talker, at: Talker) -> str:
    """Begin a session; its id."""
    viewer.say("watch_request", {"device_id": cam})
    session = str(viewer.hear("watch_ready")["payload"]["session_id"])
    assert at.hear("watch_request")["payload"]["session_id"] == session
    return session


def candidate(number: int) -> dict[str, object]:
    """A candidate as browsers write it."""
    return {"candidate": f"candidate:{number} 1 udp 1 10.0.0.1 {number} typ host", "sdpMid": "0", "sdpMLineIndex": 0}


def shake(viewer: Talker, at: Talker, session: str) -> None:
    """Offer and answer."""
    viewer.say("signal_offer", {"session_id": session, "sdp": OFFER})
    assert at.hear("signal_offer")["payload"]["sdp"] == OFFER
    at.say("signal_answer", {"session_id": session, "sdp": ANSWER})
    assert viewer.hear("signal_answer")["payload"]["sdp"] == ANSWER


def hears_nothing(talker: Talker) -> bool:
    """Whether nothing but the answer to a heartbeat is on its way."""
    talker.say("heartbeat")
    return bool(talker.hear()["type"] == "heartbeat_ack")


def test_the_stream_and_the_reason_go_through(hub: Process, owner: Http, cam: str) -> None:
    with (
        device(hub, cam) as at,
        resuming(hub, owner.token) as viewer,
        hub_rig.viewer(hub, owner.token) as published,
    ):
        viewer.say("watch_request", {"device_id": cam, "stream": "omega-1 é"})
        session = viewer.hear("watch_ready")["payload"]["session_id"]
        assert at.hear("watch_request")["payload"]["stream"] == "omega-1 é"
        at.say("watch_ended", {"session_id": session, "reason": "error", "why": "no such stream"})
        ended = viewer.hear("watch_ended")["payload"]
        assert ended == {"session_id": session, "reason": "error", "why": "no such stream"}
        viewer.say("watch_request", {"device_id": cam, "stream": "one\nline"})
        assert "stream" in viewer.hear("error")["payload"]["message"]
        published.say("watch_request", {"device_id": cam})
        session = published.hear("watch_ready")["payload"]["session_id"]
        assert set(at.hear("watch_request")["payload"]) == {"session_id", "user_id", "ice_servers"}, "as published"
        at.say("watch_ended", {"session_id": session, "reason": "error", "why": "no such stream"})
        assert published.hear("watch_ended")["payload"] == {"session_id": session, "reason": "error"}


def test_the_credentials_are_those_that_coturn_takes(hub: Process, owner: Http, cam: str) -> None:
    with device(hub, cam) as at, hub_rig.viewer(hub, owner.token) as viewer:
        viewer.say("watch_request", {"device_id": cam})
        (server,) = viewer.hear("watch_ready")["payload"]["ice_servers"]
        assert at.hear("watch_request")["payload"]["ice_servers"][0]["urls"] == TURN.split(",")
    assert server["urls"] == TURN.split(",") and server["credentialType"] == "password"
    expiry, _, name = server["username"].partition(":")
    assert name and abs(int(expiry) - time.time() - 86_400) < 60
    made = hmac.new(SECRET.encode(), server["username"].encode(), hashlib.sha1).digest()
    assert base64.b64decode(server["credential"]) == made
    assert SECRET not in hub.said() and server["credential"] not in hub.said()


def test_a_viewer_comes_back_and_has_missed_nothing(hub: Process, owner: Http, cam: str) -> None:
    with device(hub, cam) as at:
        with resuming(hub, owner.token) as viewer:
            session = watched(cam, viewer, at)
            viewer.say("signal_offer", {"session_id": session, "sdp": OFFER})
            at.hear("signal_offer")
        at.say("signal_answer", {"session_id": session, "sdp": ANSWER})
        at.say("signal_ice", {"session_id": session, "candidate": candidate(1)})
        assert hears_nothing(at), "its viewer may come back"
        with resuming(hub, owner.token) as viewer:
            viewer.say("watch_resume", {"session_id": session}, request_id="r1")
            ready = viewer.hear()
            assert ready["type"] == "watch_ready" and ready["request_id"] == "r1"
            assert ready["payload"]["session_id"] == session and ready["payload"]["ice_servers"]
            assert viewer.hear()["payload"]["sdp"] == ANSWER
            assert viewer.hear()["payload"]["candidate"]["candidate"] == candidate(1)["candidate"]
            viewer.say("signal_ice", {"session_id": session, "candidate": candidate(2)})
            assert at.hear()["payload"]["candidate"]["candidate"] == candidate(2)["candidate"]
            with resuming(hub, owner.token) as again:  # the first is dead, and the hub does not know it yet
                again.say("watch_resume", {"session_id": session})
                again.hear("watch_ready")
                viewer.say("signal_ice", {"session_id": session, "candidate": None})
                assert viewer.hear("error")["payload"]["message"] == "no such session"
                viewer.ws.close()
                assert again.is_alive() and hears_nothing(at)
                again.say("end_watch", {"session_id": session})
                assert at.hear()["payload"] == {"session_id": session, "reason": "user_ended"}
                again.say("watch_resume", {"session_id": session}, request_id="r2")
                error = again.hear("error")
                assert (error["payload"]["message"], error["request_id"]) == ("no such session", "r2")


def test_a_viewer_that_does_not_come_back(hub: Process, owner: Http, cam: str) -> None:
    with device(hub, cam) as at:
        with resuming(hub, owner.token) as viewer:
            session = watched(cam, viewer, at)
        gone_at = time.monotonic()
        assert at.hear("watch_ended")["payload"] == {"session_id": session, "reason": "viewer_disconnected"}
        assert time.monotonic() - gone_at > RETURN_S / 2, "it had its time"


def test_a_session_is_resumed_by_its_user_alone(hub: Process, owner: Http, cam: str) -> None:
    stranger = hub.http.new_user("stranger")
    with device(hub, cam) as at, resuming(hub, owner.token) as viewer, hub_rig.viewer(hub, owner.token) as published:
        session, theirs = watched(cam, viewer, at), watched(cam, published, at)
        with resuming(hub, stranger.token) as other, resuming(hub, owner.token) as own:
            for talker, wanted in ((other, session), (own, theirs), (published, session), (own, "made up")):
                talker.say("watch_resume", {"session_id": wanted})
                assert talker.hear("error")["payload"]["message"] == "no such session"
        viewer.say("signal_ice", {"session_id": session, "candidate": None})
        assert at.hear("signal_ice")["payload"]["session_id"] == session


def test_what_a_device_says_again_is_told_once(hub: Process, owner: Http, cam: str) -> None:
    with device(hub, cam) as at, hub_rig.viewer(hub, owner.token) as viewer:
        session = watched(cam, viewer, at)
        shake(viewer, at, session)
        before = hub.metric("signals_repeated_total")
        for _ in range(3):
            at.say("signal_answer", {"session_id": session, "sdp": ANSWER})
            at.say("signal_ice", {"session_id": session, "candidate": candidate(1)})
        assert at.is_alive()
        assert viewer.hear()["type"] == "signal_ice"
        assert hears_nothing(viewer) and hub.metric("signals_repeated_total") == before + 5
        shake(viewer, at, session)  # of another offer it may be the same one


def test_a_device_that_comes_back_is_asked_again(hub: Process, owner: Http, cam: str) -> None:
    with hub_rig.viewer(hub, owner.token) as viewer:
        with device(hub, cam) as at:
            session = watched(cam, viewer, at)
            viewer.say("signal_offer", {"session_id": session, "sdp": OFFER})
            at.hear("signal_offer")
        viewer.say("signal_ice", {"session_id": session, "candidate": candidate(1)})
        assert viewer.is_alive()
        with device(hub, cam) as at:
            assert [at.hear()["type"] for _ in range(3)] == ["watch_request", "signal_offer", "signal_ice"]
            at.say("signal_answer", {"session_id": session, "sdp": ANSWER})
            viewer.hear("signal_answer")
        with device(hub, cam) as at:
            assert hears_nothing(at), "it was answered"
            viewer.say("signal_ice", {"session_id": session, "candidate": None})
            assert at.hear()["payload"] == {"session_id": session, "candidate": None}
        with device(hub, cam, "another"):
            ended = viewer.hear("watch_ended")["payload"]
            assert ended == {"session_id": session, "reason": "device_disconnected"}


def test_sessions_outlive_the_hub(hub: Process, owner: Http, cam: str) -> None:
    sessions: list[str] = []
    with device(hub, cam) as at, resuming(hub, owner.token) as viewer, hub_rig.viewer(hub, owner.token) as published:
        for talker in (viewer, viewer, published):
            sessions.append(watched(cam, talker, at))
            shake(talker, at, sessions[-1])
        until(lambda: set(sessions) <= kept(hub))
        hub.kill()
    hub.start()
    hub.wait()
    resumed, left, of_published = sessions
    with device(hub, cam) as at, resuming(hub, owner.token) as viewer:
        viewer.say("watch_resume", {"session_id": resumed})
        assert viewer.hear("watch_ready")["payload"]["session_id"] == resumed
        ended = at.hear("watch_ended")["payload"]
        assert ended == {"session_id": of_published, "reason": "viewer_disconnected"}
        at.say("signal_ice", {"session_id": resumed, "candidate": candidate(1)})
        assert viewer.hear("signal_ice")["payload"]["session_id"] == resumed
        assert at.hear("watch_ended")["payload"] == {"session_id": left, "reason": "viewer_disconnected"}
        viewer.say("end_watch", {"session_id": resumed})
        assert at.hear("watch_ended")["payload"] == {"session_id": resumed, "reason": "user_ended"}
    until(lambda: not kept(hub) & set(sessions))


def kept(hub: Process) -> set[str]:
    """The sessions that the store knows to go on."""
    with closing(sqlite3.connect(f"file:{hub.run_dir / 'hub.sqlite'}?mode=ro", uri=True)) as store:
        return {row[0] for row in store.execute("SELECT session_id FROM watches WHERE ended_at IS NULL")}


def test_sessions_leave_nothing_behind(hub: Process, owner: Http, cam: str) -> None:
    with device(hub, cam) as at:
        for number in range(40):
            with resuming(hub, owner.token) as viewer:
                session = watched(cam, viewer, at)
                shake(viewer, at, session)
                if number % 2:
                    viewer.say("end_watch", {"session_id": session})
                    assert at.hear("watch_ended")["payload"]["session_id"] == session
            if number == 10:
                before = files_of(hub)
        until(lambda: hub.metric("watch_sessions") == 0)
        until(lambda: not kept(hub))
        until(lambda: files_of(hub) <= before)


def files_of(hub: Process) -> int:
    """How many it has open."""
    return len(os.listdir(f"/proc/{hub.process.pid}/fd"))


def test_nobody_watches_on_who_may_not_any_more(hub: Process, owner: Http, cam: str) -> None:
    guest = hub.http.new_user("guest")
    share = f"/api/devices/{cam}/shares/guest"
    with device(hub, cam) as at, resuming(hub, guest.token) as viewer, resuming(hub, owner.token) as other:
        assert owner("PUT", share, {"role": "viewer"}).status == 200
        session, theirs = watched(cam, viewer, at), watched(cam, other, at)
        assert owner("DELETE", share).status == 200
        assert at.hear("watch_ended")["payload"] == {"session_id": session, "reason": "error"}
        ended = viewer.hear("watch_ended")["payload"]
        assert ended["session_id"] == session and ended["why"]
        login = hub.http.as_user("owner", "a good password")
        with resuming(hub, login.token) as third:
            last = watched(cam, third, at)
            assert login("POST", "/api/auth/logout").status == 200
            assert at.hear("watch_ended")["payload"]["session_id"] == last
        other.say("signal_ice", {"session_id": theirs, "candidate": None})
        assert at.hear("signal_ice")["payload"]["session_id"] == theirs
    assert json.dumps(SECRET) not in hub.said()


def test_only_owners_are_heard_at_a_device(hub: Process, owner: Http, cam: str) -> None:
    looker, other = hub.http.new_user("looker"), hub.http.new_user("other")
    for name, role in (("looker", "viewer"), ("other", "owner")):
        assert owner("PUT", f"/api/devices/{cam}/shares/{name}", {"role": role}).status == 200
    token = owner("POST", "/api/tokens", {"name": "x", "role": "viewer", "days": 1}).json["token"]
    offer = {"type": "offer", "sdp": "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 8\r\na=sendonly\r\n"}
    with device(hub, cam) as at:
        for who, is_heard in ((owner.token, True), (other.token, True), (looker.token, False), (token, False)):
            with resuming(hub, who) as viewer:
                viewer.say("signal_offer", {"session_id": watched(cam, viewer, at), "sdp": offer})
                told = at.hear("signal_offer")["payload"]["sdp"]
                assert (told == offer) is is_heard and ("a=inactive" in told["sdp"]) is not is_heard


def test_an_offer_that_no_frame_can_carry_keeps_no_device_away(hub: Process, owner: Http, cam: str) -> None:
    guest = hub.http.new_user("lavish")
    assert owner("PUT", f"/api/devices/{cam}/shares/lavish", {"role": "viewer"}).status == 200
    huge = {"type": "offer", "sdp": "m=\n" * 80_000}  # to each of which the hub adds that nothing is said there
    with resuming(hub, guest.token) as viewer:
        with device(hub, cam) as at:
            session = watched(cam, viewer, at)
            viewer.say("signal_offer", {"session_id": session, "sdp": huge})
            assert "over the limit" in viewer.hear("error")["payload"]["message"]
        with device(hub, cam) as at:
            assert at.hear("watch_request")["payload"]["session_id"] == session and at.is_alive()
            viewer.say("signal_offer", {"session_id": session, "sdp": OFFER})
            assert at.hear("signal_offer")["payload"]["session_id"] == session
