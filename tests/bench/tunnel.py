"""Tunnel: what planes 1 and 2 carry between two network namespaces, how soon, and what loss does to them.

Peers, in turn with ours over the same wire: wireguard-go, aiortc as it comes with one packet a message, and the wire
itself. All tunnels stand from the start to the end; only one is used at a time. TCP is one flow of iperf3 with BBR. CPU
is that of both ends, the kernel's work for them with it, which tells more than a rate does where others want the
processors, too: of those who share them a program of many threads gets more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

from tests.bench import icmp, peers_ground
from tests.bench.measure import Result, Size, cpu_s, median, percentile, say
from tests.bench.peers_ground import FAR, Wire
from tests.bench.supervised import supervised

# Their interfaces' names and MTUs: what fits whole into what carries it.
TUNNELS: dict[str, tuple[tuple[str, ...], int]] = {
    "plane2": (("our_end", "2,1"), 1380),
    "plane1": (("our_end", "1"), 1158),
    "plain": (("plain_end",), 1160),
    "supervised": ((), 1380),
    "wireguard": ((), 1420),
}
SUPERVISED = "supervised"
LOSSY = ("bare", "plane2", "plane1")
LOSS, DELAY_S = 0.01, 0.01
BBR = ("-C", "bbr")
SMALL = ("-u", "-l", "64", "-b", "0")


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    bulk_s: float
    pings: int
    lossy_rounds: int
    lossy_s: float
    supervised: bool  # also plane 2 as a suite has it: with a bus between the interface and the session


PLANS: dict[Size, Plan] = {
    "full": Plan(5, 4.0, 100, 3, 8.0, supervised=True),
    "quick": Plan(2, 2.0, 40, 1, 4.0, supervised=False),
    "least": Plan(1, 0.6, 5, 1, 0.8, supervised=True),
}
Found = dict[str, list[float]]


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere without root, /dev/net/tun, iperf3 or wireguard-go."""
    peers_ground.need("iperf3", "wireguard-go", "wg", "ss")
    plan = PLANS[size]
    result = Result("tunnel", targets=_targets())
    result.peers = {
        "wireguard": "wireguard-go, in the same namespaces",
        "plain": "aiortc as it comes, one packet a message",
        "bare": "the wire itself",
    }
    with peers_ground.straight() as wire, ExitStack() as stack:
        names = [name for name in TUNNELS if plan.supervised or name != SUPERVISED]
        tunnels = {name: _stand(stack, wire, name, number) for number, name in enumerate(names)}
        _clean(result, plan, wire, tunnels)
    with peers_ground.lossy(LOSS, DELAY_S) as wire, ExitStack() as stack:
        stood = {name: _stand(stack, wire, name, number).far for number, name in enumerate(LOSSY[1:])}
        _lossy(result, plan, wire, {LOSSY[0]: FAR, **stood})
    return result


class Tunnel(NamedTuple):
    """One that stands."""

    far: str  # the far address in it
    pids: list[int]  # of both ends

    def cpu_s(self) -> float:
        """What both ends have used."""
        return sum(map(cpu_s, self.pids))


def _stand(stack: ExitStack, wire: Wire, name: str, number: int) -> Tunnel:
    """Set up that tunnel."""
    program, mtu = TUNNELS[name]
    near, far = f"10.77.{number}.1", f"10.77.{number}.2"
    ends = [(f"{name}a", near, mtu), (f"{name}b", far, mtu)]
    say(f"{name} stands up")
    if name == SUPERVISED:
        return Tunnel(far, stack.enter_context(supervised(wire, ends)))
    if program:
        return Tunnel(far, stack.enter_context(peers_ground.pair(wire, program, ends)).pids)
    return Tunnel(far, stack.enter_context(peers_ground.wireguard(wire, ends)))


