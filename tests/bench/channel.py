"""Channel: what a data channel between two of our agents carries, and how soon an answer is back.

The peer, in turn with ours: aiortc as it comes, on asyncio, with its own sockets. Both are two processes in two network
namespaces with a wire between; messages of 16 KiB, ordered and reliable, bounded by bufferedAmount. A file from disk to
disk, with its digest, is held against the same messages of the peer, which has no such thing.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

from tests.bench import peers_ground
from tests.bench.measure import Result, Size, median, percentile, say
from tests.bench.peers_ground import Pair


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    bulk_s: float
    pings: int
    file_bytes: int


PLANS: dict[Size, Plan] = {
    "full": Plan(7, 5.0, 1000, 50_000_000),
    "quick": Plan(3, 2.0, 300, 12_000_000),
    "least": Plan(1, 0.5, 20, 200_000),
}
KINDS = {"ours": ("our_end", "2,1"), "plain": ("plain_end",)}


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere without root."""
    peers_ground.need()
    plan = PLANS[size]
    result = Result("channel", targets={"send_file_vs_plain_aiortc": "aim: >= 1.8"})
    result.peers = {"plain": "aiortc as it comes, on asyncio"}
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    pings: dict[str, list[float]] = {kind: [] for kind in KINDS}
    files: list[float] = []
    with ExitStack() as stack:
        wire = stack.enter_context(peers_ground.straight())
        pairs: dict[str, Pair] = {
            kind: stack.enter_context(peers_ground.pair(wire, end)) for kind, end in KINDS.items()
        }
        for number in range(plan.rounds):
            say(f"channels, round {number + 1} of {plan.rounds}")
            for kind, each in pairs.items():
                pings[kind].append(percentile(each.asked("pings", plan.pings), 0.5))
                rates[kind].append(each.asked("bulk", plan.bulk_s))
            files.append(pairs["ours"].asked("file", plan.file_bytes))
    for kind, prefix in (("ours", ""), ("plain", "plain.")):
        result.figures[f"{prefix}mbit_s"] = round(median(rates[kind]), 1)
        result.figures[f"{prefix}ping_us_p50"] = round(median(pings[kind]), 1)
    result.figures["send_file_mbit_s"] = round(median(files), 1)
    result.ratio("mbit_vs_plain_aiortc", rates["ours"], rates["plain"])
    result.ratio("ping_vs_plain_aiortc", pings["ours"], pings["plain"])
    result.ratio("send_file_vs_plain_aiortc", files, rates["plain"])
    return result
