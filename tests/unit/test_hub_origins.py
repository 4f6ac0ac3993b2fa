"""A device's own origin: what it is called, how a browser gets in, and that nothing of the hub is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from procs.hub.devices import tickets
from procs.hub.people.accounts import add_user
from procs.hub.tunnel import origins
from procs.hub.tunnel.origins import COOKIE, is_path, label_of
from procs.streams.stream import Stream
from procs.wire.mux1 import Head
from tests import hub_rig
from tests.hub_rig import Answer, Http, ask
from tests.unit.test_hub_proxy_route import Viewer, viewing

CAM = "/api/devices/cam/proxy"
OPENED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"}
Serve = Callable[[Stream], Awaitable[None]]
Case = Callable[[Viewer], Awaitable[None]]


async def page(stream: Stream) -> None:
    """A device that answers by what it was asked, with headers that it would like to have."""
    said = [("Content-Type", "text/html"), ("Set-Cookie", f"{COOKIE}=of-the-device"), ("X-Frame-Options", "ALLOWALL")]
    stream.send_head(Head(200, [*said, ("Content-Security-Policy", "default-src *")]))
    stream.finish(f"{stream.opening.method} {stream.opening.path} {dict(stream.opening.headers)}".encode())


def run(tmp_path: Path, case: Case, serve: Serve = page, **settings: object) -> None:
    """Run a case with a hub, its admin, and a device of the admin's."""

    async def main() -> None:
        async with viewing(tmp_path, serve, **settings) as viewer:
            await case(viewer)

    asyncio.run(main())


