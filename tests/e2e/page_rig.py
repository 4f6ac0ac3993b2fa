"""People in a real Chromium who use the hub's page: all is found by role and name, as a person or a screen reader has
it. And what they use it of: the suite as `make up` makes it, a second device, a site of somebody who means harm."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page, Request, ViewportSize, expect

from scripts import suite
from tests.clone import EVERY_ROLE, Clone
from tests.e2e.test_browser import Shown, shown
from tests.faults import invariants
from tests.hub_rig import Http, lay_out_store
from tests.rig import clean_environ, until

ADMIN = "admin"
STEP_MS = 15_000  # for whatever a person waits for, on a busy machine
LOCAL = "127.0.0.1"
VIEWPORT: ViewportSize = {"width": 1280, "height": 800}
_POLICY = re.compile("Content.Security.Policy|Permissions policy|Trusted", re.I)


class Person:
    """Somebody with a browser profile of their own, and one tab of it."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.url = url.rstrip("/")
        self.context = browser.new_context(**({"viewport": VIEWPORT} | context))
        self.context.set_default_timeout(STEP_MS)
        expect.set_options(timeout=STEP_MS)
        self.page = self.context.new_page()
        self.alarms: list[str] = []  # what no page of ours ever does, whatever is in it
        self.asked: list[Request] = []
        self.page.on("dialog", self._asked_by_dialog)
        self.page.on("pageerror", lambda error: self.alarms.append(f"error: {error}"))
        self.page.on("console", self._said)
        self.page.on("request", self._asked)

    def _asked_by_dialog(self, dialog: Dialog) -> None:
        self.alarms.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and _POLICY.search(message.text):
            self.alarms.append(f"refused: {message.text}")

    def _asked(self, request: Request) -> None:
        if request.url.startswith(("blob:", "data:")):
            return  # nobody is asked
        self.asked.append(request)
        if not request.url.startswith(self.url):
            self.alarms.append(f"request: {request.url}")

    def close(self) -> None:
        """Leave for good."""
        self.context.close()

    def leave(self) -> None:
        """Leave the page, which has to have raised no alarm, for one of the hub's that has nothing in it. Who comes
        back finds it as in a new tab, and is signed in still; but a browser needs no new process for it."""
        self.page.evaluate("() => sessionStorage.clear()")
        self.page.goto(f"{self.url}/health")
        self.page.set_viewport_size(VIEWPORT)
        self.page.emulate_media(color_scheme="light")
        self.asked.clear()
        alarms, self.alarms = self.alarms, []
        assert alarms == []

    def go(self, hash: str = "#/") -> None:
        """Open a view by its address, as a link or a bookmark does; anew, if it is open."""
        wanted = f"{self.url}/{hash}"
        if self.page.url == wanted:
            self.page.reload()
        else:
            self.page.goto(wanted)

    def fill(self, label: str, value: str) -> None:
        """Type over what is in a field."""
        self.page.get_by_label(label, exact=True).fill(value)

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def sees(self, heading: str) -> None:
        """Fails the test unless the view is called so."""
        expect(self.page.get_by_role("heading", name=heading, exact=True, level=1)).to_be_visible()

    def reads(self, text: str | re.Pattern[str]) -> None:
        """Fails the test unless this stands there."""
        expect(self.page.get_by_text(text).first).to_be_visible()

    def sign_in(self, password: str, username: str = ADMIN) -> None:
        """Fill in the form that is shown."""
        self.sees("Sign in")
        self.fill("User name", username)
        self.fill("Password", password)
        self.press("Sign in")
        expect(self.page.get_by_role("heading", name="Sign in", exact=True)).to_have_count(0)

    def enter(self, password: str, hash: str = "#/") -> None:
        """Open a view as the admin, who has signed in before: that takes less of a processor than the form does."""
        wanted = {"username": ADMIN, "password": password}
        assert self.context.request.post(f"{self.url}/api/session", data=wanted).ok
        self.go(hash)
        expect(self.page.get_by_role("navigation").first).to_be_visible()

    def card(self, name: str) -> Locator:
        """A device in the grid."""
        link = self.page.get_by_role("link", name=name, exact=True)
        return self.page.get_by_role("listitem").filter(has=link)

    def open(self, name: str) -> None:
        """Go to a device by its card."""
        self.page.get_by_role("link", name=name, exact=True).click()
        self.sees(name)

    def view(self, device_id: str) -> None:
        """Go to a device by its address."""
        self.go(f"#/devices/{device_id}")

    def thumbnail(self, name: str) -> Shown | None:
        """What the card of a device shows; None while it shows nothing with a barcode."""
        image = self.card(name).locator("img").first
        return shown(image) if image.count() else None

    def row(self, process: str) -> Locator:
        """A process in the table that is shown."""
        table = self.page.get_by_role("table", name="Processes")
        header = self.page.get_by_role("rowheader", name=re.compile(rf"^{re.escape(process)}(\s|$)"))
        return table.get_by_role("row").filter(has=header).first

    def pid(self, process: str) -> int:
        """What its row says; 0 for none."""
        row = self.row(process)
        found = re.search(r"pid (\d+)", row.inner_text()) if row.count() else None
        return int(found[1]) if found else 0

    def restart(self, process: str) -> None:
        """Press the button twice, as it asks for."""
        button = self.row(process).get_by_role("button")
        expect(button).to_have_accessible_name(f"Restart {process}")
        button.click()
        expect(button).to_have_accessible_name(f"Kill {process}?")
        button.click()

    def frame_after(self, frame: int = -1, within_s: float = 40) -> Shown:
        """What the player shows once it is a picture after that one."""
        return until(lambda: now if (now := shown(self.page)) and now.code.frame > frame else None, within_s, 0.1)


