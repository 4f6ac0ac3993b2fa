"""The page as a person uses it, in real Chromium, from `make up` on: the suite, its own device, and a second one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from procs.kinds import Address
from tests.clone import Clone
from tests.e2e import page_rig
from tests.e2e.page_rig import Person, Site
from tests.e2e.test_browser import shown
from tests.rig import until
from tests.viewers import RtspViewer

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("chromium")]  # the first `make up` installs
SECOND = "pi-cam-001"
PHONE = {"width": 360, "height": 740}
# Slow 3G as WebPageTest has it: 400 kbit/s, and 400 ms for each way there and back.
SLOW_3G = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
SLOW_FORM_S, SLOW_LIST_S = 10.0, 6.0  # from nothing to the form, from the form to the list


@pytest.fixture(scope="module")
def site(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The suite after a first start, with one stream that somebody watches, so that it runs."""
    with page_rig.served(clone, tmp_path_factory.mktemp("page")) as found:
        host, _, port = clone.rtsp.rpartition(":")
        viewer = RtspViewer(Address(host, int(port)), "omega-0")
        viewer.start()
        yield found
        viewer.leave()


@pytest.fixture(scope="module")
def ann(browser: Browser, site: Site) -> Iterator[Person]:
    """Whoever has just called `make up`. Whatever the page shows her, it must not raise an alarm."""
    person = Person(browser, site.url)
    yield person
    person.close()
    assert not person.alarms


