"""A device whose pages are hostile, in a real browser whose user is signed in at the hub: nothing that its scripts try
gets them anywhere. By http on this machine, and by https with the device's origin below the hub's domain, where a
browser takes the two for one site."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from procs.hub.tunnel.origins import label_of
from procs.streams.stream import Stream
from procs.wire.mux1 import Head
from tests import hub_rig
from tests.e2e.chromium import ARGUMENTS
from tests.rig import free_port
from tests.unit.test_hub_proxy_route import Viewer, viewing

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.needs("openssl")]
LAX = "default-src * 'unsafe-inline' 'unsafe-eval'"
CAM = "/api/devices/cam/proxy"
# Every way of a script to get at the hub with what the browser has of its user: name -> what came of it. "nothing" is
# what it should be.
ATTACKS = """
const wait = ms => new Promise(done => setTimeout(done, ms));
const inTime = work => Promise.race([work, wait(3000).then(() => 'nothing')]).catch(() => 'nothing');
const read = (path, options) => inTime(fetch(hub + path, {credentials: 'include', ...options}).then(async answer =>
  answer.type === 'opaque' ? 'nothing' : answer.status + await answer.text()));
const inside = other => { try { return other.document.body.innerHTML || 'nothing'; } catch { return 'nothing'; } };
const attacks = {
  read: () => read('/api/devices'),
  readSession: () => read('/api/session'),
  readProxied: () => read('/api/devices/cam/proxy/x'),
  readOpaque: () => read('/api/devices', {mode: 'no-cors'}),
  rename: () => read('/api/devices/cam', {method: 'PATCH', body: '{"device_name": "taken"}'}),
  remove: () => read('/api/devices/cam', {method: 'DELETE'}),
  logOut: () => read('/api/auth/logout', {method: 'POST', mode: 'no-cors', body: '{}'}),
  open: () => read('/api/devices/cam/open', {method: 'POST', mode: 'no-cors', body: '{}'}),
  logIn: () => read('/api/session', {method: 'POST', mode: 'no-cors', body: '{"username": "eve", "password": "x"}'}),
  socket: () => inTime(new Promise(done => {
    const socket = new WebSocket(hub.replace('http', 'ws') + '/ws/viewer');
    socket.onopen = () => socket.send(JSON.stringify({type: 'hello', ts: '2026-01-01T00:00:00', payload: {}}));
    socket.onmessage = message => done(message.data);
    socket.onerror = () => done('nothing');
  })),
  script: () => inTime(new Promise(done => {
    const script = document.createElement('script');
    script.onload = () => done('loaded'); script.onerror = () => done('nothing');
    script.src = hub + '/api/devices'; document.head.append(script);
  })),
  image: () => inTime(new Promise(done => {
    const image = new Image();
    image.onload = () => done('loaded'); image.onerror = () => done('nothing');
    image.src = hub + '/api/devices/cam/proxy/image.svg'; document.body.append(image);
  })),
  frame: () => inTime(new Promise(done => {
    const frame = document.createElement('iframe');
    frame.onload = () => done(inside(frame.contentWindow));
    frame.src = hub + '/'; document.body.append(frame);
  })),
  opener: async () => window.opener ? 'an opener' : 'nothing',
  window: async () => {
    const other = window.open(hub + '/');
    await wait(1500);
    return inside(other);
  },
  cookie: async () => document.cookie || 'nothing',
  toss: async () => {
    const domains = [location.hostname, ...location.hostname.split('.').map((_, n, all) => all.slice(n).join('.'))];
    for (const name of ['planaria_session', '__Host-planaria_session', 'planaria_view', '__Host-planaria_view'])
      for (const domain of domains) document.cookie = `${name}=tossed; domain=${domain}; path=/api`;
    return 'nothing';
  },
};
(async () => {
  const found = {};
  for (const [name, attack] of Object.entries(attacks)) found[name] = await attack();
  found.origin = origin;
  document.title = JSON.stringify(found);
})();
"""


# How the hub is reached, what stands after a device's label, and the hub's settings.
WAYS: dict[str, tuple[str, str, str, dict[str, object]]] = {
    "http": ("http", "localhost", "localhost", {}),
    "https": ("https", "hub.example.test", "view.example.test", {"insecure": True, "views": "view.example.test"}),
    "off": ("http", "localhost", "", {"views": "off"}),
}


class Ground(NamedTuple):
    """A hub as a browser sees it, with a hostile device, and a browser that is signed in there."""

    viewer: Viewer
    hub: str
    own: str  # the device's origin
    context: BrowserContext


def hostile(hub: str) -> Callable[[Stream], Awaitable[None]]:
    """What the device serves: the attacks as a page and as a picture with a script, and a redirect to the hub."""
    script = f"const hub = {json.dumps(hub)};{ATTACKS}"
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><title>a</title><script>document.title = "ran"</script></svg>'
    pages = {
        "/page.html": ("text/html", f"<!doctype html><title>idle</title><body>of the device<script>{script}</script>"),
        "/image.svg": ("image/svg+xml", svg),
        "/still.html": ("text/html", '<title>idle</title>of the device<script>document.title = "ran"</script>'),
    }

    async def serve(stream: Stream) -> None:
        path = stream.opening.path.partition("?")[0]
        if path == "/away":
            stream.send_head(Head(302, [("Location", f"{hub}/api/devices")]))
            stream.finish()
            return
        kind, text = pages.get(path, ("text/plain", "else"))
        stream.send_head(
            Head(
                200,
                [("Content-Type", kind), ("Content-Security-Policy", LAX)],
            )
        )
        stream.finish(text.encode())

    return serve


@contextlib.asynccontextmanager
async def tls_in_front(port: int, folder: Path) -> AsyncIterator[int]:
    """A proxy that does TLS, and that passes all on as it is; its port."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=example.test"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", free_port(), ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The event loop of all tests here: their browser lives in it."""
    with asyncio.Runner() as found:
        yield found


