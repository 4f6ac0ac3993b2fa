"""A suite with its hub and its device, an upstream of ours behind it, and people who use it all through the hub."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scripts import reach, suite
from tests.clone import EVERY_ROLE, Clone
from tests.faults import faults, invariants
from tests.faults.origin import Origin, content
from tests.hub_rig import lay_out_store
from tests.rig import until

ADMIN, PASSWORD = "admin", "correct horse battery"
READ_LIMIT_S = 40.0  # the hub itself gives up after 30
RULES = [
    "GET,HEAD /file/*", "GET /chunked/*", "POST /count?n", "GET /slow?s", "GET /endless endless", "GET /drip/*",
    "GET /bomb", "GET /bad/*", "GET,POST /echo?*", "POST /upload upload",
]  # fmt: skip
MAX_UPLOAD = 60 << 20
SMALL_UPLOAD = 1 << 20


class Got(NamedTuple):
    """An answer of the hub."""

    status: int
    headers: dict[str, str]  # by lower-case name
    body: bytes

    @property
    def reason(self) -> str:
        """What an error says."""
        with contextlib.suppress(ValueError, AttributeError):
            return str(json.loads(self.body).get("detail", ""))
        return self.body.decode(errors="replace")

    @property
    def outcome(self) -> str:
        """What an error says of whether it was done: unknown, not-sent or nothing."""
        with contextlib.suppress(ValueError, AttributeError):
            return str(json.loads(self.body).get("outcome", ""))
        return ""


class Ground:
    """The suite of a clone that is up, and its admin, signed in."""

    def __init__(self, clone: Clone, origin: Origin) -> None:
        self.clone, self.origin, self.root = clone, origin, clone.root
        host, _, port = clone.hub.rpartition(":")
        self.host, self.port = host, int(port)
        self.device_id = str(json.loads((self.root / "run/device.json").read_text())["device_id"])
        self.token = str(
            self.rest("POST", "/api/auth/login", {"username": ADMIN, "password": PASSWORD})["access_token"]
        )
        self.base = f"/api/devices/{self.device_id}/proxy"
        self.bearer = {"Authorization": f"Bearer {self.token}"}

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the hub."""
        return http.client.HTTPConnection(self.host, self.port, timeout=READ_LIMIT_S)

    def rest(self, method: str, path: str, body: object = None, token: str = "") -> Any:
        """One call of the hub's REST. Fails the test unless it is answered by 200."""
        with contextlib.closing(self.connect()) as connection:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status == 200, f"{method} {path}: {answer.status} {data[:300]!r}"
            return json.loads(data)

    def ask(
        self, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None, device: str = ""
    ) -> Got:
        """One request of the admin's through the hub, on a connection of its own."""
        base = f"/api/devices/{device}/proxy" if device else self.base
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, base + path, body, {**self.bearer, **(headers or {})})
            return got(connection.getresponse())

    def works(self) -> None:
        """Fails the test unless an ordinary request is answered as ever."""
        for path, size in (("/files/file/200", 200), ("/files/chunked/30000", 30_000)):
            answer = self.ask(path)
            assert (answer.status, answer.body) == (200, content(size)), (path, answer.status, answer.body[:200])

    def metrics(self) -> str:
        """The hub's figures."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", "/metrics", headers=self.bearer)
            return connection.getresponse().read().decode()

    def said(self) -> str:
        """All that hub, ws_link and proxies have logged."""
        paths = sorted((self.root / "run/log").glob("*.log*"))
        return "".join(
            path.read_text(errors="replace") for path in paths if path.stem.startswith(("hub", "ws_link", "proxy"))
        )

    def pids(self) -> dict[str, int]:
        """Its living processes by name."""
        return {name: pid for pid, name in invariants.names(invariants.look(self.root)).items()}

    def links(self) -> tuple[object, ...]:
        """What stays the same for as long as all connections between device and hub do, and both ends of them."""
        state = reach.link_state(self.root)
        assert state and state.state == "connected", state
        lines = (self.root / "run/log/hub.log").read_text(errors="replace").splitlines()
        over = sum("data connection over" in line and self.device_id in line for line in lines)
        pids = {name: pid for name, pid in self.pids().items() if name.partition("_")[0] in ("hub", "ws", "proxy")}
        return state.reconnects, over, tuple(sorted(pids.items()))

    def is_whole(self) -> bool:
        """Whether the device is connected with both of its proxies."""
        state = reach.link_state(self.root)
        return bool(state and state.state == "connected" and state.workers == 2)


def got(answer: http.client.HTTPResponse) -> Got:
    """An answer, read to its end."""
    return Got(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


@contextlib.contextmanager
def walled(clone: Clone, folder: Path) -> Iterator[Ground]:
    """The clone, up with hub and device; down at the end, with its settings as they were."""
    suite.kill_all(clone.root)
    with Origin(folder) as origin:
        here = {"url": f"http://127.0.0.1:{origin.port}", "rules": RULES}
        upstreams = {
            "files": {**here, "prefix": "/files", "max_upload": "60M"},
            "small": {**here, "prefix": "/small", "max_upload": "1M"},
        }
        hub = {"listen": clone.hub, "database_url": lay_out_store(folder)}
        sources = {"pictures": f"http://127.0.0.1:{origin.port}/pictures"}
        clone.write_settings(roles=EVERY_ROLE, workers=1, hub=hub, upstreams=upstreams, sources=sources)
        try:
            done = clone.cli("up", environ={"PLANARIA_ADMIN_PASSWORD": PASSWORD})
            assert done.returncode == 0, done.stderr
            ground = Ground(clone, origin)
            until(ground.is_whole, 10)
            yield ground
        finally:
            suite.kill_all(clone.root)
            clone.write_settings()


# --- people who use it --------------------------------------------------------------------------------

CLIENTS, GETS_PER_S, POSTS_PER_S = 8, 20.0, 1.0
GIVE_UP_S = 60.0  # for which a client sends a GET again, at once, each time that its connection breaks
KILL_EVERY_S, BACK_S = 1.0, 15.0
_BROKE = (OSError, http.client.HTTPException)
FILES = [
    ("/files/file/200", 200), ("/files/file/40000", 40_000), ("/files/chunked/30000", 30_000),
    ("/files/file/300000", 300_000), ("/files/chunked/200000", 200_000), ("/files/file/3000000", 3_000_000),
]  # fmt: skip
PATHS = [*(path for path, _ in FILES), "/api/streams", "/stream.html"]
STREAMS = ["omega-0", "pictures"]
_SIZES = dict(FILES)


def why_wrong(path: str, answer: Got) -> str:
    """Why these are not the bytes of that path; "" if they are."""
    if path in _SIZES:
        return "" if answer.body == content(_SIZES[path]) else f"{len(answer.body)} bytes that are not the file's"
    if path == "/api/streams":
        with contextlib.suppress(ValueError):
            return "" if sorted(json.loads(answer.body)) == STREAMS else f"streams {answer.body[:200]!r}"
        return f"no JSON: {answer.body[:200]!r}"
    return "" if b"</html>" in answer.body else f"no page: {answer.body[:200]!r}"


@dataclass
class Tally:
    """What has become of all requests. `posts`: id -> done, never or unknown, and what was answered."""

    gets: int = 0
    resent: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    posts: dict[str, tuple[str, str]] = field(default_factory=dict)
    slowest_s: float = 0.0
    waited_s: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self, counted: Counter[str]) -> str:
        """For people."""
        outcomes = Counter(outcome for outcome, _ in self.posts.values())
        happened = Counter(outcome for id_, (outcome, _) in self.posts.items() if counted[id_])
        posts = ", ".join(f"{count} {name} ({happened[name]} happened)" for name, count in sorted(outcomes.items()))
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"killed: {kills} (waited {self.waited_s:.1f} s for them to be back);"
            f" GETs: {self.gets}, sent again {self.resent}, failed {len(self.failed)},"
            f" wrong {len(self.wrong)}, slowest {self.slowest_s:.2f} s; POSTs: {len(self.posts)}: {posts}"
        )

    def broken_promises(self, counted: Counter[str]) -> list[str]:
        """What must not have happened."""
        found = [*(f"failed: {text}" for text in self.failed), *(f"wrong: {text}" for text in self.wrong)]
        for id_, (outcome, said) in self.posts.items():
            wanted = {"done": (1,), "never": (0,), "unknown": (0, 1)}[outcome]
            if counted[id_] not in wanted:
                found.append(f"POST {id_} is {outcome} ({said}), and happened {counted[id_]} times")
        return found


class Client(threading.Thread):
    """One of the people: a connection that is kept, a GET every so often, and POSTs if `posts`."""

    def __init__(self, ground: Ground, tally: Tally, number: int, label: str) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self._ground, self._tally, self._number, self._label = ground, tally, number, label
        self._over = threading.Event()
        self._connection = ground.connect()

    def leave(self) -> None:
        """End after the request that is underway."""
        self._over.set()

    def run(self) -> None:
        every_s = CLIENTS / GETS_PER_S
        due = time.monotonic() + every_s * self._number / CLIENTS
        posts_due = time.monotonic() + self._number / POSTS_PER_S
        for turn in itertools.count(self._number):
            if self._over.wait(max(0.0, due - time.monotonic())):
                break
            self._get(PATHS[turn % len(PATHS)])
            if time.monotonic() >= posts_due:
                self._post(f"{self._label}-{self._number}-{turn}")
                posts_due += CLIENTS / POSTS_PER_S
            due = max(due + every_s, time.monotonic() - every_s)
        self._connection.close()

    def _request(self, method: str, path: str) -> Got:
        try:
            self._connection.request(method, self._ground.base + path, headers=self._ground.bearer)
            return got(self._connection.getresponse())
        except _BROKE:
            self._connection.close()  # the next request makes a new one
            raise

    def _get(self, path: str) -> None:
        began, resent, failure, wrong = time.monotonic(), 0, "", ""
        while True:
            try:
                answer = self._request("GET", path)
            except _BROKE as error:
                if time.monotonic() - began > GIVE_UP_S:
                    failure = f"GET {path}: {type(error).__name__}: {error}"
                    break
                resent += 1
                time.sleep(0.01)
                continue
            if answer.status == 200:
                wrong = why_wrong(path, answer)
            else:
                failure = f"GET {path}: {answer.status} {answer.reason[:200]}"
            break
        took_s = time.monotonic() - began
        with self._tally.lock:
            self._tally.gets += 1
            self._tally.resent += resent
            self._tally.slowest_s = max(self._tally.slowest_s, took_s)
            self._tally.failed += [f"{failure} after {took_s:.2f} s"] if failure else []
            self._tally.wrong += [f"GET {path}: {wrong}"] if wrong else []

    def _post(self, id_: str) -> None:
        try:
            answer = self._request("POST", f"/files/count?n={id_}")
        except _BROKE as error:
            outcome, said = "unknown", f"{type(error).__name__}: {error}"
        else:
            said = f"{answer.status} {answer.reason[:100]}"
            is_done = answer.status == 200 and answer.body.decode() == id_
            outcome = "done" if is_done else "unknown" if answer.outcome == "unknown" else "never"
        with self._tally.lock:
            self._tally.posts[id_] = outcome, said


@contextlib.contextmanager
def crowd(ground: Ground, label: str) -> Iterator[Tally]:
    """Eight clients, until the end of the block."""
    tally = Tally()
    clients = [Client(ground, tally, number, label) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield tally
    finally:
        for client in clients:
            client.leave()
        for client in clients:
            client.join(GIVE_UP_S + READ_LIMIT_S)


def is_serving(ground: Ground, name: str, pid: int) -> bool:
    """Whether a process has come so far that it can be had (procs/life.py, CrashRow)."""
    if name == "go2rtc":
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(http.client.HTTPConnection(ground.clone.api, timeout=2)) as connection,
        ):
            connection.request("GET", "/api")
            return connection.getresponse().status == 200
        return False
    run = ground.root / "run"
    held = invariants.locks_held(run).get(pid, [])
    return bool(held) and not any((run / f"{lock}.crashes").exists() for lock in held)


def kill_in_turn(ground: Ground, tally: Tally, names: Sequence[str], kills: int) -> None:
    """Kill one of them each second, whatever the others are at.

    One that does not serve again at its turn is waited for, and the wait is told: where others keep the machine busy
    there would be nobody left who gets to serve. Fails the test if it is not back within a quarter of a minute.
    """
    due = time.monotonic()
    for name in itertools.islice(itertools.cycle(names), kills):
        due = max(due + KILL_EVERY_S, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        pid = until(lambda name=name: _serving(ground, name), BACK_S)  # type: ignore[misc]
        tally.waited_s += time.monotonic() - began
        with faults.killed(pid) as fault:
            fault.wait_dead(5)
        tally.kills[name] += 1


def _serving(ground: Ground, name: str) -> int:
    pid = ground.pids().get(name, 0)
    return pid if pid and is_serving(ground, name, pid) else 0
