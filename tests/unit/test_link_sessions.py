"""Watch sessions at ws_link: what waits for webrtc_peer, and what the hub is told in its place."""

from __future__ import annotations

import json

import pytest

from procs.errors import Refused
from procs.messages.watch import SessionsReady, Signal
from procs.ws_link.sessions import KEPT_S, SILENT_S, Sessions, frame


def ready(pid: int, *sessions: str) -> SessionsReady:
    return SessionsReady(pid, list(sessions))


def begun(pid: int = 7) -> Sessions:
    """One that has webrtc_peer, which has taken session s."""
    one = Sessions(0.0)
    assert one.ready(ready(pid), 0.1) == []
    assert one.from_hub("watch_request", "s", b"{}", 1.0) == []
    for sent in one.due(1.0):
        one.taken(sent.signal.id)
    assert one.ready(ready(pid, "s"), 1.1) == []
    return one


def test_frames_wait_in_their_order() -> None:
    one = Sessions(0.0)
    for kind in ("watch_request", "signal_offer", "signal_ice"):
        assert one.from_hub(kind, "s", kind.encode(), 1.0) == []
    assert [body for _, body in one.due(1.0)] == [b"watch_request", b"signal_offer", b"signal_ice"]
    assert list(one.due(1.1)) == []
    assert len(list(one.due(1.1, all_of_them=True))) == 3, "as one gets them who has just come"


def test_without_webrtc_peer_a_request_is_refused_but_not_while_it_may_just_be_starting() -> None:
    one = Sessions(0.0)
    assert one.from_hub("watch_request", "s", b"", SILENT_S) == []
    (ended,) = one.from_hub("watch_request", "t", b"", SILENT_S + 0.1)
    assert json.loads(ended.text())["payload"] == {
        "session_id": "t", "reason": "error", "why": "nothing on the device takes watch sessions",
    }  # fmt: skip
    assert one.from_hub("watch_ended", "t", b"", SILENT_S + 0.1) == [], "an end is not answered by another"


def test_what_a_dead_one_had_is_over_and_what_it_had_not_taken_is_not() -> None:
    one = begun()
    one.from_hub("watch_request", "new", b"", 1.2)
    assert one.is_other(ready(8))
    (ended,) = one.ready(ready(8), 1.5)
    assert ended.session_id == "s" and "died" in ended.why
    assert [sent.signal.session_id for sent in one.due(1.5, all_of_them=True)] == ["new"]
    assert one.ready(ready(8, "new"), 2.0) == []


def test_one_that_is_seen_to_die_takes_along_what_it_had_and_no_more() -> None:
    one = begun()
    one.from_hub("watch_request", "new", b"", 1.2)
    assert [ended.session_id for ended in one.gone()] == ["s"]
    assert one.has_any and one.gone() == []
    assert [sent.signal.session_id for sent in one.due(1.4, all_of_them=True)] == ["new"]


def test_what_one_had_that_died_before_it_was_known_is_over() -> None:
    one = Sessions(0.0)
    one.from_hub("watch_request", "s", b"", 0.1)
    for sent in one.due(0.1):
        one.taken(sent.signal.id)
    assert [ended.session_id for ended in one.ready(ready(8), 0.5)] == ["s"]


def test_a_ws_link_that_is_new_learns_which_there_are() -> None:
    one = Sessions(10.0)
    assert one.ready(ready(7, "a", "b"), 10.1) == []
    assert [ended.session_id for ended in one.ready(ready(8, "b"), 11.0)] == ["a"]


def test_one_that_falls_silent_has_none_any_more() -> None:
    one = begun()
    assert one.tick(1.1 + SILENT_S) == []
    assert [ended.session_id for ended in one.tick(1.2 + SILENT_S)] == ["s"]
    assert one.tick(1.3 + SILENT_S) == [], "it is said once"


def test_a_frame_that_is_not_taken_ends_its_session() -> None:
    one = begun()
    one.from_hub("signal_offer", "s", b"", 2.0)
    assert one.ready(ready(7, "s"), 1.9 + KEPT_S) == [] == one.tick(1.9 + KEPT_S)
    (ended,) = one.tick(2.0 + KEPT_S)
    assert ended.session_id == "s" and "too late" in ended.why


def test_an_end_is_told_by_one_side_only() -> None:
    one = begun()
    one.from_hub("watch_ended", "s", b"", 2.0)
    assert [sent.signal.kind for sent in one.due(2.0)] == ["watch_ended"], "what waited is worth nothing now"
    assert one.ready(ready(8), 2.1) == []
    two = begun()
    two.over("s")
    assert two.ready(ready(8), 2.1) == []


def test_frames_of_webrtc_peer_are_held_to_the_wire() -> None:
    body = b'{"session_id": "s", "candidate": null}'
    assert json.loads(frame(Signal(1, "signal_ice", "s"), body))["payload"] == {"session_id": "s", "candidate": None}
    with pytest.raises(Refused, match="another session"):
        frame(Signal(1, "signal_ice", "t"), body)
    for kind, wrong in (
        ("signal_answer", body),
        ("signal_ice", b"no"),
        ("watch_request", body),
        ("signal_offer", body),
    ):
        with pytest.raises(Refused):
            frame(Signal(1, kind, "s"), wrong)  # type: ignore[arg-type]
