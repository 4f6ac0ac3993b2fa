"""Tunnel: what planes 3, 2 and 1 carry between two network namespaces, how soon, and what loss and floods do to them.

Peers, in turn with ours over the same wire: wireguard-go, aiortc as it comes with one packet a message, and the wire
itself. All tunnels stand from the start to the end; only one is used at a time. TCP is one flow of iperf3 with BBR,
unless it says another way. CPU is that of the processes of each end, the kernel's work for them with it, which tells
more than a rate does where others want the processors, too: of those who share them a program of many threads gets
more. Pings under load are told twice: all of them, and those during which the hypervisor took no processor away; it
does for tens of milliseconds at a time. The lossy wire is a process that handles packet by packet (tests/emulator.py):
of 100 Mbit/s it is no burden, and as fast as it can be it is the one that most of the processors' time goes to. On it,
the bare wire not excepted, BBR now and then takes a small part of the rate for all there is: hence the rounds.

Figures without a plane in their name are of plane 3. What its ends do with their CPU is told in percent
(attribution.py), with the lines of Python that had most. For more: `py-spy record --native --pid PID`, or `perf record
-g -p PID`, of one of its two processes (tests.bench.our_end) while this runs.

--quick leaves out planes 2 and 1, aiortc, the suite, the bare wire where it loses nothing, and cubic.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

from tests import flooding
from tests.bench import peers_ground
from tests.bench.icmp import Ping
from tests.bench.measure import Result, Size, median, percentile, say
from tests.bench.peers_ground import Wire
from tests.bench.tunnels import BARE, SUPERVISED, TUNNELS, Tunnel, pings, round_trips, stand_all
from tests.emulator import Link
from tests.nat import Place
from tests.rig import until

QUICK = ("plane3", "wireguard")
LOSSY = ("bare", "plane3", "plane2", "plane1")
LOSSY_FAST = LOSSY[:2]
LOSS, DELAY_S = 0.01, 0.01
LOSSY_RATES = {"loss1": 100e6, "loss1_fast": 0}  # bit/s; 0: as fast as can be
BBR, CUBIC = ("-C", "bbr"), ("-C", "cubic")
FOUR = (*BBR, "-P", "4")
SMALL = ("-u", "-l", "200", "-b", "0")
FLOOD_PPS = 100_000
LIMIT_S = 30.0


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    bulk_s: float
    pings: int
    lossy_rounds: int
    lossy_s: float
    names: Sequence[str]  # of the tunnels that stand
    lossy: Sequence[str]
    cubic: bool


PLANS: dict[Size, Plan] = {
    "full": Plan(5, 4.0, 100, 5, 4.0, tuple(TUNNELS), LOSSY, cubic=True),
    "quick": Plan(2, 2.0, 40, 1, 3.0, QUICK, LOSSY[:2], cubic=False),
    "least": Plan(1, 0.6, 5, 1, 0.8, tuple(TUNNELS), LOSSY, cubic=True),
}


class Rows:
    """What was found of each tunnel, round by round."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[float]] = {}

    def add(self, what: str, name: str, *values: float) -> None:
        """So much more."""
        self._found.setdefault((what, name), []).extend(values)

    def of(self, what: str, name: str) -> list[float]:
        """All of that; empty if it was not measured."""
        return self._found.get((what, name), [])


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere without root, /dev/net/tun, iperf3 or wireguard-go."""
    peers_ground.need("iperf3", "wireguard-go", "wg", "ss")
    plan = PLANS[size]
    result = Result("tunnel", targets=TARGETS)
    result.peers = {"wireguard": "wireguard-go, in the same namespaces", "bare": "the wire itself"}
    if "plain" in plan.names:
        result.peers["plain"] = "aiortc as it comes, one packet a message"
    with peers_ground.straight() as wire, ExitStack() as stack:
        tunnels = stand_all(stack, wire, plan.names)
        _clean(result, plan, wire, tunnels)
        _flooded(result, plan, wire, tunnels["plane3"])
        _attributed(result, plan, wire, tunnels["plane3"])
    with peers_ground.lossy(LOSS, DELAY_S) as (wire, link), ExitStack() as stack:
        tunnels = stand_all(stack, wire, plan.lossy)
        _lossy(result, plan, wire, link, tunnels)
    return result


def _clean(result: Result, plan: Plan, wire: Wire, tunnels: dict[str, Tunnel]) -> None:
    """A wire that loses nothing."""
    rows = Rows()
    for number in range(plan.rounds):
        say(f"a clean wire, round {number + 1} of {plan.rounds}")
        for name, tunnel in tunnels.items():
            _round(rows, plan, wire, name, tunnel)
        rows.add("four", "plane3", _mbit_s(wire, tunnels["plane3"].far, plan.bulk_s, *FOUR))
        for name in ("plane3", "wireguard"):
            rows.add("small", name, _small_pps(wire, tunnels[name].far, plan.bulk_s))
    for name in tunnels:
        _figures(result, rows, name)
    result.figures["plane3_four_mbit_s"] = round(median(rows.of("four", "plane3")), 1)
    result.figures["ping_extra_ms"] = round(result.figures["ping_ms"] - result.figures["wireguard.ping_ms"], 3)
    result.ratio("four_flows_vs_one", rows.of("four", "plane3"), rows.of("rate", "plane3"))
    result.ratio("pps_vs_wireguard_go", rows.of("small", "plane3"), rows.of("small", "wireguard"))
    result.ratio("cpu_vs_wireguard_go", rows.of("cost", "plane3"), rows.of("cost", "wireguard"))
    for name in ("plane3", "plane2", SUPERVISED):
        if name in tunnels:
            result.ratio(f"{name}_vs_wireguard_go", rows.of("rate", name), rows.of("rate", "wireguard"))
    if "plain" in tunnels:
        result.ratio("plane1_vs_plain_aiortc", rows.of("rate", "plane1"), rows.of("rate", "plain"))


def _round(rows: Rows, plan: Plan, wire: Wire, name: str, tunnel: Tunnel) -> None:
    quiet = round_trips(wire, tunnel.far, plan.pings, 0.01)
    assert quiet, f"{name} does not answer any more"
    rows.add("quiet", name, median(quiet))
    before = tunnel.cpu_s()
    rate, pings, asked = _loaded(wire, tunnel.far, plan.bulk_s)
    gbit = rate * max(1, round(plan.bulk_s)) / 1000
    sender, receiver = (now - then for now, then in zip(tunnel.cpu_s(), before, strict=True))
    rows.add("rate", name, rate)
    rows.add("loaded", name, *(ping.ms for ping in pings))
    rows.add("calm", name, *(ping.ms for ping in pings if not ping.was_stolen))
    rows.add("lost", name, max(0, asked - len(pings)) / asked)
    rows.add("sender", name, sender / gbit)
    rows.add("receiver", name, receiver / gbit)
    rows.add("cost", name, (sender + receiver) / gbit)


def _figures(result: Result, rows: Rows, name: str) -> None:
    """Those of one tunnel."""
    prefix = "" if name == "plane3" else f"{name}."
    ours = name.startswith("plane") or name in (SUPERVISED, BARE)
    result.figures[f"{name}_mbit_s" if ours else f"{name}.mbit_s"] = round(median(rows.of("rate", name)), 1)
    result.figures[f"{prefix}ping_ms"] = round(median(rows.of("quiet", name)), 3)
    if loaded := rows.of("loaded", name):
        result.figures[f"{prefix}ping_load_ms_p99"] = round(percentile(loaded, 0.99), 2)
        result.figures[f"{prefix}ping_load_lost_pct"] = round(100 * statistics.mean(rows.of("lost", name)), 2)
    if calm := rows.of("calm", name):
        result.figures[f"{prefix}ping_load_calm_ms_p50"] = round(median(calm), 2)
        result.figures[f"{prefix}ping_load_calm_ms_p99"] = round(percentile(calm, 0.99), 2)
    if name != BARE:
        for what, key in (("cost", ""), ("sender", "sender_"), ("receiver", "receiver_")):
            result.figures[f"{prefix}{key}cpu_s_per_gbit"] = round(median(rows.of(what, name)), 3)
    if small := rows.of("small", name):
        result.figures[f"{prefix}small_pps"] = round(median(small))


def _flooded(result: Result, plan: Plan, wire: Wire, tunnel: Tunnel) -> None:
    """What is left of TCP while a stranger sends bogus records to the far end's port, kind by kind."""
    assert tunnel.pair
    port = port_of(wire.far, tunnel.far_pids[0])
    real = _during(lambda: flooding.captured(wire.far, port, 0.5), wire, tunnel.far, 1)
    rows = Rows()
    with flooding.stranger(wire.far) as stranger:
        for number in range(plan.lossy_rounds):
            say(f"a flood, round {number + 1} of {plan.lossy_rounds}")
            without = _mbit_s(wire, tunnel.far, plan.bulk_s, *BBR)
            for kind in flooding.KINDS:
                rows.add("rate", kind, without)
                datagrams = flooding.bogus(kind, real)
                to = (flooding.THERE, port)
                with flooding.flooding(stranger, to, datagrams, FLOOD_PPS, plan.bulk_s + 1) as flood:
                    rows.add("flooded", kind, _mbit_s(wire, tunnel.far, plan.bulk_s, *BBR))
                    rows.add("sent", kind, flood.sent() / (plan.bulk_s + 1))
    for kind in flooding.KINDS:
        result.figures[f"flood_{kind}_pps"] = round(median(rows.of("sent", kind)))
        result.ratio(f"flood_{kind}_goodput", rows.of("flooded", kind), rows.of("rate", kind))