class Inside(NamedTuple):
    """A browser at a device's own origin."""

    http: Http
    host: str
    cookie: str

    async def ask(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        """One request. Headers with _ for -."""
        sent = {"Host": self.host, "Cookie": self.cookie} | {k.replace("_", "-"): v for k, v in headers.items()}
        return await ask(self.http, method, path, headers=sent)


def cookie_of(answer: Answer) -> str:
    """What a browser sends from now on."""
    ((name, cookie),) = SimpleCookie(answer.headers["Set-Cookie"]).items()
    return f"{name}={cookie.value}"


def at_hub(viewer: Viewer, name: str = "localhost") -> str:
    """What a browser takes the hub for."""
    return f"{name}:{viewer.http.port}"


async def opened(viewer: Viewer, path: str = "/", host: str = "") -> str:
    """An address by which to get in."""
    asked = {"Host": host or at_hub(viewer)}
    answer = await ask(viewer.http, "POST", "/api/devices/cam/open", {"path": path}, headers=asked)
    assert answer.status == 200, answer.body
    return str(answer.json["url"])


async def entered(viewer: Viewer, url: str) -> Answer:
    """What somebody gets who opens it and is nobody yet."""
    parts = urlsplit(url)
    return await ask(Http(viewer.http.port), "GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})


async def inside(viewer: Viewer, host: str = "") -> Inside:
    """A browser that was let in."""
    url = await opened(viewer, host=host)
    answer = await entered(viewer, url)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    return Inside(Http(viewer.http.port), urlsplit(url).netloc, cookie_of(answer))


def test_a_label_is_of_one_device_and_fits_in_a_host_name() -> None:
    labels = {label_of(device_id) for device_id in ("cam", "CAM", "cam ", "a/../b", "ü" * 64)}
    assert len(labels) == 5 and all(len(label) == 25 and label.islower() for label in labels)
    assert label_of("cam") == "dob5dyzghyahffluiarblo2ic"


@pytest.mark.parametrize("path", ["/", "/stream.html?src=a&mode=mse#x", "/a//b", "/%5c%2f/x", "/.//x", "/?u=http://x/"])
def test_paths_of_this_origin(path: str) -> None:
    assert is_path(path)


ELSEWHERE = [
    *(
        "",
        "x",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/a\\b",
        "/\t/evil.example",
        "/a b",
        "/a\r\nX: y",
    ),
    *("http://evil.example/", "javascript:alert(1)", "/\N{FULLWIDTH SOLIDUS}evil.example", "/" + "x" * 9000),
]


def test_paths_that_might_lead_elsewhere(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        for path in ELSEWHERE:
            assert not is_path(path)
            refused = await ask(viewer.http, "POST", "/api/devices/cam/open", {"path": path})
            assert refused.status == 400, path

    run(tmp_path, case)


def test_a_browser_that_is_let_in_gets_the_device_and_nothing_of_the_hub(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        url = await opened(viewer, "/stream.html?src=a%20b&mode=mse")
        host = f"{label_of('cam')}.localhost:{viewer.http.port}"
        assert url.startswith(f"http://{host}/.planaria/enter?ticket=")
        answer = await entered(viewer, url)
        assert (answer.status, answer.headers["Location"]) == (303, "/stream.html?src=a%20b&mode=mse")
        kept = answer.headers["Set-Cookie"]
        assert "HttpOnly" in kept and "SameSite=Lax" in kept and "Path=/" in kept and "Max-Age=43200" in kept
        assert "Domain" not in kept and "Secure" not in kept
        browser = Inside(Http(viewer.http.port), host, cookie_of(answer))
        for path in ("/", "/api/devices", "/metrics", "/page/main.js", "/ws/viewer", "/api/devices/cam/proxy/x?a=%2f"):
            found = await browser.ask(path, Origin=f"http://{host}", Authorization="Basic eDp5")
            assert found.body.startswith(f"GET {path} ".encode()), "the path is not as it was sent"
            assert b"planaria" not in found.body and b"Basic" not in found.body, "credentials get to the device"
            assert "Set-Cookie" not in found.headers and found.headers["X-Frame-Options"] == "SAMEORIGIN"
            assert found.headers["Content-Security-Policy"] == "default-src *", "it is the device's own origin"
        bearer = await ask(viewer.http, "GET", "/api/devices", headers={"Host": host})
        assert bearer.status == 401 and b"open it from the hub" in bearer.body, "other credentials count there"
        assert bearer.headers["Content-Type"].startswith("text/plain")

    run(tmp_path, case)


def test_every_spelling_of_a_devices_host_is_the_devices(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        label = label_of("cam")
        for host in (f"{label}.localhost", f"{label.upper()}.LOCALHOST.:80", f"a.b.{label}.localhost:1"):
            found = await ask(viewer.http, "GET", "/health", headers={"Host": host})
            assert found.status == 401, host
        for host in (
            "localhost",
            "127.0.0.1:80",
            "hub.localhost",
            f"{label}.example.org",
            "[::1]:80",
            f"{label}localhost",
        ):
            assert (await ask(viewer.http, "GET", "/health", headers={"Host": host})).status == 200, host

    run(tmp_path, case)


def test_somebody_with_whom_it_is_shared_may_look_and_nothing_more(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        await asyncio.to_thread(viewer.http.new_user, "ann")
        ann = await asyncio.to_thread(viewer.http.as_user, "ann", "a good password")
        shared = await ask(viewer.http, "PUT", "/api/devices/cam/shares/ann", {"role": "viewer"})
        assert shared.status == 200, shared.body
        browser = await inside(Viewer(viewer.hub, ann.port, ann.token))
        assert (await browser.ask("/x")).status == 200
        for method, path in (("POST", "/x"), ("POST", "/api/webrtc?src=a"), ("PUT", "/api/webrtc"), ("DELETE", "/")):
            assert (await browser.ask(path, method)).status == 403, (method, path)
        assert (await ask(viewer.http, "DELETE", "/api/devices/cam/shares/ann")).status == 200
        assert (await browser.ask("/x")).status == 404

    run(tmp_path, case)


def test_an_entry_is_good_once_soon_and_at_its_own_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(viewer: Viewer) -> None:
        url = await opened(viewer)
        assert (await entered(viewer, url)).status == 303
        again = await entered(viewer, url)
        assert again.status == 401 and "Set-Cookie" not in again.headers
        other = (await opened(viewer)).replace(label_of("cam"), label_of("other"))
        assert (await entered(viewer, other)).status == 401
        assert (await entered(viewer, other.replace(label_of("other"), label_of("cam")))).status == 401, "it is used up"
        monkeypatch.setattr(tickets, "GOOD_FOR_S", 0.0)
        assert (await entered(viewer, await opened(viewer))).status == 401
        assert viewer.hub.counts.of("refused", "entry without a good ticket") == 4

    run(tmp_path, case)


def test_an_entry_leads_to_no_other_origin(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        url = (await opened(viewer)).removesuffix("%2F")
        for to in ("//evil.example", "/%5Cevil.example", "https://evil.example", "%09//evil.example", "/%0d%0aX:y", ""):
            answer = await entered(viewer, url + to)
            assert answer.status == 400 and "Location" not in answer.headers and "Set-Cookie" not in answer.headers, to
        assert (await entered(viewer, url + "/a%3Fb")).headers["Location"] == "/a?b"

    run(tmp_path, case)


def test_a_view_is_good_at_its_own_origin_only(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        browser = await inside(viewer)
        value = browser.cookie.partition("=")[2]
        for other in (
            browser._replace(host=browser.host.replace(label_of("cam"), label_of("other"))),
            browser._replace(cookie=f"{COOKIE}=made-up"),
            browser._replace(cookie=f"{COOKIE}={viewer.token}"),
            browser._replace(cookie=f"{browser.cookie}; {browser.cookie}"),
            browser._replace(cookie=f"{COOKIE}=tossed; {browser.cookie}"),
        ):
            assert (await other.ask()).status == 401, other
        for path in ("/api/devices", f"{CAM}/"):
            for name in (COOKIE, "planaria_session", "__Host-planaria_session"):
                at = browser._replace(host=at_hub(viewer), cookie=f"{name}={value}")
                assert (await at.ask(path)).status == 401, (path, name)
            assert (await ask(Http(viewer.http.port, value), "GET", path)).status == 401
        assert (await browser.ask()).status == 200

    run(tmp_path, case)


async def _log_out(viewer: Viewer) -> int:
    assert (await ask(viewer.http, "POST", "/api/auth/logout")).status == 200
    return 401


async def _change_password(viewer: Viewer) -> int:
    change = {"old_password": hub_rig.ADMIN_PASSWORD, "new_password": "another password"}
    assert (await ask(viewer.http, "POST", "/api/auth/password", change)).status == 200
    return 401


async def _give_away(viewer: Viewer) -> int:
    user = await viewer.hub.store.run(add_user, "ann", "", hub_rig.CHEAP("a good password"), 0.0)
    await viewer.hub.store.run(lambda c: c.exec_driver_sql(f"UPDATE devices SET owner_id = {user.id}") and None)
    viewer.hub.registry.changed("cam")
    return 404


async def _delete(viewer: Viewer) -> int:
    assert (await ask(viewer.http, "DELETE", "/api/devices/cam")).status == 200
    return 401


@pytest.mark.parametrize("end", [_log_out, _change_password, _give_away, _delete])
def test_a_view_and_an_entry_end_with_what_let_them_in(tmp_path: Path, end: Callable[[Viewer], Awaitable[int]]) -> None:
    async def case(viewer: Viewer) -> None:
        browser, url = await inside(viewer), await opened(viewer)
        assert (await browser.ask()).status == 200
        status = await end(viewer)
        assert (await browser.ask()).status == status
        late = await entered(viewer, url)
        assert late.status == status and "Set-Cookie" not in late.headers

    run(tmp_path, case)


def test_what_is_watched_at_a_devices_origin_ends_with_the_log_in(tmp_path: Path) -> None:
    async def endless(stream: Stream) -> None:
        stream.send_head(Head(200, endless=True))
        while True:
            await stream.write(bytes(1000))
            await asyncio.sleep(0.01)

    async def case(viewer: Viewer) -> None:
        browser = await inside(viewer)
        reader, writer = await asyncio.open_connection("127.0.0.1", viewer.http.port)
        writer.write(f"GET /x HTTP/1.1\r\nHost: {browser.host}\r\nCookie: {browser.cookie}\r\n\r\n".encode())
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        await _log_out(viewer)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(10_000_000), 5)
        writer.close()

    run(tmp_path, case, endless)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Sec_Fetch_Site": "same-origin"}, 200),
        ("GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 200),
        ("GET", {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"}, 403),
        ("POST", {"Origin": "http://{host}"}, 200),
        ("POST", {"Origin": "http://{hub}"}, 403),
        ("POST", {"Origin": "http://{other}"}, 403),
        ("POST", {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate"}, 403),
        ("GET", {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "http://{other}"}, 403),
    ],
)
def test_other_pages_can_do_nothing_there(tmp_path: Path, method: str, headers: dict[str, str], status: int) -> None:
    async def case(viewer: Viewer) -> None:
        browser = await inside(viewer)
        names = {"host": browser.host, "hub": at_hub(viewer), "other": browser.host.replace("d", "e", 1)}
        sent = {name: value.format_map(names) for name, value in headers.items()}
        assert (await browser.ask("/", method, **sent)).status == status

    run(tmp_path, case)


def test_a_browser_that_opens_a_devices_address_at_the_hub_is_led_to_its_origin(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        host = {"Host": at_hub(viewer, "127.0.0.1")}
        led = await ask(viewer.http, "GET", f"{CAM}/a%2Fb?x=%26&y", headers=OPENED | host)
        assert led.status == 303 and led.headers["Cache-Control"] == "no-store"
        where = urlsplit(led.headers["Location"])
        assert where.netloc == f"{label_of('cam')}.localhost:{viewer.http.port}"
        assert parse_qs(where.query)["to"] == ["/a%2Fb?x=%26&y"]
        assert (await entered(viewer, led.headers["Location"])).headers["Location"] == "/a%2Fb?x=%26&y"
        nobody = await ask(Http(viewer.http.port), "GET", f"{CAM}/x", headers=OPENED | host)
        assert (nobody.status, nobody.headers["Location"]) == (303, "/#/devices/cam")
        strange = await ask(Http(viewer.http.port), "GET", "/api/devices/%2F%2Fe%22%C3%BC/proxy/", headers=OPENED)
        assert (strange.status, strange.headers["Location"]) == (303, "/#/devices/%2F%2Fe%22%C3%BC")
        assert (await ask(viewer.http, "GET", "/api/devices/hers/proxy/", headers=OPENED)).status == 404

    run(tmp_path, case)


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Mode": "cors"}, OPENED])
def test_nothing_of_a_device_runs_at_the_hub(tmp_path: Path, headers: dict[str, str]) -> None:
    """Not even where a page is opened and has no other origin to be at."""

    async def case(viewer: Viewer) -> None:
        found = await ask(viewer.http, "GET", f"{CAM}/x", headers=headers)
        assert found.body.startswith(b"GET /x ")
        for answer in (found, await ask(viewer.http, "GET", "/api/devices/none/proxy/")):
            assert answer.headers.get_all("Content-Security-Policy") == [
                "sandbox; default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ]
            assert answer.headers.get_all("X-Frame-Options") == ["DENY"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff" and "Set-Cookie" not in answer.headers
        for run_as in ("script", "worker", "serviceworker", "style"):
            asked = {"Sec-Fetch-Dest": run_as, "Sec-Fetch-Mode": "no-cors"}
            assert (await ask(viewer.http, "GET", f"{CAM}/x", headers=asked)).status == 403
        refused = await ask(viewer.http, "POST", "/api/devices/cam/open")
        assert refused.status == 409 and "PLANARIA_HUB_VIEWS" in refused.detail
        label = {"Host": f"{label_of('cam')}.localhost"}
        assert (await ask(viewer.http, "GET", "/health", headers=label)).status == 200

    run(tmp_path, case, views="off")


def test_behind_a_proxy_that_does_tls(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        url = await opened(viewer, host="hub.example.org")
        assert url.startswith(f"https://{label_of('cam')}.view.example.org/.planaria/enter?")
        kept = (await entered(viewer, url)).headers["Set-Cookie"]
        assert kept.startswith("__Host-planaria_view=") and "Secure" in kept and "Path=/" in kept
        browser = await inside(viewer, "hub.example.org:8443")
        assert browser.host.endswith(".view.example.org:8443")
        assert (await browser.ask()).status == 200
        assert (await browser._replace(cookie=browser.cookie.removeprefix("__Host-")).ask()).status == 401

    run(tmp_path, case, insecure=True, views="view.example.org")


def test_the_scheme_is_believed_of_a_proxy_of_ours(tmp_path: Path) -> None:
    async def url(viewer: Viewer) -> str:
        sent = {"Host": "hub.example.org", "X-Forwarded-Proto": "https"}
        return str((await ask(viewer.http, "POST", "/api/devices/cam/open", headers=sent)).json["url"])

    async def ours(viewer: Viewer) -> None:
        assert (await url(viewer)).startswith("https://")

    async def strange(viewer: Viewer) -> None:
        assert (await url(viewer)).startswith("http://")

    (tmp_path / "ours").mkdir()
    run(tmp_path / "ours", ours, views="view.example.org", proxies=("127.0.0.1",))
    run(tmp_path, strange, views="view.example.org")


def test_browsers_elsewhere_are_not_led_to_their_own_machine(tmp_path: Path) -> None:
    """Where a proxy on this machine serves a hub that was not told of it."""

    async def case(viewer: Viewer) -> None:
        for host in ("hub.example.org", "127.0.0.1.example.org", "a b", "hub:99999999", ""):
            assert (await ask(viewer.http, "POST", "/api/devices/cam/open", headers={"Host": host})).status == 409, host
        for host in ("localhost", "LOCALHOST:80", "127.1.2.3", "[::1]:80"):
            assert (await ask(viewer.http, "POST", "/api/devices/cam/open", headers={"Host": host})).status == 200, host

    run(tmp_path, case)


def test_entries_are_for_paths(tmp_path: Path) -> None:
    async def case(viewer: Viewer) -> None:
        url = urlsplit(await opened(viewer))
        target, host = f"{url.path}?{url.query}", {"Host": url.netloc}
        for method in ("HEAD", "POST"):
            assert (await ask(Http(viewer.http.port), method, target, headers=host)).status == 405
        assert (await ask(Http(viewer.http.port), "GET", target, headers=host)).status == 303, "it was used up"
        for target in (f"http://{url.netloc}/api/devices", "http://hub/api/devices", "*"):
            assert (await ask(viewer.http, "GET", target, headers=host)).status in (400, 401), "it is the hub's"
        assert url.path == origins.ENTER

    run(tmp_path, case)
