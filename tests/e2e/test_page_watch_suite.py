"""The page watches the suite as `make up` makes it: the camera's own pictures, and whichever way to them there is."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.clone import Clone
from tests.e2e import page_rig
from tests.e2e.chromium import chromium
from tests.e2e.lone_network import lone_network
from tests.e2e.page_rig import Person, Site
from tests.rig import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("chromium", "ip")]
STREAM = "omega-0"
# No offer is ever settled, until the test says so; and who waits for a quarter of a minute waits for half a second.
_NO_WAY = """
const real = RTCPeerConnection.prototype.setLocalDescription;
RTCPeerConnection.prototype.setLocalDescription = () => new Promise(() => {});
globalThis.open_the_way = () => { RTCPeerConnection.prototype.setLocalDescription = real; };
const later = setTimeout;
globalThis.setTimeout = (run, ms, ...more) => later(run, ms >= 15_000 && ms <= 20_000 ? 500 : ms, ...more);
"""


@pytest.fixture(scope="module")
def site(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The suite, in a network where a browser has an address."""
    with lone_network(), page_rig.served(clone, tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    """Chromium in that network."""
    with chromium() as found:
        yield found


@pytest.fixture
def ann(site: Site, browser: Browser) -> Iterator[Person]:
    """Somebody who has just come."""
    person = Person(browser, site.url)
    yield person
    person.close()
    assert person.alarms == []


def play(ann: Person, site: Site) -> Locator:
    """Have her sign in and press the button; returns the stream's tile."""
    ann.go()
    ann.sign_in(site.password)
    ann.view(site.device_id)
    ann.press(f"Play {STREAM}")
    return ann.page.get_by_role("listitem").filter(has=ann.page.locator("video"))


def test_the_cameras_own_picture_comes_straight_from_the_device(ann: Person, site: Site) -> None:
    tile = play(ann, site)
    first = ann.frame_after()
    ann.frame_after(first.code.frame + 15)
    for said in ("live", "320 × 180", "direct"):
        expect(tile).to_contain_text(said)
    row = ann.page.get_by_role("table", name="Watched now").get_by_role("row", name=STREAM)
    expect(row).to_have_text(re.compile(rf"{STREAM}1" r"1 direct[1-9][\d.]* .bit/s\d+(\.\d)? %"), timeout=15_000)


@pytest.mark.parametrize("name", ["webrtc_peer", "ws_link", "hub", "go2rtc"])
@pytest.mark.long
def test_it_plays_again_after_any_kill_and_nobody_presses_anything(ann: Person, site: Site, name: str) -> None:
    tile = play(ann, site)
    before = ann.frame_after()
    pid = site.pid(name)
    os.kill(pid, signal.SIGKILL)
    until(lambda: site.pid(name) not in (0, pid), 20)
    ann.page.wait_for_timeout(1000)  # a freeze would be noticed by now
    now_us = ann.page.evaluate("() => 1000 * Date.now()")
    assert until(lambda: now if (now := ann.frame_after()).code.time_us > now_us else None, 30) != before
    expect(tile.get_by_text("live", exact=True)).to_be_visible()
    expect(tile).to_contain_text("direct")


def test_what_comes_through_the_hub_comes_straight_as_soon_as_there_is_a_way(ann: Person, site: Site) -> None:
    ann.page.add_init_script(_NO_WAY)
    tile = play(ann, site)
    first = ann.frame_after()
    expect(tile).to_contain_text("through the hub")
    ann.frame_after(first.code.frame + 15)
    ann.page.evaluate("open_the_way()")
    expect(tile).to_contain_text("direct")
    ann.frame_after(ann.frame_after().code.frame + 15)


def test_a_page_that_nobody_sees_watches_no_more_until_somebody_does(ann: Person, site: Site) -> None:
    ann.page.add_init_script("""
        const later = setTimeout;
        globalThis.setTimeout = (run, ms, ...more) => later(run, ms === 30_000 ? 100 : ms, ...more);
        globalThis.see = (is_seen) => {
          Object.defineProperty(document, 'hidden', {value: !is_seen, configurable: true});
          document.dispatchEvent(new Event('visibilitychange'));
        };""")
    tile = play(ann, site)
    ann.frame_after()
    ann.page.evaluate("see(false)")
    expect(tile).to_contain_text("reconnecting")
    ann.page.evaluate("see(true)")
    expect(tile.get_by_text("live", exact=True)).to_be_visible()
    ann.frame_after(ann.frame_after().code.frame + 15)
