"""Two voice backends on one PostgreSQL: one calls, the other takes over, and nobody calls while it is away for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procs.messages.voice import Line
from procs.store import Store
from procs.voice import tables
from procs.voice.leases import LEASE_S
from tests import voice_rig
from tests.postgres_rig import Postgres, serving
from tests.rig import until
from tests.voice_rig import Backend

pytestmark = pytest.mark.needs("postgres", "initdb")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One server."""
    with serving() as server:
        yield server


def test_tables_do_there_what_they_do_on_sqlite(postgres: Postgres) -> None:
    store = Store(postgres.url)

    async def scenario() -> None:
        await store.run(tables.make)
        await store.run(tables.make)
        one = await store.run(tables.take, "one", ["b", "a"])
        assert {name: held.owner for name, held in one.items()} == {"a": "one", "b": "one"}
        assert LEASE_S - 2 < one["a"].left_s <= LEASE_S
        two = await store.run(tables.take, "two", ["a", "c"])
        assert {name: held.owner for name, held in two.items()} == {"a": "one", "c": "two"}
        assert (
            await store.run(tables.keep, "one", [("a", Line(n, "user", f"{n}", True, 1.5)) for n in range(250)])
            == set()
        )
        known = await store.read(tables.known, "a")
        assert (len(known.lines), known.lines[-1]) == (tables.KEPT, Line(249, "user", "249", True, 1.5))
        assert await store.run(tables.keep, "two", [("a", Line(249, "user", "stale"))]) == {"a"}
        await store.run(tables.keep, "one", [("a", Line(250, "user", "a\0b", True, 1.5))])
        assert (await store.read(tables.known, "a")).lines[-1].text == "a\N{REPLACEMENT CHARACTER}b"
        await store.run(tables.mute, "a", True)
        await store.run(tables.forget, "a")
        assert await store.read(tables.known, "a") == tables.Known([], True)
        assert await store.run(tables.take, "one", []) == {}
        assert await store.run(tables.take, "two", []) == {}

    asyncio.run(scenario())
    store.engine.dispose()


def test_one_calls_and_the_other_takes_over(postgres: Postgres, tmp_path: Path) -> None:
    with voice_rig.services() as environ, voice_rig.devices() as (device,):
        shared = {**environ, "PLANARIA_VOICE_STORE": postgres.url}
        entry = device.entry("kitchen")
        with (
            voice_rig.backend(tmp_path / "a", entry, environ=shared) as one,
            voice_rig.backend(tmp_path / "b", entry, environ=shared) as two,
        ):
            until(lambda: _states(one, two) == {"elsewhere", "connected"})
            first, second = (one, two) if one.device("kitchen")["state"] == "connected" else (two, one)
            first("POST", "/v1/devices/kitchen/say", {"text": "said by the first"})
            until(lambda: second.lines("kitchen") == ["said by the first"])
            first.kill()
            took = voice_rig.seconds_until(lambda: device.calls == 2)
            assert took < LEASE_S + 1
            second.until_state("kitchen", "connected")
            assert second.lines("kitchen") == ["said by the first"]
            first.start()
            first.wait()
            first.until_state("kitchen", "elsewhere")

            postgres.kill()
            until(lambda: device.now == 0, LEASE_S + 2)
            health = second("GET", "/v1/health")
            assert (health.status, "the store is down" in health.json["message"]) == (503, True)
            time.sleep(1)
            postgres.start()
            until(lambda: device.now == 1, 30)
            assert device.most == 1, "never a second connection"


def _states(*backends: Backend) -> set[str]:
    return {its.device("kitchen")["state"] for its in backends}
