"""A real hub: as a process of its own on a free port, or within a test's event loop. Ended by pid.

What talks to it here speaks HTTP and JSON by the standard library and `websockets` alone, with none of our formats.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from procs.hub import app
from procs.hub.options import Hub as Settings
from procs.hub.people.accounts import add_user
from procs.hub.people.passwords import hashed
from procs.hub.state import State
from procs.hub.store import migrate
from procs.store import Store
from tests import warm
from tests.rig import clean_environ, free_port, until
from tests.warm import Forked

ADMIN_PASSWORD = "the admin's password"
LIMIT_S = 20.0
CHEAP = functools.partial(hashed, log2_n=4)  # a password of tests, checked as any other
HUB = ("-m", "procs.hub")
# The same, with passwords that cost nothing, of which tests make hundreds.
_CHEAP = """
from procs import life
from procs.hub import app, options, rest, shell, voice
from procs.hub.devices import device_ws
from procs.hub.people import passwords
from procs.hub.tunnel import tunnel
from procs.hub.viewers import viewer_ws
passwords.hashed.__defaults__ = (None, 4, 8, 1)
"""
_RUN = "life.run('hub', options.load, shell.serve)"
CHEAP_HUB = ("-c", _CHEAP + _RUN)
# And with other ideas of how long is long.
IMPATIENT_S = 2.0
_IMPATIENT = (
    "app.IDLE_S = rest.BODY_S = device_ws.STEP_S = viewer_ws.HELLO_S = tunnel.BACK_S = voice.ASK_S = voice.DO_S"
)
IMPATIENT_HUB = ("-c", f"{_CHEAP}{_IMPATIENT} = {IMPATIENT_S}\n{_RUN}")


@dataclass
class Answer:
    """What came back of a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """Why not."""
        return str(self.json["detail"])


@dataclass
class Http:
    """Somebody who asks a hub."""

    port: int
    token: str = ""

    def __call__(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None, token: str = ""
    ) -> Answer:
        """One request on a connection of its own. `body`: bytes as they are, anything else as JSON."""
        sent = dict(headers or {})
        if token or self.token:
            sent.setdefault("Authorization", f"Bearer {token or self.token}")
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        with contextlib.closing(connection):
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def as_user(self, username: str, password: str) -> Http:
        """The same, logged in."""
        answer = self("POST", "/api/auth/login", {"username": username, "password": password})
        assert answer.status == 200, answer.body
        return Http(self.port, answer.json["access_token"])

    def new_user(self, username: str, password: str = "a good password") -> Http:
        """An account made by this one, logged in."""
        wanted = {"username": username, "email": f"{username}@example.com", "password": password}
        answer = self("POST", "/api/auth/register", wanted)
        assert answer.status == 200, answer.body
        return Http(self.port, answer.json["access_token"])


@dataclass
class Process:
    """A hub that runs as it does in the suite."""

    run_dir: Path
    port: int
    environ: dict[str, str]
    log: Path
    stdin: int = subprocess.DEVNULL
    command: tuple[str, ...] = ("-m", "procs.hub")
    process: Forked = field(init=False)

    @property
    def http(self) -> Http:
        """Somebody who asks it, as nobody."""
        return Http(self.port)

    @property
    def admin(self) -> Http:
        """Its first account, logged in."""
        return self.http.as_user("admin", ADMIN_PASSWORD)

    def ws(self, path: str) -> str:
        """The address of a WebSocket of it."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Start it; `wait` waits until it serves."""
        stdin = self.stdin if isinstance(self.stdin, int) else self.stdin.fileno()
        with self.log.open("ab") as log:
            self.process = warm.start(self.command, "procs.hub.shell", self.environ, stdin=stdin, stderr=log)

    def wait(self) -> None:
        """Until it serves."""
        until(self._answers, LIMIT_S)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(OSError):
            return self.http("GET", "/health").status == 200
        return False

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Killed, and started again."""
        self.kill()
        self.start()
        self.wait()

    def said(self) -> str:
        """What it has logged."""
        return self.log.read_text()

    def metric(self, name: str) -> float:
        """One line of /metrics, 0 where it is not there."""
        for line in self.http("GET", "/metrics").body.decode().splitlines():
            if line.startswith(f"planaria_hub_{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def refused(self, reason: str) -> float:
        """How often it has refused for this reason."""
        return self.metric(f'refused_total{{reason="{reason}"}}')


@functools.cache
def _new_store() -> bytes:
    """A store with its tables and nobody in it. The migrations cost half a second of a processor, so they are run once
    in a run of tests, and where it is about them (test_hub_store, test_hub_postgres, test_hub)."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/hub.sqlite")
        migrate.bring_up_to_date(store)
        store.engine.dispose()
        return Path(folder, "hub.sqlite").read_bytes()


