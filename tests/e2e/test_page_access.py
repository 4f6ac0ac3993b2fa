"""The page in real Chromium for who uses no mouse, or no eyes: axe on every view, and a walk by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests import fleet, hub_rig
from tests.hub_rig import ADMIN_PASSWORD, Process

pytestmark = pytest.mark.needs("chromium")
DEVICE = "edge-1"
NAME = "<img src=x onerror=alert(1)> حديقة 🐙" + 80 * "A"
STREAMS = {"front": True, "<b>back</b>": False}
VIEWS = ["#/", f"#/devices/{DEVICE}", "#/devices/none", "#/suite", "#/pair", "#/pair/123456", "#/account", "#/users"]
VIEWS += ["#/nothing"]
SCHEMES = ["light", "dark"]
# All views share their colours, and the forms of one are those of others: in a short run each is seen in one scheme.
SEEN = [
    pytest.param(view, scheme, marks=[] if at % 2 == number else pytest.mark.long)
    for at, view in enumerate(VIEWS)
    for number, scheme in enumerate(SCHEMES)
]
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub with one device of a wicked name, which is connected, and tells of all that it has."""
    stopped = fleet.process("headless_agent omega-0", 0, "silent: no sign of life for 4 s") | {"state": "STOPPED"}
    waiting = fleet.process("webrtc_peer", 0, "exit 1") | {"state": "BACKOFF", "wait_s": 12.0, "restarts_hour": 120}
    processes = [fleet.process("go2rtc", 100, "SIGKILL"), stopped, waiting]
    cameras = [fleet.Camera(DEVICE, NAME, STREAMS, processes, carries=fleet.CARRIES)]
    with hub_rig.process(tmp_path_factory.mktemp("hub"), PLANARIA_COMPAT="1") as running:
        fleet.own(running, cameras)
        with fleet.online(running, cameras):
            yield running


@pytest.fixture(scope="module")
def page(browser: Browser, hub: Process) -> Iterator[Page]:
    """Somebody signed in, on a phone."""
    opened = browser.new_context(viewport=PHONE, reduced_motion="reduce").new_page()  # type: ignore[arg-type]
    opened.set_default_timeout(15_000)
    opened.goto(address(hub))
    opened.fill("#signin-username", "admin")
    opened.fill("#signin-password", ADMIN_PASSWORD)
    opened.press("#signin-password", "Enter")
    expect(opened.locator(".card")).to_have_count(1)
    yield opened
    opened.context.close()


def address(hub: Process, view: str = "") -> str:
    """Of a view."""
    return f"http://127.0.0.1:{hub.port}/{view}"


