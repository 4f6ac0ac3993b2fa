"""Proxy: what the way through hub and proxy costs, beside `ssh -R` and no tunnel at all, over the same files.

All three are asked in turn by the same clients, which send the same header fields. CPU is that of all who work for a
way, the client left out, so that one can say what binds.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from procs.errors import NotHere
from tests import rig
from tests.bench import http_clients, wall
from tests.bench.http_clients import Address
from tests.bench.measure import Result, Size, median, percentile, say
from tests.bench.wall import Way
from tests.viewers import RtspViewer

NEEDED = ("nginx", "ssh", "sshd", "wrk")
CONNECTIONS = 16
WARM = 200
LIVE = {"workers": 1, "producer": {"width": 640, "height": 360, "fps": 30, "gop": 15, "bitrate": "1M"}}
STREAM = "omega-0"


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    gets: int  # a round
    rate_s: int
    bulks: int  # a round
    under_bulk_s: float  # a round
    live: int


PLANS: dict[Size, Plan] = {
    "full": Plan(7, 3000, 4, 2, 6.0, 30),
    "quick": Plan(2, 500, 2, 1, 2.0, 6),
    "least": Plan(1, 50, 1, 1, 0.5, 1),
}


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere without a peer."""
    for program in NEEDED:
        if not shutil.which(program):
            raise NotHere(f"{program} is missing: sh scripts/setup_tests.sh")
    plan = PLANS[size]
    result = Result("proxy", targets=_targets())
    result.peers = {"ssh": "OpenSSH, -R over loopback, its defaults", "direct": "nginx, one worker"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planaria-bench-", dir=_memory())))
        go2rtc = stack.enter_context(rig.go2rtc(LIVE))
        direct = stack.enter_context(wall.nginx(folder))
        ways = {
            "direct": direct,
            "ssh": stack.enter_context(wall.ssh(folder, direct)),
            "ours": stack.enter_context(wall.planaria(folder, direct, go2rtc)),
        }
        _live(result, ways["ours"], go2rtc, plan.live)
        _files(result, ways, plan)
    return result


def _memory() -> str | None:
    """Where files cost no disk, if there is such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _targets() -> dict[str, str]:
    return {
        "get_ms_p50": "under 1.5",
        "get_ms_p99": "under 8",
        "get_p99_vs_ssh": "at most 1.0",
        "rate_16_vs_ssh": "at least 0.2",
        "bulk_vs_ssh": "at least 0.8",
        "live_first_byte_extra_ms": "at most 50",
        "get_ms_p99_under_bulk": "under 20",
    }


class Found(NamedTuple):
    """What came of one way, a value a round, but for `gets`, `gets_64k` and `under_bulk`: one a GET."""

    gets: list[list[float]]
    gets_64k: list[float]
    rates: list[float]
    bulks: list[float]
    under_bulk: list[float]
    cpu: defaultdict[str, list[float]]  # "get.hub": microseconds a GET; "bulk.hub": ms a MB


def _files(result: Result, ways: dict[str, Way], plan: Plan) -> None:
    found = {name: Found([], [], [], [], [], defaultdict(list)) for name in ways}
    for way in ways.values():
        http_clients.gets_ms(way.to("small"), count=WARM)
    for number in range(plan.rounds):
        say(f"files, round {number + 1} of {plan.rounds}")
        for name, way in ways.items():
            _gets(found[name], way, plan)
        for name, way in ways.items():
            _rate(found[name], way, plan)
        for name, way in ways.items():
            _bulk(found[name], way, plan)
        for name, way in ways.items():
            with http_clients.draining(way.to("large")):
                found[name].under_bulk.extend(http_clients.gets_ms(way.to("small"), seconds=plan.under_bulk_s))
    for name, of_way in found.items():
        _figures(result, "" if name == "ours" else f"{name}_", of_way)
    ours, theirs = found["ours"], found["ssh"]
    result.ratio("get_p99_vs_ssh", _p99s(ours), _p99s(theirs))
    result.ratio("rate_16_vs_ssh", ours.rates, theirs.rates)
    result.ratio("bulk_vs_ssh", ours.bulks, theirs.bulks)


def _gets(found: Found, way: Way, plan: Plan) -> None:
    before = way.cpu_s()
    found.gets.append(http_clients.gets_ms(way.to("small"), count=plan.gets))
    _note_cpu(found, "get_us", before, way, plan.gets / 1e6)
    found.gets_64k.extend(http_clients.gets_ms(way.to("middle"), count=plan.gets // 5))


def _rate(found: Found, way: Way, plan: Plan) -> None:
    before = way.cpu_s()
    found.rates.append(http_clients.rate(way.to("small"), CONNECTIONS, plan.rate_s))
    _note_cpu(found, "rate_us", before, way, found.rates[-1] * plan.rate_s / 1e6)


def _bulk(found: Found, way: Way, plan: Plan) -> None:
    for _ in range(plan.bulks):
        before = way.cpu_s()
        found.bulks.append(http_clients.bulk_mb_s(way.to("large")))
        _note_cpu(found, "bulk_ms_per_mb", before, way, wall.SIZES["large"] / 1e9)


def _note_cpu(found: Found, kind: str, before: dict[str, float], way: Way, parts: float) -> None:
    for name, spent_s in way.cpu_s().items():
        found.cpu[f"{kind}.{name}"].append((spent_s - before[name]) / parts)


def _p99s(found: Found) -> list[float]:
    return [percentile(times, 0.99) for times in found.gets]


def _figures(result: Result, prefix: str, found: Found) -> None:
    every = [ms for times in found.gets for ms in times]
    result.figures |= {
        f"{prefix}get_ms_p50": round(median(every), 3),
        f"{prefix}get_ms_p99": round(percentile(every, 0.99), 3),
        f"{prefix}get_64k_ms_p50": round(median(found.gets_64k), 3),
        f"{prefix}get_64k_ms_p99": round(percentile(found.gets_64k, 0.99), 3),
        f"{prefix}rate_16": round(median(found.rates)),
        f"{prefix}bulk_mb_s": round(median(found.bulks), 1),
        f"{prefix}get_ms_p99_under_bulk": round(percentile(found.under_bulk, 0.99), 3),
    }
    for kind, values in sorted(found.cpu.items()):
        result.figures[f"{prefix}cpu_{kind}"] = round(median(values), 2)


def _live(result: Result, ours: Way, go2rtc: rig.Go2rtc, times: int) -> None:
    """First bytes of a stream that somebody watches already. Both are asked at the same instant, so that both wait for
    the same keyframe; a pair that one falls behind in, by a whole keyframe, the median leaves out."""
    say(f"live, {times} first bytes")
    target = f"/api/stream.mp4?src={STREAM}"
    through = ours.prefix.removesuffix("/files/") + target
    pair = [Address(ours.port, through, ours.token), Address(go2rtc.api.port, target, "none")]
    viewer = RtspViewer(go2rtc.rtsp, STREAM)
    viewer.start()
    rig.until(lambda: viewer.arrivals, 20)
    extra_ms = []
    for number in range(times):
        turn = 1 if number % 2 else -1  # who is asked first has an advantage
        mine, direct = http_clients.first_bytes_s(pair[::turn])[::turn]
        extra_ms.append(1000 * (mine - direct))
        time.sleep(0.05 + 0.017 * (number % 10))
    viewer.leave()
    result.figures["live_first_byte_extra_ms"] = round(median(extra_ms), 2)
    result.figures["live_first_byte_extra_ms_worst"] = round(max(extra_ms), 2)
