"""The same hub on a real PostgreSQL: tables, two hubs that start at once, a server that goes away and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from procs.errors import StoreDown
from procs.hub.devices.events import KEPT, Events
from procs.hub.metrics import Counts
from procs.hub.people import logins
from procs.hub.people.roles import OWNER
from procs.hub.store import migrate
from procs.hub.store.models import SCHEMA, metadata
from procs.store import Store
from tests import hub_rig
from tests.hub_rig import ADMIN_PASSWORD, Http, Process
from tests.postgres_rig import Postgres, serving
from tests.rig import clean_environ, free_port, until

EVENTS = "/api/devices/cam/events"
pytestmark = pytest.mark.needs("postgres", "initdb")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One server."""
    with serving() as server:
        yield server


def hub_of(tmp_path: Path, name: str, url: str) -> Process:
    """A hub, not started."""
    run_dir = tmp_path / name
    run_dir.mkdir(mode=0o700)
    port = free_port()
    settings = {"PLANARIA_HUB": f"127.0.0.1:{port}", "PLANARIA_RUN_DIR": str(run_dir), "DATABASE_URL": url}
    settings |= {"PLANARIA_SUITE": "test", "PLANARIA_ADMIN_PASSWORD": ADMIN_PASSWORD, "PLANARIA_COMPAT": "1"}
    return Process(run_dir, port, clean_environ(**settings), run_dir / "hub.log")


def test_a_store_of_the_first_version_goes_on_with_what_is_in_it(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres.sql("CREATE DATABASE older") == "CREATE DATABASE"
    store = Store(postgres.url.replace("/postgres?", "/older?"))
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "SCHEMA", "0001")
        migrate.bring_up_to_date(store)
    with store.engine.begin() as connection:
        connection.execute(text("INSERT INTO users VALUES (1, 'ann', NULL, 'kept', true, 5)"))
        connection.execute(text("INSERT INTO tokens VALUES ('d', 1, 'access', NULL, 'login', 8, 9)"))
    migrate.bring_up_to_date(store)
    with store.engine.connect() as connection:
        assert migrate.revision(connection) == SCHEMA
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
        session = logins.session_of(connection, "d")
    store.engine.dispose()
    assert session and (session.user.username, session.user.is_admin, session.role) == ("ann", True, "owner")


def test_a_server_that_lets_nobody_in_is_down(postgres: Postgres) -> None:
    """As one does that is just starting, or full: it answers, with an error of its own."""
    assert postgres.sql("CREATE DATABASE closed ALLOW_CONNECTIONS false") == "CREATE DATABASE"
    store = Store(postgres.url.replace("/postgres?", "/closed?"))
    for way in (store.read, store.run) * 5:  # it may hang up before what it says is read
        with pytest.raises(StoreDown):
            asyncio.run(way(lambda connection: connection.execute(text("SELECT 1")) and None))
    store.engine.dispose()


def test_events_of_a_whole_fleet_are_kept(postgres: Postgres) -> None:
    """In few statements, in their order, at most so many of a device."""
    assert postgres.sql("CREATE DATABASE fleet") == "CREATE DATABASE"
    store = Store(postgres.url.replace("/postgres?", "/fleet?"))
    migrate.bring_up_to_date(store)
    device = text("INSERT INTO devices VALUES (:key, :name, 'name', 'camera', NULL, NULL, 0, NULL)")
    with store.engine.begin() as connection:
        connection.execute(device, [{"key": key, "name": f"cam {key}"} for key in range(1, 1001)])
        full = "INSERT INTO device_events (device_id, at, kind, text) SELECT 1, 4e9, 'connected', 'old'"
        connection.execute(text(f"{full} FROM generate_series(1, {KEPT})"))
    kept = Events(store, Counts())
    for key in range(1, 1001):
        for kind in ("connected", "disconnected"):
            kept.add(key, kind, f"{key}")
    asyncio.run(kept.write())
    first, _ = asyncio.run(kept.of(1, OWNER, None, KEPT))
    last, _ = asyncio.run(kept.of(1000, OWNER, None, KEPT))
    store.engine.dispose()
    assert len(first) == KEPT and first[2].text == "old"
    assert [(each.kind, each.text) for each in last] == [("disconnected", "1000"), ("connected", "1000")]


def test_no_device_loses_the_events_of_others(postgres: Postgres) -> None:
    assert postgres.sql("CREATE DATABASE events") == "CREATE DATABASE"
    store = Store(postgres.url.replace("/postgres?", "/events?"))
    migrate.bring_up_to_date(store)
    device = text("INSERT INTO devices VALUES (:key, :name, 'name', 'camera', NULL, NULL, 0, NULL)")
    with store.engine.begin() as connection:
        connection.execute(device, [{"key": key, "name": f"cam {key}"} for key in (1, 2)])
    kept = Events(store, Counts())
    kept.add(1, "restarted", "\x00: it\nended")
    kept.add(2, "connected", "from here")
    asyncio.run(kept.write())
    found = [asyncio.run(kept.of(key, OWNER, None, KEPT))[0] for key in (1, 2)]
    store.engine.dispose()
    assert [[event.text for event in each] for each in found] == [[" : it ended"], ["from here"]]


