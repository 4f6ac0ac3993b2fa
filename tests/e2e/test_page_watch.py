"""The page watches in real Chromium, straight from a device: it plays, says how, and plays again whatever breaks."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, expect

from tests import hub_rig
from tests.e2e.camera import Camera
from tests.e2e.chromium import chromium
from tests.e2e.lone_network import lone_network
from tests.e2e.page_rig import Person
from tests.hub_rig import ADMIN_PASSWORD, Process
from tests.rig import until

pytestmark = pytest.mark.needs("chromium", "ip")
DEVICE = "cam-1"
STREAM = "omega-0"


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """What is started from here on has a network of its own."""
    with lone_network():
        yield


@pytest.fixture(scope="module")
def hub(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub with one device, which is connected as published devices are."""
    with hub_rig.process(tmp_path_factory.mktemp("hub"), PLANARIA_COMPAT="1") as running:
        hub_rig.paired(running, running.admin, DEVICE)
        yield running


@pytest.fixture(scope="module")
def camera(hub: Process) -> Camera:
    """That device."""
    return Camera(hub.port, DEVICE)


@pytest.fixture(scope="module")
def browser(network: None) -> Iterator[Browser]:
    """Chromium in that network."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def person(hub: Process, browser: Browser) -> Person:
    """The admin."""
    found = Person(browser, f"http://127.0.0.1:{hub.port}")
    found.enter(ADMIN_PASSWORD)
    found.leave()
    return found


@pytest.fixture
def ann(person: Person, camera: Camera) -> Iterator[Person]:
    """Somebody who looks at the device, on whose page nothing bad has happened at the end."""
    person.go(f"#/devices/{DEVICE}")
    expect(person.page.get_by_role("button", name=f"Play {STREAM}", exact=True)).to_be_visible()
    camera.heard.clear()
    camera.most = 0
    yield person
    person.leave()
    until(lambda: not camera.sessions, 30)


def tile(ann: Person) -> Locator:
    """The stream's."""
    return ann.page.get_by_role("region", name="Streams").get_by_role("listitem")


def is_live(ann: Person) -> None:
    """Fails the test unless the page says so."""
    expect(tile(ann).get_by_text("live", exact=True)).to_be_visible()


def test_it_plays_straight_from_the_device_and_says_how(ann: Person, camera: Camera) -> None:
    ann.press(f"Play {STREAM}")
    first = ann.frame_after()
    assert ann.frame_after(first.code.frame + 8).code.time_us > first.code.time_us, "pixels move"
    is_live(ann)
    for said in ("Resolution", "320 × 180", "Bit rate", "kbit/s", "Lost", "Round trip", "Path", "direct"):
        expect(tile(ann)).to_contain_text(said)
    (session,) = camera.asked()
    ann.press(f"Stop {STREAM}")
    until(lambda: ("watch_ended", session) in [(kind, told.get("session_id")) for kind, told in camera.heard])
    expect(ann.page.locator("video")).to_have_count(0)
    expect(tile(ann)).not_to_contain_text("Resolution")


def test_the_device_is_told_which_stream(ann: Person, camera: Camera) -> None:
    ann.press(f"Play {STREAM}")
    is_live(ann)
    (asked,) = [told for kind, told in camera.heard if kind == "watch_request"]
    assert asked.get("stream") == STREAM


def test_a_snapshot_is_of_what_is_on_screen(ann: Person) -> None:
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    with ann.page.expect_download() as download:
        ann.press(f"Snapshot of {STREAM}")
    assert re.fullmatch(rf"{STREAM} .+\.jpg", download.value.suggested_filename)
    assert download.value.path().read_bytes().startswith(b"\xff\xd8")


def test_axe_finds_nothing_while_it_plays(ann: Person) -> None:
    ann.press(f"Play {STREAM}")
    expect(tile(ann)).to_contain_text("Bit rate")
    assert [each["id"] for each in Axe().run(ann.page).response["violations"]] == []


def test_the_picture_floats_and_fills_the_screen(ann: Person) -> None:
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    ann.press(f"Picture in picture: {STREAM}")
    until(lambda: ann.page.evaluate("() => document.pictureInPictureElement === document.querySelector('video')"))
    ann.press(f"Picture in picture: {STREAM}")
    until(lambda: ann.page.evaluate("() => document.pictureInPictureElement === null"))
    ann.press(f"Full screen: {STREAM}")
    until(lambda: ann.page.evaluate("() => Boolean(document.fullscreenElement?.querySelector('video'))"))
    ann.page.keyboard.press("Escape")


