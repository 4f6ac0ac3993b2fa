"""Tokens of accounts: whose they are, for how long, and what ends them. The clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text

from procs.errors import Refused
from procs.hub.devices.registry import Registry
from procs.hub.people import accounts, logins
from procs.hub.people.accounts import CACHED_S, MAX_LOGIN_S, PAGE_TTL_S, VIEW_TTL_S, Accounts, WrongPassword, add_user
from procs.hub.people.logins import MAX_TOKENS, Session
from procs.hub.people.roles import VIEWER
from procs.hub.store.models import api_tokens
from procs.store import Store
from tests.hub_rig import CHEAP, lay_out_store

TTL_S, DAY_S = 3600.0, 86_400.0
Case = Callable[[Accounts, "Clock"], Awaitable[None]]


class Clock:
    """A time that only we move."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def run(tmp_path: Path, case: Case, ttl_s: float = TTL_S) -> None:
    """Run a case with one user, ann."""
    store = Store(lay_out_store(tmp_path))
    store.exclusively(lambda c: add_user(c, "ann", "", CHEAP("right"), 0.0))
    clock = Clock()

    async def main() -> None:
        await case(Accounts(store, ttl_s, clock), clock)

    try:
        asyncio.run(main())
    finally:
        store.engine.dispose()


