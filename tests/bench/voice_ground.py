"""What the second part of the voice bench stands on: services that answer from memory, a crowd of idle devices, and how
much memory processes have."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from procs.errors import Unhealthy
from procs.kinds import Address
from procs.settings import ROOT
from tests import conversing, rig, voice_rig
from tests.bench import signs, wall
from tests.voice_rig import Backend


def backend(folder: Path, services: Mapping[str, str], *devices: Mapping[str, Any]) -> Any:
    """One, as it is run, until the end of the block."""
    return voice_rig.backend(folder, *devices, whole=True, environ=services)


def child_at(its: Backend, port: int) -> int:
    """The pid of the conversation with the device at that port. Raises Unhealthy."""
    sockets = conversing.connected_to(port)
    for pid in wall.family(its.process.pid):
        if sockets & conversing.sockets_of(pid):
            return pid
    raise Unhealthy(f"nobody is connected to port {port}")


class Seen(NamedTuple):
    """Something that a service from memory saw."""

    what: str
    at: float  # time.monotonic()
    seconds: float  # without a voice, where it is a pause


class Fakes(NamedTuple):
    """Services that answer from memory."""

    pid: int
    port: int

    @property
    def environ(self) -> dict[str, str]:
        """Where a backend finds them."""
        at = f"127.0.0.1:{self.port}"
        return {"KYUTAI_STT_URL": f"ws://{at}", "KYUTAI_TTS_URL": f"ws://{at}", "KYUTAI_LLM_URL": f"http://{at}"}

    def seen(self) -> list[Seen]:
        """What they saw since they were asked last."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=signs.LIMIT_S)
        with contextlib.closing(line):
            line.request("GET", "/seen")
            return [Seen(*each) for each in json.load(line.getresponse())]


@contextlib.contextmanager
def fakes(folder: Path, reply: str) -> Iterator[Fakes]:
    """Those that answer so, until the end of the block."""
    port = rig.free_port()
    command = [sys.executable, "-m", "tests.bench.voice_fakes", str(port), reply]
    with wall.started(command, os.environ, folder / "fakes.log") as running:
        page = signs.page(Address("127.0.0.1", port), "/api/build_info")
        signs.wait_for(lambda: page.seen_s(0.0), "services from memory")
        yield Fakes(running.pid, port)


@contextlib.contextmanager
def crowd(count: int, sound_s: float) -> Iterator[list[int]]:
    """The ports of so many idle devices, which are one process, until the end of the block."""
    command = [sys.executable, "-m", "tests.bench.voice_crowd", str(count), str(sound_s)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout
            ports: list[int] = json.loads(running.stdout.readline())
            yield ports
        finally:
            running.kill()


class Memory(NamedTuple):
    """In 10^6 bytes, of several processes."""

    pss: float  # what all of them share counts once
    private: float


def memory(pids: list[int]) -> Memory:
    """Theirs."""
    pss = private = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            pss += kb["Pss"]
            private += kb["Private_Clean"] + kb["Private_Dirty"]
    return Memory(pss * 1024 / 1e6, private * 1024 / 1e6)
