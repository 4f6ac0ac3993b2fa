"""Who may call a device, what was said there, and when a child is born: the pure parts, and their tables on SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from procs.errors import StoreDown
from procs.messages import encode
from procs.messages.requests import Reply
from procs.messages.voice import Line, VoiceBeat
from procs.store import Store
from procs.voice import children, leases, memory, tables, transcript
from procs.voice.children import Children, Fork, Kill
from procs.voice.config import Device
from procs.voice.leases import LEASE_S, MARGIN_S, RENEW_S, Held, Leases
from procs.voice.transcript import Transcript

KITCHEN = Device("kitchen", "10.0.0.5")
DOOR = Device("door", "10.0.0.6")


def wanted(*devices: Device) -> Mapping[str, Device]:
    """As the leader says it."""
    return {each.name: each for each in devices}


# Leases


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    its = Leases("me")
    its.answered(100.0, 104.0, {"a": Held("me", 5.0)})
    assert its.holds("a", 100.0 + LEASE_S - MARGIN_S - 0.01)
    assert not its.holds("a", 100.0 + LEASE_S - MARGIN_S), "its child is dead before anybody else may call"
    assert not its.holds("b", 100.0)


def test_the_store_is_asked_again_when_another_s_lease_is_over() -> None:
    its = Leases("me")
    assert its.wait_s(0.0) == RENEW_S
    its.answered(0.0, 0.0, {"a": Held("other", 0.7), "b": Held("me", 5.0)})
    assert its.is_elsewhere("a")
    assert not its.is_elsewhere("b")
    assert its.wait_s(0.0) == pytest.approx(0.7 + leases.SOON_S)
    its.answered(0.0, 0.0, {"a": Held("other", -3.0)})
    assert its.wait_s(0.0) == leases.SOON_S, "never without a pause"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One with tables."""
    made = Store(f"sqlite:///{tmp_path}/voice.sqlite")
    asyncio.run(made.run(tables.make))
    yield made
    made.engine.dispose()


def take(store: Store, owner: str, *devices: str) -> dict[str, str]:
    """Ask for these; who holds each."""
    return {name: held.owner for name, held in asyncio.run(store.run(tables.take, owner, devices)).items()}


def test_a_device_has_one_owner_until_its_lease_is_over(store: Store) -> None:
    assert take(store, "one", "a", "b") == {"a": "one", "b": "one"}
    assert take(store, "two", "a", "c") == {"a": "one", "c": "two"}
    assert take(store, "one", "a") == {"a": "one"}, "and b is given back"
    assert take(store, "two", "a", "b") == {"a": "one", "b": "two"}
    assert asyncio.run(store.read(tables.is_elsewhere, "two", "a"))
    assert not asyncio.run(store.read(tables.is_elsewhere, "one", "a"))
    with store.engine.begin() as connection:
        connection.execute(tables.leases.update().values(until=tables.leases.c.until - LEASE_S - 0.1))
    assert not asyncio.run(store.read(tables.is_elsewhere, "two", "a")), "nobody holds it any more"
    assert take(store, "two", "a", "b") == {"a": "two", "b": "two"}
    assert take(store, "one", "a") == {"a": "two"}, "who was away too long has lost it"


def test_what_is_left_of_a_lease_is_told(store: Store) -> None:
    take(store, "one", "a")
    held = asyncio.run(store.run(tables.take, "two", ["a"]))["a"]
    assert LEASE_S - 2 < held.left_s <= LEASE_S


def test_the_newest_lines_are_kept_of_who_holds_the_device(store: Store) -> None:
    take(store, "one", "a", "b")
    said = [("a", Line(n, "user", f"line {n}", True, 1.0)) for n in range(1, tables.KEPT + 11)]
    assert asyncio.run(store.run(tables.keep, "one", [*said, ("b", Line(1, "assistant", "b's"))])) == set()
    known = asyncio.run(store.read(tables.known, "a"))
    assert [line.number for line in known.lines] == list(range(11, tables.KEPT + 11))
    asyncio.run(store.run(tables.keep, "one", [("a", Line(210, "user", "changed", True, 1.0))]))
    assert asyncio.run(store.read(tables.known, "a")).lines[-1].text == "changed"
    assert asyncio.run(store.run(tables.keep, "two", [("a", Line(210, "user", "stale"))])) == {"a"}
    assert asyncio.run(store.read(tables.known, "a")).lines[-1].text == "changed"
    asyncio.run(store.run(tables.forget, "a"))
    assert asyncio.run(store.read(tables.known, "a")).lines == []
    assert len(asyncio.run(store.read(tables.known, "b")).lines) == 1


def test_a_mute_lasts(store: Store) -> None:
    asyncio.run(store.run(tables.mute, "a", True))
    asyncio.run(store.run(tables.mute, "a", True))
    assert asyncio.run(store.read(tables.known, "a")).muted
    asyncio.run(store.run(tables.mute, "a", False))
    assert not asyncio.run(store.read(tables.known, "a")).muted


