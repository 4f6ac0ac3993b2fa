"""The suite that the watch bench measures, as `make up` makes it, with its peers beside it: go2rtc's own WebRTC opened,
and a device of the older kind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml

from procs import proc
from procs.errors import Unhealthy
from procs.kinds import ADDRESS
from procs.settings import ROOT
from scripts import suite
from tests.clone import Clone
from tests.faults import invariants
from tests.hub_rig import Http
from tests.rig import until
from tests.viewers import RtspViewer

STREAM, OLDER, PASSWORD = "omega-0", "older-001", "the-password-of-a-bench"
PRODUCER = {"width": 1280, "height": 720, "fps": 30, "gop": 30, "bitrate": "2M"}
LIMIT_S = 30.0
LEFT_S = 30.0  # go2rtc serves a WebRTC viewer who is dead for 5 s more, and webrtc_peer pulls a stream for another 10


class Ground:
    """A suite that has all of it, and its admin."""

    def __init__(self, clone: Clone) -> None:
        self.clone, self.root = clone, clone.root
        self.hub, self.go2rtc = f"http://{clone.hub}", f"http://{clone.api}"
        self.admin: Http = Http(int(clone.hub.rpartition(":")[2])).as_user("admin", PASSWORD)
        self.device = str(json.loads((self.root / "run/device.json").read_text())["device_id"])
        self.older_pid = 0
        self._viewer: RtspViewer | None = None

    def pids(self, *names: str) -> list[int]:
        """The living processes of these programs."""
        found = invariants.names(invariants.look(self.root))
        return [pid for pid, name in found.items() if name.split("#")[0] in names]

    def sessions(self) -> list[int]:
        """The processes that serve one viewer each."""
        return [pid for leader in self.pids("webrtc_peer") for zygote in proc.children(leader)
                for pid in proc.children(zygote)]  # fmt: skip

    def settle(self) -> None:
        """Wait until go2rtc serves nobody but one viewer, who keeps the producer running."""
        until(self._is_settled, LEFT_S, 0.5)

    def _is_settled(self) -> bool:
        if not self._viewer or not self._viewer.is_alive():
            self._viewer = RtspViewer(ADDRESS.parse(self.clone.rtsp), STREAM)
            self._viewer.start()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError), opener.open(f"{self.go2rtc}/api/streams", timeout=5) as answer:
            return sum(len(stream["consumers"] or []) for stream in json.loads(answer.read()).values()) == 1
        return False  # it is being started

    def groups(self, kind: str) -> dict[str, list[int]]:
        """The processes that send to viewers of that kind, by what they are."""
        more = {
            "go2rtc": {},
            "ours": {"leader": self.pids("webrtc_peer"), "children": self.sessions()},
            "older": {"device": [self.older_pid]},
        }[kind]
        return {"go2rtc": self.pids("go2rtc"), **more}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Ground]:
    """As `make up` makes it, with a viewer so that the producer runs all the time."""
    clone = Clone(folder)
    clone.write_settings(workers=1, producer=PRODUCER)
    (folder / ".env").write_text(f"PLANARIA_COMPAT=1\nPLANARIA_ADMIN_PASSWORD={PASSWORD}\n")
    clone.install()
    try:
        done = clone.make("up")
        if done.returncode:
            raise Unhealthy(f"the bench's suite does not come up: {done.stderr.strip()[-500:]}")
        ground = Ground(clone)
        _open_webrtc(ground)
        ground.settle()
        yield ground
    finally:
        suite.kill_all(folder)


def _open_webrtc(ground: Ground) -> None:
    """On loopback alone, as it is by default, go2rtc's own WebRTC answers nobody by UDP; and it must not look for STUN
    servers, which are not here."""
    path = ground.root / "run/go2rtc.yaml"
    head, _, text = path.read_text().partition("\n")
    config = yaml.safe_load(text)
    config["webrtc"] = {"listen": f":{ground.clone.webrtc.rpartition(':')[2]}", "candidates": [], "ice_servers": []}
    written = yaml.safe_dump(config)
    words = head.split(" ")
    words[2] = hashlib.sha256(written.encode()).hexdigest()  # a configuration that is not as it was written is refused
    path.write_text(" ".join(words) + "\n" + written)
    (before,) = ground.pids("go2rtc")
    os.kill(before, signal.SIGKILL)
    until(lambda: before not in (pids := ground.pids("go2rtc")) and pids, LIMIT_S)
    until(lambda: _is_up(f"{ground.go2rtc}/api/streams"), LIMIT_S)


def _is_up(address: str) -> bool:
    with contextlib.suppress(OSError):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5).close()
        return True
    return False


@contextlib.contextmanager
def older(ground: Ground) -> Iterator[None]:
    """A device of the older kind beside it, of the same admin and with the same stream."""
    source = f"rtsp://{ground.clone.rtsp}/{STREAM}"
    words = [sys.executable, "-m", "tests.device_published", ground.hub, OLDER, "--source", source]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as device:
        try:
            if not device.stdout or device.stdout.readline() != "online\n":
                raise Unhealthy("the older device does not come up")
            code = Http(ground.admin.port)("POST", f"/api/pairing/generate?device_id={OLDER}").json["code"]
            ground.admin("POST", "/api/devices/pair", {"pairing_code": code})
            ground.older_pid = device.pid
            yield
        finally:
            device.kill()


@contextlib.contextmanager
def watchers(ground: Ground, kind: str, count: int) -> Iterator[None]:
    """So many viewers, who have pictures."""
    what = {
        "go2rtc": ["go2rtc", f"{ground.go2rtc}/api/webrtc?src={STREAM}"],
        "ours": [ground.hub, ground.device, f"--token={ground.admin.token}"],
        "older": [ground.hub, OLDER, f"--token={ground.admin.token}"],
    }[kind]
    words = [sys.executable, "-m", "tests.bench.watchers", *what, "--count", str(count)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            if not running.stdout or running.stdout.readline() != "playing\n":
                raise Unhealthy(f"{kind}: its viewers see nothing")
            yield
        finally:
            running.kill()
