"""Watch sessions: whose they are, and when they are over."""

from __future__ import annotations

from procs.hub.viewers import ice
from procs.hub.viewers.watches import (
    ANSWER_S,
    FOR_OWNERS,
    MAX_HELD,
    MAX_OF_DEVICE,
    MAX_OF_VIEWER,
    RESTART_S,
    RESUME,
    RETURN_S,
    SETTLED_S,
    SILENT_S,
    VIEWER,
    WHEP,
    Held,
    Kind,
    Watch,
    Watches,
)
from procs.wire.frames.watch import SignalIce, SignalOffer
from procs.wire.webrtc import Candidate, SessionDescription


class Somebody:
    """A viewer."""


def of(
    viewer: Somebody, device: str = "cam", instance: str = "i", kind: Kind = VIEWER, *, owner: bool = True
) -> Watch[Somebody]:
    return Watch(viewer, 1, device, instance, 0.0, kind, may_talk=owner)


def begun(
    watches: Watches[Somebody], viewer: Somebody, device: str = "cam", instance: str = "i", kind: Kind = VIEWER
) -> Watch[Somebody]:
    watch = of(viewer, device, instance, kind)
    assert watches.begin(watch)
    return watch


def test_a_session_is_its_viewers_and_its_devices_alone() -> None:
    watches, me, other = Watches[Somebody](), Somebody(), Somebody()
    watch = begun(watches, me)
    assert watches.by_viewer(me, watch.session_id) is watch
    assert watches.by_device("cam", watch.session_id) is watch
    assert watches.by_viewer(other, watch.session_id) is None
    assert watches.by_device("other", watch.session_id) is None


def test_it_ends_once_and_leaves_nothing() -> None:
    watches, me = Watches[Somebody](), Somebody()
    watch = begun(watches, me)
    assert watches.end(watch) and not watches.end(watch)
    assert len(watches) == 0 and not watches.of_viewer(me) and not watches.of_device("cam")
    assert not any(table for name, table in vars(watches).items() if name.startswith("_") and name[1] != "_")


def test_nobody_has_too_many() -> None:
    watches, me = Watches[Somebody](), Somebody()
    for number in range(MAX_OF_VIEWER):
        begun(watches, me, f"cam {number}")
    assert not watches.begin(Watch(me, 1, "one more", "", 0.0))
    assert watches.begin(Watch(Somebody(), 1, "one more", "", 0.0))


def test_without_an_answer_it_is_over() -> None:
    watches = Watches[Somebody]()
    silent, answered = begun(watches, Somebody()), begun(watches, Somebody())
    answered.is_answered = True
    assert watches.due(ANSWER_S) == []
    assert watches.due(ANSWER_S + 0.1) == [(silent, "timeout")]


def test_a_device_that_comes_back_finds_its_sessions() -> None:
    watches = Watches[Somebody]()
    watch = begun(watches, Somebody())
    watch.is_answered = True
    assert watches.device_left("cam", 100.0) == []
    assert watches.due(100.0 + RETURN_S) == []
    assert watches.device_came("cam", "i") == []
    assert watches.due(1000.0) == []
    assert watches.device_left("cam", 2000.0) == []
    assert watches.due(2000.1 + RETURN_S) == [(watch, "device_disconnected")]


def test_sessions_of_a_device_that_is_replaced_are_over() -> None:
    watches = Watches[Somebody]()
    watch = begun(watches, Somebody())
    assert watches.device_came("cam", "another") == [watch]


def test_sessions_of_a_published_device_end_with_its_connection() -> None:
    watches = Watches[Somebody]()
    watch = begun(watches, Somebody(), instance="")
    assert watches.device_left("cam", 1.0) == [watch]
    assert watches.device_came("cam", "") == [watch]


def test_a_published_viewers_sessions_end_with_its_connection() -> None:
    watches, me = Watches[Somebody](), Somebody()
    watch = begun(watches, me)
    assert watches.viewer_left(me, 1.0) == [watch]


def test_a_viewer_that_says_so_has_time_to_come_back() -> None:
    watches, me, again = Watches[Somebody](), Somebody(), Somebody()
    watch = begun(watches, me, kind=RESUME)
    watch.is_answered = True
    assert watches.viewer_left(me, 100.0) == [] and watch.viewer is None
    assert watches.due(100.0 + RETURN_S) == []
    assert watches.by_user(1, watch.session_id, RESUME) is watch
    assert watches.by_user(2, watch.session_id, RESUME) is None
    assert watches.by_user(1, watch.session_id, WHEP) is None
    assert watches.resume(watch, again) and watches.by_viewer(again, watch.session_id) is watch
    assert watches.due(1000.0) == []
    assert watches.viewer_left(again, 2000.0) == []
    assert watches.due(2000.1 + RETURN_S) == [(watch, "viewer_disconnected")]


def test_a_session_moves_from_a_connection_that_is_dead() -> None:
    watches, me, again = Watches[Somebody](), Somebody(), Somebody()
    watch = begun(watches, me, kind=RESUME)
    assert watches.resume(watch, again)
    assert watches.viewer_left(me, 1.0) == [] and watch.viewer is again
    assert watches.by_viewer(me, watch.session_id) is None
    full = Somebody()
    for number in range(MAX_OF_VIEWER):
        begun(watches, full, f"cam {number}")
    assert not watches.resume(watch, full) and watch.viewer is again


