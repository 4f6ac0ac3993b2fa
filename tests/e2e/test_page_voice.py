"""Voice devices on the hub's page, in real Chromium: who is there, what is said, and what an admin does about it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec.structs import replace
from playwright.sync_api import Browser, Locator, expect

from procs import bus
from procs.messages.requests import ProcessState, Reply, SuiteState
from procs.messages.voice import Line, Role, VoiceState
from tests import hub_rig, voice_rig
from tests.desk import Leader, answering, voice_device, voice_leader
from tests.e2e.page_rig import LOCAL, Person
from tests.hub_rig import ADMIN_PASSWORD, Process
from tests.rig import until

pytestmark = [pytest.mark.timeout(120), pytest.mark.needs("chromium")]
NASTY = "<img src=x onerror=alert(1)> حديقة/🐙?#%2F"
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}
LONG = "It is a long story, and it takes more than one line on a phone to tell it from its beginning to its end. "


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub as it runs in the suite."""
    with hub_rig.process(tmp_path_factory.mktemp("hub") / "run", PLANARIA_COMPAT="1") as running:
        yield running


@pytest.fixture
def leader(hub: Process) -> Iterator[Leader]:
    """A backend beside it, with devices of all kinds."""
    devices = [
        voice_device("hall"),
        voice_device("kitchen"),
        voice_device("shed", state="waiting", problem="connection refused"),
        voice_device(NASTY, state="disabled", enabled=False, beat=None),
    ]
    with voice_leader(hub.run_dir, *devices) as running:
        yield running


@pytest.fixture(scope="module")
def admin(browser: Browser, hub: Process) -> Person:
    """Signed in."""
    person = Person(browser, f"http://{LOCAL}:{hub.port}", reduced_motion="reduce")
    person.enter(ADMIN_PASSWORD)
    person.leave()
    return person


@pytest.fixture
def ann(admin: Person, leader: Leader) -> Iterator[Person]:
    """The same, before the list of devices."""
    admin.go()
    expect(tab(admin)).to_be_visible()
    yield admin
    admin.leave()


def tab(person: Person) -> Locator:
    """The way to the section."""
    return person.page.get_by_role("navigation").get_by_role("link", name="Voice", exact=True)


def row(person: Person, name: str) -> Locator:
    """A device in the list."""
    return person.page.get_by_role("listitem").filter(has=person.page.get_by_role("link", name=name, exact=True))


def button(person: Person, name: str) -> Locator:
    """A button."""
    return person.page.get_by_role("button", name=name, exact=True)


def log(person: Person) -> Locator:
    """What was said."""
    return person.page.get_by_role("log", name="Conversation")


def open_device(person: Person, name: str) -> None:
    """From the list."""
    tab(person).click()
    person.sees("Voice")
    row(person, name).get_by_role("link").click()
    person.sees(name)


def tell(leader: Leader, count: int, name: str = "kitchen") -> None:
    """So many lines were said."""
    for number in range(1, count + 1):
        tell_one(leader, number, name)


def tell_one(leader: Leader, number: int, name: str = "kitchen") -> None:
    """One more line."""
    role: Role = "user" if number % 2 else "assistant"
    leader.hears(name, Line(number, role, f"{number}. {LONG}", True, time.time()))


# --- the list -----------------------------------------------------------------------------------------


def test_the_list_says_how_each_is_in_words_and_follows(ann: Person, leader: Leader) -> None:
    leader.state = VoiceState(True, [], ["devices.json: devices[4]: no name"], {"stt": "", "tts": "connection refused"})
    leader.change("hall", speaker="the sound card is not there")
    leader.hears("kitchen", Line(1, "user", "Hello", True))
    tab(ann).click()
    ann.sees("Voice")
    expect(tab(ann)).to_have_attribute("aria-current", "page")
    expect(row(ann, "kitchen")).to_contain_text(re.compile("Gertrude · 192.0.2.7:8600.*connected for 1 min, listens"))
    expect(row(ann, "shed")).to_contain_text("not connected for 1 min, tries again")
    expect(row(ann, "shed")).to_contain_text("Connection refused.")
    expect(row(ann, "hall")).to_contain_text("Speaker: the sound card is not there")
    expect(row(ann, NASTY)).to_contain_text("disabled")
    ann.reads("devices.json: devices[4]: no name")
    ann.reads("Speaking (tts): connection refused")
    leader.change("kitchen", turn="bot_speaking", muted=True)
    expect(row(ann, "kitchen")).to_contain_text("muted, speaks")
    leader.state = VoiceState(True, [], [], {"stt": "", "tts": ""})
    expect(ann.page.get_by_text("Speaking (tts)")).to_have_count(0)


