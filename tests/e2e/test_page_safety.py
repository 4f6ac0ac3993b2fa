"""What others may try against people who use the page, each in a real browser: names that are code, another site's
forms, frames, planted cookies, links that lead away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, Route, expect

from tests import fleet, hub_rig
from tests.e2e.page_rig import LOCAL, Elsewhere, Person
from tests.hub_rig import ADMIN_PASSWORD, Http, Process

pytestmark = [pytest.mark.timeout(120), pytest.mark.needs("chromium", "ffmpeg")]
NASTY = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "javascript:alert(1)",
    "\u202eevitcejni \u2066edis",
    "👩‍👩‍👧‍👦" * 11 + "🐙" * 51,  # 128 characters of the longest kind
    "' onfocus=alert(1) autofocus x='{{7*7}}${7*7}",
]
OWN = "safe-000"


def cameras() -> list[fleet.Camera]:
    """One for each name, which its streams, processes and peers have, too."""
    return [
        fleet.Camera(
            *(f"safe-{number:03}", name, {name: True, "omega-0": False}, [fleet.process(name, 100, name)]),
            carries={
                "tunnel": [{"peer": name, "why": name, "path": name[:64], "dropped": {name[:64]: 1}}],
                "watching": [{"stream": name, "viewers": 1}],
            },
        )
        for number, name in enumerate(NASTY)
    ]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub as it runs in the suite, with devices that say the worst of themselves."""
    with hub_rig.process(tmp_path_factory.mktemp("safety") / "run", PLANARIA_COMPAT="1") as running:
        fleet.own(running, cameras())
        with fleet.online(running, cameras()):
            yield running


@pytest.fixture(scope="module")
def url(hub: Process) -> str:
    """Where people find it."""
    return f"http://{LOCAL}:{hub.port}"


def signed_in(browser: Browser, url: str) -> Person:
    """The admin in another browser."""
    person = Person(browser, url)
    person.enter(ADMIN_PASSWORD)
    person.sees("Devices")
    return person


@pytest.fixture(scope="module")
def ann(browser: Browser, url: str) -> Iterator[Person]:
    """The admin, signed in all the time."""
    person = signed_in(browser, url)
    yield person
    person.close()


# --- names that are code ------------------------------------------------------------------------------

# What a parser would have made of them: the page itself has no script without an address, and no picture without one of
# the two kinds.
_MADE = """() => [...document.querySelectorAll('script:not([src]), img, [onerror], [onfocus], iframe, a')]
  .filter(each => !each.matches('img') || !/^(blob:|\\/page\\/)/.test(each.getAttribute('src') ?? 'blob:'))
  .filter(each => !each.matches('a') || /^javascript:/i.test(each.href))
  .map(each => each.outerHTML.slice(0, 80))"""


def is_clean(person: Person) -> None:
    """Fails the test if anything but text has come of the names."""
    assert person.page.evaluate(_MADE) == []
    assert person.alarms == []


def test_an_alarm_is_raised_where_something_runs(browser: Browser, url: str) -> None:
    """Or the tests below would prove nothing."""
    person = signed_in(browser, url)
    person.page.evaluate("() => void setTimeout(() => alert(1))")
    person.page.evaluate(_BREAK_IN)
    person.page.wait_for_timeout(500)
    assert {"refused", "dialog"} <= {alarm.partition(":")[0] for alarm in person.alarms}
    assert person.page.evaluate(_MADE)
    person.close()


_BREAK_IN = "() => { const image = new Image(); image.src = 'http://localhost:9/x'; document.body.append(image); }"


def test_in_the_list(ann: Person) -> None:
    for name in NASTY:
        expect(ann.page.get_by_role("heading", level=2).filter(has_text=name).first).to_be_visible()
        ann.fill("Search devices", name)
        expect(ann.card(name)).to_be_visible()
        ann.fill("Search devices", "")
    is_clean(ann)


