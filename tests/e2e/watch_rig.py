"""What watch sessions are seen with: our suite in one home, viewers in another, the hub and coturn between them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from procs import proc
from procs.settings import ROOT
from scripts import suite
from tests import hub_rig
from tests.clone import Clone
from tests.faults import invariants
from tests.hub_rig import Process
from tests.nat import Place, Turn, World
from tests.rig import until

DEVICE, STREAM = "yard-001", "omega-0"
LIMIT_S = 20.0


@contextmanager
def hub_in(world: World, turn: Turn, folder: Path) -> Iterator[Process]:
    """A hub that knows of that TURN server. The test is beside it from then on; the homes have it on their loopback."""
    with world.hub.entered():
        hub_process = hub_rig.process(
            folder / "hub",
            PLANARIA_COMPAT="1",
            STUN_URLS=turn.stun_url,
            TURN_URLS=turn.url,
            TURN_SECRET=turn.secret,
        )
        with hub_process as hub:
            world.publish(hub.port)
            yield hub


@dataclass
class Camera:
    """Our suite as a device of somebody's, at home."""

    place: Place
    clone: Clone
    device_id: str

    def processes(self) -> dict[int, str]:
        """Its living processes, by pid, with the names they have in the suite."""
        return invariants.names(invariants.look(self.clone.root))

    def pids(self, name: str) -> list[int]:
        """Those of one program, oldest first."""
        return sorted(pid for pid, its in self.processes().items() if its.split("#")[0] == name)

    def kill(self, name: str) -> int:
        """SIGKILL to one; its pid."""
        pid = until(lambda: self.pids(name), LIMIT_S)[0]
        os.kill(pid, signal.SIGKILL)
        return pid

    def sessions(self) -> list[int]:
        """The children that serve a session each: of webrtc_peer's leader they are the grandchildren."""
        return [pid for leader in self.pids("webrtc_peer") for zygote in proc.children(leader)
                for pid in proc.children(zygote)]  # fmt: skip

    def streams(self) -> dict[str, Any]:
        """What go2rtc says of its streams."""
        found: dict[str, Any] = json.loads(self._get(self.clone.api, "/api/streams"))
        return found

    def metrics(self) -> str:
        """What Prometheus would be told."""
        return self._get(self.clone.metrics, "/metrics").decode()

    def status(self) -> dict[str, Any]:
        """`make status JSON=1`."""
        with self.place.entered():
            found: dict[str, Any] = json.loads(self.clone.cli("status", "--json").stdout)
        return found

    def _get(self, address: str, path: str) -> bytes:
        host, _, port = address.rpartition(":")
        with self.place.entered():
            connection = http.client.HTTPConnection(host, int(port), timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", path)
                return connection.getresponse().read()

    def consumers(self, stream: str = STREAM) -> list[dict[str, Any]]:
        """Who pulls a stream from go2rtc."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            return list(self.streams().get(stream, {}).get("consumers") or [])
        return []


@contextmanager
def camera_in(place: Place, hub: Process, folder: Path, device_id: str = DEVICE) -> Iterator[Camera]:
    """`make up` there, as a device with streams of the hub's admin."""
    clone = Clone(folder)
    clone.settings = {"producer": {"width": 320, "height": 180, "fps": 30, "gop": 30, "bitrate": "500k"}, "workers": 2}
    clone.write_settings()
    lines = [f"BACKEND_URL=ws://127.0.0.1:{hub.port}/ws/device", f"DEVICE_ID={device_id}",
             'PLANARIA_ROLES="device streams"']  # fmt: skip
    (folder / ".env").write_text("\n".join(lines) + "\n")
    clone.install()
    try:
        with place.entered():
            done = clone.make("up")
        assert done.returncode == 0, done.stderr
        hub_rig.paired(hub, hub.admin, device_id)
        yield Camera(place, clone, device_id)
    finally:
        suite.kill_all(clone.root)


def minimal(place: Place, hub: Process, token: str, device: str, *flags: str) -> subprocess.Popen[str]:
    """The viewer of tests/viewer_minimal.py, there."""
    words = [sys.executable, "-m", "tests.viewer_minimal", f"http://127.0.0.1:{hub.port}", device, f"--token={token}"]
    return subprocess.Popen(
        place.command(*words, *flags), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def report(viewer: subprocess.Popen[str], within_s: float = 40.0) -> dict[str, Any]:
    """What it reports at its end."""
    out, errors = viewer.communicate(timeout=within_s)
    assert out, errors
    found: dict[str, Any] = json.loads(out)
    return found


@contextmanager
def published(place: Place, hub: Process, device_id: str, *flags: str) -> Iterator[None]:
    """The device of tests/device_published.py, there, as one of the hub's admin."""
    words = [sys.executable, "-m", "tests.device_published", f"http://127.0.0.1:{hub.port}", device_id]
    with subprocess.Popen(place.command(*words, *flags), cwd=ROOT, stdout=subprocess.PIPE, text=True) as device:
        try:
            assert device.stdout
            assert device.stdout.readline() == "online\n"
            if device_id not in {each["device_id"] for each in hub.admin("GET", "/api/devices").json}:
                hub_rig.paired(hub, hub.admin, device_id)
            yield
        finally:
            device.kill()


@contextmanager
def blind(place: Place, hub: Process, token: str, device: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """So many viewers there, who all have pictures and decode none. Whoever kills them: they say no goodbye."""
    words = [sys.executable, "-m", "tests.bench.watchers", f"http://127.0.0.1:{hub.port}", device, f"--token={token}"]
    command = place.command(*words, "--count", str(count))
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout
            assert running.stdout.readline() == "playing\n"
            yield running
        finally:
            running.kill()


def descriptors(pid: int) -> int:
    """How many a process has open, but for what it opens at its first use and keeps, whoever comes: a connection to the
    store for each of its threads, and the event loop's reserve."""
    kept = re.compile(r"/dev/null|.*/hub\.sqlite(-wal|-shm)?")
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += not kept.fullmatch(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found