def port_of(place: Place, pid: int) -> int:
    """The one of an agent's UDP ports that is for all of its peers: its sockets are bound to no address."""
    lines = place.run("ss", "-Huanp4").splitlines()
    ours = [line.split()[3].rpartition(":") for line in lines if f"pid={pid}," in line]
    (port,) = {port for address, _, port in ours if address == "0.0.0.0"}
    return int(port)


def _attributed(result: Result, plan: Plan, wire: Wire, tunnel: Tunnel) -> None:
    """What plane 3's ends do with their CPU."""
    pair = tunnel.pair
    assert pair

    def sampled() -> list[Any]:
        with ThreadPoolExecutor(2) as both:
            return list(both.map(lambda at: pair.asked("profile", plan.bulk_s * 0.8, at), range(2)))

    found = _during(sampled, wire, tunnel.far, plan.bulk_s)
    for end, (parts, lines) in zip(("sender", "receiver"), found, strict=True):
        result.figures |= {f"{end}_{part}_pct": percent for part, percent in parts.items()}
        result.peers[f"the {end}'s lines"] = "\n    ".join(["", *lines])


def _during(work: Callable[[], list[Any]], wire: Wire, target: str, seconds: float) -> list[Any]:
    """What that gives while TCP runs."""
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(_mbit_s, wire, target, max(1, round(seconds)) + 0.5, *BBR)
        until(lambda: running.done() or wire.far.run("ss", "-Htn", "state", "established", "sport = 5201"), LIMIT_S)
        found = work()
        running.result()
        return found