# --- what they use it of ------------------------------------------------------------------------------


class Site:
    """The suite of a clone with hub, device and streams, and the password that its first start printed."""

    def __init__(self, clone: Clone, said: str) -> None:
        self.clone, self.root = clone, clone.root
        self.url = _found(r"^hub +(http\S+)", said)
        self.password = _found(r"^sign in admin (\S+)", said)
        self.device_id = str(json.loads((self.root / "run/device.json").read_text())["device_id"])
        self.port = int(clone.hub.rpartition(":")[2])

    @functools.cached_property
    def admin(self) -> Http:
        """The first account, by REST."""
        return Http(self.port).as_user(ADMIN, self.password)

    def pid(self, name: str) -> int:
        """A living process of the suite; 0 for none."""
        found = {program: pid for pid, program in invariants.names(invariants.look(self.root)).items()}
        return found.get(name, 0)

    def name_of(self, device_id: str) -> str:
        """What a device is called."""
        return str(self.admin("GET", f"/api/devices/{device_id}").json["device_name"])


def _found(pattern: str, said: str) -> str:
    match = re.search(pattern, said, re.M)
    assert match, said
    return match[1]


@contextlib.contextmanager
def served(clone: Clone, folder: Path) -> Iterator[Site]:
    """The clone, brought up as at a first start: with no account yet. Down at the end, its settings as they were."""
    suite.kill_all(clone.root)
    _make_passwords_cheap(clone.root)
    (clone.root / "run/admin-password").unlink(missing_ok=True)
    hub = {"listen": clone.hub, "database_url": lay_out_store(folder)}
    clone.write_settings(roles=EVERY_ROLE, workers=2, hub=hub)
    try:
        done = clone.make("up")
        assert done.returncode == 0, done.stderr
        yield Site(clone, done.stdout)
    finally:
        suite.kill_all(clone.root)
        clone.write_settings()


def _make_passwords_cheap(root: Path) -> None:
    """In this clone's own code: each costs 0.3 s of a processor, and the people here sign in all the time. (What they
    cost is for tests/unit/test_hub_passwords.py.)"""
    file = root / "procs/hub/people/passwords.py"
    dear, cheap = "LOG2_N, R, P = 15, 8, 3", "LOG2_N, R, P = 4, 8, 1"
    text = file.read_text()
    assert dear in text or cheap in text
    file.write_text(text.replace(dear, cheap))


