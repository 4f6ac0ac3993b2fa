"""The same programs under three supervisors, one at a time, in a checkout of their own: ours, stock supervisord, s6.

The peers run what `cli.py up` has laid out for ours: go2rtc by scripts/exec_go2rtc.py, a capture by its script.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from procs import proc
from procs.errors import Unhealthy
from procs.kinds import ADDRESS
from procs.settings import ROOT
from scripts import go2rtc_binary, suite
from scripts.capture_programs import FOLDER
from tests import rig
from tests.clone import Clone

CAPTURE, STREAM = "cam", "omega-0"
# What of our supervisord.conf stock supervisord understands and has a peer in; the capture's program is included.
STOCK = ("supervisord", "unix_http_server", "rpcinterface:supervisor", "program:go2rtc")
STOCK_CONF = "stock.conf"
PICTURE = "picture.h264"
# One keyframe again and again, from the command's first milliseconds on: what is measured is our part of a capture.
WRITER = f"while cat {PICTURE}; do sleep 0.1; done"
START_LIMIT_S = 30.0


class Ground:
    """A checkout in which one supervisor after the other runs; each ends what it started."""

    def __init__(self, root: Path) -> None:
        self.root, self._clone = root, Clone(root)
        (root / ".venv").symlink_to(ROOT / ".venv")
        self.api, self.rtsp = ADDRESS.parse(self._clone.api), ADDRESS.parse(self._clone.rtsp)
        self.metrics, self.hub = ADDRESS.parse(self._clone.metrics), ADDRESS.parse(self._clone.hub)
        binary = go2rtc_binary.find_or_fetch(ROOT, os.environ, lambda text: None)
        self.environ = rig.clean_environ(GO2RTC_BIN=str(binary))
        self._clone.write_settings(workers=1, captures={CAPTURE: f"sh -c {shlex.quote(WRITER)}"})
        self.fifo = root / f"temp/streams/{CAPTURE}.ts"
        (root / PICTURE).write_bytes(_one_picture())

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """As a person brings it up."""
        with self._ended():
            done = self._clone.cli("up", environ=self.environ)
            if done.returncode:
                raise Unhealthy(f"the bench's suite does not come up: {done.stderr.strip()[-500:]}")
            yield

    @contextlib.contextmanager
    def stock(self) -> Iterator[None]:
        """supervisord without our plugin, warden and keeper."""
        ours, theirs = (configparser.RawConfigParser(inline_comment_prefixes=(" ;",)) for _ in range(2))
        ours.read(self.root / "supervisord.conf")
        for section in STOCK:
            theirs[section] = ours[section]
        theirs["include"] = {"files": f"{FOLDER}/captures.conf"}
        with (self.root / STOCK_CONF).open("w") as file:
            theirs.write(file)
        with self._running([".venv/bin/python", "-m", "supervisor.supervisord", "--nodaemon", "-c", STOCK_CONF]):
            yield

    @contextlib.contextmanager
    def s6(self) -> Iterator[None]:
        """s6-svscan with one s6-supervise for each program."""
        capture = shlex.quote(str(self.root / FOLDER / f"{CAPTURE}.sh"))
        commands = {"go2rtc": ".venv/bin/python -S -E scripts/exec_go2rtc.py", "capture": f"/bin/sh {capture}"}
        for name, command in commands.items():
            run = self.root / "s6" / name / "run"
            run.parent.mkdir(parents=True, exist_ok=True)
            run.write_text(f"#!/bin/sh\ncd {shlex.quote(str(self.root))} && exec {command}\n")
            run.chmod(0o700)
        with self._running(["s6-svscan", "s6"]):
            yield

    @contextlib.contextmanager
    def _running(self, command: Sequence[str]) -> Iterator[None]:
        environ = {**self.environ, proc.MARK: str(self.root), "PLANARIA_RUN_DIR": str(self.root / "run")}
        with self._ended(), subprocess.Popen(
            command, cwd=self.root, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as running:  # fmt: skip
            try:
                yield
            finally:
                running.send_signal(signal.SIGKILL)

    @contextlib.contextmanager
    def _ended(self) -> Iterator[None]:
        suite.kill_all(self.root)
        try:
            yield
        finally:
            suite.kill_all(self.root)

    def pids(self, name: str) -> list[int]:
        """The living processes of a program, without what they have forked themselves."""
        if name == "supervisord":
            return [pid] if (pid := proc.supervisord(self.root)) else []
        sought = str(self.root / "run/go2rtc") if name == "go2rtc" else f"procs.{name}"
        found = [pid for pid in proc.marked(self.root) if sought in proc.words(pid)[:5]]
        if name == "proxy":  # the first of them
            found = [pid for pid in found if proc.words(pid)[-2:] == ["--instance", "0"]]
        return [pid for pid in found if (its := proc.stat(pid)) and its.parent not in found]


def _one_picture() -> bytes:
    """A keyframe of H.264, with all that a decoder needs."""
    size = ["--width", "320", "--height", "180"]
    once = [*rig.AGENT, *size, "--fps", "1", "--duration", "1", "--out", "h264"]
    done = subprocess.run(
        once, cwd=ROOT, env=rig.clean_environ(), capture_output=True, timeout=START_LIMIT_S, check=True
    )
    return done.stdout.removesuffix(b"\0\0\0\1g")  # the head of the next one, which it writes ahead
