"""What people rely on while they use the page: nothing moves under the pointer, what is not known any more is not shown
as known, and a form says what it wants and what has become of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests import fleet, hub_rig
from tests.e2e.page_rig import LOCAL, Person
from tests.hub_rig import ADMIN_PASSWORD, Process

pytestmark = [pytest.mark.timeout(120), pytest.mark.needs("chromium", "ffmpeg")]
DEVICE, NAME = "steady-000", "Yard"
PROCESSES = {
    "go2rtc": "Viewers are cut off for a moment.",
    "proxy:proxy_0": "What it carries breaks off for a moment.",
    "a process whose name is as long as names of processes ever become": "Nothing is lost.",
}
VIEWPORTS = [{"width": 1280, "height": 800}, {"width": 360, "height": 740}]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub with one device, which tells of its processes."""
    processes = [fleet.process(name, 100 + number, "SIGKILL") for number, name in enumerate(PROCESSES)]
    cameras = [fleet.Camera(DEVICE, NAME, {"omega-0": False}, processes)]
    with hub_rig.process(tmp_path_factory.mktemp("steady") / "run", PLANARIA_COMPAT="1") as running:
        fleet.own(running, cameras)
        with fleet.online(running, cameras):
            yield running


@pytest.fixture(scope="module")
def admin(browser: Browser, hub: Process) -> Person:
    """Signed in."""
    person = Person(browser, f"http://{LOCAL}:{hub.port}")
    person.enter(ADMIN_PASSWORD)
    person.leave()
    return person


@pytest.fixture
def ann(admin: Person) -> Iterator[Person]:
    """The same, before the list of devices."""
    admin.go()
    admin.sees("Devices")
    yield admin
    admin.context.set_offline(False)
    admin.leave()


def boxes(found: Locator) -> list[object]:
    """Where all of them are, as a browser has drawn them."""
    return [each.bounding_box() for each in found.all()]


@pytest.mark.parametrize("viewport", [VIEWPORTS[0], pytest.param(VIEWPORTS[1], marks=pytest.mark.long)])
def test_to_ask_for_a_second_press_moves_nothing(ann: Person, viewport: dict[str, int]) -> None:
    """Neither a row nor a button; what others lose stands there, and is gone when nobody presses again."""
    ann.page.set_viewport_size(viewport)  # type: ignore[arg-type]
    ann.view(DEVICE)
    expect(ann.row("go2rtc")).to_contain_text("serving")
    table = ann.page.get_by_role("table", name="Processes")
    all_of_it = table.get_by_role("row").or_(table.get_by_role("button"))
    names = (
        list(PROCESSES) if os.environ.get("PLANARIA_LONG") else list(PROCESSES)[-1:]
    )  # each takes seconds to go back
    for name in names:
        note = PROCESSES[name]
        button = ann.row(name).get_by_role("button")
        button.scroll_into_view_if_needed()
        before = boxes(all_of_it)
        button.click()
        expect(button).to_have_accessible_name(f"Kill {name}?")
        assert boxes(all_of_it) == before
        expect(ann.row(name)).to_contain_text(note)
        expect(button).to_have_accessible_name(f"Restart {name}")
        expect(ann.row(name)).not_to_contain_text(note)
        assert boxes(all_of_it) == before


def test_what_a_button_asks_is_what_it_does(ann: Person) -> None:
    """The account's role, by name; and it does it."""
    ann.go("#/users")
    ann.fill("User name", "dora")
    ann.fill("First password", "a good password")
    ann.press("Make the account")
    ann.reads("dora can sign in now.")
    row = ann.page.get_by_role("listitem").filter(has_text="dora")
    before = boxes(row.get_by_role("button"))
    ann.press("Promote to admin: dora")
    assert boxes(row.get_by_role("button")) == before
    expect(ann.page.get_by_text("dora can sign in now.")).to_be_visible()
    ann.press("Promote dora?")
    expect(row).to_contain_text("admin ·")
    expect(ann.page.get_by_text("dora can sign in now.")).to_have_count(0)
    ann.press("Delete user dora")
    ann.press("Delete user dora?")
    expect(row).to_have_count(0)


def test_offline_nothing_is_shown_as_known(ann: Person) -> None:
    """At once; and back by itself, with the network."""
    expect(ann.card(NAME)).to_contain_text("online for")
    ann.context.set_offline(True)
    expect(ann.page.get_by_text("You are offline. Trying again…")).to_be_visible(timeout=1000)
    expect(ann.card(NAME)).to_contain_text("last known: online")
    dot = "each => getComputedStyle(each, '::before').backgroundColor"
    state = ann.card(NAME).get_by_text("last known")
    grey = state.evaluate(dot)
    ann.page.evaluate(f"location.hash = '#/devices/{DEVICE}'")
    ann.reads("last known: online")
    ann.context.set_offline(False)
    ann.reads(re.compile("^online for"))
    expect(ann.page.get_by_text("You are offline")).to_have_count(0)
    expect(ann.row("go2rtc")).to_contain_text("serving")
    ann.go()
    assert ann.card(NAME).get_by_text("online for").evaluate(dot) != grey


def test_a_form_says_what_it_wants_and_forgets_what_it_said(ann: Person) -> None:
    """Names are trimmed, blanks are none, characters are counted as the hub counts them; the tab is called as it is."""
    ann.view(DEVICE)
    for typed, said in (("   ", "type something other than blanks"), ("🐙" * 129, "shorten it to 128")):
        ann.fill("Another name", typed)
        ann.press("Rename")
        ann.reads(re.compile(said))
    ann.fill("Another name", "🐙" * 128)
    expect(ann.page.get_by_text("shorten it")).to_have_count(0)
    ann.press("Rename")
    ann.sees("🐙" * 128)
    ann.fill("Another name", f"  {NAME} ")
    ann.press("Rename")
    ann.sees(NAME)
    expect(ann.page).to_have_title(f"{NAME} · Planaria")
    ann.reads("Renamed.")
    ann.go("#/pair")
    ann.fill("Code", "12 34 56")
    ann.press("Pair this device")
    ann.reads("Code: type the six digits of the device")


def test_a_stream_that_one_plays_is_not_idle(ann: Person) -> None:
    ann.view(DEVICE)
    tile = ann.page.get_by_role("region", name="Streams").get_by_role("listitem")
    expect(tile).to_contain_text("idle")
    ann.press("Play omega-0")
    expect(tile).to_contain_text("connecting")
    ann.press("Stop omega-0")
    expect(tile).to_contain_text("idle")


def test_who_is_signed_in_stands_in_the_header(ann: Person) -> None:
    """Where there is room."""
    mine = ann.page.get_by_role("banner").get_by_role("link", name="admin", exact=True)
    mine.click()
    ann.sees("Account")
    ann.page.set_viewport_size({"width": 360, "height": 740})
    expect(mine).to_be_hidden()


@pytest.mark.long
def test_only_the_newest_events_are_shown_at_first(ann: Person) -> None:
    ann.view(DEVICE)
    for number in range(7):
        ann.fill("Another name", f"{NAME} {number}")
        ann.press("Rename")
        ann.sees(f"{NAME} {number}")
    events = ann.page.get_by_role("complementary").get_by_role("list").first.get_by_role("listitem")
    expect(events.first).to_contain_text(f"{NAME} 6")
    expect(events).to_have_count(5)
    ann.press("More")
    expect(events.last).to_contain_text("connected")