@pytest.mark.parametrize("number", range(len(NASTY)))
def test_of_a_device_its_streams_and_its_processes(ann: Person, number: int) -> None:
    """The reason why a process has ended is a text of others', too."""
    name = NASTY[number]
    ann.view(f"safe-{number:03}")
    ann.sees(name)
    expect(ann.page.get_by_role("heading", level=2).filter(has_text=name)).to_be_visible()
    expect(ann.page.get_by_role("button", name=f"Play {name}", exact=True)).to_be_visible()
    row = ann.page.get_by_role("table", name="Processes").get_by_role("row").filter(has_text=name)
    assert row.inner_text().count(name) >= 2, "as its name, and as why it ended last"
    peer = ann.page.get_by_role("table", name="Tunnel").get_by_role("row").filter(has_text=f"down: {name}")
    assert peer.inner_text().count(name[:64]) == 4
    ann.go("#/suite")
    expect(ann.page.get_by_role("heading", level=3).filter(has_text=name)).to_be_visible()
    is_clean(ann)


def short(name: str) -> str:
    """As much of it as fits into a field of the page."""
    return name[:64] if name.isascii() else name[:20]


def test_of_a_user_a_share_and_an_event(ann: Person, hub: Process) -> None:
    users = [short(name.replace(":", ";")) for name in NASTY]  # no name of a user has a colon
    ann.go("#/users")
    for user in users:
        ann.fill("User name", user)
        ann.fill("First password", "a good password")
        ann.press("Make the account")
        ann.reads(f"{user} can sign in now.")
        expect(ann.page.get_by_role("button", name=f"Delete user {user}", exact=True)).to_be_visible()
    is_clean(ann)
    ann.view(OWN)
    for user in users:
        ann.fill("User name", user)
        ann.press("Share")
        ann.reads(f"Shared with {user}.")
        expect(ann.page.get_by_role("button", name=f"Take away from {user}", exact=True)).to_be_visible()
        expect(ann.page.get_by_role("listitem").filter(has_text=user).first).to_be_visible()
    is_clean(ann)


def test_of_a_token_and_of_a_device_that_is_renamed(ann: Person) -> None:
    ann.go("#/account")
    for name in NASTY:
        ann.fill("What it is for", short(name))
        ann.press("Make a token")
        expect(ann.page.get_by_label(f"The token “{short(name)}”, shown this once:", exact=True)).to_be_visible()
    is_clean(ann)
    ann.view(OWN)
    for name in NASTY:
        ann.fill("Another name", short(name))
        ann.press("Rename")
        ann.sees(short(name))
    is_clean(ann)


def test_what_is_typed_while_the_one_before_is_sent_stays(ann: Person) -> None:
    held = list[Route]()

    def hold(route: Route) -> None:
        if route.request.method == "POST" and not held:
            held.append(route)
        else:
            route.continue_()

    ann.page.route("**/api/tokens", hold)
    ann.go("#/account")
    ann.fill("What it is for", "one")
    with ann.page.expect_request(lambda asked: asked.method == "POST"):
        ann.press("Make a token")
    ann.fill("What it is for", "two")
    held[0].continue_()
    expect(ann.page.get_by_role("button", name="End one", exact=True)).to_be_visible()
    ann.press("Make a token")
    expect(ann.page.get_by_label("The token “two”, shown this once:", exact=True)).to_be_visible()


def test_in_the_address(ann: Person) -> None:
    """What is no view, and devices and codes that are none."""
    for name in NASTY:
        for hash in (f"#/{quote(name)}", f"#/devices/{quote(name, safe='')}", f"#/pair/{quote(name)}", f"#{name}"):
            ann.go(hash)
            expect(ann.page.get_by_role("heading", level=1)).to_be_visible()
    is_clean(ann)


# --- another site -------------------------------------------------------------------------------------


class Case(NamedTuple):
    """What another site's page tries with the hub, and the browser of somebody who is signed in there."""

    method: str
    path: str
    body: str


CASES = [
    Case("POST", "/api/users", '{"username": "mallory", "password": "a good password", "is_admin": true}'),
    Case("POST", "/api/tokens", '{"name": "mallory", "role": "owner", "days": 365}'),
    Case("PATCH", f"/api/devices/{OWN}", '{"device_name": "mallory"}'),
    Case("PUT", f"/api/devices/{OWN}/shares/mallory", '{"role": "owner"}'),
    Case("DELETE", f"/api/devices/{OWN}", ""),
    Case("POST", f"/api/devices/{OWN}/suite/restart", '{"process": "x", "pid": 100}'),
    Case("POST", f"/api/devices/{OWN}/open", "{}"),
    Case("POST", f"/api/devices/{OWN}/proxy/api/streams", ""),
    Case("POST", "/api/auth/password", '{"old_password": "x", "new_password": "a good password"}'),
    Case("POST", "/api/session", '{"username": "mallory", "password": "a good password"}'),
    Case("DELETE", "/api/session", ""),
]