def lay_out_store(run_dir: Path) -> str:
    """Put a store with its tables there, unless there is one; returns its address."""
    file = run_dir / "hub.sqlite"
    if not file.exists():
        file.write_bytes(_new_store())
        file.chmod(0o600)
    return f"sqlite:///{file}"


@contextmanager
def process(
    run_dir: Path, *, stdin: int = subprocess.DEVNULL, command: tuple[str, ...] = CHEAP_HUB, **environ: str
) -> Iterator[Process]:
    """Run a hub, and wait until it serves. PLANARIA_HUB chooses where it listens; default: a free port."""
    run_dir.mkdir(mode=0o700, exist_ok=True)
    if "DATABASE_URL" not in environ:
        lay_out_store(run_dir)
    port = int(environ["PLANARIA_HUB"].rpartition(":")[2]) if "PLANARIA_HUB" in environ else free_port()
    settings = {"PLANARIA_HUB": f"127.0.0.1:{port}", "PLANARIA_RUN_DIR": str(run_dir), "PLANARIA_SUITE": "test"}
    settings["PLANARIA_ADMIN_PASSWORD"] = ADMIN_PASSWORD
    hub = Process(run_dir, port, clean_environ(**(settings | environ)), run_dir / "hub.log", stdin, command)
    hub.start()
    try:
        hub.wait()
        yield hub
    finally:
        hub.kill()


@contextlib.asynccontextmanager
async def within(run_dir: Path, *routes: web.RouteDef, **settings: Any) -> AsyncIterator[tuple[State, Http]]:
    """A hub in this event loop, with routes of the test's own before its own, and its admin. Ask it by `ask`."""
    chosen = Settings(admin_password=ADMIN_PASSWORD, **settings)
    store = Store(lay_out_store(run_dir))
    store.exclusively(lambda c: add_user(c, "admin", "", CHEAP(ADMIN_PASSWORD), 0.0, is_admin=True))
    state = State(chosen, store)
    runner = app.runner(state, *routes)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield state, Http(port)
    finally:
        await runner.cleanup()
        await asyncio.gather(*state._tasks, return_exceptions=True)
        store.engine.dispose()


async def ask(who: Http, *args: Any, **kwargs: Any) -> Answer:
    """A request to a hub in this event loop."""
    return await asyncio.to_thread(who, *args, **kwargs)


class Talker:
    """One WebSocket with JSON text frames, a device's or a viewer's, as the published peers speak it."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    def say(self, kind: str, payload: object = None, **more: object) -> None:
        """Send a frame."""
        frame = {"type": kind, "ts": "2026-01-01T12:00:00.000000", "payload": {} if payload is None else payload}
        self.ws.send(json.dumps(frame | more))

    def hear(self, kind: str = "", within_s: float = LIMIT_S) -> dict[str, Any]:
        """The next frame, or the next one of this type."""
        deadline = time.monotonic() + within_s
        while True:
            frame: dict[str, Any] = json.loads(self.ws.recv(max(0.001, deadline - time.monotonic())))
            if kind in ("", frame["type"]):
                return frame

    def closing(self, within_s: float = LIMIT_S) -> tuple[int, str]:
        """Code and reason of the end, once it comes; frames before it are passed over."""
        try:
            while True:
                self.ws.recv(within_s)
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")

    def is_alive(self) -> bool:
        """Whether the link still carries what is asked of it."""
        self.say("heartbeat")
        return bool(self.hear("heartbeat_ack")["payload"] == {})


@contextmanager
def talking(hub: Process | Http, path: str) -> Iterator[Talker]:
    """A WebSocket to a hub."""
    address = f"ws://127.0.0.1:{hub.port}{path}"
    with connect(address, compression=None, max_size=None, close_timeout=1, proxy=None) as ws:
        yield Talker(ws)


@contextmanager
def device(hub: Process | Http, device_id: str, **hello: object) -> Iterator[Talker]:
    """A published device, let in."""
    with talking(hub, "/ws/device") as talker:
        talker.say("hello", {"device_id": device_id, **hello})
        assert talker.hear()["type"] == "hello_ack"
        yield talker


@contextmanager
def viewer(hub: Process | Http, token: str, **hello: object) -> Iterator[Talker]:
    """A published viewer, let in; with `caps`, one of ours."""
    with talking(hub, "/ws/viewer") as talker:
        talker.say("hello", {"token": token, **hello})
        assert talker.hear()["type"] == "hello_ack"
        yield talker


def paired(hub: Process, owner: Http, device_id: str) -> None:
    """Make a device known and somebody's, in the published way."""
    assert hub.http("POST", "/api/devices/register", {"device_id": device_id}).status == 200
    query = urllib.parse.urlencode({"device_id": device_id})
    code = hub.http("POST", f"/api/pairing/generate?{query}").json["code"]
    assert owner("POST", "/api/devices/pair", {"pairing_code": code}).status == 200