def test_a_backend_with_nobody_to_talk_to_says_so(ann: Person, leader: Leader) -> None:
    leader.devices.clear()
    leader.state = VoiceState(False, [], [], {})
    tab(ann).click()
    ann.reads("It has nobody to talk to: there is no devices.json.")
    leader.state = VoiceState(True, [], [], {})
    ann.reads("There is no device in devices.json.")


# --- one device ---------------------------------------------------------------------------------------


def test_what_is_said_grows_in_its_place(ann: Person, leader: Leader) -> None:
    open_device(ann, "kitchen")
    ann.reads("Nothing has been said yet.")
    leader.hears("kitchen", Line(1, "user", "What is", False, time.time()))
    line = log(ann).get_by_role("listitem")
    expect(line).to_have_text(re.compile("Person .*What is…"))
    expect(line).to_have_attribute("aria-busy", "true")  # not read out yet
    line.evaluate("each => { each.wasThere = true; }")
    leader.hears("kitchen", Line(1, "user", "What is the time?", True, time.time()))
    leader.hears("kitchen", Line(2, "assistant", "<b>Noon</b>, I think.", True, time.time()))
    expect(log(ann).get_by_role("listitem")).to_have_count(2)
    first, second = log(ann).get_by_role("listitem").all()
    assert first.evaluate("each => each.wasThere")
    expect(first).to_have_text(re.compile("What is the time[?]$"))
    expect(first).to_have_attribute("aria-busy", "false")
    expect(second).to_have_text(re.compile("Voice .*<b>Noon</b>, I think.$"))
    leader.hears("kitchen", Line(3, "user", "...", True, time.time()))  # as the voice backend has it
    expect(log(ann).get_by_role("listitem").last).to_have_text(re.compile("Person .*[(]silence[)]$"))


def at_end(person: Person) -> bool:
    """Whether the newest line is seen."""
    return bool(log(person).evaluate("it => it.scrollHeight - it.scrollTop - it.clientHeight < 2"))


def test_the_newest_is_seen_unless_one_reads_what_is_older(ann: Person, leader: Leader) -> None:
    tell(leader, 30)
    open_device(ann, "kitchen")
    expect(log(ann).get_by_role("listitem")).to_have_count(30)
    until(lambda: at_end(ann))
    tell_one(leader, 31)
    expect(log(ann).get_by_role("listitem")).to_have_count(31)
    until(lambda: at_end(ann))
    expect(button(ann, "To the newest")).to_be_hidden()
    log(ann).evaluate("it => { it.scrollTop = 100; }")
    ann.page.wait_for_timeout(100)
    _, known = leader.lines["kitchen"][31]
    with ann.page.expect_response(lambda answer: "31. " in answer.text() if "/lines" in answer.url else False):
        leader.hears("kitchen", known)  # told again, it is nothing new
    ann.page.wait_for_timeout(100)
    expect(button(ann, "To the newest")).to_be_hidden()
    tell_one(leader, 32)
    expect(log(ann).get_by_role("listitem")).to_have_count(32)
    assert log(ann).evaluate("it => it.scrollTop") == 100
    button(ann, "To the newest").click()
    until(lambda: at_end(ann))
    expect(button(ann, "To the newest")).to_be_hidden()


def test_the_end_stays_in_sight_when_a_phone_is_turned(ann: Person, leader: Leader) -> None:
    tell(leader, 30)
    open_device(ann, "kitchen")
    expect(log(ann).get_by_role("listitem")).to_have_count(30)
    ann.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    until(lambda: at_end(ann))


def test_a_backend_that_counts_anew_is_heard(ann: Person, leader: Leader) -> None:
    """As one that was restarted without its store."""
    tell(leader, 5)
    open_device(ann, "kitchen")
    expect(log(ann).get_by_role("listitem")).to_have_count(5)
    leader.changes, leader.lines = 0, {}
    leader.hears("kitchen", Line(1, "user", "A new day", True))
    expect(log(ann).get_by_role("listitem")).to_have_count(1)
    expect(log(ann)).to_contain_text("A new day")


def test_what_was_forgotten_is_gone_once_more_is_said(ann: Person, leader: Leader) -> None:
    tell(leader, 5)
    open_device(ann, "kitchen")
    expect(log(ann).get_by_role("listitem")).to_have_count(5)
    leader.lines = {}
    leader.hears("kitchen", Line(1, "user", "A new day", True, time.time()))
    expect(log(ann).get_by_role("listitem")).to_have_count(1)
    expect(log(ann)).to_contain_text("A new day")