def test_a_token_ends_by_itself(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        user, token = await accounts.log_in("ann", "right")
        clock.now += TTL_S - 0.1
        session = await accounts.session(token)
        assert session and session.user == user
        clock.now += 0.1
        assert await accounts.session(token) is None, "what is remembered ends, too"
        assert await accounts.session(token + "x") is None

    run(tmp_path, case)


def test_the_store_holds_no_token(tmp_path: Path) -> None:
    async def case(accounts: Accounts, __: Clock) -> None:
        _, token = await accounts.log_in("ann", "right")
        rows = await accounts._store.read(lambda c: str(c.execute(text("SELECT * FROM tokens")).all()))
        assert token not in rows and "access" in rows

    run(tmp_path, case)


def test_renewal_goes_on_for_a_month(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        _, token = await accounts.log_in("ann", "right")
        began = clock.now
        while clock.now - began <= MAX_LOGIN_S:
            session = await accounts.session(token)
            assert session and session.login_at == began
            token = await accounts.renew(session)
            clock.now += DAY_S - 1
        session = await accounts.session(token)
        assert session
        with pytest.raises(Refused, match="log in again"):
            await accounts.renew(session)

    run(tmp_path, case, DAY_S)


def test_what_another_hub_has_ended_ends_here_soon(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        other = Accounts(accounts._store, TTL_S, clock)
        _, token = await accounts.log_in("ann", "right")
        session = await accounts.session(token)
        assert session
        await other.log_out(session)
        clock.now += CACHED_S
        assert await accounts.session(token) is None

    run(tmp_path, case)


def test_a_view_is_of_its_login_and_of_its_kind(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        registry = Registry(accounts._store, clock)
        await registry.register("cam", "cam", "camera", None)
        device = await registry.find("cam")
        _, token = await accounts.log_in("ann", "right")
        session = await accounts.session(token)
        assert session and device
        view = await accounts.open_view(session, device.key)
        assert await accounts.session(view) is None
        assert await accounts.session(token, "view") is None
        clock.now += VIEW_TTL_S - 1
        seen = await accounts.session(view, "view")
        assert seen and seen.device == device.key
        await accounts.log_out(session)
        assert await accounts.session(view, "view") is None

    run(tmp_path, case)


def test_each_kind_of_token_is_good_for_its_own_way_in(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        _, sent = await accounts.log_in("ann", "right")
        _, cookie = await accounts.log_in("ann", "right", "page")
        assert await accounts.session(cookie) is None, "what stands in a cookie is no access token"
        assert await accounts.session(sent, "page") is None
        clock.now += PAGE_TTL_S - 0.1
        assert await accounts.session(cookie, "page")
        clock.now += 0.1
        assert await accounts.session(cookie, "page") is None

    run(tmp_path, case)


def test_the_store_knows_the_minute_in_which_a_program_came_last(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        user, _ = await accounts.log_in("ann", "right")
        program = Session(user, "program", None, "login", clock.now, clock.now + DAY_S, VIEWER)

        def make(connection: Connection) -> None:
            logins.insert_token(connection, logins.digest_of("token"), program)
            made = insert(api_tokens).values(digest=logins.digest_of("token"), name="x", created_at=clock.now)
            connection.execute(made)

        async def last_used() -> float | None:
            await accounts.write_used()
            return await accounts._store.read(lambda c: c.execute(select(api_tokens.c.last_used)).scalar())

        await accounts._store.run(make)
        assert await last_used() is None
        for second in (61.0, 119.0, 121.0):
            clock.now = 1_000_020.0 + second  # whole minutes begin at a multiple of 60
            assert await accounts.session("token") == program
            assert await last_used() == 1_000_020.0 + second - second % 60
        assert accounts._unwritten == {}

    run(tmp_path, case)


def test_nothing_new_comes_of_a_login_that_has_ended(tmp_path: Path) -> None:
    """Else whoever asks again and again is let in just while it ends, and stays."""

    async def case(accounts: Accounts, clock: Clock) -> None:
        _, token = await accounts.log_in("ann", "right")
        session = await accounts.session(token)
        assert session
        await accounts.log_out(session)
        with pytest.raises(Refused, match="ended"):
            await accounts.renew(session)
        with pytest.raises(Refused, match="ended"):
            await accounts.open_view(session, 1)

    run(tmp_path, case)


def test_a_login_that_ends_while_it_is_looked_up_lets_nobody_in(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        _, token = await accounts.log_in("ann", "right")
        session = await accounts.session(token)
        clock.now += CACHED_S
        read, was_read, goes_on = accounts._store.read, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any) -> Any:
            found: Any = await read(*args)
            was_read.set()
            await goes_on.wait()
            return found

        accounts._store.read = slow  # type: ignore[method-assign, assignment]
        asking = asyncio.create_task(accounts.session(token))
        await was_read.wait()
        assert session
        await accounts.log_out(session)
        goes_on.set()
        assert await asking is None

    run(tmp_path, case)


def test_the_old_password_lets_nobody_in_who_was_waiting(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        both, changed = asyncio.Event(), asyncio.Event()
        waits: list[bool] = []
        matches = accounts._passwords.matches

        async def slow(password: str, kept: str | None) -> bool:
            is_right = await matches(password, kept)
            if password == "right" and asyncio.current_task() is not changing:
                waits.append(is_right)
                if len(waits) == 2:
                    both.set()
                await changed.wait()
            return is_right

        user, _ = await accounts.log_in("ann", "right")
        changing = asyncio.current_task()
        accounts._passwords.matches = slow  # type: ignore[method-assign]
        waiting = asyncio.create_task(accounts.log_in("ann", "right"))
        basic = asyncio.create_task(accounts.checked("ann", "right"))
        await both.wait()
        await accounts.change_password(user, "right", "another")
        changed.set()
        with pytest.raises(WrongPassword):
            await waiting
        await basic
        assert accounts.remembered("ann", "right") is None

    run(tmp_path, case)


def test_nobody_fills_the_store_with_tokens(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        tokens = []
        for _ in range(MAX_TOKENS + 3):
            clock.now += 1
            tokens.append((await accounts.log_in("ann", "right"))[1])
        assert [await accounts.session(token) is not None for token in tokens[:5]] == [False] * 3 + [True] * 2
        assert await accounts.session(tokens[-1])
        clock.now += TTL_S
        await accounts.purge()
        count = await accounts._store.read(lambda c: c.execute(text("SELECT count(*) FROM tokens")).scalar())
        assert count == 0

    run(tmp_path, case)


def test_a_password_is_remembered_for_a_minute(tmp_path: Path) -> None:
    async def case(accounts: Accounts, clock: Clock) -> None:
        with pytest.raises(WrongPassword):
            await accounts.checked("ann", "wrong")
        with pytest.raises(WrongPassword):
            await accounts.checked("nobody", "right")
        user = await accounts.checked("ann", "right")
        assert accounts.remembered("ann", "right") == user
        assert accounts.remembered("an", "nright") is None and accounts.remembered("ann", "wrong") is None
        clock.now += 61
        assert accounts.remembered("ann", "right") is None

    run(tmp_path, case)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("ann", True),
        ("Änne Müller", True),
        ("a", True),
        ("a" * 64, True),
        ("", False),
        ("a" * 65, False),
        ("a:b", False),
        (" ann", False),
        ("ann\n", False),
        ("a\x00b", False),
        ("\ud800", False),
    ],
)
def test_names(name: str, is_one: bool) -> None:
    assert accounts.is_username(name) is is_one
