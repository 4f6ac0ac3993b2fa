"""People and one device: what is shared is seen, what one may not do is not there, what is taken away ends at once."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.clone import Clone
from tests.e2e import page_rig
from tests.e2e.page_rig import Person, Site
from tests.hub_rig import Http
from tests.rig import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("chromium")]  # the first `make up` installs
BOB, PASSWORD = "bob", "a password of his"
OTHER = "not-shared-001"
CHANGES = ("Rename", "Share", "Remove this device", "Restart proxy:proxy_0", "Restart go2rtc", "Restart warden")


@pytest.fixture(scope="module")
def site(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The suite after a first start, and a device of the admin's that is shared with nobody."""
    folder = tmp_path_factory.mktemp("people")
    with page_rig.served(clone, folder) as found, page_rig.second_device(found, folder / "run", OTHER):
        with page_rig.pairing(found, folder / "run") as said:
            assert found.admin("POST", "/api/devices/pair", {"pairing_code": said["code"]}).status == 200
        yield found


@pytest.fixture(scope="module")
def ann(browser: Browser, site: Site) -> Iterator[Person]:
    """The admin, who owns all devices."""
    person = Person(browser, site.url)
    person.go()
    person.sign_in(site.password)
    yield person
    person.close()
    assert not person.alarms


@pytest.fixture(scope="module")
def bob(browser: Browser, site: Site, ann: Person) -> Iterator[Person]:
    """Somebody with whom the suite's own device is shared, as viewer; the admin has made his account by the page."""
    ann.go("#/users")
    ann.sees("Users")
    ann.fill("User name", BOB)
    ann.fill("First password", PASSWORD)
    ann.press("Make the account")
    ann.reads(f"{BOB} can sign in now.")
    share(ann, site, "viewer")
    person = Person(browser, site.url)
    person.go()
    person.sign_in(PASSWORD, BOB)
    yield person
    person.close()
    assert not person.alarms


def share(owner: Person, site: Site, role: str) -> None:
    """Share the suite's own device with bob, by the page."""
    owner.view(site.device_id)
    owner.fill("User name", BOB)
    owner.page.get_by_label("Role", exact=True).select_option(role)
    owner.press("Share")
    owner.reads(f"Shared with {BOB}.")


def take_away(owner: Person, site: Site) -> None:
    """And no more."""
    owner.view(site.device_id)
    owner.press(f"Take away from {BOB}")
    owner.press(f"Take share from {BOB}?")
    expect(owner.page.get_by_role("button", name=f"Take away from {BOB}")).to_have_count(0)


def buttons(person: Person) -> set[str]:
    """Names of all that can be pressed in the view."""
    found = person.page.get_by_role("main").get_by_role("button")
    return {each.get_attribute("aria-label") or each.inner_text() for each in found.all()}


def test_he_sees_what_is_shared_and_nothing_else(bob: Person, site: Site) -> None:
    name = site.name_of(site.device_id)
    bob.go()
    expect(bob.page.get_by_role("list").get_by_role("heading", level=2)).to_have_text([name])
    expect(bob.card(name)).to_contain_text("shared by admin")
    bob.view(OTHER)
    bob.sees("No such device")
    assert bob.page.get_by_role("link", name="Users").count() == 0
    bob.go("#/suite")
    bob.sees("Suite")
    expect(bob.page.get_by_role("heading", name=name)).to_be_visible()
    assert bob.page.get_by_role("heading", name="This hub’s machine").count() == 0


def test_what_a_viewer_may_not_do_is_not_there(bob: Person, site: Site) -> None:
    """Nor does the hub do it for who asks in another way."""
    bob.view(site.device_id)
    bob.sees(site.name_of(site.device_id))
    expect(bob.row("proxy:proxy_0")).to_contain_text("serving")
    shown = buttons(bob)
    assert "Leave this device" in shown and "Play omega-0" in shown
    assert not shown & set(CHANGES) and not any(name.startswith(("Restart", "Take")) for name in shown)
    base = f"/api/devices/{site.device_id}"
    tries = [
        ("PATCH", base, {"device_name": "mine"}),
        ("DELETE", base, None),
        ("PUT", f"{base}/shares/{BOB}", {"role": "owner"}),
        ("POST", f"{base}/suite/restart", {"process": "proxy:proxy_0", "pid": site.pid("proxy_0")}),
        ("GET", "/api/users", None),
        ("POST", "/api/suite/restart", {"process": "hub", "pid": site.pid("hub")}),
    ]
    assert [bob.page.evaluate(_ASK, [*each]) for each in tries] == [403] * len(tries)
    assert bob.page.evaluate(_ASK, ["GET", f"/api/devices/{OTHER}", None]) == 404


_ASK = """async ([method, path, body]) =>
  (await fetch(path, {method, body: body && JSON.stringify(body)})).status"""