def _lossy(result: Result, plan: Plan, wire: Wire, link: Link, tunnels: dict[str, Tunnel]) -> None:
    """One that loses a packet in a hundred, each way, with a round trip of 20 ms."""
    rows = Rows()
    for number in range(plan.lossy_rounds):
        say(f"a lossy wire, round {number + 1} of {plan.lossy_rounds}")
        for what, rate in LOSSY_RATES.items():
            link.both(rate=rate)
            for name in tunnels if rate else LOSSY_FAST:
                rows.add(what, name, _mbit_s(wire, tunnels[name].far, plan.lossy_s, *BBR))
            for name in LOSSY[:2] if plan.cubic and rate else ():
                rows.add("loss1_cubic", name, _mbit_s(wire, tunnels[name].far, plan.lossy_s, *CUBIC))
    for what in (*LOSSY_RATES, "loss1_cubic"):
        for name in tunnels:
            if found := rows.of(what, name):
                result.figures[f"{name}_{what}_mbit_s"] = round(median(found), 2)
                if name != BARE:
                    result.ratio(f"{name}_{what}_vs_bare", found, rows.of(what, BARE))


def _mbit_s(wire: Wire, target: str, seconds: float, *words: str) -> float:
    received: float = peers_ground.iperf(wire, target, seconds, *words)["sum_received"]["bits_per_second"]
    return max(received, 1) / 1e6


def _small_pps(wire: Wire, target: str, seconds: float) -> float:
    """UDP packets of 200 bytes that arrive in a second when as many are sent as can be."""
    end = peers_ground.iperf(wire, target, seconds, *SMALL)["sum"]
    arrived: float = end["packets"] - end["lost_packets"]
    return max(1.0, arrived / float(end["seconds"]))


def _loaded(wire: Wire, target: str, seconds: float) -> tuple[float, list[Ping], int]:
    """The rate of TCP, and pings meanwhile, with how many were sent; those of the first moments and the last count,
    too."""
    count = int(seconds / 0.02)
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(pings, wire, target, count, 0.02)
        rate = _mbit_s(wire, target, seconds, *BBR)
        return rate, asked.result(), count


TARGETS = {
    "plane3_mbit_s": "aim: > 2000",
    "plane3_vs_wireguard_go": "aim: >= 4",
    "four_flows_vs_one": "aim: >= 1",
    "pps_vs_wireguard_go": "aim: >= 1",
    "plane1_vs_plain_aiortc": "aim: >= 2",
    "plane2_vs_wireguard_go": "aim: >= 0.9",
    "plane3_loss1_vs_bare": "aim: >= 0.75",
    "plane3_loss1_fast_vs_bare": "aim: >= 0.75",
    "plane3_loss1_cubic_vs_bare": "aim: >= 0.75",
    "plane2_loss1_vs_bare": "aim: >= 0.6",
    "ping_extra_ms": "aim: <= 0.3",
    "ping_load_ms_p99": "aim: < 10",
    **{f"flood_{kind}_goodput": "aim: >= 0.7" for kind in flooding.KINDS},
}