# By fetch as any page may, and by a form whose one field makes JSON of its name and value. Ends with who was answered.
_TRY = """async ({url, cases}) => {
  for (const {method, path, body} of cases) {
    const mode = ['GET', 'POST'].includes(method) ? 'no-cors' : 'cors';
    await fetch(url + path, {method, body: body || undefined, mode, credentials: 'include'}).catch(() => null);
    if (method !== 'POST') continue;
    const form = document.createElement('form'), frame = document.createElement('iframe');
    frame.name = 'target'; document.body.replaceChildren(form, frame);
    Object.assign(form, {action: url + path, method, enctype: 'text/plain', target: 'target'});
    const field = document.createElement('input');
    const at = body.lastIndexOf('}');
    field.name = body.slice(0, at) + (body.length > 2 ? ', ' : '') + '"x'; field.value = '": 1}';
    form.append(field);
    await new Promise(resolve => { frame.onload = resolve; form.submit(); setTimeout(resolve, 1000); });
  }
  return await new Promise(resolve => {
    const socket = new WebSocket(url.replace('http', 'ws') + '/ws/viewer');
    socket.onopen = () => socket.send(JSON.stringify({type: 'hello', ts: '', payload: {}}));
    socket.onmessage = ({data}) => resolve(data);
    socket.onclose = () => resolve('closed');
  });
}"""


def state_of(admin: Http) -> list[object]:
    """All that they try to change."""
    told = [admin("GET", path).json for path in ("/api/users", "/api/tokens", f"/api/devices/{OWN}/shares")]
    return [*told, admin("GET", f"/api/devices/{OWN}").json["device_name"]]


@pytest.mark.parametrize("place", ["here", "afar"])
def test_another_sites_page_can_do_nothing_with_her_cookie(ann: Person, hub: Process, url: str, place: str) -> None:
    """Not one of the same host with another port either, to which a browser sends the cookie."""
    admin = hub.admin
    before, refused = state_of(admin), hub.refused("request of another site's page")
    with Elsewhere({"/": "<h1>kittens</h1>"}) as site:
        tab = ann.context.new_page()
        tab.goto(getattr(site, place))
        heard = tab.evaluate(_TRY, {"url": url, "cases": [each._asdict() for each in CASES]})
        tab.close()
    assert heard == "closed", "the WebSocket tells nothing"
    assert state_of(admin) == before
    assert place == "afar" or hub.refused("request of another site's page") > refused
    ann.go()
    ann.sees("Devices")


@pytest.mark.parametrize("place", ["here", pytest.param("afar", marks=pytest.mark.long)])  # which is sent no cookie
def test_another_site_can_read_nothing(ann: Person, url: str, place: str) -> None:
    """Not by fetch, and not what a window that it opens is at."""
    with Elsewhere({"/": "<h1>kittens</h1>"}) as site:
        tab = ann.context.new_page()
        tab.goto(getattr(site, place))
        assert tab.evaluate(_READ, url) == ["TypeError", "closed to whoever has opened it"]
        tab.close()


_READ = """async url => {
  const read = await fetch(url + '/api/devices', {credentials: 'include'}).then(r => r.text(), error => error.name);
  const opened = open(url + '/');
  let seen = '';
  for (let look = 0; look < 150 && !seen; look++) {
    await new Promise(resolve => setTimeout(resolve, 100));
    try { seen = opened.document.body.innerText; } catch { seen = 'closed to whoever has opened it'; }
  }
  return [read, seen];
}"""


@pytest.mark.parametrize("place", ["here", pytest.param("afar", marks=pytest.mark.long)])
def test_no_other_site_can_frame_the_page(ann: Person, url: str, place: str) -> None:
    """Nor anything that stands beside it: whoever is to press a button unknowingly finds none there."""
    framed = ["/", "/#/users", "/page/main.js", "/api/devices", f"/api/devices/{OWN}/proxy/", "/api/openapi.json"]
    frames = "".join(f'<iframe src="{url}{path}"></iframe>' for path in framed)
    with Elsewhere({"/": f"<h1>kittens</h1>{frames}"}) as site:
        tab = ann.context.new_page()
        tab.goto(getattr(site, place))
        tab.wait_for_timeout(500)
        inner = [frame for frame in tab.frames if frame is not tab.main_frame]
        assert [frame.locator("body").inner_text().strip() for frame in inner if _is_shown(frame.url)] == []
        assert len(inner) == len(framed)
        tab.close()