def test_while_the_device_is_away_nothing_ends_that_it_would_not_hear_of() -> None:
    for kind in (VIEWER, RESUME):
        watches, me = Watches[Somebody](), Somebody()
        watch = begun(watches, me, kind=kind)
        assert watches.device_left("cam", 1.0) == []
        assert watches.viewer_left(me, 1.0) == [] and watches.due(1.0 + RETURN_S) == []
        assert watches.due(1.1 + RETURN_S) == [(watch, "device_disconnected")]
        assert watches.device_came("cam", "i") == []
        assert watches.due(1.1 + RETURN_S) == [(watch, "viewer_disconnected")]


def test_what_is_restored_waits_for_both() -> None:
    watches = Watches[Somebody]()
    start, ago = 2 * SILENT_S, 100.0  # a machine that has been up for days
    found = {kind: Watch[Somebody](None, 1, "cam", "i", -ago, kind) for kind in (VIEWER, RESUME, WHEP)}
    assert all(watches.restore(watch, start) for watch in found.values())
    assert watches.due(start + RESTART_S) == []
    assert {reason for _, reason in watches.due(start + RESTART_S + 0.1)} == {"device_disconnected"}
    watches.device_came("cam", "i")
    assert watches.due(start + 1.0) == [(found[VIEWER], "viewer_disconnected")], "nobody can come back to it"
    watches.end(found[VIEWER])
    assert watches.due(start + RESTART_S + 0.1) == [(found[RESUME], "viewer_disconnected")]
    watches.end(found[RESUME])
    assert watches.due(start - ago + SILENT_S) == [], "players of WHEP are silent"
    assert watches.due(start - ago + SILENT_S + 0.1) == [(found[WHEP], "timeout")]


def test_who_is_away_makes_room() -> None:
    watches = Watches[Somebody]()
    viewers = [Somebody() for _ in range(MAX_OF_DEVICE)]
    all_ = [begun(watches, viewer, kind=RESUME) for viewer in viewers]
    assert watches.spare(of(Somebody())) is None and not watches.begin(of(Somebody()))
    watches.viewer_left(viewers[7], 2.0)
    watches.viewer_left(viewers[3], 1.0)
    assert watches.spare(of(Somebody())) is all_[3]
    watches.end(all_[3])
    assert watches.spare(of(Somebody())) is None and watches.begin(of(Somebody()))


def test_who_may_only_look_leaves_room_for_owners() -> None:
    watches = Watches[Somebody]()
    begun_ = [watches.begin(of(Somebody(), owner=False)) for _ in range(MAX_OF_DEVICE)]
    assert begun_.count(True) == MAX_OF_DEVICE - FOR_OWNERS and watches.begin(of(Somebody()))


def ice_frame(number: int) -> SignalIce:
    """A candidate."""
    return SignalIce("s", Candidate(f"candidate:{number}"))


def test_what_is_held_begins_with_the_last_description() -> None:
    held, candidates = Held(), Held()
    candidates.add("signal_ice", ice_frame(1))
    assert [held.has_description, candidates.has_description, len(list(candidates))] == [False, False, 1]
    for text in ("v=0 first", "v=0 second"):
        held.add("signal_offer", SignalOffer("s", SessionDescription("offer", text)))
    for number in range(MAX_HELD + 10):
        held.add("signal_ice", ice_frame(number))
    (kind, first), *more = held
    assert kind == "signal_offer" and isinstance(first, SignalOffer) and first.sdp.sdp == "v=0 second"
    assert [kind for kind, _ in more] == ["signal_ice"] * MAX_HELD
    held.clear()
    assert not list(held)


def test_what_has_arrived_is_not_held_for_ever() -> None:
    watches, me = Watches[Somebody](), Somebody()
    watch = begun(watches, me, kind=RESUME)
    watch.is_answered, watch.settled_at = True, 100.0
    watch.to_viewer.add("signal_ice", ice_frame(1))
    watches.due(100.0 + SETTLED_S)
    assert watch.to_viewer
    watches.due(100.1 + SETTLED_S)
    assert not watch.to_viewer


def test_what_is_repeated_is_known_until_the_next_offer() -> None:
    watch = Watch(Somebody(), 1, "cam", "i", 0.0)
    assert not watch.is_repeated(b"a") and watch.is_repeated(b"a") and not watch.is_repeated(b"b")
    watch.said.clear()
    assert not watch.is_repeated(b"a")


def test_the_credentials_are_of_coturns_rest_scheme() -> None:
    stun, turn = ice.servers(["stun:a"], ["turn:b", "turn:c"], "north", "viewer_1", 1_000.9)
    assert stun.urls == "stun:a" and stun.username is None
    assert (turn.urls, turn.username, turn.credential_type) == (["turn:b", "turn:c"], "87400:viewer_1", "password")
    # echo -n 87400:viewer_1 | openssl dgst -sha1 -hmac north -binary | base64
    assert turn.credential == "m1r58vXHLEimosCVQytansvd/Ek="
    assert ice.servers([], [], "", "viewer_1", 0.0) == []