def test_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    hubs = [hub_of(tmp_path, name, postgres.url) for name in ("one", "other", "third")]
    for hub in hubs:
        hub.start()
    try:
        for hub in hubs:
            hub.wait()
        assert sum("first start" in hub.said() for hub in hubs) == 1
        assert sum("store brought up to date" in hub.said() for hub in hubs) == 1
        _has_the_models_tables(postgres)
        _carries_what_it_should(*hubs[:2])
        _outlives_its_server(postgres, hubs[0])
    finally:
        for hub in hubs:
            hub.kill()
    assert not [line for hub in hubs for line in hub.said().splitlines() if '"trace"' in line]


def _has_the_models_tables(postgres: Postgres) -> None:
    store = Store(postgres.url)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert migrate.revision(connection) == SCHEMA
    store.engine.dispose()


def _carries_what_it_should(hub: Process, other: Process) -> None:
    ann = hub.http.new_user("ann")
    assert (
        other.http("POST", "/api/auth/register", {"username": "ann", "email": "", "password": "12345678"}).status == 400
    )
    hub_rig.paired(hub, ann, "cam")
    with hub_rig.device(hub, "cam", device_secret="secret"), hub_rig.viewer(hub, ann.token) as viewer:
        viewer.say("watch_request", {"device_id": "cam"})
        assert viewer.hear("watch_ready")
        assert ann("GET", "/api/devices").json[0]["is_online"] is True
    with hub_rig.talking(other, "/ws/device") as wrong:
        wrong.say("hello", {"device_id": "cam", "device_secret": "wrong"})
        assert wrong.closing() == (1008, "Wrong credential")
    there = hub_rig.Http(other.port, ann.token)
    _shares_and_remembers(hub, there)
    until(lambda: there("GET", "/api/devices/cam/status").json["last_seen"])
    assert there("POST", "/api/devices/cam/open").status == 200
    assert there("PATCH", "/api/devices/cam", {"device_name": "Käfer"}).json["device_name"] == "Käfer"
    assert ann("POST", "/api/auth/logout").status == 200
    until(lambda: there("GET", "/api/devices").status == 401)
    for nul in ("a\x00b", "\x00"):
        assert hub.http("POST", "/api/auth/login", {"username": nul, "password": "12345678"}).status == 401
        assert hub.http("POST", "/api/devices/register", {"device_id": nul}).status == 400


def _shares_and_remembers(hub: Process, there: Http) -> None:
    """What one hub writes, the other goes by."""
    bob, admin = hub.http.new_user("bob"), hub.admin
    kinds = ["refused", "disconnected", "connected", "paired"]
    until(lambda: {event["kind"] for event in there("GET", EVENTS).json["events"]} == set(kinds))
    assert there("PUT", "/api/devices/cam/shares/bob", {"role": "viewer"}).json["role"] == "viewer"
    assert there("PUT", "/api/devices/cam/shares/bob", {"role": "owner"}).json["role"] == "owner"
    (seen,) = bob("GET", "/api/devices").json
    assert (seen["role"], seen["owner"]) == ("owner", "ann")
    token = bob("POST", "/api/tokens", {"name": "cron", "role": "viewer"}).json
    program = Http(there.port, token["token"])
    assert program("GET", "/api/devices/cam").json["role"] == "viewer"
    until(lambda: bob("GET", "/api/tokens").json[0]["last_used"], 10)
    assert bob("DELETE", f"/api/tokens/{token['id']}").status == 200
    until(lambda: program("GET", "/api/devices").status == 401)
    page = hub.http("POST", "/api/session", {"username": "bob", "password": "a good password"})
    cookie = {"Cookie": page.headers["Set-Cookie"].partition(";")[0]}
    assert Http(there.port)("GET", "/api/session", headers=cookie).json["user"]["username"] == "bob"
    assert there("DELETE", "/api/devices/cam/shares/bob").status == 200
    until(lambda: bob("GET", "/api/devices/cam").status == 404)
    users = {user["username"]: user for user in admin("GET", "/api/users").json}
    assert (users["ann"]["devices"], users["bob"]["devices"]) == (1, 0)
    assert admin("PATCH", f"/api/users/{users['admin']['id']}", {"is_admin": False}).status == 409
    assert admin("PATCH", f"/api/users/{users['bob']['id']}", {"is_admin": True}).json["is_admin"] is True
    assert admin("DELETE", f"/api/users/{users['bob']['id']}").status == 200
    until(lambda: Http(there.port)("GET", "/api/session", headers=cookie).status == 401)
    kinds = ["unshared", "shared", "shared", *kinds]  # in which order those of two hubs are written, nobody says
    until(lambda: sorted(event["kind"] for event in there("GET", EVENTS).json["events"]) == sorted(kinds))


def _outlives_its_server(postgres: Postgres, hub: Process) -> None:
    ann = hub.http.as_user("ann", "a good password")
    with hub_rig.device(hub, "cam", device_secret="secret") as device:
        postgres.kill()
        away = hub.http("POST", "/api/devices/register", {"device_id": "new"})
        assert away.status == 503 and away.headers["Retry-After"]
        assert device.is_alive() and hub.http("GET", "/health").status == 200
        postgres.start()
        until(lambda: hub.http("POST", "/api/devices/register", {"device_id": "new"}).status == 200)
        assert ann("GET", "/api/devices/cam/status").json["is_online"] is True
