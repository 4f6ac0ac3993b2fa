"""Recovery: kill -9 to a new pid and to serving again, for every process; what the warden costs.

Peers, where they can be: the same programs under stock supervisord and under s6. Stock supervisord is seen at its best:
before the startsecs of go2rtc are over it would add 1, 2, 3, ... s.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from procs import proc
from procs.errors import Unhealthy
from scripts import suite
from tests.bench.measure import Result, Size, cpu_s, median, percentile, rss_mb, say
from tests.bench.signs import LIMIT_S, Asked, Fifo, Locked, Sign, Watched, page, wait_for
from tests.bench.supervisors import STREAM, Ground

PROCESSES = ("go2rtc", "capture", "headless_agent", "hub", "ws_link", "proxy", "warden", "keeper", "supervisord")
PEERS_TOO = ("go2rtc", "capture")
YOUNG_TOO = ("go2rtc", "capture", "keeper", "warden")  # killed again and again as soon as they serve
STOCK_GO2RTC_AGES_S = (3.1, 3.4)  # after its startsecs
# What each has imported when it serves, with the flags of its Python.
IMPORTS = {
    "go2rtc": ("-S -E", "scripts.exec_go2rtc"),
    "capture": ("", "procs.capture.__main__, procs.capture.fifo, procs.capture.framing"),
    "headless_agent": ("", "procs.headless_agent.__main__, procs.headless_agent.producer, procs.headless_agent.libav"),
    "hub": ("", "procs.hub.__main__, procs.hub.shell"),
    "ws_link": ("", "procs.ws_link.__main__, procs.ws_link.shell"),
    "proxy": ("", "procs.proxy.__main__, procs.proxy.shell"),
    "warden": ("", "procs.warden.__main__"),
    "keeper": ("", "procs.keeper.__main__"),
    "supervisord": ("", "supervisor.supervisord, supervisor.rpcinterface, supervisor.web, procs.warden.plugin"),
}


class Plan(NamedTuple):
    """How much is measured."""

    ages_s: tuple[float, float]
    rounds: int
    kills: int  # of each process, each round
    peer_kills: int
    young_kills: int
    warden_s: float


PLANS: dict[Size, Plan] = {
    "full": Plan((0.3, 3.0), 5, 10, 4, 20, 20.0),
    "quick": Plan((0.3, 0.8), 1, 2, 1, 1, 2.0),
    "least": Plan((0.3, 0.4), 1, 1, 1, 1, 0.5),
}


class Kill(NamedTuple):
    """What came of one."""

    new_pid_ms: float
    serving_ms: float
    import_ms: float  # of a Python beside it, a moment before
    gap_ms: float = 0.0  # at a viewer
    suite_ms: float = 0.0  # until all that died with it serves again


Kills = defaultdict[str, list[Kill]]


def bench(size: Size) -> Result:
    """Run it all."""
    plan = PLANS[size]
    result = Result("recovery", targets=_targets())
    result.peers = {
        "stock": "supervisord of our supervisord.conf without our plugin, warden and keeper",
        "s6": "s6-svscan" if shutil.which("s6-svscan") else "not installed: sh scripts/setup_tests.sh",
    }
    found: dict[str, Kills] = {name: defaultdict(list) for name in ("ours", "stock", "s6")}
    chance = random.Random(1)

    def age_s() -> float:
        return chance.uniform(*plan.ages_s)

    def stock_go2rtc_age_s() -> float:
        return chance.uniform(*STOCK_GO2RTC_AGES_S)

    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory:
        ground = Ground(Path(directory))
        for number in range(plan.rounds):
            say(f"kills, round {number + 1} of {plan.rounds}")
            with ground.ours():
                _kills(ground, dict.fromkeys(PROCESSES, age_s), plan.kills, found["ours"])
                if number == plan.rounds - 1:
                    _warden(result, ground, plan.warden_s)
                    _young(result, ground, plan.young_kills)
            with ground.stock():
                ages_s = {"go2rtc": stock_go2rtc_age_s, "capture": age_s}
                _kills(ground, ages_s, plan.peer_kills, found["stock"])
            if shutil.which("s6-svscan"):
                with ground.s6():
                    _kills(ground, dict.fromkeys(PEERS_TOO, age_s), plan.peer_kills, found["s6"])
    _figures(result, found)
    for name in ("stock", "s6"):
        if found[name]:
            _ratio(result, name, found[name], found["ours"], plan)
    return result


def _kills(ground: Ground, ages_s: Mapping[str, Callable[[], float]], times: int, found: Kills) -> None:
    """Kill each of these so many times, and note what came of it."""
    with contextlib.closing(Fifo(ground.fifo)) as fifo:
        signs: dict[str, Sign] = {
            "go2rtc": page(ground.api, "/api"),
            "capture": fifo,
            "headless_agent": Watched(ground.rtsp, STREAM),
            "hub": page(ground.hub, "/health"),
            "ws_link": Locked(ground.root / "run/ws_link.lock"),
            "proxy": Locked(ground.root / "run/proxy-0.lock"),
            "warden": page(ground.metrics, "/metrics"),
            "keeper": Locked(ground.root / "run/keeper.lock"),
            "supervisord": Asked(lambda: suite.processes(ground.root)),
        }
        for name, age_s in ages_s.items():
            found[name] += [_kill(ground, name, signs, age_s()) for _ in range(times)]


def _wait(signs: Mapping[str, Sign], *names: str, since_s: float = 0.0) -> float:
    """When the last of these had been seen."""

    def last_s() -> float:
        seen = [signs[name].seen_s(since_s) for name in names]
        return max(seen) if all(seen) else 0.0

    return wait_for(last_s, ", ".join(names))


def _kill(ground: Ground, name: str, signs: Mapping[str, Sign], age_s: float) -> Kill:
    """Kill a process when it serves and is old enough, and see it come back."""
    _wait(signs, name)
    (victim,) = wait_for(lambda: found if len(found := ground.pids(name)) == 1 else [], f"one {name}")
    its = proc.stat(victim)
    if not its:
        raise Unhealthy(f"{name}: died by itself")
    alone_ms = import_ms(ground.root, *IMPORTS[name])
    time.sleep(max(0.0, age_s - its.age_s))
    parents = ground.pids("keeper") if name == "supervisord" else [its.parent]
    before, sign = _children(parents), signs[name]
    killed_s = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    new_pid_s, serving_s = _back(parents, before, sign, name)
    gap_ms = suite_ms = 0.0
    if isinstance(sign, Watched):
        gap_ms = wait_for(lambda: sign.gap_ms(killed_s), "pictures again")
    if name == "supervisord":
        suite_ms = 1000 * (_wait(signs, *PEERS_TOO, since_s=new_pid_s) - killed_s)
    return Kill(1000 * (new_pid_s - killed_s), 1000 * (serving_s - killed_s), alone_ms, gap_ms, suite_ms)


def _back(parents: list[int], before: set[int], sign: Sign, name: str) -> tuple[float, float]:
    """When the new process was started, and when it served."""
    born: dict[int, float] = {}

    def look() -> float:
        for child in _children(parents) - before - born.keys():
            born[child] = time.monotonic()
        return sign.seen_s(min(born.values())) if born else 0.0

    serving_s = wait_for(look, f"{name} again")
    # s6 starts something else first, which is soon over; and a daemon is no child of its starter any more.
    living = [at for child, at in born.items() if proc.is_alive(child)]
    return min(living or born.values()), serving_s


def _children(parents: list[int]) -> set[int]:
    return {child for parent in parents for child in proc.children(parent)}


def _warden(result: Result, ground: Ground, seconds: float) -> None:
    """What the warden costs while a stream is watched and nothing happens."""
    viewer = Watched(ground.rtsp, STREAM)
    _wait({"viewer": viewer}, "viewer")
    (pid,) = ground.pids("warden")
    before, since_s = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    result.figures["warden_cpu_pct"] = round(100 * (cpu_s(pid) - before) / (time.monotonic() - since_s), 2)
    result.figures["warden_rss_mb"] = round(rss_mb(pid), 1)
    viewer.close()


def _young(result: Result, ground: Ground, times: int) -> None:
    """Kill each as soon as it serves, so many times in a row: no kill may slow the restart after it."""
    for name in YOUNG_TOO:
        found: Kills = defaultdict(list)
        try:
            for _ in range(times):
                _kills(ground, {name: lambda: 0.0}, 1, found)
            worst_ms = max(kill.new_pid_ms for kill in found[name])
        except Unhealthy as error:
            say(f"{name}, killed {len(found[name])} times as soon as it served: {error}")
            worst_ms = 1000 * LIMIT_S
        result.figures[f"{name}.young_new_pid_ms_worst"] = round(worst_ms, 1)


def import_ms(root: Path, flags: str, modules: str) -> float:
    """From starting a Python to having imported these: what no restart can be quicker than."""
    program = f"import {modules}, os; os.write(1, b'.'); os._exit(0)"
    command = [str(root / ".venv/bin/python"), *flags.split(), "-c", program]
    started_s = time.monotonic()
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as running:
        assert running.stdout
        if not running.stdout.read(1):
            raise Unhealthy(f"import {modules}: failed")
        return 1000 * (time.monotonic() - started_s)


def _figures(result: Result, found: Mapping[str, Kills]) -> None:
    figures = result.figures
    for supervisor, kills in found.items():
        for name, rows in kills.items():
            prefix = name if supervisor == "ours" else f"{supervisor}.{name}"
            _spread(figures, f"{prefix}.new_pid_ms", [row.new_pid_ms for row in rows])
            _spread(figures, f"{prefix}.serving_ms", [row.serving_ms for row in rows])
            if supervisor == "ours":
                figures[f"{name}.import_ms"] = round(median([row.import_ms for row in rows]), 1)
                figures[f"{name}.serving_extra_ms"] = round(median([row.serving_ms - row.import_ms for row in rows]), 1)
    ours = found["ours"]
    _spread(figures, "headless_agent.gap_ms", [row.gap_ms for row in ours["headless_agent"]])
    _spread(figures, "supervisord.suite_ms", [row.suite_ms for row in ours["supervisord"]])


def _ratio(result: Result, name: str, theirs: Kills, ours: Kills, plan: Plan) -> None:
    """A peer's time to a new pid over ours, by the medians of each round and program."""
    pairs = [
        (median(_new_pids(theirs[each], turn, plan.peer_kills)), median(_new_pids(ours[each], turn, plan.kills)))
        for each in PEERS_TOO
        for turn in range(plan.rounds)
    ]
    result.ratio(f"{name}_new_pid_over_ours", [their for their, _ in pairs], [our for _, our in pairs])


def _new_pids(kills: list[Kill], turn: int, each: int) -> list[float]:
    """Those of one round."""
    return [kill.new_pid_ms for kill in kills[turn * each : (turn + 1) * each]]


def _spread(figures: dict[str, float], name: str, values: list[float]) -> None:
    figures[f"{name}_p50"] = round(median(values), 1)
    figures[f"{name}_p99"] = round(percentile(values, 0.99), 1)
    figures[f"{name}_worst"] = round(max(values), 1)


def _targets() -> dict[str, str]:
    each = {
        "new_pid_ms_p50": "under 20",
        "new_pid_ms_p99": "under 100",
        "serving_ms_p99": "under 600",
        "serving_extra_ms": "at most 100",
    }
    return {f"{name}.{figure}": aim for name in PROCESSES for figure, aim in each.items()} | {
        **{f"{name}.young_new_pid_ms_worst": "under 100" for name in YOUNG_TOO},
        "headless_agent.gap_ms_p50": "under 200",
        "stock_new_pid_over_ours": "at least 30",
        "warden_cpu_pct": "under 1",
        "warden_rss_mb": "under 25",
    }
