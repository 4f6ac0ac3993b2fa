"""People use a device's go2rtc and files through the hub as if they sat beside it, in a browser and with players."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.clone import Clone
from tests.e2e.chromium import chromium
from tests.e2e.test_browser import Shown, shown
from tests.faults.origin import content
from tests.faults.wall import Ground, walled
from tests.rig import until

pytestmark = pytest.mark.timeout(200)
VIEWERS, GONE_S = 5, 1.0
LARGE = 20_000_000


@pytest.fixture(scope="module")
def ground(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The suite with hub, device and an upstream of ours."""
    with walled(clone, tmp_path_factory.mktemp("through")) as found:
        yield found


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    """A browser."""
    with chromium() as browser:
        yield browser.new_context()


def url(ground: Ground, path: str) -> str:
    """An address at the hub."""
    return f"http://{ground.host}:{ground.port}{ground.base}{path}"


def opened(ground: Ground, path: str) -> str:
    """An address by which a browser is let in to the device's own pages, once."""
    there = f"/api/devices/{ground.device_id}/open"
    return str(ground.rest("POST", there, {"path": path}, ground.token)["url"])


def plays(page: Page) -> None:
    """Fails the test unless a page shows pictures that move."""
    try:

        def now() -> Shown | None:
            return shown(page)

        first = until(now, 60, 0.1)
        later = until(lambda: found if (found := now()) and found.code.time_us > first.code.time_us else None, 20, 0.1)
        assert later.code.frame > first.code.frame and (first.width, first.height) == (320, 180)
    finally:
        page.close()


def consumers(ground: Ground, stream: str) -> int:
    """How many go2rtc serves with a stream, as it says itself."""
    with contextlib.closing(http.client.HTTPConnection(ground.clone.api, timeout=10)) as connection:
        connection.request("GET", "/api/streams")
        return len(json.loads(connection.getresponse().read())[stream]["consumers"] or [])


def watch(ground: Ground, path: str) -> socket.socket:
    """Somebody who watches: their connection, once pictures have come."""
    connection = socket.create_connection((ground.host, ground.port), timeout=30)
    lines = f"GET {ground.base}{path} HTTP/1.1\r\nHost: {ground.host}\r\nAuthorization: Bearer {ground.token}\r\n\r\n"
    connection.sendall(lines.encode())
    found = b""
    while len(found) < 10_000 and (piece := connection.recv(65536)):
        found += piece
    assert found.startswith(b"HTTP/1.1 200"), found[:300]
    return connection


@pytest.mark.parametrize(("kind", "stream"), [("mjpeg", "pictures"), ("mp4", "omega-0")])
def test_viewers_who_leave_are_gone_at_once(ground: Ground, kind: str, stream: str) -> None:
    """Before a browser has tried WebRTC in vain, which go2rtc gives up by itself half a minute later."""
    until(lambda: consumers(ground, stream) == 0, 60)
    for _ in range(2):
        viewers = [watch(ground, f"/api/stream.{kind}?src={stream}") for _ in range(VIEWERS)]
        assert consumers(ground, stream) == VIEWERS
        for viewer in viewers:
            viewer.close()
        left = time.monotonic()
        until(lambda: consumers(ground, stream) == 0, 10)
        assert time.monotonic() - left < GONE_S


@pytest.mark.needs("chromium")
def test_a_browser_plays_a_stream_in_go2rtcs_own_page(ground: Ground, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(opened(ground, "/stream.html?src=omega-0&mode=mse"))
    plays(page)


@pytest.mark.needs("chromium")
def test_go2rtcs_own_interface_works(ground: Ground, context: BrowserContext) -> None:
    """From its list of streams to one that plays, by what a person would press."""
    page = context.new_page()
    page.goto(opened(ground, "/"))
    page.wait_for_selector("text=omega-0")
    assert page.locator("#streams tr").count() == 2
    page.locator("#streams tr", has_text="omega-0").locator("a", has_text="links").click()
    page.wait_for_url("**/links.html?src=omega-0")
    page.locator('a[href^="stream.html?src=omega-0"]').first.click()
    plays(page)


@pytest.mark.needs("chromium")
def test_a_browser_that_is_nobody_gets_nothing(ground: Ground, context: BrowserContext) -> None:
    assert context.browser
    nobody = context.browser.new_context()
    page = nobody.new_page()
    page.goto(url(ground, "/stream.html?src=omega-0"))
    assert page.url == f"http://{ground.host}:{ground.port}/#/devices/{ground.device_id}"
    there = opened(ground, "/").partition("/.planaria")[0]
    refused = page.goto(there + "/stream.html?src=omega-0")
    assert refused and refused.status == 401 and "open it from the hub's page" in refused.text()
    nobody.close()


def test_a_snapshot(ground: Ground) -> None:
    found = ground.ask("/api/frame.jpeg?src=omega-0")
    assert (found.status, found.headers["content-type"]) == (200, "image/jpeg")
    assert found.body.startswith(b"\xff\xd8") and found.body.endswith(b"\xff\xd9") and len(found.body) > 1000


def frames_of(ground: Ground, path: str, *options: str) -> int:
    """How many pictures a player gets of an address within four seconds of video."""
    signed = ["-headers", f"Authorization: Bearer {ground.token}\r\n"]
    command = ["ffprobe", "-v", "error", *signed, *options, "-select_streams", "v", "-show_entries", "packet=pts_time",
               "-read_intervals", "%+4", "-of", "json", url(ground, path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return len(json.loads(done.stdout)["packets"])


@pytest.mark.needs("ffprobe")
@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/api/stream.m3u8?src=omega-0", ()),
        pytest.param("/api/stream.m3u8?src=omega-0&mp4", (), marks=pytest.mark.long),
        ("/api/stream.mp4?src=omega-0", ()),
        pytest.param("/api/stream.mjpeg?src=pictures", ("-f", "mpjpeg"), marks=pytest.mark.long),
    ],
)
def test_a_player_plays(ground: Ground, path: str, options: tuple[str, ...]) -> None:
    assert frames_of(ground, path, *options) >= 30


def test_a_large_file_comes_whole(ground: Ground) -> None:
    found = ground.ask(f"/files/file/{LARGE}")
    assert found.status == 200 and found.headers["content-length"] == str(LARGE)
    assert hashlib.sha256(found.body).digest() == hashlib.sha256(content(LARGE)).digest()
    part = ground.ask(f"/files/file/{LARGE}", headers={"Range": f"bytes={LARGE - 1000}-"})
    assert (part.status, part.body) == (206, content(LARGE)[-1000:])


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_file_goes_up_whole(ground: Ground, chunked: bool) -> None:
    data = content(LARGE)
    pieces = (data[at : at + 65536] for at in range(0, LARGE, 65536))
    found = ground.ask("/files/upload", "POST", pieces if chunked else data)
    assert found.status == 200, found
    assert json.loads(found.body) == {"bytes": LARGE, "sha256": hashlib.sha256(data).hexdigest()}