def test_a_picture_that_stands_still_is_asked_for_again_and_never_twice_at_once(ann: Person, camera: Camera) -> None:
    """The device's source hangs: the last picture stays. Whichever session moves first is shown, and lives alone."""
    ann.press(f"Play {STREAM}")
    seen = ann.frame_after()
    camera.is_frozen = True
    until(lambda: len(camera.asked()) == 2)
    expect(tile(ann)).to_contain_text("Reconnecting")
    assert ann.frame_after().code.frame >= seen.code.frame, "what was seen last is seen still"
    ann.page.wait_for_timeout(2000)
    assert camera.most == 2 and len(camera.asked()) == 2
    camera.is_frozen = False
    last = ann.frame_after(camera.next_frame())
    is_live(ann)
    until(lambda: len(camera.sessions) == 1)
    ann.frame_after(last.code.frame + 8)


def test_who_pauses_is_left_alone(ann: Person, camera: Camera) -> None:
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    ann.page.evaluate("document.querySelector('video').pause()")
    ann.page.wait_for_timeout(1500)
    is_live(ann)
    ann.page.evaluate("document.querySelector('video').play()")
    ann.frame_after(camera.next_frame())
    assert len(camera.asked()) == 1


@pytest.mark.long
def test_a_picture_that_often_stops_for_a_moment_is_not_asked_for_each_time(ann: Person, camera: Camera) -> None:
    """A narrow way must not have to carry a second stream again and again."""
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    for _ in range(3):
        stop_for_a_moment(ann, camera, is_asked_for=True)
    often = len(camera.asked())
    for _ in range(4):
        stop_for_a_moment(ann, camera, is_asked_for=False)
    assert len(camera.asked()) < often + 4


def stop_for_a_moment(ann: Person, camera: Camera, *, is_asked_for: bool) -> None:
    """Until the page says so; or until the device is asked for another session, too."""
    before = len(camera.asked())
    camera.is_frozen = True
    expect(tile(ann)).to_contain_text("Reconnecting")
    if is_asked_for:
        until(lambda: len(camera.asked()) > before)
    camera.is_frozen = False
    is_live(ann)
    until(lambda: len(camera.sessions) == 1)


def test_a_device_that_was_asked_in_vain_is_asked_anew(ann: Person, camera: Camera) -> None:
    """It hears the offer and never answers, as one that has died meanwhile; the next attempt finds it well."""
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    (session,) = camera.sessions
    camera.is_silent = True
    camera.end(session, "it died")
    until(lambda: len(camera.asked()) > 2)
    camera.is_silent = False
    ann.frame_after(camera.next_frame())
    is_live(ann)
    until(lambda: len(camera.sessions) == 1)


def test_a_session_that_the_device_ends_is_replaced(ann: Person, camera: Camera) -> None:
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    for _ in range(3):
        (session,) = camera.sessions
        camera.end(session, "its process died")
        until(functools.partial(_has_other, camera, session))
        ann.frame_after(camera.next_frame())
        is_live(ann)


def _has_other(camera: Camera, session: str) -> bool:
    return bool(camera.sessions) and session not in camera.sessions


def test_a_connection_to_the_hub_that_breaks_leaves_the_picture(ann: Person, camera: Camera) -> None:
    """The page comes back to its session; nothing is asked for anew, and no picture is late."""
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    ann.page.evaluate("() => dispatchEvent(new Event('offline'))")
    ann.frame_after(camera.next_frame() + 15)
    assert len(camera.asked()) == len(camera.sessions) == 1
    is_live(ann)


def test_a_hub_that_is_killed_leaves_the_picture(ann: Person, camera: Camera, hub: Process) -> None:
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    hub.kill()
    ann.frame_after(camera.next_frame() + 8)
    hub.start()
    hub.wait()
    expect(ann.page.get_by_text("Trying again")).to_have_count(0)
    ann.frame_after(camera.next_frame() + 8)
    assert len(camera.asked()) == len(camera.sessions) == 1
    is_live(ann)


def test_a_device_that_is_away_is_watched_again_once_it_is_back(ann: Person, camera: Camera) -> None:
    ann.press(f"Play {STREAM}")
    ann.frame_after()
    camera.leave()
    try:
        expect(tile(ann)).to_contain_text("The device is offline. Trying again…")
        expect(tile(ann).get_by_text("device offline", exact=True)).to_be_visible()
    finally:
        camera.come_back()
    ann.frame_after(camera.next_frame())
    is_live(ann)
