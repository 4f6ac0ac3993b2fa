"""Watch: what a viewer over WebRTC costs the device, how soon and how late they see, and how long they stand still when
something is killed.

Peers, in turn with ours on the same stream: go2rtc's own WebRTC (POST /api/webrtc) with the same viewers, and aiortc as
published agents use it, which decodes and encodes for each viewer (tests/device_published.py). All is one suite in a
network namespace of its own (tests/nat.py), with Chromium beside it: no network is measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import yaml
from playwright.sync_api import Browser, Page

from procs import proc
from procs.errors import NotHere, Unhealthy
from procs.settings import ADDRESS, ROOT
from scripts import suite
from tests import nat
from tests.bench.measure import Result, cpu_s, median, percentile, say
from tests.clone import Clone
from tests.e2e import player
from tests.e2e.chromium import chromium
from tests.faults import invariants
from tests.hub_rig import Http
from tests.rig import until
from tests.viewers import RtspViewer

STREAM, OLDER, PASSWORD = "omega-0", "older-001", "the-password-of-a-bench"
PRODUCER = {"width": 1280, "height": 720, "fps": 30, "gop": 30, "bitrate": "2M"}
KILLED = ("webrtc_peer", "ws_link", "hub", "go2rtc", "go2rtc/headless_agent")
SETTLED_S, LIMIT_S = 1.0, 30.0


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    viewers: int
    older_viewers: int
    window_s: float
    looks: int  # of Chromium at each, a round
    look_s: float
    kills: int  # of each process


def bench(quick: bool) -> Result:
    """Run it all. Raises NotHere without Chromium, nft or root."""
    for program in ("chromium", "nft", "nsenter"):
        if not shutil.which(program):
            raise NotHere(f"{program} is missing; sh scripts/setup_tests.sh says how to get it")
    if nat.why_not():
        raise NotHere(nat.why_not())
    plan = Plan(1, 3, 1, 3.0, 2, 1.5, 1) if quick else Plan(5, 6, 1, 10.0, 6, 5.0, 6)
    result = Result("watch", targets=_targets())
    result.peers = {"go2rtc": "its own WebRTC, POST /api/webrtc", "older": "aiortc that decodes and encodes"}
    with ExitStack() as stack:
        world = stack.enter_context(nat.world())
        stack.enter_context(world.device.entered())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planaria-bench-")))
        ground = stack.enter_context(_ground(folder))
        stack.enter_context(_older(ground))
        browser = stack.enter_context(chromium())
        _costs(result, plan, ground)
        _looks(result, plan, ground, browser)
        _kills(result, plan, ground, browser)
    return result


# --- the suite ----------------------------------------------------------------------------------------


class Ground:
    """A suite that has all of it, and its admin."""

    def __init__(self, clone: Clone) -> None:
        self.clone, self.root = clone, clone.root
        self.hub, self.go2rtc = f"http://{clone.hub}", f"http://{clone.api}"
        self.admin: Http = Http(int(clone.hub.rpartition(":")[2])).as_user("admin", PASSWORD)
        self.device = str(json.loads((self.root / "run/device.json").read_text())["device_id"])
        self.older_pid = 0

    def pids(self, *names: str) -> list[int]:
        """The living processes of these programs."""
        found = invariants.names(invariants.look(self.root))
        return [pid for pid, name in found.items() if name.split("#")[0] in names]

    def sessions(self) -> list[int]:
        """The processes that serve one viewer each."""
        return [pid for leader in self.pids("webrtc_peer") for zygote in proc.children(leader)
                for pid in proc.children(zygote)]  # fmt: skip

    def tree(self) -> list[int]:
        """webrtc_peer with all its children."""
        leaders = self.pids("webrtc_peer")
        zygotes = [pid for leader in leaders for pid in proc.children(leader)]
        return [*leaders, *zygotes, *self.sessions()]


@contextlib.contextmanager
def _ground(folder: Path) -> Iterator[Ground]:
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
        RtspViewer(ADDRESS.parse(clone.rtsp), STREAM).start()
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
def _older(ground: Ground) -> Iterator[None]:
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


# --- what a viewer costs ------------------------------------------------------------------------------


@contextlib.contextmanager
def _watchers(ground: Ground, kind: str, count: int) -> Iterator[None]:
    """So many viewers, who have pictures."""
    what = {
        "go2rtc": ["go2rtc", f"{ground.go2rtc}/api/webrtc?src={STREAM}"],
        "ours": [ground.hub, ground.device, "--token", ground.admin.token],
        "older": [ground.hub, OLDER, "--token", ground.admin.token],
    }[kind]
    words = [sys.executable, "-m", "tests.bench.watchers", *what, "--count", str(count)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            if not running.stdout or running.stdout.readline() != "playing\n":
                raise Unhealthy(f"{kind}: its viewers see nothing")
            yield
        finally:
            running.kill()


def _spent(pids: list[int]) -> float:
    """CPU seconds of those that live."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += cpu_s(pid)
    return total


