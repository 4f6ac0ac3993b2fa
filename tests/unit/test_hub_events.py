"""What has happened to devices: kept together, listed newest first, bounded, and told only when it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import event, text

from procs import store
from procs.errors import StoreDown
from procs.hub.devices import events
from procs.hub.devices.events import KEPT, KEPT_S, MAX_TEXT, MAX_WAITING, NOISE, Event, Events
from procs.hub.metrics import Counts
from procs.hub.people.roles import OWNER, VIEWER
from procs.store import Store
from tests.hub_rig import lay_out_store

DEVICES = 1200
Case = Callable[[Events, "Clock", Store], Awaitable[None]]


class Clock:
    """A time that only we move."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def run(tmp_path: Path, case: Case) -> None:
    """Run a case with devices of the keys 1 to DEVICES."""
    made, clock = Store(lay_out_store(tmp_path)), Clock()
    device = text("INSERT INTO devices VALUES (:key, :key, 'name', 'camera', NULL, NULL, 0, NULL)")
    with made.engine.begin() as connection:
        connection.execute(device, [{"key": key} for key in range(1, DEVICES + 1)])
    try:
        asyncio.run(_of(case, made, clock))
    finally:
        made.engine.dispose()


async def _of(case: Case, made: Store, clock: Clock) -> None:
    await case(Events(made, Counts(), clock), clock, made)


async def texts(kept: Events, key: int = 1, before: int | None = None, limit: int = KEPT) -> list[str]:
    """What is listed of a device."""
    return [each.text for each in (await kept.of(key, OWNER, before, limit))[0]]


def test_a_viewer_sees_neither_from_where_nor_with_whom(tmp_path: Path) -> None:
    async def case(kept: Events, clock: Clock, _: Store) -> None:
        kept.add(1, "connected", "from 192.0.2.1")
        kept.add(1, "shared", "with eve as viewer, by ada")
        kept.add(1, "restarted", "hub: restarted from the page")
        await kept.write()
        assert [each.kind for each in (await kept.of(1, OWNER, None, KEPT))[0]] == ["restarted", "shared", "connected"]
        seen, more = await kept.of(1, VIEWER, None, 2)
        assert [(each.kind, each.text) for each in seen] == [
            ("restarted", "hub: restarted from the page"),
            ("connected", ""),
        ]
        assert not more

    run(tmp_path, case)


def test_what_waits_is_not_for_the_next_owner(tmp_path: Path) -> None:
    async def case(kept: Events, clock: Clock, _: Store) -> None:
        kept.add(1, "shared", "with eve")
        kept.add(2, "connected", "from here")
        kept.forget(1)
        kept.add(1, "paired", "by bob")
        await kept.write()
        assert await texts(kept) == ["by bob"] and await texts(kept, 2) == ["from here"]

    run(tmp_path, case)


def test_what_has_happened_is_listed_in_pages(tmp_path: Path) -> None:
    async def case(kept: Events, clock: Clock, _: Store) -> None:
        for number in range(5):
            kept.add(1, "renamed", f"to {number}")
        kept.add(2, "connected")
        assert await texts(kept) == [], "listed before it is durable"
        await kept.write()
        (newest, second), more = await kept.of(1, OWNER, None, 2)
        assert (newest.text, second.text, more) == ("to 4", "to 3", True)
        assert newest.at == "1970-01-12T13:46:40" and newest.kind == "renamed"
        rest, more = await kept.of(1, OWNER, second.id, 3)
        assert [each.text for each in rest] == ["to 2", "to 1", "to 0"] and not more
        await kept.write()
        assert len(await texts(kept)) == 5

    run(tmp_path, case)


def test_a_fleet_that_comes_back_is_few_statements(tmp_path: Path) -> None:
    async def case(kept: Events, clock: Clock, made: Store) -> None:
        statements: list[str] = []
        event.listen(made.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        for key in range(1, DEVICES + 1):
            kept.add(key, "connected", f"{key}")
        await kept.write()
        assert len(statements) < 20
        assert await texts(kept, DEVICES) == [f"{DEVICES}"]

    run(tmp_path, case)


def test_a_device_has_the_newest_ones_of_a_month(tmp_path: Path) -> None:
    async def case(kept: Events, clock: Clock, made: Store) -> None:
        kept.add(2, "paired", "long ago")
        for number in range(KEPT + 50):
            clock.now += 60
            kept.add(1, "connected", str(number))
            if number % 7 == 0:
                await kept.write()
        await kept.write()
        assert await texts(kept) == [str(number) for number in range(KEPT + 49, 49, -1)]
        count = await made.read(lambda c: c.execute(text("SELECT count(*) FROM device_events")).scalar())
        assert count == KEPT + 1
        clock.now += KEPT_S
        assert await texts(kept, 2) == [], "too old to be shown"
        await kept.purge()
        count = await made.read(lambda c: c.execute(text("SELECT count(*) FROM device_events")).scalar())
        assert count == 1

    run(tmp_path, case)


def test_who_comes_and_goes_without_end_does_not_push_out_the_rest(tmp_path: Path) -> None:
    async def case(kept: Events, clock: Clock, _: Store) -> None:
        kept.add(1, "paired", "by ann")
        for _number in range(1000):
            clock.now += 0.01
            kept.add(1, "refused", "a wrong credential")
        clock.now += 1 / NOISE.per_s
        kept.add(1, "refused", "x" * 1000)
        await kept.write()
        listed = await texts(kept)
        assert len(listed) == 2 + NOISE.burst and listed[-1] == "by ann"
        assert listed[0].endswith(f"(and {1000 - int(NOISE.burst)} times before)") and len(listed[0]) <= MAX_TEXT

    run(tmp_path, case)


def test_a_device_that_is_gone_takes_nothing_with_it(tmp_path: Path) -> None:
    async def case(kept: Events, _: Clock, made: Store) -> None:
        told: list[tuple[int, Event]] = []
        kept.listeners.append(lambda key, each: told.append((key, each)))
        for key in (1, 2, 3):
            kept.add(key, "disconnected", str(key))
        await made.run(lambda c: c.execute(text("DELETE FROM devices WHERE id = 2")) and None)
        await kept.write()
        assert [(key, each.text) for key, each in told] == [(1, "1"), (3, "3")]
        assert (await kept.of(3, OWNER, None, 1))[0] == [told[1][1]], "told with the id by which it is listed"

    run(tmp_path, case)


def test_what_the_store_does_not_take_waits_and_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(kept: Events, clock: Clock, _: Store) -> None:
        told: list[str] = []
        kept.listeners.append(lambda _, each: told.append(each.text))
        kept.add(1, "connected", "first")
        with monkeypatch.context() as patch:
            patch.setattr(store, "MAX_WAITING", 0)
            with pytest.raises(StoreDown):
                await kept.write()
            kept.add(1, "disconnected", "second")
        assert told == []
        await kept.write()
        assert told == ["first", "second"]
        monkeypatch.setattr(events, "MAX_WAITING", 3)
        for key in range(1, 6):
            kept.add(key, "paired", str(key))
        await kept.write()
        assert told[2:] == ["3", "4", "5"] and kept._counts.of("events_lost") == 2

    assert MAX_WAITING > 5000
    run(tmp_path, case)