@pytest.fixture(scope="module")
def second(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run directory of a device elsewhere, which knows the hub and is nobody's yet."""
    folder = tmp_path_factory.mktemp("second") / "run"
    with page_rig.second_device(site, folder, SECOND):
        yield folder


def test_the_first_sign_in(ann: Person, site: Site) -> None:
    """With the password that `make up` has printed; then one is where one wanted to be."""
    ann.go("#/account")
    ann.sees("Sign in")
    ann.page.get_by_text("First time here?").click()
    ann.reads("scripts/cli.py password")
    ann.fill("User name", "admin")
    ann.fill("Password", "not this one")
    ann.press("Sign in")
    ann.reads("Incorrect username or password")
    ann.sign_in(site.password)
    ann.sees("Account")
    ann.page.get_by_role("link", name="Devices").click()
    ann.sees("Devices")
    expect(ann.card(site.name_of(site.device_id))).to_contain_text("online for")


def test_a_device_is_paired_by_its_code(ann: Person, site: Site, second: Path) -> None:
    ann.go("#/pair")
    with page_rig.pairing(site, second) as said:
        ann.sees("Pair a device")
        ann.fill("Code", f"{said['code'][:3]} {said['code'][3:]}")
        ann.press("Pair this device")
    ann.sees(SECOND)
    ann.reads(re.compile("online for"))


def test_a_device_is_removed_and_paired_by_the_link_of_its_qr_code(ann: Person, site: Site, second: Path) -> None:
    ann.view(SECOND)
    ann.press("Remove this device")
    ann.press("Remove device?")
    ann.sees("Devices")
    expect(ann.card(SECOND)).to_have_count(0)
    with page_rig.pairing(site, second) as said:
        assert said["url"] == f"{ann.url}/#/pair/{said['code']}"
        ann.page.goto(said["url"])
        ann.sees(f"Pair the device that shows {said['code']}?")
        expect(ann.page.get_by_label("Code", exact=True)).to_have_value(said["code"])
        ann.press("Pair this device")
    ann.sees(SECOND)


def test_thumbnails_change(ann: Person, site: Site, second: Path) -> None:
    """Of a stream that runs: its barcode is of one picture, and then of a later one, with nobody pressing anything."""
    ann.go()
    first = until(lambda: ann.thumbnail(SECOND), 30, 0.1)
    later = until(
        lambda: now if (now := ann.thumbnail(SECOND)) and now.code.frame > first.code.frame else None, 20, 0.1
    )
    assert later.code.time_us > first.code.time_us and later.width == 320


def test_search(ann: Person, site: Site, second: Path) -> None:
    """By name, by id and by stream, in words."""
    ann.go()
    own = site.name_of(site.device_id)
    for typed, found in (
        (SECOND, [SECOND]),
        ("omega-1 pi-", [SECOND]),
        ("no such thing", []),
        ("", sorted([own, SECOND])),
    ):
        ann.fill("Search devices", typed)
        expect(ann.page.get_by_role("list").get_by_role("heading", level=2)).to_have_text(found)


def test_a_stream_plays(ann: Person, site: Site) -> None:
    """Pictures that can be told from one another, in order, live; and a snapshot of one."""
    ann.view(site.device_id)
    ann.press("Play omega-0")
    first = ann.frame_after()
    later = ann.frame_after(first.code.frame + 15)
    assert (later.width, later.height) == (320, 180)
    late_s = time.time() - later.code.time_us / 1e6
    assert late_s < 5, "it is live"
    with ann.page.expect_download() as download:
        ann.press("Snapshot of omega-0")
    assert download.value.path().read_bytes().startswith(b"\xff\xd8")
    ann.press("Stop omega-0")
    expect(ann.page.locator("video")).to_have_count(0)


@pytest.mark.parametrize(
    "lack",
    ["RTCPeerConnection", pytest.param("RTCPeerConnection.prototype.setLocalDescription", marks=pytest.mark.long)],
)  # the second begins as a test of test_page_watch_suite.py does
def test_where_webrtc_gives_no_picture_it_comes_through_the_hub(browser: Browser, site: Site, lack: str) -> None:
    """A browser that has none, or may not use it; nobody presses anything."""
    bob = Person(browser, site.url)
    never = "() => new Promise(() => {})"
    bob.page.add_init_script(f"{lack} = {never}" if "." in lack else f"delete globalThis.{lack}")
    bob.go()
    bob.sign_in(site.password)
    bob.view(site.device_id)
    bob.press("Play omega-0")
    first = bob.frame_after()
    bob.frame_after(first.code.frame + 15)
    tile = bob.page.get_by_role("listitem").filter(has=bob.page.locator("video"))
    for said in ("live", "320 × 180", "through the hub"):
        expect(tile).to_contain_text(said)
    bob.close()
    assert not bob.alarms


def test_go2rtcs_own_pages_open_at_an_origin_of_their_own(ann: Person, site: Site) -> None:
    pages = own_pages(ann, site)
    assert ".localhost:" in pages.url and not pages.url.startswith(ann.url)
    assert pages.evaluate("() => window.opener") is None
    pages.close()


def own_pages(person: Person, site: Site) -> Page:
    """The tab that the button has opened."""
    person.view(site.device_id)
    with person.context.expect_page() as opened:
        person.press("Open go2rtc")
    expect(opened.value.get_by_text("omega-1").first).to_be_visible()
    return opened.value


def test_a_restart_is_seen_from_the_kill_to_the_recovery(ann: Person, site: Site) -> None:
    """The button kills the process whose pid stands there; the new one, and the event, show by themselves."""
    ann.view(site.device_id)
    expect(ann.row("proxy:proxy_0")).to_contain_text("serving")
    before = ann.pid("proxy:proxy_0")
    assert before == site.pid("proxy_0")
    ann.restart("proxy:proxy_0")
    until(lambda: ann.pid("proxy:proxy_0") not in (0, before), 20, 0.05)
    expect(ann.row("proxy:proxy_0")).to_contain_text("serving")
    assert ann.pid("proxy:proxy_0") == site.pid("proxy_0")
    ann.reads(re.compile(r"proxy:proxy_0 is back as pid \d+"))
    events = ann.page.get_by_role("region", name="Events").or_(ann.page.get_by_role("complementary"))
    expect(events.get_by_role("listitem").filter(has_text="proxy:proxy_0").first).to_contain_text("page")


def test_the_hubs_own_machine_has_a_table_too(ann: Person, site: Site) -> None:
    """Whoever kills the hub by its own page sees it come back there. The device of that machine is not shown twice."""
    ann.go("#/suite")
    ann.sees("Suite")
    ann.reads("the same machine as the hub’s, above")
    expect(ann.page.get_by_role("table", name="Processes")).to_have_count(1)
    before = until(lambda: ann.pid("hub"), 20)
    ann.restart("hub")
    until(lambda: ann.pid("hub") not in (0, before), 30, 0.05)
    assert ann.pid("hub") == site.pid("hub") != before


def test_a_hub_that_is_killed_costs_nothing(ann: Person, site: Site) -> None:
    """With a form half filled and a stream that plays: the page says that the hub is away, and is as before when it is
    back. Nobody reloads, nothing that was typed is lost."""
    ann.view(site.device_id)
    ann.press("Play omega-0")
    ann.frame_after()
    ann.page.evaluate("() => { window.stays = true; }")
    ann.fill("User name", "somebody")
    field = ann.page.get_by_label("Another name", exact=True)
    field.fill("")
    field.press_sequentially("The new ")
    with killed(site):
        ann.reads("The hub is away. Trying again…")
        field.press_sequentially("na")
    expect(ann.page.get_by_text("The hub is away. Trying again…")).to_have_count(0)
    ann.page.keyboard.type("me")
    expect(field).to_have_value("The new name")
    expect(ann.page.get_by_label("User name", exact=True)).to_have_value("somebody")
    assert ann.page.evaluate("() => window.stays"), "nobody has reloaded it"
    now_us = time.time() * 1e6
    until(lambda: (now := shown(ann.page)) and now.code.time_us > now_us, 40, 0.1)
    ann.page.keyboard.press("Enter")
    ann.sees("The new name")
    until(lambda: ann.pid("hub") == site.pid("hub") != 0, 20)


@contextlib.contextmanager
def killed(site: Site) -> Iterator[None]:
    """The hub, by -9; the next one takes as long to start as the block does."""
    before = site.pid("hub")
    os.kill(before, signal.SIGKILL)
    after = until(lambda: pid if (pid := site.pid("hub")) != before else 0, 20)
    os.kill(after, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(after, signal.SIGCONT)


@pytest.mark.long  # a walk of who can't use a mouse is in test_page_access.py, too
def test_by_keyboard_alone(browser: Browser, site: Site) -> None:
    """Sign in, open a device, share it, restart a process; where the focus is can be seen at every step."""
    ben = Person(browser, site.url)
    assert site.admin("POST", "/api/users", {"username": "keys", "password": "a good password"}).status == 200
    ben.go()
    ben.sees("Sign in")
    expect(ben.page.get_by_label("User name", exact=True)).to_be_focused()
    ben.page.keyboard.type("admin")
    tab_to(ben, "textbox", "Password")
    ben.page.keyboard.type(site.password)
    ben.page.keyboard.press("Enter")
    ben.sees("Devices")
    name = site.name_of(site.device_id)
    tab_to(ben, "link", name)
    ben.page.keyboard.press("Enter")
    ben.sees(name)
    assert ben.page.evaluate("() => document.activeElement.textContent") == name, "the focus is on the view's heading"
    tab_to(ben, "textbox", "User name")
    ben.page.keyboard.type("keys")
    ben.page.keyboard.press("Enter")
    ben.reads("Shared with keys.")
    before = until(lambda: ben.pid("proxy:proxy_1"), 20)
    tab_to(ben, "button", "Restart proxy:proxy_1")
    ben.page.keyboard.press("Enter")
    ben.page.keyboard.press("Enter")
    until(lambda: ben.pid("proxy:proxy_1") not in (0, before), 20, 0.05)
    assert not ben.alarms
    ben.close()


def tab_to(person: Person, role: str, name: str, limit: int = 150) -> None:
    """Press Tab until that has the focus."""
    wanted = person.page.get_by_role(role, name=name, exact=True)  # type: ignore[arg-type]
    wanted.first.wait_for()
    for _ in range(limit):
        person.page.keyboard.press("Tab")
        if wanted.evaluate_all("found => found.includes(document.activeElement)"):
            assert person.page.evaluate(_OUTLINED), f"nothing shows that {name} has the focus"
            return
    pytest.fail(f"no way to {role} {name} by {limit} times Tab")


# By an outline of its own, or one around all that leads to the same.
_OUTLINED = """() => {
  const isOutlined = ({outlineStyle, outlineWidth}) => outlineStyle !== 'none' && parseFloat(outlineWidth) > 0;
  for (let each = document.activeElement; each !== document.body; each = each.parentElement)
    if (isOutlined(getComputedStyle(each))) return true;
  return false;
}"""
VIEWS = ["#/", "#/devices/{device}", "#/suite", "#/pair", "#/account", "#/users", "#/nowhere"]


@pytest.mark.parametrize("hash", VIEWS)
def test_on_a_phone_nothing_is_wider_than_the_screen(ann: Person, site: Site, hash: str) -> None:
    ann.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    try:
        ann.go(hash.format(device=site.device_id))
        expect(ann.page.get_by_role("heading", level=1)).to_be_visible()
        expect(ann.page.get_by_text("Loading…")).to_have_count(0)
        assert ann.page.evaluate(_TOO_WIDE) == []
    finally:
        ann.page.set_viewport_size({"width": 1280, "height": 800})


# What sticks out of the screen, but for what scrolls in a place of its own, and what only screen readers get.
_TOO_WIDE = """() => {
  const scrolls = each => each && (/auto|scroll/.test(getComputedStyle(each).overflowX) || scrolls(each.parentElement));
  const wide = [...document.body.querySelectorAll('*')].filter(each => {
    const {left, right, width} = each.getBoundingClientRect();
    return width > 1 && right > 0 && (right > innerWidth + 0.5 || left < -0.5) && !scrolls(each.parentElement);
  });
  const names = wide.map(each => `${each.tagName} ${each.textContent.slice(0, 40)}`);
  return document.documentElement.scrollWidth > innerWidth ? ['all of it', ...names] : names;
}"""


def test_by_slow_3g_it_can_be_used(browser: Browser, site: Site) -> None:
    far = Person(browser, site.url)
    far.context.set_default_timeout(1000 * (SLOW_FORM_S + SLOW_LIST_S))
    far.context.new_cdp_session(far.page).send("Network.emulateNetworkConditions", SLOW_3G)
    began = time.monotonic()
    far.go()
    far.sees("Sign in")
    form_s = time.monotonic() - began
    began = time.monotonic()
    far.sign_in(site.password)
    expect(far.card(SECOND)).to_be_visible()
    list_s = time.monotonic() - began
    far.close()
    assert form_s < SLOW_FORM_S and list_s < SLOW_LIST_S, (form_s, list_s)


def test_a_device_that_goes_is_shown_so(ann: Person, site: Site, tmp_path: Path) -> None:
    """By itself, and from when it went."""
    ann.go()
    with page_rig.second_device(site, tmp_path / "run", "goes-soon"), page_rig.pairing(site, tmp_path / "run") as said:
        paired = site.admin("POST", "/api/devices/pair", {"pairing_code": said["code"]})
        assert paired.status == 200, json.loads(paired.body)
        expect(ann.card("goes-soon")).to_contain_text("online for")
    went = time.strftime("%H:%M")
    expect(ann.card("goes-soon")).to_contain_text("offline since")
    assert went <= ann.card("goes-soon").inner_text().partition("offline since ")[2][:5] <= time.strftime("%H:%M")


def test_signing_out_ends_everything(ann: Person, site: Site) -> None:
    """In this tab, in another one, and at the device's own origin."""
    other = ann.context.new_page()
    other.goto(ann.url)
    expect(other.get_by_role("heading", name="Devices", exact=True)).to_be_visible()
    pages = own_pages(ann, site)
    ann.go("#/account")
    ann.press("Sign out")
    ann.sees("Sign in")
    expect(other.get_by_role("heading", name="Sign in", exact=True)).to_be_visible()
    pages.reload()
    expect(pages.get_by_text("open it from the hub's page")).to_be_visible()
    ann.go("#/")
    ann.sees("Sign in")
