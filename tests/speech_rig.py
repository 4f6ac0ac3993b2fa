"""One of the three speech services, as a process of its own on a free port. Ended by pid."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import warm
from tests.rig import clean_environ, free_port, until
from tests.warm import Forked

LIMIT_S = 30.0
_SERVICES = " ".join(f"procs.speech.{which}.service" for which in ("stt", "tts", "llm"))
WARM = f"procs.speech.stt.birth procs.speech.shell {_SERVICES}"


@dataclass
class Service:
    """A running one."""

    which: str
    port: int
    process: Forked
    log: Path

    @property
    def url(self) -> str:
        """For its WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """One request: status and body."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        with contextlib.closing(line):
            sent = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            line.request(method, path, sent, headers)
            answer = line.getresponse()
            return answer.status, answer.read()

    def figure(self, name: str) -> float:
        """One of its metrics."""
        lines = self.call("GET", "/metrics")[1].decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def json(self, method: str, path: str, body: object = None) -> Any:
        """What it answers, as JSON."""
        return json.loads(self.call(method, path, body)[1])


@contextmanager
def service(which: str, run_dir: Path, *, port: int = 0, **environ: str) -> Iterator[Service]:
    """Run one until the end of the block; `environ` adds variables."""
    port = port or free_port()
    run_dir.mkdir(mode=0o700, exist_ok=True)
    log = run_dir / f"speech-{which}-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        words = ["-m", "procs.speech", which, f"--{which}", f"127.0.0.1:{port}"]
        environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir), **environ)
        process = warm.start(words, WARM, environ, stdout=out, stderr=out)
    started = Service(which, port, process, log)
    try:
        until(lambda: _answers(started), LIMIT_S)
        yield started
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _answers(started: Service) -> bool:
    assert started.process.poll() is None, started.log.read_text()
    try:
        return started.call("GET", "/api/build_info")[0] == 200
    except OSError:
        return False
