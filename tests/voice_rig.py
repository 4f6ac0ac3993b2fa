"""A voice backend as a process of its own on a free port, devices that only count who calls, and speech services that
only say that they are there. Ended by pid."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests import warm
from tests.rig import clean_environ, free_port, until
from tests.warm import Forked

LIMIT_S = 20.0
VOICE = ("-m", "procs.voice")
WARM = "procs.voice.birth procs.voice.shell"
# The same with children that only dial and beat (tests/voice_children.py).
BARE = (
    "-c",
    "from procs import brood, life\nfrom procs.voice import options\n"
    "BROOD = brood.hatch('voice', 'tests.voice_children', 'live')\nfrom procs.voice import shell\n"
    "life.run('voice', options.load, lambda s, a: shell.serve(s, a, BROOD), hang_limit_s=3.0)",
)


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


@dataclass
class Backend:
    """One."""

    folder: Path  # with its run directory and its devices.json
    environ: dict[str, str]
    command: tuple[str, ...] = VOICE
    port: int = field(default_factory=free_port)
    process: Forked = field(init=False)

    @property
    def file(self) -> Path:
        """Its devices.json."""
        return self.folder / "devices.json"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "voice.log"

    def write(self, *devices: Mapping[str, object]) -> None:
        """Its devices.json, as a person's editor writes it."""
        beside = self.file.with_suffix(".tmp")
        beside.write_text(json.dumps({"devices": devices}))
        beside.rename(self.file)

    def start(self) -> None:
        """Start it; `wait` waits until it serves."""
        with self.log.open("ab") as out:
            environ = clean_environ(
                PLANARIA_RUN_DIR=str(self.folder / "run"),
                REMOTE_DEVICES_CONFIG=str(self.file),
                HOST="127.0.0.1",
                PORT=str(self.port),
                PLANARIA_LOG="json",
                **self.environ,
            )
            self.process = warm.start(self.command, WARM, environ, stdout=out, stderr=out)

    def wait(self) -> None:
        """Until it serves."""
        until(self._answers, LIMIT_S)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(OSError):
            return self("GET", "/").status == 200
        return False

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request. `body`: bytes as they are, anything else as JSON."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        with contextlib.closing(line):
            sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            line.request(method, quote(path, safe="/?=&"), sent, headers)
            answer = line.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def device(self, name: str) -> dict[str, Any]:
        """How one does."""
        found: dict[str, Any] = self("GET", f"/v1/devices/{name}").json
        return found

    def until_state(self, name: str, state: str, within_s: float = LIMIT_S) -> None:
        """Until a device is in that state."""
        until(lambda: self.device(name).get("state") == state, within_s)

    def lines(self, name: str) -> list[str]:
        """What was said there."""
        return [each["text"] for each in self("GET", f"/v1/devices/{name}/lines").json["lines"]]

    def metric(self, name: str) -> float:
        """One line of /metrics; 0 where it is not there."""
        for line in self("GET", "/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0


@contextmanager
def backend(
    folder: Path, *devices: Mapping[str, object], whole: bool = False, environ: Mapping[str, str] | None = None
) -> Iterator[Backend]:
    """One, once it serves, until the end of the block; `whole`: with real children."""
    (folder / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
    its = Backend(folder, dict(environ or {}), VOICE if whole else BARE)
    if devices:
        its.write(*devices)
    its.start()
    try:
        its.wait()
        yield its
    except BaseException:
        print(its.said())
        raise
    finally:
        its.kill()


class FakeDevice:
    """A device that lets everybody in and counts: `now` who is there, `most` who was at once."""

    def __init__(self) -> None:
        self.port = free_port()
        self.now = self.most = self.calls = 0
        self.heard: list[str] = []
        self.headers: list[str | None] = []
        self._lock = threading.Lock()
        self._server = serve(self._serve, "127.0.0.1", self.port)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def entry(self, name: str, **more: object) -> dict[str, object]:
        """For devices.json."""
        return {"name": name, "host": "127.0.0.1", "port": self.port, "reconnect_delay": 0.1, **more}

    def _serve(self, connection: ServerConnection) -> None:
        assert connection.request
        with self._lock:
            self.headers.append(connection.request.headers.get("Authorization"))
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.heard.append(str(connection.recv()))
        with self._lock:
            self.now -= 1

    def end(self) -> None:
        """Gone."""
        self._server.shutdown()


@contextmanager
def devices(number: int = 1) -> Iterator[list[FakeDevice]]:
    """Some, until the end of the block."""
    made = [FakeDevice() for _ in range(number)]
    try:
        yield made
    finally:
        for each in made:
            each.end()


class _Up(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"data": [{"id": "one"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def services() -> Iterator[dict[str, str]]:
    """The variables of three services that say that they are up."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), _Up)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"127.0.0.1:{server.server_port}"
    try:
        yield {"KYUTAI_STT_URL": f"ws://{at}", "KYUTAI_TTS_URL": f"ws://{at}", "KYUTAI_LLM_URL": f"http://{at}"}
    finally:
        server.shutdown()
        server.server_close()


def seconds_until(look: Any, within_s: float = LIMIT_S) -> float:
    """How long it takes until `look` is true."""
    began = time.monotonic()
    until(look, within_s)
    return time.monotonic() - began