@contextlib.contextmanager
def second_device(site: Site, folder: Path, device_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """scripts/agent.py with the suite's go2rtc. Its children die with it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    command = [".venv/bin/python", "scripts/agent.py", "--device-id", device_id,
               "--backend", f"ws{site.url.removeprefix('http').rstrip('/')}/ws/device",
               "--go2rtc-http", f"http://{site.clone.api}"]  # fmt: skip
    with (folder / "agent.log").open("ab") as log:
        agent = subprocess.Popen(
            command, cwd=site.root, env=clean_environ(PLANARIA_RUN_DIR=str(folder)), stdout=log, stderr=log
        )
    try:
        yield agent
    finally:
        agent.kill()
        agent.wait()


@contextlib.contextmanager
def pairing(site: Site, folder: Path) -> Iterator[dict[str, Any]]:
    """What `scripts/pair.py --json` says beside that device; at the end it has to say that it is paired."""
    command = [".venv/bin/python", "scripts/pair.py", "--json"]
    environ = clean_environ(PLANARIA_RUN_DIR=str(folder))
    asking = subprocess.Popen(
        command, cwd=site.root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert asking.stdout
        line = asking.stdout.readline()
        assert line, asking.communicate()[1]
        yield json.loads(line)
        rest, errors = asking.communicate(timeout=30)
        assert asking.returncode == 0 and json.loads(rest)["paired"], (rest, errors)
    finally:
        asking.kill()
        asking.wait()


class Elsewhere(http.server.ThreadingHTTPServer):
    """Somebody else's site: pages by path, and what was asked of it."""

    def __init__(self, pages: Mapping[str, str]) -> None:
        super().__init__((LOCAL, 0), _Page)
        self.pages, self.asked = dict(pages), list[str]()
        self.here = f"http://{LOCAL}:{self.server_port}"  # one site with the hub for a browser, as ports don't count
        self.afar = f"http://localhost:{self.server_port}"  # another site
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def server_close(self) -> None:
        """Also end the thread: one that is left alone with a closed socket turns for ever, as fast as it can."""
        self.shutdown()
        super().server_close()


class _Page(http.server.BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(self.path)
        body = self.server.pages.get(path, "").encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


# --- what is measured ---------------------------------------------------------------------------------

# From now on: tasks that keep the page from answering for over 50 ms, and the time between frames.
_WATCH_FRAMES = """() => {
  window.tasks = []; window.frames_ms = [];
  new PerformanceObserver(list => tasks.push(...list.getEntries().map(each => each.duration)))
    .observe({type: 'longtask'});
  let last = performance.now();
  const next = now => { frames_ms.push(now - last); last = now; requestAnimationFrame(next); };
  requestAnimationFrame(next);
}"""
WHEEL_PX = 120


def scrolled(page: Page, turns: int) -> tuple[list[float], list[float]]:
    """Turn the wheel down and up again; (milliseconds of tasks over 50 ms, milliseconds from frame to frame)."""
    page.evaluate(_WATCH_FRAMES)
    page.mouse.move(640, 400)
    for turn in range(turns):
        page.mouse.wheel(0, WHEEL_PX if turn < turns / 2 else -WHEEL_PX)
        page.wait_for_timeout(16)
    return page.evaluate("() => tasks"), page.evaluate("() => frames_ms")


def weight(person: Person) -> int:
    """Bytes of all that the page is made of, unpacked, once it has been loaded."""
    paths = {request.url for request in person.asked if urlsplit(request.url).path.startswith("/page/")}
    answers = [person.context.request.get(url) for url in (person.url + "/", *sorted(paths))]
    assert all(answer.ok for answer in answers)
    return sum(len(answer.body()) for answer in answers)


def first_paint_ms(browser: Browser, url: str) -> float:
    """From the address to a page that can be used, in a browser that has nothing of it yet."""
    person = Person(browser, url)
    try:
        person.page.goto(url)
        person.sees("Sign in")
        paint = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        until(lambda: person.page.evaluate(paint), 10)
        # What is useful is the form: the element that is the largest of all that were painted.
        return float(person.page.evaluate(_USEFUL))
    finally:
        person.close()


_USEFUL = """() => new Promise(resolve => new PerformanceObserver(list => resolve(list.getEntries().at(-1).startTime))
  .observe({type: 'largest-contentful-paint', buffered: true}))"""