def violations(page: Page) -> list[str]:
    """What axe finds, whatever its impact."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def focused(page: Page) -> str:
    """What has the focus, as it is called."""
    said = "() => document.activeElement.ariaLabel || document.activeElement.innerText || document.activeElement.id"
    return str(page.evaluate(said)).strip()


@pytest.mark.parametrize(("view", "scheme"), SEEN)
def test_axe_finds_nothing_and_nothing_is_cut_off(page: Page, hub: Process, view: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address(hub, view))
    expect(page.locator("h1")).to_be_visible()
    expect(page.get_by_text("Loading…")).to_have_count(0)
    assert violations(page) == []
    for width in (PHONE["width"], 1280):
        page.set_viewport_size({"width": width, "height": PHONE["height"]})
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), width
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]


@pytest.mark.parametrize("view", [f"#/devices/{DEVICE}", "#/suite"])
def test_no_button_of_a_table_hangs_over_its_card(page: Page, hub: Process, view: str) -> None:
    page.goto(address(hub, view))
    expect(page.locator(".suite .restart button").first).to_be_attached()
    over = """() => [...document.querySelectorAll('.rows')].filter(each => each.offsetWidth).map(
      each => each.getBoundingClientRect().right - each.parentElement.getBoundingClientRect().right)"""
    for width in range(700, 1500, 50):
        page.set_viewport_size({"width": width, "height": PHONE["height"]})
        assert max(page.evaluate(over)) < 1, width
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing_where_one_signs_in(browser: Browser, hub: Process, scheme: str) -> None:
    with browser.new_context(viewport=PHONE, color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(address(hub, "#/suite"))
        page.get_by_text("First time here?").click()
        assert violations(page) == []


def test_what_a_device_carries_stands_below_its_processes(page: Page, hub: Process) -> None:
    """In words, on a phone too; where peers are its owners alone see."""
    page.goto(address(hub, f"#/devices/{DEVICE}"))
    tunnel, watched = (page.get_by_role("table", name=name) for name in ("Tunnel", "Watched now"))
    expect(tunnel.get_by_role("row", name="bob")).to_have_text(
        "bobupdirect, plane 2, 192.0.2.7:450013 ms640 kbit/s2.1 Mbit/s3 too big, 1 spoofed"
    )
    eve = tunnel.get_by_role("row", name="eve")
    expect(eve.get_by_role("cell").first).to_have_text("down: no answer from 192.0.2.8:4500 yet")
    expect(eve.get_by_text("–").first).to_be_hidden()
    front = watched.get_by_role("row", name="front")
    expect(front).to_have_text("front31 direct, 1 relayed, 1 connecting2.0 Mbit/s2.5 %")
    label = "each => getComputedStyle(each, '::before').content"
    assert "Worst loss:" in front.get_by_role("cell").last.evaluate(label)
    guest = hub.http.new_user("guest")
    share = f"/api/devices/{DEVICE}/shares/guest"
    assert hub.admin("PUT", share, {"role": "owner"}).status == 200
    with hub_rig.viewer(hub, str(guest.token)) as viewer:
        viewer.say("subscribe", {"suite": [DEVICE]})
        assert viewer.hear("suite")["payload"]["tunnel"] == fleet.CARRIES["tunnel"]
        assert hub.admin("PUT", share, {"role": "viewer"}).status == 200
        told = viewer.hear("suite")["payload"]
    for suite in (told, guest("GET", f"/api/devices/{DEVICE}/suite").json):
        assert suite["watching"] == fleet.CARRIES["watching"]
        assert [each["peer"] for each in suite["tunnel"]] == ["bob", "eve"] and "192.0.2" not in str(suite)


def test_names_stay_text(page: Page, hub: Process) -> None:
    page.goto(address(hub))
    expect(page.locator(".card h2")).to_have_text(NAME)
    page.goto(address(hub, f"#/devices/{DEVICE}"))
    expect(page.locator("h1")).to_have_text(NAME)
    expect(page.locator(".tile h2")).to_have_text(list(STREAMS))
    assert page.locator("img[src=x], main b").count() == 0


def test_a_walk_by_keyboard_alone(browser: Browser, hub: Process) -> None:
    """From signing in to a device and back, and a search: Tab, Enter and typing, and the focus is always seen."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        keys = page.keyboard

        def tab_to(name: str) -> None:
            for _ in range(40):
                keys.press("Tab")
                if focused(page) == name:
                    return
            pytest.fail(f"Tab never came to {name}")

        page.goto(address(hub, "#/pair"))
        expect(page.locator("#signin-username")).to_be_focused()
        keys.type("admin")
        keys.press("Tab")
        keys.type(ADMIN_PASSWORD)
        keys.press("Enter")
        expect(page.locator("h1")).to_have_text("Pair a device")
        assert focused(page) == "Pair a device", "one is where one wanted to be"
        page.reload()
        expect(page.locator("h1")).to_have_text("Pair a device")
        keys.press("Tab")
        assert focused(page) == "Skip to the content"
        tab_to("Devices")
        keys.press("Enter")
        expect(page.locator("h1")).to_have_text("Devices")
        expect(page.locator(".card")).to_have_count(1)
        assert focused(page) == "Devices"
        tab_to("search")
        keys.type("nothing like it")
        expect(page.locator(".card")).to_have_count(0)
        keys.press("Control+A")
        keys.type("front")
        expect(page.locator(".card")).to_have_count(1)
        tab_to(NAME)
        keys.press("Enter")
        expect(page).to_have_url(address(hub, f"#/devices/{quote(DEVICE)}"))
        assert focused(page) == NAME
        tab_to("Play front")
        outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "the focus is seen"