def test_it_says_what_one_types(ann: Person, leader: Leader) -> None:
    open_device(ann, "kitchen")
    field = ann.page.get_by_label("Say", exact=True)
    expect(button(ann, "Say it")).to_be_disabled()
    field.fill("   ")
    expect(button(ann, "Say it")).to_be_disabled()
    field.fill("Dinner is ready")
    expect(button(ann, "Say it")).to_be_enabled()
    leader.refuses = "it is not connected"
    button(ann, "Say it").click()
    ann.reads("it is not connected")
    expect(field).to_have_value("Dinner is ready")
    leader.refuses = ""
    field.press("Enter")
    ann.reads("It is said as soon as nobody speaks.")
    expect(log(ann)).to_contain_text("Dinner is ready")
    expect(field).to_have_value("")
    expect(field).to_be_focused()
    expect(button(ann, "Say it")).to_be_disabled()
    assert [(each.what, each.text) for each in leader.done] == [("say", "Dinner is ready")]


def test_what_was_said_can_be_forgotten(ann: Person, leader: Leader) -> None:
    tell(leader, 3)
    leader.devices["kitchen"] = replace(
        leader.devices["kitchen"], instructions='{"type": "smalltalk", "language": "fr/en"}'
    )
    open_device(ann, "kitchen")
    expect(log(ann).get_by_role("listitem")).to_have_count(3)
    expect(ann.page.locator('[data-of="Instructions"]')).to_have_text("small talk")
    expect(ann.page.locator('[data-of="Language"]')).to_have_text("French or English")
    button(ann, "Forget what was said").click()
    assert leader.done == [], "it asks first"
    button(ann, "Forget all of it?").click()
    ann.reads("It is forgotten.")
    assert [each.what for each in leader.done] == ["forget"]
    expect(ann.page.get_by_role("listitem").filter(has_text=LONG)).to_have_count(0)
    ann.reads("Nothing has been said yet.")
    tell_one(leader, 1)
    expect(log(ann).get_by_role("listitem")).to_have_count(1)


def test_its_switches_by_keyboard(ann: Person, leader: Leader) -> None:
    """Who has pressed one is on the one that undoes it."""
    open_device(ann, "kitchen")
    button(ann, "Mute").press("Enter")
    expect(button(ann, "Unmute")).to_be_focused()
    ann.reads(re.compile("connected for 1 min, muted"))
    ann.page.keyboard.press("Enter")
    expect(button(ann, "Mute")).to_be_focused()
    button(ann, "Reconnect").press("Enter")
    until(lambda: leader.done and leader.done[-1].what == "reconnect", 10)
    button(ann, "Disable").press("Enter")
    assert leader.done[-1].what == "reconnect", "it asks first"
    button(ann, "Disable it?").press("Enter")
    expect(button(ann, "Enable")).to_be_focused()
    expect(button(ann, "Mute")).to_be_hidden()
    expect(ann.page.get_by_label("Say", exact=True)).to_be_hidden()
    ann.page.keyboard.press("Enter")
    expect(button(ann, "Disable")).to_be_focused()
    assert [each.what for each in leader.done] == ["mute", "unmute", "reconnect", "disable", "enable"]
    leader.refuses = "its lease is another backend's"
    button(ann, "Mute").press("Enter")
    ann.reads("its lease is another backend's")


def test_a_device_is_found_by_any_name_and_missed_when_it_goes(ann: Person, leader: Leader) -> None:
    open_device(ann, NASTY)
    button(ann, "Enable").click()
    until(lambda: leader.done, 10)
    assert (leader.done[0].name, leader.done[0].what) == (NASTY, "enable")
    ann.page.reload()
    ann.sees(NASTY)
    expect(button(ann, "Disable")).to_be_visible()
    del leader.devices[NASTY]
    ann.reads("There is no such voice device, or it is no longer in devices.json.")
    expect(button(ann, "Disable")).to_have_count(0)
    assert ann.page.locator("main img").count() == 0


# --- no backend ---------------------------------------------------------------------------------------


def test_where_no_backend_runs_nothing_of_it_is_shown(browser: Browser, hub: Process) -> None:
    stopped = SuiteState([ProcessState("voice", 0, "STOPPED", 1.0, None, 0, "", 0, 0, 0.0)], [])
    with answering(hub.run_dir, bus.WARDEN_STATE, lambda _: Reply(0, True, body=stopped)):
        person = Person(browser, f"http://{LOCAL}:{hub.port}")
        person.go()
        with person.page.expect_response("**/api/voice") as asked:
            person.sign_in(ADMIN_PASSWORD)
        assert asked.value.status == 404
        expect(tab(person)).to_have_count(0)
        person.go("#/voice")
        person.reads("No voice backend runs on this machine")
        assert person.alarms == []
        person.close()


