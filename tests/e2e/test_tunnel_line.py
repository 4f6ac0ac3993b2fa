"""A tunnel over a line that loses, delays and reorders packets, and that swallows all of them for a while: one session
of ssh lives through all of it, and nothing is left over or turns in circles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import flows, nat
from tests.bench import peers_ground
from tests.bench.measure import cpu_s, rss_mb
from tests.homes import BOB, Home, between, line, middle
from tests.rig import until

pytestmark = [
    pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN"),
    pytest.mark.needs("turnserver", "nft", "ip", "nsenter", "iperf3", "ss", "ssh", "sshd"),
]
LONG = bool(os.environ.get("PLANARIA_LONG"))
GOOD: dict[str, float] = {"loss": 0, "late": 0, "delay_s": 0.01, "cut": False}
LINES: dict[str, dict[str, float]] = {  # the worst of each kind
    "loss 5 %": {"loss": 0.05},
    "5 % come 20 ms late": {"late": 0.05},
    "100 ms": {"delay_s": 0.1},
}
if LONG:
    LINES |= {"loss 0.1 %": {"loss": 0.001}, "loss 1 %": {"loss": 0.01}, "20 ms": {"delay_s": 0.02}}
MET = '"connected to a peer"'
HOLE_S = 30.0 if LONG else 15.0  # three times what it takes to be noticed
BACK_S = 60.0  # at the end of a long one an agent waits up to 20 s for its next try at the signalling server


class Held(NamedTuple):
    """What the processes of a tunnel hold, and the CPU they have used so far."""

    files: int
    rss_mb: float
    cpu_s: float


def held(*pids: int) -> Held:
    """All of them together."""
    files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
    return Held(files, round(sum(map(rss_mb, pids)), 1), round(sum(map(cpu_s, pids)), 2))


def pids_of(*sides: Home) -> list[int]:
    """Of the tunnel on both sides: tun_pump, and what has the session."""
    return [pid for side in sides for pid in side.pids]


def test_a_tunnel_over_bad_lines_and_none_at_all(tmp_path: Path) -> None:
    with middle(tmp_path) as (world, turn, hub), line(world) as link:
        link.both(**GOOD)
        with (
            between(tmp_path, world, turn, hub) as (alice, bob),
            flows.ssh(alice.place, bob.place, BOB[6], tmp_path) as typed,
        ):
            met = (alice.logged() + bob.logged()).count(MET)
            wire, rates = peers_ground.Wire(alice.place, bob.place), {}
            for name, change in LINES.items():
                link.both(**(GOOD | change))
                end = peers_ground.iperf(wire, BOB[4], 2, "-C", "bbr", "-b", "20M")
                rates[name] = round(end["sum_received"]["bits_per_second"] / 1e6, 1)
            print("Mbit/s of 20, with a round trip of 20 ms unless it says another way:", rates)
            assert min(rates.values()) > 0.5
            assert (alice.logged() + bob.logged()).count(MET) == met, "the connection is the same"
            link.both(**GOOD)
            hole(link.both, alice, bob, typed, HOLE_S)


@pytest.mark.long
@pytest.mark.timeout(1000)
def test_ten_minutes_of_nothing(tmp_path: Path) -> None:
    with (
        middle(tmp_path) as (world, turn, hub),
        line(world) as link,
        between(tmp_path, world, turn, hub) as (alice, bob),
        flows.ssh(alice.place, bob.place, BOB[6], tmp_path) as typed,
    ):
        hole(link.both, alice, bob, typed, 600.0)


def hole(both: Callable[..., None], alice: Home, bob: Home, typed: flows.Flow, lasts_s: float) -> None:
    """Nothing arrives for so long, and nobody is told. The same processes are there afterwards, no larger."""
    both(cut=True)
    time.sleep(5)  # until it is noticed: what is done from then on is done for as long as it lasts
    pids = pids_of(alice, bob)
    before = held(*pids)
    time.sleep(lasts_s - 5)
    during = held(*pids)
    both(cut=False)
    began = time.monotonic()
    before_passed = typed.passed
    share = (during.cpu_s - before.cpu_s) / (lasts_s - 5)
    print(f"in a hole of {lasts_s:g} s: CPU {share:.1%}, {before} became {during}")
    for each in (alice, bob):
        until(lambda each=each: each.session().is_up, BACK_S)  # type: ignore[misc]
    up_s = time.monotonic() - began
    until(lambda: typed.passed > before_passed + 1 and typed.is_alive, 150)
    went_on_s = time.monotonic() - began
    time.sleep(5)  # what old connections held is let go
    after = held(*pids)
    print(f"up after {up_s:.1f} s, ssh goes on after {went_on_s:.1f} s; {after}")
    assert pids == pids_of(alice, bob), "nobody has had to be started again"
    assert share < 0.3, "of one processor, by both sides: nothing turns in circles"
    assert after.files <= before.files + 8 and after.rss_mb < before.rss_mb + 16
