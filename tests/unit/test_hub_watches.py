"""Watch sessions: whose they are, and when they are over."""

from __future__ import annotations

from procs.hub.viewers.watches import ANSWER_S, MAX_OF_VIEWER, RETURN_S, VIEWER, Kind, Watch, Watches


class Somebody:
    """A viewer."""


def begun(
    watches: Watches[Somebody], viewer: Somebody, device: str = "cam", instance: str = "i", kind: Kind = VIEWER
) -> Watch[Somebody]:
    watch = Watch(viewer, 1, device, instance, 0.0, kind)
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