def test_an_owner_keeps_its_name(tmp_path: Path) -> None:
    named = memory.owner_of(tmp_path)
    assert memory.owner_of(tmp_path) == named
    assert 12 < len(named) <= 64


def test_lines_wait_for_a_store_that_is_away(store: Store) -> None:
    async def scenario() -> list[str]:
        its = memory.Memory(store, "me")
        its.want(frozenset({"a"}))
        holding = asyncio.create_task(its.hold())
        await _until(lambda: its.may_call("a"))
        working, store.run = store.run, _down  # type: ignore[method-assign, assignment]
        writing = asyncio.create_task(its.write())
        its.add("a", Line(1, "user", "heard"))
        await _until(lambda: "away" in its.problem)
        its.add("a", Line(1, "user", "heard all of it", True))
        store.run = working  # type: ignore[method-assign]
        await _until(lambda: not its.problem and not its.unwritten)
        for each in (holding, writing):
            each.cancel()
        return [line.text for line in (await store.read(tables.known, "a")).lines]

    assert asyncio.run(scenario()) == ["heard all of it"]


async def _until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def _down(*_: object, **__: object) -> None:
    raise StoreDown("the store: away")


# What was said


def test_who_looks_on_is_told_what_has_changed() -> None:
    its = Transcript([Line(n, "user", str(n)) for n in range(1, 81)], 1000)
    first = its.told(0)
    assert [line.number for line in first.lines] == list(range(31, 81)), "the newest fifty"
    assert its.told(first.next).lines == []
    its.add(Line(81, "assistant", "a"))
    its.add(Line(81, "assistant", "a b"))
    its.add(Line(81, "assistant", "a b"))
    told = its.told(first.next)
    assert [line.text for line in told.lines] == ["a b"]
    assert its.told(told.next).lines == []
    assert its.told(999_999_999).lines, "a number of another backend's: from the beginning"
    assert its.told(500).lines, "and one from before we were started again"


def test_what_is_told_fits_and_nothing_is_left_out() -> None:
    its = Transcript([Line(1, "user", "first")], 10)
    after = its.told(0).next
    for number in range(2, 12):
        its.add(Line(number, "user", "x" * 10_000))
    seen, rounds = [], 0
    while told := its.told(after).lines:
        seen += [line.number for line in told]
        after, rounds = its.told(after).next, rounds + 1
    assert seen == list(range(2, 12))
    assert rounds > 1, "there was more than goes into one answer"
    its.add(Line(12, "user", "\U0001f600" * 16_000))  # of the longest that there may be, 64,000 bytes
    its.add(Line(13, "assistant", "after it"))
    for number in (12, 13):
        answer = its.told(after)
        assert [line.number for line in answer.lines] == [number]
        assert encode(Reply(1, ok=True, body=answer)), "it is a message of the bus"
        after = answer.next
    its = Transcript(its.lines[:-2], 10)
    born_with = its.to_be_born_with()
    assert born_with[-1].number == 11
    assert sum(len(line.text) for line in born_with) <= transcript.MAX_BORN_WITH


def test_only_so_many_lines_are_kept_and_all_can_be_forgotten() -> None:
    its = Transcript([], 1)
    for number in range(1, transcript.KEPT + 6):
        its.add(Line(number, "user", "x"))
    assert (len(its), its.lines[0].number) == (transcript.KEPT, 6)
    its.forget()
    assert (len(its), its.told(0).lines) == (0, [])


# Children


def brood(pause_s: float = 0.0) -> Children:
    """Those of one leader; a row of crashes is waited for as long as told."""
    return Children("child", lambda row: pause_s if row >= 3 else 0.0)


def born(its: Children, device: Device, now: float) -> str:
    """The child that is born of a tick."""
    (fork,) = its.tick(wanted(device), now)
    assert isinstance(fork, Fork)
    return fork.child


def test_a_device_has_one_child_and_another_once_that_is_dead() -> None:
    its = brood()
    first = born(its, KITCHEN, 0.0)
    assert its.tick(wanted(KITCHEN), 0.1) == []
    its.beaten(first, VoiceBeat("connected", connections=1), 0.2)
    assert its.device_of(first) == "kitchen"
    assert its.ended(first, -9, 1.0) == "kitchen"
    second = born(its, KITCHEN, 1.0)
    assert second != first
    assert its.device_of(first) == "", "a late word of the dead one is nobody's"
    assert its.ended(first, -9, 1.0) == ""


def test_a_change_or_a_disabled_device_ends_its_child_and_no_other() -> None:
    its = brood()
    forks = {a.device.name: a.child for a in its.tick(wanted(KITCHEN, DOOR), 0.0) if isinstance(a, Fork)}
    for child in forks.values():
        its.beaten(child, VoiceBeat("connected"), 0.0)
    moved = KITCHEN._replace(port=9000)
    assert its.tick(wanted(moved, DOOR), 0.1) == [Kill(forks["kitchen"], "its device has changed")]
    assert its.tick(wanted(moved, DOOR), 0.2) == [], "it was told so"
    assert [type(a) for a in its.tick(wanted(moved, DOOR), 1.3)] == [Kill], "it may not have heard"
    its.ended(forks["kitchen"], -9, 1.4)
    (fork,) = its.tick(wanted(moved, DOOR), 1.4)
    assert isinstance(fork, Fork)
    assert fork.device == moved
    its.beaten(fork.child, VoiceBeat("connected"), 1.4)
    (kill,) = its.tick(wanted(moved), 1.5)
    assert kill == Kill(forks["door"], "its device is not to be called")


