"""The page before 200 devices, and what it weighs and costs when nobody touches it. And the README's picture of it."""

from __future__ import annotations

import os
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests import fleet, hub_rig, rig
from tests.e2e import page_rig
from tests.e2e.page_rig import LOCAL, Person
from tests.hub_rig import ADMIN_PASSWORD, Process
from tests.rig import until
from tests.viewers import RtspViewer

pytestmark = [pytest.mark.timeout(120), pytest.mark.needs("chromium", "ffmpeg")]
IDLE_S = 6.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub with them: three in four are online, every other one of these has a stream that runs."""
    with hub_rig.process(tmp_path_factory.mktemp("many") / "run", PLANARIA_COMPAT="1") as running:
        cameras = fleet.many(200)
        fleet.own(running, cameras)
        with fleet.online(running, cameras):
            yield running


@pytest.fixture(scope="module")
def ann(browser: Browser, hub: Process) -> Iterator[Person]:
    """The admin, before the list."""
    person = Person(browser, f"http://{LOCAL}:{hub.port}")
    person.go()
    person.sign_in(ADMIN_PASSWORD)
    person.reads("200 devices, 150 online")
    yield person
    person.close()
    assert not person.alarms


def test_all_of_the_page_is_less_than_150_kb(ann: Person) -> None:
    assert 10_000 < page_rig.weight(ann) < 150_000


def test_a_device_that_comes_redraws_nothing_else(ann: Person, hub: Process) -> None:
    """One more of 200: every other card stays the very element that it was, and where it was read."""
    ann.page.evaluate("() => { for (const each of document.querySelectorAll('li')) each.wasThere = true; }")
    hub_rig.paired(hub, hub.admin, "newcomer")
    with fleet.online(hub, [fleet.Camera("newcomer", "", {"omega-0": True})]):
        expect(ann.card("newcomer")).to_contain_text("1 of 1 stream running")
        stays = "() => [...document.querySelectorAll('li')].filter(each => !each.wasThere).length"
        assert ann.page.evaluate(stays) == 1


@pytest.mark.long
def test_an_idle_page_asks_less_than_once_a_second(ann: Person) -> None:
    """With streams on screen that run, once all of them have a picture."""
    ann.page.evaluate("() => scrollTo(0, 0)")
    ann.page.wait_for_timeout(2000)
    asked = len(ann.asked)
    ann.page.wait_for_timeout(1000 * IDLE_S)
    assert 0 < len(ann.asked) - asked < IDLE_S


def test_a_tab_that_nobody_looks_at_asks_nothing(ann: Person) -> None:
    ann.page.evaluate(_HIDE)
    ann.page.wait_for_timeout(1500)
    asked = len(ann.asked)
    ann.page.wait_for_timeout(3000)
    assert len(ann.asked) == asked
    with ann.page.expect_request("**/thumbnail"):
        ann.page.evaluate(_SHOW)


# A headless browser shows all of its tabs; so the page is told what a browser would tell it.
_HIDE = """() => { Object.defineProperty(document, 'hidden', {value: true, configurable: true});
  Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true});
  document.dispatchEvent(new Event('visibilitychange')); }"""
_SHOW = """() => { delete document.hidden; delete document.visibilityState;
  document.dispatchEvent(new Event('visibilitychange')); }"""


@pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
@pytest.mark.skipif("PLANARIA_SCREENSHOT" not in os.environ, reason="is for making it")
def test_the_readmes_picture_can_be_made(browser: Browser, tmp_path: Path) -> None:
    """With PLANARIA_SCREENSHOT set to a path, the picture is kept there: devices whose streams are go2rtc's."""
    names = ["Front door", "Garden", "Workshop", "Greenhouse", "Roof", "Barn"]
    cameras = [
        fleet.Camera(f"edge-{number:03}", name, {f"omega-{number}": number < 4, "lobby": False}, is_online=number < 5)
        for number, name in enumerate(names)
    ]
    producer = {"width": 640, "height": 360, "fps": 15, "renderer": "egl"}
    with (
        rig.go2rtc({"workers": 5, "producer": producer}) as streams,
        hub_rig.process(tmp_path / "run", PLANARIA_COMPAT="1") as hub,
    ):

        def picture(camera: fleet.Camera, path: str) -> bytes:
            stream = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)["src"][0]
            with urllib.request.urlopen(streams.url(f"/api/frame.jpeg?src={stream}&w=640"), timeout=20) as answer:
                return bytes(answer.read())

        for number in range(4):
            RtspViewer(streams.rtsp, f"omega-{number}").start()  # so that it runs
        fleet.own(hub, cameras)
        with fleet.online(hub, cameras, picture):
            person = Person(
                browser, f"http://{LOCAL}:{hub.port}", viewport={"width": 1080, "height": 780}, color_scheme="light"
            )
            person.go()
            person.sign_in(ADMIN_PASSWORD)
            for number, camera in enumerate(cameras[:5]):
                # Of a stream that runs, a picture that is not its first.
                until(lambda: (now := person.thumbnail(camera.name)) and now.code.frame >= 10 * (number < 4), 40, 0.1)  # noqa: B023
            person.page.mouse.move(0, 0)
            path = Path(os.environ.get("PLANARIA_SCREENSHOT", tmp_path / "page.png"))
            person.page.screenshot(path=path)
            person.close()
    assert path.stat().st_size <= 150_000 and time.time() - path.stat().st_mtime < 60