def _is_shown(url: str) -> bool:
    return not url.startswith("chrome-error:")


# --- cookies that others have planted ------------------------------------------------------------------


def test_a_log_in_never_takes_a_cookie_that_was_there(browser: Browser, hub: Process, url: str) -> None:
    """Session fixation: neither what somebody made up, nor a session of theirs; and theirs ends."""
    hub.admin("POST", "/api/users", {"username": "mal", "password": "a good password"})
    mallory = Person(browser, url)
    mallory.go()
    mallory.sign_in("a good password", "mal")
    mallory.sees("Devices")
    planted = mallory.context.cookies()[0]
    victim = Person(browser, url)
    for value in ("planted" * 6, planted["value"]):
        victim.context.clear_cookies()
        victim.context.add_cookies([{"name": planted["name"], "value": value, "url": url}])
        victim.go("#/account")
        if value == planted["value"]:
            victim.reads("mal")  # until she signs in
            victim.press("Sign out")
        victim.sign_in(ADMIN_PASSWORD)
        victim.sees("Account")
        (now,) = victim.context.cookies()
        assert now["name"] == planted["name"] and now["value"] not in (value, planted["value"])
        assert now["httpOnly"] and now["sameSite"] == "Strict" and now["path"] == "/"
    mallory.page.reload()
    mallory.sees("Sign in")
    victim.close()
    mallory.close()


def test_of_two_cookies_none_is_believed(browser: Browser, hub: Process, url: str) -> None:
    """Somebody at another port of the host has put one there for a longer path: she is asked to sign in, not made to
    act as somebody else."""
    hub.admin("POST", "/api/users", {"username": "mal2", "password": "a good password"})
    answer = Http(hub.port)("POST", "/api/session", {"username": "mal2", "password": "a good password"},
                            headers={"Origin": url})  # fmt: skip
    name, _, value = answer.headers["Set-Cookie"].partition(";")[0].partition("=")
    victim = Person(browser, url)
    victim.go()
    victim.sign_in(ADMIN_PASSWORD)
    victim.context.add_cookies([{"name": name, "value": value, "domain": LOCAL, "path": "/api"}])
    victim.page.reload()
    victim.sees("Sign in")
    victim.close()


# --- links that lead away ---------------------------------------------------------------------------------

AWAY = ["//evil.example/", "https://evil.example/", "/\\evil.example/", "/\t/evil.example"]


def test_no_address_of_the_hub_leads_elsewhere(ann: Person, browser: Browser, url: str) -> None:
    """Whatever is in a link to it, one stays there, also through a sign-in."""
    for away in map(quote, AWAY):
        for link in (f"/?next={away}", f"/#{away}", f"/#/devices/{away}", f"/{away}"):
            ann.page.goto(url + link, wait_until="commit")
            assert ann.page.url.startswith(f"{url}/"), link
    victim = Person(browser, url)
    victim.go(f"?next={AWAY[0]}#{AWAY[1]}")
    victim.sign_in(ADMIN_PASSWORD)
    victim.sees("There is no such page")
    assert victim.page.url.startswith(f"{url}/") and victim.alarms == []
    victim.close()


def test_the_way_into_a_devices_origin_leads_nowhere_else(ann: Person, hub: Process) -> None:
    """The address that is good once is for that origin; what somebody puts into it instead is refused."""
    admin = hub.admin
    for away in AWAY:
        assert admin("POST", f"/api/devices/{OWN}/open", {"path": away}).status in (400, 422), away
        entry = admin("POST", f"/api/devices/{OWN}/open", {"path": "/x"}).json["url"]
        tab = ann.context.new_page()
        answer = tab.goto(entry.replace(quote("/x", safe=""), quote(away, safe="")))
        assert answer and answer.status == 400 and (urlsplit(tab.url).hostname or "").endswith(".localhost")
        tab.close()
