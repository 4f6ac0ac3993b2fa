"""Tunnels that the bench of one compares, each over the same wire: ours by plane, ours as a whole suite, wireguard-go,
plain aiortc, and the wire itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tests.bench import icmp, peers_ground
from tests.bench.icmp import Ping
from tests.bench.measure import cpu_s, say
from tests.bench.peers_ground import FAR, Pair, Wire
from tests.bench.supervised import supervised

# Their interfaces' names and MTUs: what fits whole into what carries it. In this order they stand up, plain aiortc
# first: it would take any other tunnel for a way to its peer.
TUNNELS: dict[str, tuple[tuple[str, ...], int]] = {
    "plain": (("plain_end",), 1160),
    "plane3": (("our_end", "3,2,1"), 1380),
    "plane2": (("our_end", "2,1"), 1380),
    "plane1": (("our_end", "1"), 1158),
    "supervised": ((), 1380),
    "wireguard": ((), 1420),
    "bare": ((), 1500),
}
SUPERVISED, BARE = "supervised", "bare"
PINGS_LOST = 20  # at most, each for a second, before a tunnel answers


class Tunnel(NamedTuple):
    """One that stands."""

    far: str  # the far address in it
    near_pids: Sequence[int] = ()
    far_pids: Sequence[int] = ()
    pair: Pair | None = None

    def cpu_s(self) -> tuple[float, float]:
        """What the near end and the far one have used."""
        return sum(map(cpu_s, self.near_pids)), sum(map(cpu_s, self.far_pids))


def stand_all(stack: ExitStack, wire: Wire, names: Sequence[str]) -> dict[str, Tunnel]:
    """Set these up, and see that a ping passes each of them."""
    tunnels = {name: _stand(stack, wire, name, number) for number, name in enumerate(names)}
    for name, tunnel in tunnels.items():
        assert any(round_trips(wire, tunnel.far, 1, 0) for _ in range(PINGS_LOST)), f"{name} does not answer"
    return tunnels


def _stand(stack: ExitStack, wire: Wire, name: str, number: int) -> Tunnel:
    """Set up that tunnel."""
    program, mtu = TUNNELS[name]
    near, far = f"10.77.{number}.1", f"10.77.{number}.2"
    ends = [(f"{name}a", near, mtu), (f"{name}b", far, mtu)]
    if name == BARE:
        return Tunnel(FAR)
    say(f"{name} stands up")
    if name == SUPERVISED:
        ours, theirs = stack.enter_context(supervised(wire, ends))
        return Tunnel(far, ours.pids, theirs.pids)
    if not program:
        pids = stack.enter_context(peers_ground.wireguard(wire, ends))
        return Tunnel(far, pids[:1], pids[1:])
    pair = stack.enter_context(peers_ground.pair(wire, program, ends))
    return Tunnel(far, pair.pids[:1], pair.pids[1:], pair)


def round_trips(wire: Wire, target: str, count: int, interval_s: float) -> list[float]:
    """Milliseconds of those that are answered."""
    return [ping.ms for ping in pings(wire, target, count, interval_s)]


def pings(wire: Wire, target: str, count: int, interval_s: float) -> list[Ping]:
    """From the near end."""
    with wire.near.entered():
        return icmp.pings(target, count, interval_s)
