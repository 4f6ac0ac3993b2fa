"""Hub: what an idle device costs one hub process, and how long devices wait when all come back at once.

The devices are bare protocols in processes of their own (tests/bench/crowd.py); the hub is a real one on SQLite.
"""

from __future__ import annotations

import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from procs.errors import NotHere
from procs.settings import ROOT
from procs.wire import challenge
from tests import rig
from tests.bench import crowd, wall
from tests.bench.measure import Result, Size, cpu_s, percentile, say

CROWDS = 2
FILES_BESIDE = 200  # open files of the hub that are no devices
SETTLED_S = crowd.BEAT_S + 3.0  # after which each device has had a heartbeat answered
ANSWER_LIMIT_S = 120.0


class Plan(NamedTuple):
    """How much is measured."""

    devices: int
    spread_s: float
    storms: int
    settled_s: float = SETTLED_S


PLANS: dict[Size, Plan] = {"full": Plan(5000, 10.0, 3), "quick": Plan(1000, 2.0, 1), "least": Plan(100, 0.5, 1, 5.0)}


class Crowd:
    """A process of devices."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, line: str) -> None:
        """Have it do something."""
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What came of it."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "a crowd has died"
        found: dict[str, Any] = json.loads(line)
        return found


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere where too few files may be open."""
    plan = PLANS[size]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < plan.devices + FILES_BESIDE:
        raise NotHere(f"only {hard} files may be open (ulimit -Hn): {plan.devices + FILES_BESIDE} are needed")
    result = Result("hub", figures={"devices": plan.devices})
    result.peers = {"crowd": f"{CROWDS} processes of bare devices that prove themselves and beat every 15 s"}
    result.targets = {
        "idle_kb_per_device": "at most 20",
        "storm_hello_ms_p99": "under 250",
        "heartbeats_late": "none",
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planaria-bench-")))
        hub = stack.enter_context(wall.hub(folder))
        _make_known(folder / "run/hub.sqlite", plan.devices)
        share = plan.devices // CROWDS
        crowds = [stack.enter_context(_crowd(hub.port, number * share, share)) for number in range(CROWDS)]
        _measure(result, plan, hub, crowds)
    return result


@contextmanager
def _crowd(port: int, first: int, count: int) -> Iterator[Crowd]:
    command = [sys.executable, "-m", "tests.bench.crowd", str(port), str(first), str(count)]
    running = subprocess.Popen(
        command, cwd=ROOT, env=rig.clean_environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Crowd(running)
    finally:
        running.kill()
        running.communicate()


def _make_known(store: Path, count: int) -> None:
    """Devices as if they had registered, which is limited to a few a second."""
    rows = []
    for number in range(count):
        keys = crowd.keys(number)
        verifier = challenge.Verifier(keys.stored_key, keys.server_key).to_text()
        name = crowd.device_id(number)
        rows.append((name, name, "camera", verifier, time.time()))
    columns = "device_id, device_name, device_type, verifier, created_at"
    connection = sqlite3.connect(store, timeout=10)
    with connection:
        connection.executemany(f"INSERT INTO devices ({columns}) VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()


def _pss_kb(pid: int) -> float:
    """Memory of a process, what it shares counted in parts, in 10^3 bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1.024


def _all(crowds: list[Crowd], line: str) -> list[dict[str, Any]]:
    for each in crowds:
        each.tell(line)
    return [each.answer() for each in crowds]


def _storm(plan: Plan, crowds: list[Crowd]) -> list[float]:
    """Milliseconds from hello to hello_ack of each device."""
    found = _all(crowds, f"connect {plan.spread_s}")
    failed = sum(each["failed"] for each in found)
    assert not failed, f"{failed} devices were not let in: {[each['why'] for each in found]}"
    return [ms for each in found for ms in each["hello_ms"]]


def _beats(crowds: list[Crowd], plan: Plan) -> tuple[int, int, float]:
    """(answered, late, ms of the slowest) since last time."""
    found = _all(crowds, "report")
    assert sum(each["open"] for each in found) == plan.devices, "devices were lost"
    return (
        sum(each["beats"] for each in found),
        sum(each["late"] for each in found),
        max(each["worst_ms"] for each in found),
    )


def _measure(result: Result, plan: Plan, hub: wall.Running, crowds: list[Crowd]) -> None:
    before_kb = _pss_kb(hub.pid)
    say(f"{plan.devices} devices come for the first time, over {plan.spread_s:g} s")
    first = _storm(plan, crowds)
    say("idle")
    idle_cpu_s = -cpu_s(hub.pid)
    time.sleep(plan.settled_s)
    idle_cpu_s += cpu_s(hub.pid)
    idle_kb = _pss_kb(hub.pid)
    beats, late, worst_ms = _beats(crowds, plan)
    storms: list[float] = []
    spent_s = 0.0
    for number in range(plan.storms):
        _all(crowds, "drop")
        say(f"all come back, {number + 1} of {plan.storms}")
        spent_s -= cpu_s(hub.pid)
        storms += _storm(plan, crowds)
        spent_s += cpu_s(hub.pid)
    time.sleep(plan.settled_s)
    more = _beats(crowds, plan)
    result.figures |= {
        "idle_kb_per_device": round((idle_kb - before_kb) / plan.devices, 2),
        "storm_hello_ms_p50": round(percentile(storms, 0.5), 2),
        "storm_hello_ms_p99": round(percentile(storms, 0.99), 2),
        "storm_hello_ms_max": round(max(storms), 2),
        "first_hello_ms_p99": round(percentile(first, 0.99), 2),
        "storm_cpu_ms_per_device": round(1000 * spent_s / len(storms), 3),
        "idle_cpu_pct": round(100 * idle_cpu_s / plan.settled_s, 2),
        "heartbeats": beats + more[0],
        "heartbeats_late": late + more[1],
        "heartbeat_ms_max": max(worst_ms, more[2]),
        "kb_after_storms_per_device": round((_pss_kb(hub.pid) - before_kb) / plan.devices, 2),
    }
