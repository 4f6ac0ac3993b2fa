"""Page: how soon it is there, what it weighs, what it costs the hub idle, how it scrolls before 200 devices.

A real hub on SQLite, bare devices with pictures (tests/fleet.py), and Chromium with no GPU. There is no peer: the pages
of others show other things.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser

from procs.errors import NotHere
from tests import fleet, hub_rig
from tests.bench.measure import Result, Size, median, percentile, say
from tests.e2e import page_rig
from tests.e2e.chromium import chromium
from tests.e2e.page_rig import Person

DEVICES = 200
SETTLED_S = 12.0  # after which each picture on screen has been fetched once


class Plan(NamedTuple):
    """How much is measured."""

    loads: int
    settled_s: float
    idle_s: float
    turns: int  # of the wheel


PLANS: dict[Size, Plan] = {
    "full": Plan(20, SETTLED_S, 60.0, 1000),
    "quick": Plan(5, SETTLED_S, 10.0, 200),
    "least": Plan(1, 0.0, 5.0, 10),
}


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere without Chromium or ffmpeg."""
    for program in ("chromium", "ffmpeg"):
        if not shutil.which(program):
            raise NotHere(f"{program} is missing; sh scripts/setup_tests.sh says how to get it")
    plan = PLANS[size]
    result = Result("page", figures={"devices": DEVICES})
    result.targets = {
        "first_paint_ms": "under 1000",
        "weight_kb": "under 150",
        "idle_requests_per_s": "under 1",
        "long_tasks": "none",
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planaria-bench-")))
        hub = stack.enter_context(hub_rig.process(folder / "run", PLANARIA_COMPAT="1"))
        cameras = fleet.many(DEVICES)
        fleet.own(hub, cameras)
        stack.enter_context(fleet.online(hub, cameras))
        browser = stack.enter_context(chromium())
        _measure(result, plan, browser, f"http://{page_rig.LOCAL}:{hub.port}")
    return result


def _measure(result: Result, plan: Plan, browser: Browser, url: str) -> None:
    say(f"{plan.loads} browsers that have nothing of it yet")
    paints = [page_rig.first_paint_ms(browser, f"{url}/") for _ in range(plan.loads)]
    person = Person(browser, url)
    person.go()
    person.sign_in(hub_rig.ADMIN_PASSWORD)
    person.reads(f"{DEVICES} devices")
    say(f"{plan.turns} turns of the wheel")
    tasks, frames_ms = page_rig.scrolled(person.page, plan.turns)
    say("idle")
    person.page.evaluate("() => scrollTo(0, 0)")
    person.page.wait_for_timeout(1000 * plan.settled_s)
    asked = len(person.asked)
    person.page.wait_for_timeout(1000 * plan.idle_s)
    result.figures |= {
        "first_paint_ms": round(median(paints), 1),
        "first_paint_ms_worst": round(max(paints), 1),
        "weight_kb": round(page_rig.weight(person) / 1000, 1),
        "idle_requests_per_s": round((len(person.asked) - asked) / plan.idle_s, 2),
        "scroll_frame_ms_p50": round(percentile(frames_ms, 0.5), 1),
        "scroll_frame_ms_p99": round(percentile(frames_ms, 0.99), 1),
        "long_tasks": len(tasks),
        "long_task_ms_worst": round(max(tasks, default=0.0), 1),
    }
    person.close()