def _clean(result: Result, plan: Plan, wire: Wire, tunnels: dict[str, Tunnel]) -> None:
    """A wire that loses nothing."""
    rates: Found = {name: [] for name in tunnels}
    costs: Found = {name: [] for name in tunnels}
    quiet: Found = {name: [] for name in tunnels}
    loaded: Found = {name: [] for name in tunnels}
    small: Found = {name: [] for name in ("plane2", "wireguard")}
    for number in range(plan.rounds):
        say(f"a clean wire, round {number + 1} of {plan.rounds}")
        for name, tunnel in tunnels.items():
            quiet[name].append(median(_pings(wire, tunnel.far, plan.pings, 0.01)))
            before_s = tunnel.cpu_s()
            rate, pings = _loaded(wire, tunnel.far, plan.bulk_s)
            costs[name].append((tunnel.cpu_s() - before_s) / (rate * max(1, round(plan.bulk_s))) * 1000)
            rates[name].append(rate)
            loaded[name] += pings
        for name, counts in small.items():
            counts.append(_small_pps(wire, tunnels[name].far, plan.bulk_s))
    for name, prefix in (("plane2", ""), ("plane1", "plane1."), ("wireguard", "wireguard."), ("plain", "plain.")):
        key = f"{name}_mbit_s" if name.startswith("plane") else f"{name}.mbit_s"
        result.figures[key] = round(median(rates[name]), 1)
        result.figures[f"{prefix}cpu_s_per_gbit"] = round(median(costs[name]), 2)
        result.figures[f"{prefix}ping_ms"] = round(median(quiet[name]), 3)
        if loaded[name]:
            result.figures[f"{prefix}ping_load_ms_p99"] = round(percentile(loaded[name], 0.99), 2)
    if SUPERVISED in rates:
        result.figures["supervised_mbit_s"] = round(median(rates[SUPERVISED]), 1)
        result.figures["supervised.cpu_s_per_gbit"] = round(median(costs[SUPERVISED]), 2)
        result.figures["supervised.ping_ms"] = round(median(quiet[SUPERVISED]), 3)
        result.ratio("supervised_vs_wireguard_go", rates[SUPERVISED], rates["wireguard"])
    result.figures["small_pps"] = round(median(small["plane2"]))
    result.figures["ping_extra_ms"] = round(result.figures["ping_ms"] - result.figures["wireguard.ping_ms"], 3)
    result.ratio("plane1_vs_plain_aiortc", rates["plane1"], rates["plain"])
    result.ratio("plane2_vs_wireguard_go", rates["plane2"], rates["wireguard"])
    result.ratio("cpu_vs_wireguard_go", costs["plane2"], costs["wireguard"])
    result.ratio("pps_vs_wireguard_go", small["plane2"], small["wireguard"])


def _lossy(result: Result, plan: Plan, wire: Wire, targets: dict[str, str]) -> None:
    """One that loses a packet in a hundred, each way, with a round trip of 20 ms."""
    rates: Found = {name: [] for name in targets}
    for number in range(plan.lossy_rounds):
        say(f"a lossy wire, round {number + 1} of {plan.lossy_rounds}")
        for name, target in targets.items():
            rates[name].append(_mbit_s(wire, target, plan.lossy_s))
    for name in targets:
        result.figures[f"{name}_loss1_mbit_s"] = round(median(rates[name]), 2)
    for name in LOSSY[1:]:
        result.ratio(f"{name}_loss1_vs_bare", rates[name], rates["bare"])


def _mbit_s(wire: Wire, target: str, seconds: float) -> float:
    received: float = peers_ground.iperf(wire, target, seconds, *BBR)["sum_received"]["bits_per_second"]
    return max(received, 1) / 1e6


def _small_pps(wire: Wire, target: str, seconds: float) -> float:
    """UDP packets of 64 bytes that arrive in a second when as many are sent as can be."""
    end = peers_ground.iperf(wire, target, seconds, *SMALL)["sum"]
    arrived: float = end["packets"] - end["lost_packets"]
    return max(1.0, arrived / float(end["seconds"]))


def _loaded(wire: Wire, target: str, seconds: float) -> tuple[float, list[float]]:
    """The rate of TCP, and pings meanwhile; those of the first moments and the last count, too."""
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(_pings, wire, target, int(seconds / 0.02), 0.02)
        rate = _mbit_s(wire, target, seconds)
        return rate, asked.result()


def _pings(wire: Wire, target: str, count: int, interval_s: float) -> list[float]:
    with wire.near.entered():
        return icmp.pings_ms(target, count, interval_s)


def _targets() -> dict[str, str]:
    return {
        "plane1_vs_plain_aiortc": "aim: >= 2",
        "plane2_vs_wireguard_go": "aim: >= 0.9",
        "plane2_loss1_vs_bare": "aim: >= 0.6",
        "ping_extra_ms": "aim: <= 0.5",
        "ping_load_ms_p99": "aim: < 20",
    }