def test_a_viewer_watches_until_the_share_is_taken_away(bob: Person, ann: Person, site: Site) -> None:
    """While he plays a stream: the device is gone from his page by itself, and nothing more of it comes."""
    bob.view(site.device_id)
    bob.press("Play omega-0")
    first = bob.frame_after()
    assert bob.frame_after(first.code.frame).code.time_us > first.code.time_us
    take_away(ann, site)
    bob.sees("No such device")
    expect(bob.page.locator("video")).to_have_count(0)
    bob.page.get_by_role("main").get_by_role("link", name="Devices").click()
    bob.reads("No devices yet")
    assert bob.page.evaluate(_ASK, ["GET", f"/api/devices/{site.device_id}", None]) == 404
    share(ann, site, "viewer")
    expect(bob.card(site.name_of(site.device_id))).to_be_visible()


def test_whoever_becomes_an_owner_has_the_buttons(bob: Person, ann: Person, site: Site) -> None:
    """Without a reload; but not the one by which the device would be nobody's."""
    bob.view(site.device_id)
    expect(bob.page.get_by_role("button", name="Leave this device")).to_be_visible()
    share(ann, site, "owner")
    expect(bob.page.get_by_role("button", name="Restart proxy:proxy_0")).to_be_visible()
    until(lambda: {"Rename", "Share", "Leave this device"} <= buttons(bob), 20, 0.1)  # they come one after the other
    assert "Remove this device" not in buttons(bob)
    before = until(lambda: bob.pid("proxy:proxy_0"), 20)
    bob.restart("proxy:proxy_0")
    until(lambda: bob.pid("proxy:proxy_0") not in (0, before), 20, 0.05)
    until(lambda: ann.pid("proxy:proxy_0") == bob.pid("proxy:proxy_0"), 10)


def test_he_leaves_it(bob: Person, ann: Person, site: Site) -> None:
    """Whoever has shared it sees that by themselves."""
    ann.view(site.device_id)
    expect(ann.page.get_by_role("button", name=f"Take away from {BOB}")).to_be_visible()
    bob.view(site.device_id)
    bob.press("Leave this device")
    bob.press("Leave device?")
    bob.sees("Devices")
    bob.reads("No devices yet")
    ann.reads("With nobody.")


def test_a_token_for_a_program_is_shown_once(ann: Person, site: Site) -> None:
    ann.go("#/account")
    ann.fill("What it is for", "Home Assistant")
    ann.press("Make a token")
    shown = ann.page.get_by_label("The token “Home Assistant”, shown this once:")
    program = Http(site.port, shown.input_value())
    assert program("GET", "/api/devices").status == 200
    assert program("PATCH", f"/api/devices/{site.device_id}", {"device_name": "no"}).status == 403
    ann.page.reload()
    ann.sees("Account")
    expect(ann.page.get_by_label(re.compile("The token"))).to_have_count(0)
    ann.press("End Home Assistant")
    ann.press("End token Home Assistant?")
    expect(ann.page.get_by_role("button", name="End Home Assistant")).to_have_count(0)
    until(lambda: program("GET", "/api/devices").status == 401)


def test_another_password_ends_all_other_log_ins(browser: Browser, bob: Person, site: Site) -> None:
    elsewhere = Person(browser, site.url)
    elsewhere.go("#/account")
    elsewhere.sign_in(PASSWORD, BOB)
    elsewhere.sees("Account")
    bob.go("#/account")
    bob.reads("ends all your other log-ins and all your tokens")
    for current, repeated, said in (
        ("not this one", " too", "password is wrong"),
        (PASSWORD, "", "this is another one"),
    ):
        change_password(bob, current, PASSWORD + " too", PASSWORD + repeated)
        bob.reads(re.compile(said))
    change_password(bob, PASSWORD, PASSWORD + " too", PASSWORD + " too")
    elsewhere.sees("Sign in")
    bob.page.reload()
    bob.sees("Account")
    elsewhere.close()


def change_password(person: Person, current: str, wanted: str, repeated: str) -> None:
    """Fill in the form and send it."""
    person.fill("Current password", current)
    person.fill("New password", wanted)
    person.fill("New password again", repeated)
    person.press("Change password")


def test_somebody_whose_account_is_removed_is_out_at_once(bob: Person, ann: Person, site: Site) -> None:
    """What they type into the form then lets nobody in."""
    bob.go()
    bob.sees("Devices")
    ann.go("#/users")
    ann.press(f"Delete user {BOB}")
    ann.press(f"Delete user {BOB}?")
    bob.sees("Sign in")
    bob.fill("User name", BOB)
    bob.fill("Password", PASSWORD + " too")
    bob.press("Sign in")
    bob.reads("Incorrect username or password")


def test_an_admin_who_is_one_no_more(browser: Browser, ann: Person, site: Site) -> None:
    """The tab for admins is gone with the log-in; the last one stays what they are."""
    wanted = {"username": "carol", "password": PASSWORD, "is_admin": True}
    assert site.admin("POST", "/api/users", wanted).status == 200
    carol = Person(browser, site.url)
    carol.go("#/users")
    carol.sign_in(PASSWORD, "carol")
    carol.sees("Users")
    ann.go("#/users")
    ann.press("Demote to user: carol")
    ann.press("Demote carol?")
    carol.sees("Sign in")
    carol.sign_in(PASSWORD, "carol")
    assert carol.page.get_by_role("link", name="Users").count() == 0
    ann.press("Demote to user: admin")
    ann.press("Demote admin?")
    ann.reads(re.compile("last admin"))
    assert not carol.alarms
    carol.close()