def test_one_that_stands_still_or_never_begins_is_ended() -> None:
    its = brood()
    child = born(its, KITCHEN, 0.0)
    its.beaten(child, VoiceBeat("connecting"), 1.0)
    assert its.tick(wanted(KITCHEN), 1.0 + children.BEAT_S) == []
    assert [type(a) for a in its.tick(wanted(KITCHEN), 1.1 + children.BEAT_S)] == [Kill]
    other = brood()
    born(other, KITCHEN, 0.0)
    assert [type(a) for a in other.tick(wanted(KITCHEN), children.BORN_S + 0.1)] == [Kill]


def test_crashes_in_a_row_are_waited_for_and_kills_are_not() -> None:
    its = brood(pause_s=8.0)
    now = 0.0
    for _ in range(20):
        child = born(its, KITCHEN, now)
        its.beaten(child, VoiceBeat("connecting"), now)
        its.ended(child, -9, now)
    for _ in range(3):
        its.ended(born(its, KITCHEN, now), 1, now)
    assert its.tick(wanted(KITCHEN), now + 7.9) == []
    assert its.tick(wanted(KITCHEN._replace(port=9)), now + 7.9), "with other settings it is tried at once"
    assert its.reconnect("kitchen", now + 7.9), "it was asked for"


def test_a_child_goes_on_with_the_failures_of_the_one_before() -> None:
    its = brood()
    child = born(its, KITCHEN, 0.0)
    its.beaten(child, VoiceBeat("waiting", attempts=7), 0.1)
    its.ended(child, -9, 0.2)
    (fork,) = its.tick(wanted(KITCHEN), 0.2)
    assert isinstance(fork, Fork)
    assert fork.failures == 7
    its.beaten(fork.child, VoiceBeat("waiting", attempts=8), 0.3)
    assert [type(a) for a in its.reconnect("kitchen", 0.4)] == [Kill]
    its.ended(fork.child, -9, 0.5)
    (fork,) = its.tick(wanted(KITCHEN), 0.5)
    assert isinstance(fork, Fork)
    assert fork.failures == 0, "a person wants it now"


def test_since_when_a_device_is_away_outlives_its_child() -> None:
    its = Children("c", lambda _: 0.0)
    (first,) = its.tick(wanted(KITCHEN), 0.0)
    assert isinstance(first, Fork) and first.since == 0.0
    its.beaten(first.child, VoiceBeat("waiting", since=700.0), 0.1)
    its.reconnect("kitchen", 1.0)
    its.ended(first.child, -9, 1.1)
    for now in (2.0, 3.0):  # the first of them dies before it says anything
        (again,) = its.tick(wanted(KITCHEN), now)
        assert isinstance(again, Fork) and again.since == 700.0
        child = again.child
        its.ended(child, 1, now) if now == 2.0 else its.beaten(child, VoiceBeat("connected", since=710.0), now)
    its.ended(child, 1, 4.0)
    (last,) = its.tick(wanted(KITCHEN), 5.0)
    assert isinstance(last, Fork) and last.since == 0.0, "it was connected until now"


def test_what_is_over_stays_over_until_it_is_asked_for() -> None:
    its = brood()
    child = born(its, KITCHEN, 0.0)
    its.beaten(child, VoiceBeat("over"), 0.1)
    its.ended(child, 0, 0.2)
    assert its.tick(wanted(KITCHEN), 100.0) == []
    beat = its.beat_of("kitchen")
    assert beat
    assert beat.state == "over"
    assert its.reconnect("kitchen", 100.0) == []
    born(its, KITCHEN, 100.0)


def test_not_all_are_born_at_once() -> None:
    its = brood()
    many = [Device(f"d{n}", "h") for n in range(50)]
    first = its.tick(wanted(*many), 0.0)
    assert len(first) == children.MAX_UNBORN
    assert its.tick(wanted(*many), 0.0) == []
    for fork in first:
        assert isinstance(fork, Fork)
        its.beaten(fork.child, VoiceBeat("connecting"), 0.1)
    assert len(its.tick(wanted(*many), 0.1)) == children.MAX_UNBORN


def test_no_error_of_the_store_holds_what_was_said(tmp_path: Path) -> None:
    """One that is unforeseen ends the leader, and is logged."""
    store = Store(f"sqlite:///{tmp_path}/voice.sqlite")
    row = {"device": "kitchen", "number": 1, "role": "user", "text": "my secret", "final": True}  # `at` is missing
    with store.engine.connect() as connection, connection.begin():
        tables.make(connection)
        with pytest.raises(IntegrityError) as error:
            connection.execute(tables.lines.insert(), row)
    assert "secret" not in str(error.value)
    store.engine.dispose()
