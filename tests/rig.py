"""A real go2rtc on free ports with the configuration that we generate, for tests and benches. Ended by pid."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from procs.kinds import Address
from procs.settings import ROOT
from scripts import go2rtc_binary, health
from scripts.go2rtc_generate_config import configuration, find_ffmpeg
from scripts.plan import load_plan
from scripts.suite_settings import Suite

T = TypeVar("T")
_given: set[int] = set()
WORKERS = 16  # at most, each with ports of its own
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
SELDOM_S = 0.1  # between two looks at what takes seconds to come
EXEC_KNOWN_S = 0.2  # go2rtc's API answers before it knows of exec:, and nothing tells when it does
AGENT = [sys.executable, "-m", "procs.headless_agent"]


def free_port() -> int:
    """A port of loopback that nobody has right now, TCP and UDP; never the same twice in one run. The kernel gives it
    to nobody by itself: a suite that was down for a moment must find its ports free."""
    while True:
        port = random.randrange(10_096, 31_984) // WORKERS * WORKERS + WORKER  # 10080 is one that browsers refuse
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def until(look: Callable[[], T | None], within_s: float = 20.0, every_s: float = 0.02) -> T:
    """What `look` gives once it is true. Fails the test after the limit. A look that takes long, as one that starts a
    process does, is taken the more seldom, and so is any for what takes long to come: what is waited for needs the
    processor more than we."""
    first = time.monotonic()
    while True:
        began = time.monotonic()
        if found := look():
            return found
        now = time.monotonic()
        assert now < first + within_s, f"not within {within_s:g} s: {look}"
        time.sleep(max(every_s, 3 * (now - began), min(SELDOM_S, (now - first) / 20)))


def clean_environ(**more: str) -> dict[str, str]:
    """This process's environment without anything that sets ours up."""
    kept = {k: v for k, v in os.environ.items() if not re.match(r"PLANARIA_|METABONK_|GO2RTC_", k)}
    return {**kept, **more}


@dataclass
class Go2rtc:
    """A running go2rtc."""

    process: subprocess.Popen[bytes]
    api: Address
    rtsp: Address
    run_dir: Path
    log: Path

    def url(self, path: str) -> str:
        """An address of its API or pages."""
        return f"http://{self.api}/{path.lstrip('/')}"

    def stream(self, name: str) -> str:
        """The RTSP address of a stream."""
        return f"rtsp://{self.rtsp}/{name}"

    def producers(self, name: str = "") -> list[int]:
        """Pids of its living producers, of one stream or of all."""
        found = []
        for child in children(self.process.pid):
            command = command_line(child)
            if "procs.headless_agent" in command and (not name or name in command):
                found.append(child)
        return found


def children(parent: int) -> list[int]:
    """Pids of the living children of a process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry))
    return found


def command_line(pid: int) -> list[str]:
    """The arguments a process was started with."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []


@contextmanager
def go2rtc(
    document: Mapping[str, Any] | None = None,
    *,
    sources: Mapping[str, str | list[str]] | None = None,
    webrtc: Mapping[str, Any] | None = None,
    run_dir: Path | None = None,
) -> Iterator[Go2rtc]:
    """Run go2rtc on what `document` (as planaria.yaml) generates. `sources`: go2rtc sources added as they are;
    `webrtc`: what else its part of that name says."""
    directory = Path(tempfile.mkdtemp(prefix="planaria-"))
    run = run_dir or directory / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    settings_file = directory / "planaria.yaml"
    settings_file.write_text(yaml.safe_dump(dict(document or {})))
    plan = load_plan(ROOT, clean_environ(PLANARIA_SETTINGS=str(settings_file)))
    ports = [Address("127.0.0.1", free_port()) for _ in range(3)]
    plan = replace(plan, suite=plan.suite.but(api=ports[0], rtsp=ports[1], webrtc=ports[2]))
    binary = go2rtc_binary.find_or_fetch(ROOT, os.environ, lambda text: None)
    config = configuration(ROOT, plan, find_ffmpeg(plan.suite), gop_cache=go2rtc_binary.has_gop_cache(binary))
    config["webrtc"] |= webrtc or {}
    if sources:
        config["streams"] |= sources
        del config["exec"]["allow_paths"]
    (directory / "go2rtc.yaml").write_text(yaml.safe_dump(config))
    log = directory / "go2rtc.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [binary, "-config", directory / "go2rtc.yaml"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=clean_environ(PLANARIA_RUN_DIR=str(run)),
        )
    try:
        until(lambda: _answers(plan.suite))
        time.sleep(EXEC_KNOWN_S)
        yield Go2rtc(process, ports[0], ports[1], run, log)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _answers(settings: Suite) -> bool:
    try:
        health.get_json(settings, "/api/streams")
    except OSError:
        return False
    return True