def _rate(pids: Callable[[], list[int]], seconds: float) -> float:
    """CPU milliseconds a second that these use from now on."""
    chosen = pids()
    before, since_s = _spent(chosen), time.monotonic()
    time.sleep(seconds)
    return 1000 * (_spent(chosen) - before) / (time.monotonic() - since_s)


def _costs(result: Result, plan: Plan, ground: Ground) -> None:
    """CPU of a viewer: of all who send, less what they use with nobody there."""
    senders: dict[str, Callable[[], list[int]]] = {
        "go2rtc": lambda: ground.pids("go2rtc"),
        "ours": lambda: [*ground.pids("go2rtc"), *ground.tree()],
        "older": lambda: [*ground.pids("go2rtc"), ground.older_pid],
    }
    counts = {"go2rtc": plan.viewers, "ours": plan.viewers, "older": plan.older_viewers}
    found: dict[str, list[float]] = {kind: [] for kind in senders}
    private: list[float] = []
    for number in range(plan.rounds):
        say(f"what a viewer costs, round {number + 1} of {plan.rounds}")
        for kind, pids in senders.items():
            idle = _rate(pids, plan.window_s / 2)
            with _watchers(ground, kind, counts[kind]):
                time.sleep(SETTLED_S)
                found[kind].append((_rate(pids, plan.window_s) - idle) / counts[kind])
                if kind == "ours":
                    private += [_private_mb(pid) for pid in ground.sessions()]
    result.figures["cpu_ms_per_viewer_second"] = round(median(found["ours"]), 2)
    for kind in ("go2rtc", "older"):
        result.figures[f"{kind}.cpu_ms_per_viewer_second"] = round(median(found[kind]), 2)
    result.figures["private_mb"] = round(median(private), 1)
    result.ratio("reencode_cpu_over_ours", found["older"], found["ours"])
    result.ratio("cpu_vs_go2rtc", found["ours"], found["go2rtc"])


def _private_mb(pid: int) -> float:
    """What a process has for itself alone, in 10^6 bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


# --- how soon, and how late ---------------------------------------------------------------------------


def _of_go2rtc(ground: Ground, page: Page) -> None:
    page.goto(f"{ground.go2rtc}/")
    offer = player.asked_go2rtc(player.offer(page))
    address = f"{ground.go2rtc}/api/webrtc?src={STREAM}"
    request = urllib.request.Request(address, offer, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=LIMIT_S) as answer:
        player.answer(page, json.loads(answer.read())["sdp"])


def _of_ours(ground: Ground, page: Page) -> None:
    page.goto(f"{ground.hub}/health")
    player.watch(page, ground.admin.token, ground.device)


def _looks(result: Result, plan: Plan, ground: Ground, browser: Browser) -> None:
    """Chromium's first picture after the click, and glass to glass by barcode."""
    ways = {"go2rtc": _of_go2rtc, "ours": _of_ours}
    firsts: dict[str, list[float]] = {kind: [] for kind in ways}
    ages: dict[str, list[float]] = {kind: [] for kind in ways}
    for number in range(plan.rounds * plan.looks):
        say(f"looks, {number + 1} of {plan.rounds * plan.looks}")
        for kind, look in ways.items():
            page = browser.new_page()
            player.remember(page)
            look(ground, page)
            seen = until(lambda page=page: player.pictures(page), LIMIT_S)  # type: ignore[misc]
            firsts[kind].append(seen[0].shown_ms - player.clicked_ms(page))
            page.wait_for_timeout(1000 * plan.look_s)
            ages[kind].append(median([picture.age_ms for picture in player.pictures(page)[-30:]]))
            page.close()
    result.figures["first_frame_ms_p50"] = round(median(firsts["ours"]), 1)
    result.figures["first_frame_ms_p95"] = round(percentile(firsts["ours"], 0.95), 1)
    result.figures["go2rtc.first_frame_ms_p50"] = round(median(firsts["go2rtc"]), 1)
    result.figures["first_frame_extra_ms_p50"] = round(median(firsts["ours"]) - median(firsts["go2rtc"]), 1)
    result.figures["glass_ms_p50"] = round(median(ages["ours"]), 1)
    result.figures["go2rtc.glass_ms_p50"] = round(median(ages["go2rtc"]), 1)
    result.figures["glass_extra_ms_p50"] = round(median(ages["ours"]) - median(ages["go2rtc"]), 1)


# --- how long they stand still ------------------------------------------------------------------------


def _kills(result: Result, plan: Plan, ground: Ground, browser: Browser) -> None:
    """Our page while one process after the other is killed."""


def _targets() -> dict[str, str]:
    return {
        "reencode_cpu_over_ours": "at least 15",
        "cpu_vs_go2rtc": "at most 4, heading to 1",
        "first_frame_extra_ms_p50": "within 100",
        "glass_extra_ms_p50": "within 20",
        "playing_again_s_p95": "under 1.5",
        "private_mb": "under 15",
    }
