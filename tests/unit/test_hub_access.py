"""Who may reach a device's own pages: each credential, for whom it is good, and what another site's page can't do."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from procs.hub.devices import pairing
from procs.hub.people import access
from procs.hub.people.accounts import add_user
from procs.hub.state import State
from procs.streams.link import Link
from procs.wire.mux1 import MuxLimits
from tests import hub_rig
from tests.hub_rig import ADMIN_PASSWORD, Http, ask
from tests.joined import one_by_one

ANNS_PASSWORD = "a good password"
CAM = "/api/devices/cam/proxy/"
Case = Callable[[State, Http, Http], Awaitable[None]]


async def proxied(request: web.Request) -> web.Response:
    """What stands where the proxy route stands: says who is let in."""
    user = await access.viewer_of_device(request, request.match_info["id"])
    return web.Response(text=user.user.username)


def run(tmp_path: Path, case: Case, **settings: Any) -> None:
    """Run a case with a hub, its admin who owns `cam`, and another user, who owns `hers`."""

    async def main() -> None:
        route = web.route("*", "/api/devices/{id}/proxy/{path:.*}", proxied)
        async with hub_rig.within(tmp_path, route, **settings) as (hub, http):
            admin = await asyncio.to_thread(http.as_user, "admin", ADMIN_PASSWORD)
            await hub.store.run(add_user, "ann", "", hub_rig.CHEAP(ANNS_PASSWORD), 0.0)
            ann = await asyncio.to_thread(http.as_user, "ann", ANNS_PASSWORD)
            for owner, device_id in ((admin, "cam"), (ann, "hers")):
                await hub.registry.register(device_id, device_id, "camera", None)
                device = await hub.registry.find(device_id)
                assert device
                code = (await pairing.generate(hub, device.key)).code
                assert (await ask(owner, "POST", "/api/devices/pair", {"pairing_code": code})).status == 200
            await case(hub, admin, ann)

    asyncio.run(main())


def data_link() -> Link:
    """A data connection that nobody reads."""

    async def nowhere(_: bytes) -> None:
        return

    return Link(one_by_one(nowhere), opens="odd", ours=MuxLimits(), theirs=MuxLimits())


def basic(username: str, password: str) -> dict[str, str]:
    """A header."""
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def test_a_token_is_good_for_ones_own_devices(tmp_path: Path) -> None:
    async def case(_: State, admin: Http, ann: Http) -> None:
        mine = await ask(admin, "GET", CAM + "api/streams")
        assert (mine.status, mine.body) == (200, b"admin")
        assert (await ask(admin, "POST", CAM + "api/webrtc")).status == 200, "a token is never sent by itself"
        assert (await ask(ann, "GET", CAM)).status == 404
        assert (await ask(ann, "GET", "/api/devices/nowhere/proxy/")).status == 404
        assert (await ask(ann, "GET", "/api/devices/hers/proxy/")).body == b"ann"
        assert (await ask(Http(ann.port, ann.token + "x"), "GET", CAM)).status == 401
        assert (await ask(Http(ann.port), "GET", f"{CAM}?token={admin.token}")).status == 401

    run(tmp_path, case)


def test_a_token_in_the_address_is_for_compatibility(tmp_path: Path) -> None:
    async def case(_: State, admin: Http, ann: Http) -> None:
        assert (await ask(Http(ann.port), "GET", f"{CAM}?token={admin.token}")).status == 200
        assert (await ask(Http(ann.port), "GET", f"{CAM}?token={ann.token}")).status == 404

    run(tmp_path, case, compat=True)


def test_a_second_owner_ends_what_the_first_has(tmp_path: Path) -> None:
    async def case(hub: State, admin: Http, ann: Http) -> None:
        dropped: list[tuple[int, str]] = []
        hub.presence.add_link("cam", "", data_link(), lambda *said: dropped.append(said))
        code = (await ask(admin, "POST", "/api/pairing/generate?device_id=cam")).json["code"]
        assert (await ask(ann, "POST", "/api/devices/pair", {"pairing_code": code})).status == 200
        assert (await ask(admin, "GET", CAM)).status == 404
        assert dropped == [(1012, "The device has another owner")], "what the first still watches goes on"
        assert (await ask(ann, "GET", CAM)).status == 200
        assert (await ask(ann, "DELETE", "/api/devices/cam")).status == 200
        assert (await ask(ann, "GET", CAM)).status == 404

    run(tmp_path, case)


def test_a_password_by_http_basic(tmp_path: Path) -> None:
    async def case(hub: State, admin: Http, ann: Http) -> None:
        nobody, good = Http(admin.port), basic("admin", ADMIN_PASSWORD)
        assert (await ask(nobody, "GET", CAM, headers=good)).body == b"admin"
        assert hub.accounts.remembered("admin", ADMIN_PASSWORD), "scrypt for every picture"
        assert not hub.accounts.remembered("admin", ADMIN_PASSWORD + "x")
        assert (await ask(nobody, "GET", CAM, headers=good)).status == 200
        in_browser = good | {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
        assert (await ask(nobody, "GET", CAM, headers=in_browser)).status == 401, "it is for programs"
        assert (await ask(nobody, "GET", CAM, headers=basic("ann", ANNS_PASSWORD))).status == 404
        for wrong in (basic("admin", "wrong"), basic("nobody", "wrong"), {"Authorization": "Basic !"}):
            assert (await ask(nobody, "GET", CAM, headers=wrong)).status == 401
        assert (await ask(nobody, "GET", "/api/devices", headers=good)).status == 401, (
            "Basic is for devices' pages only"
        )
        change = {"old_password": ADMIN_PASSWORD, "new_password": "another password"}
        assert (await ask(admin, "POST", "/api/auth/password", change)).status == 200
        assert (await ask(nobody, "GET", CAM, headers=good)).status == 401, "an old password is remembered"

    run(tmp_path, case)


def test_a_program_is_asked_for_a_password_and_a_page_is_not(tmp_path: Path) -> None:
    async def case(_: State, admin: Http, __: Http) -> None:
        nobody = Http(admin.port)
        asked = await ask(nobody, "GET", CAM)
        assert asked.status == 401
        assert asked.headers["WWW-Authenticate"] == 'Basic realm="planaria device cam", charset="UTF-8"'
        for method, headers in (("GET", {"Sec-Fetch-Mode": "cors"}), ("POST", {}), ("GET", {"Upgrade": "websocket"})):
            asked = await ask(nobody, method, CAM, headers=headers)
            assert asked.status == 401 and "WWW-Authenticate" not in asked.headers
        strange = await ask(nobody, "GET", "/api/devices/a%22%0d%0ab%5c%C3%BC/proxy/")
        assert strange.status == 401 and 'realm="planaria device a???b??"' in strange.headers["WWW-Authenticate"]

    run(tmp_path, case)


def test_wrong_passwords_are_counted_wherever_they_come(tmp_path: Path) -> None:
    async def case(hub: State, admin: Http, ann: Http) -> None:
        nobody = Http(admin.port)
        for number in range(5):
            assert (await ask(nobody, "GET", CAM, headers=basic("admin", f"wrong {number}"))).status == 401
            login = {"username": "admin", "password": f"wrong {number}"}
            assert (await ask(nobody, "POST", "/api/auth/login", login)).status == 401
        late = await ask(nobody, "GET", CAM, headers=basic("admin", ADMIN_PASSWORD))
        assert late.status == 429 and 1 <= int(late.headers["Retry-After"]) <= 60
        assert (await ask(nobody, "GET", CAM, headers=basic("ann", ANNS_PASSWORD))).status == 404, "another name"
        assert (await ask(admin, "GET", CAM)).status == 200, "who is in stays in"
        assert hub.counts.of("refused", "wrong password") == 10
        assert hub.counts.of("refused", "too many attempts to log in") == 1

    run(tmp_path, case)


HERE, THERE = "http://127.0.0.1:{port}", "http://evil.example"
Asked = tuple[str, dict[str, str]]  # method and headers
GET: Asked = ("GET", {})
POST: Asked = ("POST", {})
UPGRADE: Asked = ("GET", {"Upgrade": "websocket", "Connection": "Upgrade"})


SENT_BY_BROWSERS: list[tuple[Asked, dict[str, str], int]] = [
    (GET, {"Origin": THERE}, 200),  # it can't read the answer
    (GET, {"Sec-Fetch-Site": "cross-site"}, 403),
    (GET, {"Sec-Fetch-Site": "same-site"}, 403),
    (POST, {}, 200),  # no browser
    (POST, {"Sec-Fetch-Site": "same-origin"}, 200),
    (POST, {"Sec-Fetch-Site": "none"}, 200),
    (POST, {"Sec-Fetch-Site": "cross-site"}, 403),
    (POST, {"Sec-Fetch-Site": "same-site"}, 403),
    (POST, {"Origin": HERE}, 200),
    (POST, {"Origin": THERE}, 403),
    (POST, {"Origin": "null"}, 403),
    (POST, {"Origin": THERE, "Sec-Fetch-Site": "same-origin"}, 403),
    (POST, {"Origin": "https://127.0.0.1:{port}"}, 403),
    (POST, {"Origin": "http://127.0.0.1"}, 403),
    (UPGRADE, {}, 200),
    (UPGRADE, {"Origin": HERE}, 200),
    (UPGRADE, {"Origin": THERE}, 403),
]


def test_another_sites_page_can_do_nothing_with_what_a_browser_sends_by_itself(tmp_path: Path) -> None:
    async def case(_: State, admin: Http, __: Http) -> None:
        nobody, ambient = Http(admin.port), basic("admin", ADMIN_PASSWORD)
        for (method, more), headers, status in SENT_BY_BROWSERS:
            sent = {name: value.format(port=admin.port) for name, value in (headers | more).items()}
            assert (await ask(nobody, method, CAM, headers=sent | ambient)).status == status, (method, sent)
            assert (await ask(admin, method, CAM, headers=sent)).status == 200, "a token is never sent by itself"

    run(tmp_path, case)


def test_behind_a_proxy_that_does_tls_the_scheme_is_its_own(tmp_path: Path) -> None:
    async def case(hub: State, admin: Http, __: Http) -> None:
        origin = {"Origin": f"https://127.0.0.1:{admin.port}"}
        sent = basic("admin", ADMIN_PASSWORD) | origin
        assert (await ask(Http(admin.port), "POST", CAM, headers=sent)).status == 200

    run(tmp_path, case, insecure=True)


def test_who_is_counted_behind_a_proxy(tmp_path: Path) -> None:
    async def told(request: web.Request) -> web.Response:
        return web.Response(text=f"{access.address_of(request)} {access.is_local(request)}")

    async def main(place: Path, proxies: tuple[str, ...]) -> list[str]:
        async with hub_rig.within(place, web.get("/who", told), proxies=proxies) as (_, http):
            forwarded = {"X-Forwarded-For": "198.51.100.1, 192.0.2.7"}
            return [(await ask(http, "GET", "/who", headers=h)).body.decode() for h in ({}, forwarded)]

    (tmp_path / "behind").mkdir()
    assert asyncio.run(main(tmp_path, ())) == ["127.0.0.1 True", "127.0.0.1 False"]
    assert asyncio.run(main(tmp_path / "behind", ("127.0.0.1",))) == ["127.0.0.1 True", "192.0.2.7 False"]