def test_one_that_goes_down_is_said_in_words_and_comes_back(browser: Browser, hub: Process) -> None:
    down = SuiteState([ProcessState("voice", 0, "BACKOFF", 1.0, None, 1, "exit 2", 0, 0, 0.0)], [])
    person = Person(browser, f"http://{LOCAL}:{hub.port}")
    with answering(hub.run_dir, bus.WARDEN_STATE, lambda _: Reply(0, True, body=down)):
        person.go()
        person.sign_in(ADMIN_PASSWORD)
        tab(person).click()
        person.reads(re.compile("does not answer; it ended last by exit 2"))
        with voice_leader(hub.run_dir, voice_device("kitchen")):
            expect(row(person, "kitchen")).to_contain_text("connected")
            expect(person.page.get_by_text("does not answer")).to_have_count(0)
        person.reads(re.compile("does not answer; it ended last by exit 2"))
        expect(row(person, "kitchen")).to_contain_text("last known: connected")
    assert person.alarms == []
    person.close()


def test_who_is_no_admin_sees_none(browser: Browser, hub: Process, leader: Leader) -> None:
    hub.admin("POST", "/api/users", {"username": "bob", "password": "a good password"})
    person = Person(browser, f"http://{LOCAL}:{hub.port}")
    person.go()
    person.sign_in("a good password", "bob")
    person.sees("Devices")
    for hash in ("#/voice", "#/voice/kitchen"):
        person.go(hash)
        person.reads("Admins talk through voice devices; you are none.")
    expect(tab(person)).to_have_count(0)
    assert not any("/api/voice" in each.url for each in person.asked)
    person.close()


# --- the real one -------------------------------------------------------------------------------------


def test_with_the_real_backend(browser: Browser, tmp_path: Path) -> None:
    """Whose children only repeat what they are told to say. Killed, it is said to be away; back, it knows what was
    said."""
    with (
        hub_rig.process(tmp_path / "run", PLANARIA_COMPAT="1") as hub,
        voice_rig.devices() as (device,),
        voice_rig.services() as services,
        voice_rig.backend(tmp_path, device.entry("kitchen"), environ=services) as backend,
    ):
        person = Person(browser, f"http://{LOCAL}:{hub.port}")
        person.go()
        person.sign_in(ADMIN_PASSWORD)
        tab(person).click()
        expect(row(person, "kitchen")).to_contain_text("connected for")
        row(person, "kitchen").get_by_role("link").click()
        person.fill("Say", "Dinner is ready")
        person.press("Say it")
        expect(log(person)).to_contain_text("Dinner is ready")
        calls = device.calls
        person.press("Reconnect")
        until(lambda: device.calls > calls)
        backend.kill()
        person.reads(re.compile("The voice backend of this machine does not answer"))
        person.reads(re.compile("last known: "))
        backend.start()
        expect(person.page.get_by_text("does not answer")).to_have_count(0)
        person.reads(re.compile("^connected for"))
        expect(log(person)).to_contain_text("Dinner is ready")
        person.press("Disable")
        person.press("Disable it?")
        person.reads("disabled")
        until(lambda: device.now == 0)
        assert '"enabled": false' in backend.file.read_text()
        assert person.alarms == []
        person.close()


# --- for everybody ------------------------------------------------------------------------------------


def violations(person: Person) -> list[str]:
    """What axe finds, whatever its impact."""
    found = Axe().run(person.page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.long), "dark"])  # see test_page_access.py
def test_axe_finds_nothing_and_nothing_is_cut_off(ann: Person, leader: Leader, scheme: str, tmp_path: Path) -> None:
    """The pictures are for whoever wants to see it."""
    leader.state = VoiceState(True, [], ["devices.json: devices[4]: no name"], {"stt": "", "tts": "connection refused"})
    leader.change("kitchen", microphone="the sound card is not there")
    tell(leader, 12)
    leader.hears("kitchen", Line(13, "user", "And what", False, time.time()))
    ann.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for view, heading in (("#/voice", "Voice"), ("#/voice/kitchen", "kitchen")):
        ann.go(view)
        ann.sees(heading)
        if heading == "kitchen":
            expect(log(ann).get_by_role("listitem")).to_have_count(13)
        else:
            expect(row(ann, "kitchen")).to_be_visible()
        for width, size in (("phone", PHONE), ("desktop", DESKTOP)):
            ann.page.set_viewport_size(size)  # type: ignore[arg-type]
            ann.page.screenshot(path=tmp_path / f"{heading}-{width}-{scheme}.png", full_page=True)
            assert violations(ann) == []
            assert ann.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), width
