"""What a guest has under way of a device ends with what lets them in: a share, its role, an account, a token."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from procs.hub.people.accounts import add_user
from procs.hub.viewers import viewer_ws
from procs.streams.stream import Stream
from procs.wire.mux1 import Head
from tests import hub_rig
from tests.hub_rig import Http
from tests.unit.test_hub_proxy_route import Viewer, viewing

SHARE = "/api/devices/cam/shares/guest"
End = Callable[[Viewer, Viewer], Awaitable[None]]


async def _asked(who: Viewer, method: str, path: str, body: object = None) -> None:
    assert (await hub_rig.ask(who.http, method, path, body)).status == 200


async def _taken_away(owner: Viewer, guest: Viewer) -> None:
    await _asked(owner, "DELETE", SHARE)


async def _only_a_viewer_now(owner: Viewer, guest: Viewer) -> None:
    await _asked(owner, "PUT", SHARE, {"role": "viewer"})


async def _given_up(owner: Viewer, guest: Viewer) -> None:
    await _asked(guest, "DELETE", SHARE)


async def _guest_deleted(owner: Viewer, guest: Viewer) -> None:
    await _asked(owner, "DELETE", "/api/users/2")


async def _guest_has_another_password(owner: Viewer, guest: Viewer) -> None:
    await _asked(owner, "PATCH", "/api/users/2", {"password": "another password"})


async def _owner_deleted(owner: Viewer, guest: Viewer) -> None:
    await _asked(owner, "PATCH", "/api/users/3", {"is_admin": True})
    await _asked(owner, "DELETE", "/api/users/1")


ENDS = [_taken_away, _only_a_viewer_now, _given_up, _guest_deleted, _guest_has_another_password, _owner_deleted]


async def _endless(stream: Stream) -> None:
    stream.send_head(Head(200, [], endless=True))
    while True:
        await stream.write(bytes(1000))
        await asyncio.sleep(0.01)


async def _guest_of(owner: Viewer) -> Viewer:
    """A user 2 with whom the device is shared as owner; there is a user 3, too."""
    kept = hub_rig.CHEAP("a good password")
    for name in ("guest", "third"):
        await owner.hub.store.run(add_user, name, "", kept, 0.0)
    _, token = await owner.hub.accounts.log_in("guest", "a good password")
    await _asked(owner, "PUT", SHARE, {"role": "owner"})
    return Viewer(owner.hub, owner.http.port, token)


async def _ended(guest: Viewer, end: Callable[[], Awaitable[None]]) -> None:
    reader, writer = await guest.open("/endless")
    assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert len(guest.hub.views) == 1
    await end()
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert len(guest.hub.views) == 0


@pytest.mark.parametrize("end", ENDS)
def test_what_a_guest_has_under_way_ends_with_what_lets_it_in(tmp_path: Path, end: End) -> None:
    async def main() -> None:
        async with viewing(tmp_path, _endless) as owner:
            guest = await _guest_of(owner)
            await _ended(guest, lambda: end(owner, guest))

    asyncio.run(main())


def test_what_a_program_has_under_way_ends_with_its_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with viewing(tmp_path, _endless) as owner:
            guest = await _guest_of(owner)
            made = (await hub_rig.ask(guest.http, "POST", "/api/tokens", {"name": "x", "role": "viewer"})).json
            program = Viewer(owner.hub, owner.http.port, made["token"])
            await _ended(program, lambda: _asked(guest, "DELETE", f"/api/tokens/{made['id']}"))

    asyncio.run(main())


def test_a_share_taken_away_while_it_is_looked_up_lets_nobody_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with viewing(tmp_path, _endless) as owner:
            guest, registry = await _guest_of(owner), owner.hub.registry
            device = await registry.find("cam")
            assert device and await registry.role(device, 2) == "owner"
            registry.access_changed("cam")
            read, was_read, goes_on = owner.hub.store.read, asyncio.Event(), asyncio.Event()

            async def slow(*args: Any) -> Any:
                found: Any = await read(*args)
                was_read.set()
                await goes_on.wait()
                return found

            owner.hub.store.read = slow  # type: ignore[method-assign, assignment]
            asked = asyncio.create_task(registry.role(device, 2))
            await was_read.wait()
            owner.hub.store.read = read  # type: ignore[method-assign]
            await _asked(owner, "DELETE", SHARE)
            goes_on.set()
            assert await asked is None
            assert (await hub_rig.ask(Http(guest.http.port, guest.token), "GET", "/api/devices/cam")).status == 404

    asyncio.run(main())


def test_nobody_is_told_of_a_suite_before_it_is_known_whose_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with viewing(tmp_path, _endless) as owner:
            await _guest_of(owner)
            _, token = await owner.hub.accounts.log_in("third", "a good password")
            find, is_asked, goes_on = owner.hub.registry.find, asyncio.Event(), asyncio.Event()

            async def slow(device_id: str) -> Any:
                is_asked.set()
                await goes_on.wait()
                return await find(device_id)

            owner.hub.registry.find = slow  # type: ignore[method-assign]

            def subscribe() -> object:
                with hub_rig.viewer(owner.http, token) as page:
                    page.say("subscribe", {"suite": ["cam"]})
                    return page.hear("device_gone")["payload"]

            told = asyncio.create_task(asyncio.to_thread(subscribe))
            await is_asked.wait()
            assert owner.hub.subscriptions.suites() == set()
            goes_on.set()
            assert await told == {"device_id": "cam"}

    asyncio.run(main())


def test_one_user_does_not_take_all_places_of_viewers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with viewing(tmp_path, _endless) as owner:
            guest = await _guest_of(owner)

            def connect() -> None:
                with hub_rig.viewer(owner.http, guest.token), hub_rig.viewer(owner.http, guest.token):
                    with hub_rig.talking(owner.http, "/ws/viewer") as third:
                        third.say("hello", {"token": guest.token})
                        assert third.closing() == (1013, "Too many connections")
                    with hub_rig.viewer(owner.http, owner.token) as another:
                        assert another.is_alive()

            await asyncio.to_thread(connect)

    monkeypatch.setattr(viewer_ws, "MAX_OF_USER", 2)
    asyncio.run(main())
