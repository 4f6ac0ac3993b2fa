"""Who gets which unit: a keyframe first, nothing queued, nothing unbounded."""

from __future__ import annotations

from procs.messages.watch import Unit
from procs.webrtc_peer import fanout
from procs.webrtc_peer.fanout import Fanout

FRAME_US = 33_333


def unit(number: int, *, key: bool = False, start_us: int = 5_000_000) -> Unit:
    return Unit("video", "h264", number, start_us + number * FRAME_US, key)


def played(of: Fanout, count: int, *, first: int = 0) -> list[list[str]]:
    """A keyframe and what follows."""
    return [of.push("cam", unit(first + at, key=not at), b"data") for at in range(count)]


def test_who_joins_gets_the_cached_pictures_squeezed_up_to_the_newest() -> None:
    of = Fanout()
    played(of, 5)
    joined = of.join("a", "cam", 0.0)
    times = [piece[0].time_us for piece in joined.pieces]
    assert joined.pieces[0][0].is_keyframe and not joined.ask_keyframe
    assert times[-1] == unit(4).time_us and times == sorted(times)
    assert times[-1] - times[0] == 4 * fanout.SQUEEZED_US
    assert of.push("cam", unit(5), b"") == ["a"]
    assert of.join("a", "cam", 0.0).pieces == []


def test_squeezed_times_are_never_negative() -> None:
    of = Fanout()
    for at in range(9):
        of.push("cam", Unit("video", "h264", at, at, not at), b"")
    times = [piece[0].time_us for piece in of.join("a", "cam", 0.0).pieces]
    assert min(times) >= 0 and times == sorted(set(times))


def test_who_joins_before_the_first_keyframe_waits_for_it() -> None:
    of = Fanout()
    assert of.join("a", "cam", 0.0).pieces == []
    assert of.push("cam", unit(1), b"") == []
    assert of.push("cam", unit(2, key=True), b"") == ["a"]


def test_a_long_cache_is_not_sent_when_a_keyframe_can_be_asked_for() -> None:
    of = Fanout()
    played(of, fanout.STALE_UNITS + 1)
    assert of.join("a", "cam", 1.0, can_ask=True) == ([], True)
    assert [of.waiting, of.push("cam", unit(50), b"")] == [True, []]
    assert of.push("cam", unit(51, key=True), b"") == ["a"]
    assert [of.waiting, of.due(99.0)] == [False, []]


def test_it_is_sent_after_all_when_no_keyframe_comes() -> None:
    of = Fanout()
    played(of, fanout.STALE_UNITS + 1)
    of.join("a", "cam", 1.0, can_ask=True)
    assert of.due(1.0 + fanout.KEYFRAME_WAIT_S - 0.01) == []
    ((child, pieces),) = of.due(1.0 + fanout.KEYFRAME_WAIT_S)
    assert child == "a" and len(pieces) == fanout.STALE_UNITS + 1
    assert of.push("cam", unit(50), b"") == ["a"] and not of.waiting


def test_who_was_behind_goes_on_at_the_next_keyframe_and_holds_nobody_up() -> None:
    of = Fanout()
    played(of, 2)
    of.join("slow", "cam", 0.0)
    of.join("fast", "cam", 0.0)
    of.missed("slow")
    assert of.push("cam", unit(3), b"") == ["fast"] and of.skipped == 1
    assert sorted(of.push("cam", unit(4, key=True), b"")) == ["fast", "slow"]


def test_what_is_kept_is_bounded_in_number_and_bytes() -> None:
    of = Fanout()
    played(of, fanout.UNITS_MAX)
    assert len(of.join("a", "cam", 0.0).pieces) == fanout.UNITS_MAX < fanout.QUEUE
    of.push("cam", unit(fanout.UNITS_MAX), b"")
    assert of.join("b", "cam", 0.0).pieces == []
    of.push("cam", unit(0, key=True), bytes(fanout.BYTES_MAX))
    of.push("cam", unit(1), b"x")
    assert of.join("c", "cam", 0.0).pieces == []


def test_streams_and_children_that_have_gone_leave_nothing() -> None:
    of = Fanout()
    played(of, 2)
    of.join("a", "cam", 0.0)
    of.leave("a")
    of.leave("a")
    of.missed("a")
    of.forget("cam")
    assert of.push("cam", unit(3), b"") == [] and of.children("cam") == set() and not of.waiting


def test_who_lost_the_picture_gets_the_cache_again_between_two_pictures() -> None:
    of = Fanout()
    played(of, 5)
    of.join("a", "cam", 0.0)
    pieces = of.again("a", 10.0)
    times = [piece[0].time_us for piece in pieces]
    assert pieces[0][0].is_keyframe and len(pieces) == 5 and times == sorted(set(times))
    assert unit(4).time_us < times[0] and times[-1] < unit(5).time_us
    assert of.again("a", 10.5) == [] and of.again("nobody", 99.0) == []
    assert of.again("a", 10.0 + fanout.AGAIN_EVERY_S)


def test_a_large_cache_is_not_sent_again_and_who_is_behind_waits() -> None:
    of = Fanout()
    played(of, fanout.AGAIN_UNITS + 1)
    of.join("a", "cam", 0.0)
    assert of.again("a", 10.0) == []
    played(of, 2)
    of.missed("a")
    assert of.again("a", 10.0) == []