@pytest.fixture(scope="module")
def browser(runner: asyncio.Runner) -> Iterator[Browser]:
    """A browser for which every host is this machine."""
    opened = chromium()
    yield runner.run(opened.__aenter__())
    runner.run(opened.__aexit__(None, None, None))


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The same until the end of the block."""
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=[*ARGUMENTS, "--host-resolver-rules=MAP *.test 127.0.0.1", "--disable-popup-blocking"],
        )
        yield found
        await found.close()


@contextlib.asynccontextmanager
async def ground(browser: Browser, folder: Path, way: str) -> AsyncIterator[Ground]:
    """Everything of this way; the browser as somebody who has just come."""
    scheme, host, suffix, settings = WAYS[way]
    address: list[str] = []

    async def serve(stream: Stream) -> None:
        await hostile(address[0])(stream)

    async with contextlib.AsyncExitStack() as stack:
        viewer = await stack.enter_async_context(viewing(folder, serve, **settings))
        port = viewer.http.port
        if way == "https":
            port = await stack.enter_async_context(tls_in_front(port, folder))
        address.append(f"{scheme}://{host}:{port}")
        context = await stack.enter_async_context(await browser.new_context(ignore_https_errors=True))
        found = Ground(viewer, address[0], f"{scheme}://{label_of('cam')}.{suffix}:{port}", context)
        login = {"username": "admin", "password": hub_rig.ADMIN_PASSWORD}
        assert (await at_hub(found, "/api/session", "POST", login))[0] == 200
        yield found


async def at_hub(ground: Ground, path: str, method: str = "GET", body: object = None) -> Any:
    """Status and text of what the hub's own page is answered."""
    page = await ground.context.new_page()
    await page.goto(f"{ground.hub}/")
    asked = {"method": method} | ({"body": json.dumps(body)} if body else {})
    found = await page.evaluate("([p, o]) => fetch(p, o).then(async a => [a.status, await a.text()])", [path, asked])
    await page.close()
    return found


async def attacked(page: Page, address: str) -> dict[str, str]:
    """What came of the attacks of the page there."""
    await page.goto(address)
    await page.wait_for_function("document.title.startsWith('{')", timeout=60_000)
    return dict(json.loads(await page.title()))


@pytest.mark.parametrize("way", ["http", pytest.param("https", marks=pytest.mark.long)])
def test_a_hostile_device_gets_nothing_of_the_hub(
    runner: asyncio.Runner, browser: Browser, tmp_path: Path, way: str
) -> None:
    async def main() -> None:
        async with ground(browser, tmp_path, way) as found:
            assert (await at_hub(found, "/api/devices"))[0] == 200, "nobody is signed in"
            came = await attacked(await found.context.new_page(), f"{found.hub}{CAM}/page.html")
            assert came.pop("origin") == found.own
            assert set(came.values()) == {"nothing"}, came
            status, listed = await at_hub(found, "/api/devices")
            assert status == 200, "the browser was logged out"
            assert json.loads(listed)[0]["device_name"] == "cam"
            assert json.loads((await at_hub(found, "/api/session"))[1])["user"]["username"] == "admin"

    runner.run(main())


@pytest.mark.parametrize("way", ["https", pytest.param("http", marks=pytest.mark.long)])
def test_a_picture_with_a_script_and_a_redirect_are_the_devices_own(
    runner: asyncio.Runner, browser: Browser, tmp_path: Path, way: str
) -> None:
    async def main() -> None:
        async with ground(browser, tmp_path, way) as found:
            page = await found.context.new_page()
            await page.goto(f"{found.hub}{CAM}/image.svg")
            assert await page.evaluate("origin") == found.own
            assert await at_hub(found, f"{CAM}/image.svg") == [200, await served(page)]
            for start in (found.hub + CAM, found.own):
                led = await page.goto(f"{start}/away")
                assert led and page.url == f"{found.hub}/api/devices"
                assert await page.evaluate("document.contentType") == "application/json"

    runner.run(main())


async def served(page: Page) -> str:
    """What stands where a page is, as it came."""
    return str(await page.evaluate("fetch(location).then(answer => answer.text())"))


def test_without_own_origins_nothing_of_a_device_runs(runner: asyncio.Runner, browser: Browser, tmp_path: Path) -> None:
    async def main() -> None:
        async with ground(browser, tmp_path, "off") as found:
            page = await found.context.new_page()
            for path, title in (("/still.html", "idle"), ("/image.svg", "a")):
                await page.goto(f"{found.hub}{CAM}{path}")
                assert page.url == f"{found.hub}{CAM}{path}"
                await page.wait_for_timeout(300)
                assert await page.title() == title, "a script of the device ran at the hub"
                assert (await at_hub(found, f"{CAM}{path}"))[0] == 200

    runner.run(main())


def test_a_devices_page_that_is_open_ends_with_the_log_in(
    runner: asyncio.Runner, browser: Browser, tmp_path: Path
) -> None:
    async def main() -> None:
        async with ground(browser, tmp_path, "http") as found:
            page = await found.context.new_page()
            await page.goto(f"{found.hub}{CAM}/still.html")
            look = "fetch('/x').then(answer => answer.status)"
            assert await page.evaluate(look) == 200
            assert (await at_hub(found, "/api/session", "DELETE"))[0] == 200
            assert await page.evaluate(look) == 401
            await page.goto(f"{found.hub}{CAM}/still.html")
            assert page.url == f"{found.hub}/#/devices/cam"

    runner.run(main())
