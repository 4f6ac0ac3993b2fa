"""Watch sessions at webrtc_peer's leader: leases, and who is told what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from procs.messages.watch import Beat
from procs.webrtc_peer import sessions
from procs.webrtc_peer.sessions import Action, Fork, Kill, Over, Sessions, Tell, Template
from procs.wire.frames.watch import WatchRequest
from procs.wire.webrtc import IceServer

SERVERS = [IceServer("stun:s"), IceServer(["turn:t"], "u", "c", "password")]


def made(*ids: str, now: float = 0.0) -> Sessions:
    """Sessions that have been asked for."""
    one = Sessions(Template("/run", (1024, 2048)))
    for session_id in ids:
        (fork,) = one.asked(WatchRequest(session_id, "1", []), "omega-0", now)
        assert isinstance(fork, Fork)
        one.born(fork.child, 100)
    return one


def beat(session_id: str = "s", state: Any = "new", pid: int = 100, silent_s: float = 0.0) -> Beat:
    return Beat(session_id, pid, state, silent_s=silent_s)


def told(actions: list[Action]) -> list[dict[str, Any]]:
    return [json.loads(action.body) for action in actions if isinstance(action, Tell)]


def test_a_request_has_a_child_born() -> None:
    one = Sessions(Template("/run", (1024, 2048)))
    (fork,) = one.asked(WatchRequest("s", "1", SERVERS, "door"), "door", 0.0)
    assert isinstance(fork, Fork) and fork.spec.session_id == "s" and fork.spec.stream == "door"
    assert fork.spec.ice_servers == [{"urls": ["stun:s"]}, {"urls": ["turn:t"], "username": "u", "credential": "c"}]
    assert "c" not in repr(fork.spec).split("'"), "a credential in a traceback"
    assert (fork.spec.run_dir, fork.spec.udp_range, fork.spec.lease_s) == ("/run", (1024, 2048), sessions.OFFER_S)
    assert one.asked(WatchRequest("s", "1", []), "door", 0.1) == [], "it was said twice"
    assert one.ids == ["s"] and one.stream_of("s") == "door" and one.stream_of("t") == ""


def test_there_are_only_so_many() -> None:
    one = made(*(f"s{number}" for number in range(sessions.MAX_SESSIONS)))
    (refusal,) = told(one.asked(WatchRequest("more", "1", []), "omega-0", 0.0))
    assert refusal["session_id"] == "more" and refusal["reason"] == "error" and len(one.ids) == sessions.MAX_SESSIONS


def test_frames_wait_for_the_first_beat_and_are_bounded() -> None:
    one = made("s")
    for number in range(sessions.MAX_HELD + 10):
        assert one.signalled("signal_ice", "s", b"%d" % number, 0.1) == []
    assert not one.passes("s")
    assert one.beaten(beat(), 0.2)
    held = one.passes("s")
    assert len(held) == sessions.MAX_HELD and held[0].body == b"0"
    assert not one.passes("nobody")


def test_frames_of_no_session() -> None:
    one = made("s")
    assert told(one.signalled("signal_offer", "x", b"", 0.0)) == [
        {"session_id": "x", "reason": "error", "why": "no such session"}
    ]
    assert one.signalled("signal_ice", "x", b"", 0.0) == [] == one.signalled("watch_ended", "x", b"", 0.0)
    one.signalled("watch_ended", "s", b"", 0.0)
    assert one.signalled("signal_offer", "s", b"", 0.0) == [], "whoever ended it knows"


def test_the_hub_ends_one_and_is_told_nothing() -> None:
    one = made("s", "t")
    kill, over = one.signalled("watch_ended", "s", b"", 0.0)
    assert isinstance(kill, Kill) and isinstance(over, Over) and one.ids == ["t"]
    assert one.gone(kill.child, "signal 9") == []


def test_a_child_that_dies_is_told_at_once() -> None:
    one = made("s", "t")
    actions = one.gone("1", "signal 9")
    assert told(actions) == [
        {"session_id": "s", "reason": "error", "why": "what had the session on the device has died: signal 9"}
    ]
    assert one.ids == ["t"] and one.gone("1", "signal 9") == []


def test_an_id_that_comes_again_is_not_ended_by_the_death_of_its_first_child() -> None:
    one = made("s")
    one.signalled("watch_ended", "s", b"", 0.0)
    (fork,) = one.asked(WatchRequest("s", "1", []), "omega-0", 0.1)
    assert isinstance(fork, Fork) and fork.child != "1"
    assert one.gone("1", "signal 9") == [] and one.ids == ["s"]
    one.born(fork.child, 200)
    assert not one.beaten(beat(pid=100), 0.2), "of the first one"
    assert one.beaten(beat(pid=200), 0.2)


def test_what_a_child_says_goes_to_the_hub() -> None:
    one = made("s")
    assert one.answered("signal_answer", "s", b"{}") == [Tell("signal_answer", "s", b"{}")]
    actions = one.answered("watch_ended", "s", b'{"why": "x"}')
    assert told(actions) == [{"why": "x"}] and {type(each) for each in actions} == {Kill, Over, Tell}
    assert one.answered("signal_ice", "s", b"") == [] == one.gone("1", "exit 0")


ALIVE = "new", 0.0
CASES = [
    # offered at, state, silent for, last beat, now -> reason
    (None, None, 0.0, sessions.BORN_S, ""),
    (None, None, 0.0, sessions.BORN_S + 1, "error"),
    (None, "new", 0.0, sessions.OFFER_S, ""),
    (None, "new", 0.0, sessions.OFFER_S + 1, "timeout"),
    (5.0, "connecting", 0.0, 5 + sessions.CONNECT_S, ""),
    (5.0, "connecting", 0.0, 6 + sessions.CONNECT_S, "timeout"),
    (5.0, "connected", 0.0, 500.0, ""),
    (5.0, "connected", sessions.VIEWER_SILENT_S, 500.0, ""),
    (5.0, "connected", sessions.VIEWER_SILENT_S + 1, 500.0, "timeout"),
]


@pytest.mark.parametrize(("offered", "state", "silent_s", "now", "reason"), CASES)
def test_every_session_is_a_lease(
    offered: float | None, state: str | None, silent_s: float, now: float, reason: str
) -> None:
    one = made("s")
    if offered is not None:
        one.signalled("signal_offer", "s", b"", offered)
        one.signalled("signal_offer", "s", b"", now)  # a second one does not make it longer
    if state:
        one.beaten(beat(state=state, silent_s=silent_s), now)
    assert [each["reason"] for each in told(one.tick(now))] == ([reason] if reason else [])
    assert one.ids == ([] if reason else ["s"])


def test_a_child_that_stands_still_is_ended() -> None:
    one = made("s")
    one.beaten(beat(), 1.0)
    assert one.tick(1.0 + sessions.BEAT_S) == []
    actions = one.tick(1.1 + sessions.BEAT_S)
    assert told(actions)[0]["reason"] == "error" and any(isinstance(each, Kill) for each in actions)


def test_one_that_loses_its_viewer_has_as_long_again_to_find_it() -> None:
    one = made("s")
    one.signalled("signal_offer", "s", b"", 1.0)
    one.beaten(beat(state="connected"), 100.0)
    one.beaten(beat(state="connecting"), 100.0 + sessions.CONNECT_S)
    assert one.tick(100.0 + sessions.CONNECT_S) == []
    one.beaten(beat(state="connecting"), 100.1 + sessions.CONNECT_S)
    assert told(one.tick(100.1 + sessions.CONNECT_S))[0]["reason"] == "timeout"
