"""Watch: what a viewer over WebRTC costs the device, how soon and how late they see, and how long they stand still when
something is killed.

Peers, in turn with ours on the same stream: go2rtc's own WebRTC (POST /api/webrtc) with the same viewers, and aiortc as
published agents use it, which decodes and encodes for each viewer (tests/device_published.py). All is one suite in a
network namespace of its own (tests/nat.py), with Chromium beside it: no network is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
import urllib.request
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page

from procs.errors import NotHere, Unhealthy
from tests import nat
from tests.bench import watch_ground
from tests.bench.measure import Result, Size, cpu_s, median, percentile, say
from tests.bench.watch_ground import LIMIT_S, PASSWORD, STREAM, Ground
from tests.e2e import player
from tests.e2e.chromium import chromium
from tests.e2e.page_rig import Person
from tests.rig import until

KILLED = ("webrtc_peer", "ws_link", "hub", "go2rtc", "go2rtc/headless_agent")
SETTLED_S = 1.0
TRIES = 3
FRESH = 10  # pictures in a row that were made after a kill: it plays again


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    viewers: int
    older_viewers: int
    settled_s: float
    window_s: float
    looks: int  # of Chromium at each, a round
    look_s: float
    kills: int  # of each of these:
    killed: tuple[str, ...]


PLANS: dict[Size, Plan] = {
    "full": Plan(5, 6, 1, 2.0, 10.0, 6, 5.0, 6, KILLED),
    "quick": Plan(1, 3, 1, 1.0, 3.0, 2, 1.5, 1, KILLED),
    "least": Plan(1, 1, 1, 0.2, 0.8, 1, 0.5, 1, KILLED[:1]),
}


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere without Chromium, nft or root."""
    for program in ("chromium", "nft", "nsenter"):
        if not shutil.which(program):
            raise NotHere(f"{program} is missing; sh scripts/setup_tests.sh says how to get it")
    if nat.why_not():
        raise NotHere(nat.why_not())
    plan = PLANS[size]
    result = Result("watch", targets=_targets())
    result.peers = {"go2rtc": "its own WebRTC, POST /api/webrtc", "older": "aiortc that decodes and encodes"}
    with ExitStack() as stack:
        world = stack.enter_context(nat.world())
        stack.enter_context(world.device.entered())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planaria-bench-")))
        ground = stack.enter_context(watch_ground.running(folder))
        stack.enter_context(watch_ground.older(ground))
        browser = stack.enter_context(chromium())
        _costs(result, plan, ground)
        _looks(result, plan, ground, browser)
        _kills(result, plan, ground, browser)
    return result


# --- what a viewer costs ------------------------------------------------------------------------------


class _Gone(Exception):
    """A process that was measured has ended."""


def _spent(pids: Collection[int]) -> float:
    """CPU seconds. Raises _Gone: to take one that has ended for 0 makes the difference of two such sums anything."""
    try:
        return sum(cpu_s(pid) for pid in pids)
    except OSError as error:
        raise _Gone from error


def _rates(groups: Mapping[str, Collection[int]], seconds: float) -> dict[str, float]:
    """CPU milliseconds a second that each of these uses from now on. Raises _Gone."""
    before, since_s = {name: _spent(pids) for name, pids in groups.items()}, time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - since_s
    return {name: 1000 * (_spent(pids) - before[name]) / took_s for name, pids in groups.items()}


def _cost(ground: Ground, kind: str, count: int, plan: Plan, private: list[float]) -> dict[str, float]:
    """What one viewer of this kind costs each of those who send, less what they use with nobody there: those before
    are waited for, who are still served after their death. Once more when a process has ended meanwhile."""
    for _ in range(TRIES):
        ground.settle()
        groups = ground.groups(kind)
        try:
            idle = _rates(groups, plan.window_s / 2)
            with watch_ground.watchers(ground, kind, count):
                time.sleep(plan.settled_s)
                busy = _rates(ground.groups(kind), plan.window_s)
                _spent(groups["go2rtc"])  # it is the same one
                private += [_private_mb(pid) for pid in ground.sessions()] if kind == "ours" else []
            return {name: (busy[name] - idle.get(name, 0.0)) / count for name in busy}
        except _Gone:
            say(f"{kind}: a process has ended while it was measured")
    raise Unhealthy(f"{kind}: a process ended each time while it was measured")


def _costs(result: Result, plan: Plan, ground: Ground) -> None:
    """CPU of a viewer, and memory."""
    counts = {"go2rtc": plan.viewers, "ours": plan.viewers, "older": plan.older_viewers}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in counts}
    private: list[float] = []
    for number in range(plan.rounds):
        say(f"what a viewer costs, round {number + 1} of {plan.rounds}")
        for kind, count in counts.items():
            found[kind].append(_cost(ground, kind, count, plan, private))
    total = {kind: [sum(cost.values()) for cost in costs] for kind, costs in found.items()}
    result.figures["cpu_ms_per_viewer_second"] = round(median(total["ours"]), 2)
    for part in found["ours"][0]:
        result.figures[f"cpu_ms_in_{part}"] = round(median([cost[part] for cost in found["ours"]]), 2)
    for kind in ("go2rtc", "older"):
        result.figures[f"{kind}.cpu_ms_per_viewer_second"] = round(median(total[kind]), 2)
    result.figures["private_mb"] = round(median(private), 1)
    result.ratio("reencode_cpu_over_ours", total["older"], total["ours"])
    result.ratio("cpu_vs_go2rtc", total["ours"], total["go2rtc"])


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
    """Our page while one process after the other is killed: for how long one picture stood."""
    person = Person(browser, ground.hub)
    player.remember(person.page)
    person.go(f"#/devices/{ground.device}")
    person.sign_in(PASSWORD)
    person.press(f"Play {STREAM}")
    stood: dict[str, list[float]] = {name: [] for name in plan.killed}
    for number in range(plan.kills):
        say(f"kills, round {number + 1} of {plan.kills}")
        for name in plan.killed:
            until(lambda: player.stats(person.page), LIMIT_S)
            person.page.wait_for_timeout(1000 * SETTLED_S)
            stood[name].append(_freeze_s(ground, person.page, name))
    person.close()
    for name, values in stood.items():
        result.figures[f"{name}.freeze_s_p50"] = round(median(values), 3)
    result.figures["playing_again_s_p95"] = round(
        percentile([each for every in stood.values() for each in every], 0.95), 3
    )


def _freeze_s(ground: Ground, page: Page, name: str) -> float:
    """Kill one, and wait until the page shows what was made well after that."""
    (victim,) = until(lambda: found if len(found := ground.pids(name)) == 1 else [], LIMIT_S)
    killed_ms = time.time() * 1000
    os.kill(victim, signal.SIGKILL)

    def plays() -> bool:
        made_ms = [picture.code.time_us / 1000 for picture in player.pictures(page)[-FRESH:]]
        return len(made_ms) == FRESH and made_ms[0] > killed_ms + 1000 * SETTLED_S

    until(plays, LIMIT_S, 0.05)
    return (player.freeze_ms(player.pictures(page), killed_ms) or 0.0) / 1000


def _targets() -> dict[str, str]:
    return {
        "reencode_cpu_over_ours": "at least 15",
        "cpu_vs_go2rtc": "at most 4, heading to 1",
        "first_frame_extra_ms_p50": "within 100",
        "glass_extra_ms_p50": "within 20",
        "playing_again_s_p95": "under 1.5",
        "private_mb": "under 15",
    }
