"""The hub's store: durable, bounded in time, and its tables those that models.py says."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text

from procs import store
from procs.errors import ConfigError, StoreDown
from procs.hub.devices.registry import Registry
from procs.hub.people import logins
from procs.hub.store import migrate
from procs.hub.store.models import SCHEMA, metadata
from procs.store import Store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "hub.sqlite"


@pytest.fixture
def hub(file: Path) -> Iterator[Store]:
    """A store with its tables."""
    made = Store(f"sqlite:///{file}")
    migrate.bring_up_to_date(made)
    yield made
    made.engine.dispose()


def pragma(connection: Connection, name: str) -> object:
    """One setting of SQLite."""
    return connection.execute(text(f"PRAGMA {name}")).scalar()


def test_what_is_written_lasts(hub: Store, file: Path) -> None:
    with hub.engine.connect() as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 2, "FULL"
        assert pragma(connection, "foreign_keys") == 1
        assert pragma(connection, "busy_timeout") == store.BUSY_MS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_migrations_make_what_the_models_say(hub: Store) -> None:
    with hub.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert migrate.revision(connection) == SCHEMA


def test_the_newest_migration_is_the_one_in_the_models() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


def test_a_store_of_the_first_version_goes_on_with_what_is_in_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Store(f"sqlite:///{file}")
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "SCHEMA", "0001")
        migrate.bring_up_to_date(made)
    with made.engine.begin() as connection:
        connection.execute(text("INSERT INTO users VALUES (1, 'ann', NULL, 'kept', 1, 5)"))
        connection.execute(text("INSERT INTO devices VALUES (7, 'cam', 'Porch', 'camera', NULL, 1, 6, 7)"))
        connection.execute(text("INSERT INTO tokens VALUES ('d', 1, 'access', NULL, 'login', 8, 9)"))
        connection.execute(text("INSERT INTO pairing_codes VALUES ('123456', 7, 10)"))
    migrate.bring_up_to_date(made)
    with made.engine.connect() as connection:
        assert migrate.revision(connection) == SCHEMA
        assert connection.execute(text("SELECT * FROM users")).all() == [(1, "ann", None, "kept", 1, 5)]
        assert connection.execute(text("SELECT id, owner_id FROM devices")).all() == [(7, 1)]
        assert connection.execute(text("SELECT code FROM pairing_codes")).all() == [("123456",)]
        session = logins.session_of(connection, "d")
    made.engine.dispose()
    assert session and (session.user.username, session.kind, session.role) == ("ann", "access", "owner")


def test_a_store_that_is_up_to_date_costs_no_alembic(hub: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: Connection) -> None:
        raise AssertionError("asked for the lock")

    monkeypatch.setattr(migrate, "_upgrade", never)
    migrate.bring_up_to_date(hub)


def test_a_store_of_a_newer_version_is_left_alone(hub: Store) -> None:
    with hub.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="another version, 9999"):
        migrate.bring_up_to_date(hub)


def test_a_migration_that_fails_leaves_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(connection: Connection) -> None:
        migrate_whole(connection)
        raise StoreDown("killed before it was whole")

    migrate_whole = migrate._upgrade
    monkeypatch.setattr(migrate, "_upgrade", fails)
    made = Store(f"sqlite:///{file}")
    with pytest.raises(StoreDown):
        migrate.bring_up_to_date(made)
    made.engine.dispose()
    with contextlib.closing(sqlite3.connect(file)) as plain:
        assert plain.execute("SELECT name FROM sqlite_master").fetchall() == []


def test_work_that_fails_is_taken_back(hub: Store) -> None:
    def half(connection: Connection) -> None:
        connection.execute(text("INSERT INTO users VALUES (1, 'x', NULL, '', 0, 0)"))
        raise ValueError("half way")

    async def main() -> int:
        with pytest.raises(ValueError, match="half way"):
            await hub.run(half)
        return await hub.read(lambda c: int(c.execute(text("SELECT count(*) FROM users")).scalar_one()))

    assert asyncio.run(main()) == 0


def test_a_store_that_hangs_is_not_waited_for(hub: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "DEADLINE_S", 0.1)
    monkeypatch.setattr(store, "MAX_WAITING", store.THREADS)

    async def main() -> None:
        hanging = [hub.read(lambda _: time.sleep(1.0)) for _ in range(store.THREADS)]
        assert [type(said) for said in await asyncio.gather(*hanging, return_exceptions=True)] == [StoreDown] * 4
        with pytest.raises(StoreDown, match="too much"):
            await hub.read(lambda _: None)
        await asyncio.sleep(1.5)
        assert hub.waiting == 0
        await hub.read(lambda _: None)

    asyncio.run(main())


def test_another_writer_is_waited_for_and_readers_never(
    hub: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(hub)

    async def main() -> None:
        await registry.register("cam", "cam", "camera", None)
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(registry.register("late", "late", "camera", None))
            registry.changed("cam")
            assert await registry.find("cam")
            assert not writing.done()
            other.execute("COMMIT")
        await writing
        assert await registry.find("late")

    asyncio.run(main())


def test_many_look_ups_are_few_statements(hub: Store) -> None:
    registry, statements = Registry(hub), []
    event.listen(hub.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

    async def main() -> None:
        for number in range(3):
            await registry.register(f"cam {number}", "name", "camera", None)
        statements.clear()
        ids = [f"cam {number % 6}" for number in range(600)]
        found = await asyncio.gather(*map(registry.find, ids))
        assert [device is not None for device in found] == [number % 6 < 3 for number in range(600)]
        assert len([said for said in statements if "SELECT" in said]) <= 2

    asyncio.run(main())


def test_a_look_up_that_a_change_has_overtaken_is_not_remembered(hub: Store) -> None:
    registry = Registry(hub)

    async def main() -> None:
        await registry.register("cam", "old", "camera", None)
        looking = asyncio.ensure_future(registry.find("cam"))
        await asyncio.sleep(0.001)  # it is on its way
        registry.changed("cam")
        found = await looking
        assert found
        await hub.run(lambda c: c.execute(text("UPDATE devices SET device_name = 'new'")) and None)
        again = await registry.find("cam")
        assert again and again.name == "new"

    asyncio.run(main())


def test_a_look_up_that_fails_fails_for_all_who_asked_and_for_nobody_later(
    hub: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(hub)

    async def main() -> None:
        await registry.register("cam", "name", "camera", None)
        with monkeypatch.context() as patch:
            patch.setattr(store, "MAX_WAITING", 0)
            asked = [asyncio.ensure_future(registry.find("cam")) for _ in range(3)]
            await asyncio.sleep(0)
            asked.pop().cancel()
            assert [type(said) for said in await asyncio.gather(*asked, return_exceptions=True)] == [StoreDown] * 2
        assert await registry.find("cam")

    asyncio.run(main())


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:////nowhere/at/all.sqlite", "sqlite:///", "nonsense"])
def test_a_wrong_address_is_one_line(url: str) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL="):
        Store(url)


def test_a_key_is_of_the_device_that_has_it_now(hub: Store) -> None:
    """SQLite gives the key of the newest row, once it is gone, to the next."""
    registry = Registry(hub)

    async def main() -> None:
        await registry.register("old", "old", "camera", None)
        old = await registry.find("old")
        assert old and await registry.of_key(old.key) == old
        await registry.delete(old)
        assert await registry.of_key(old.key) is None
        await registry.register("new", "new", "camera", None)
        new = await registry.find("new")
        assert new and new.key == old.key
        assert await registry.of_key(new.key) == new

    asyncio.run(main())


def test_a_server_that_dies_while_it_is_spoken_to_is_down(hub: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(_: Connection) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    def refuses() -> Connection:
        raise ConnectionResetError(104, "Connection reset by peer")

    for call in (hub.read, hub.run):
        with pytest.raises(StoreDown, match="Broken pipe"):
            asyncio.run(call(dies))
    monkeypatch.setattr(hub.engine, "connect", refuses)
    for call in (hub.read, hub.run):
        with pytest.raises(StoreDown, match="reset by peer"):
            asyncio.run(call(migrate.revision))
