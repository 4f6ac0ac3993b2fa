"""The fast lane where somebody floods its port with bogus records, where the path swallows what it needs, and on a
kernel that has no UDP offloads."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from tests import flooding, flows, nat
from tests.bench import peers_ground
from tests.bench.peers_ground import Wire
from tests.bench.supervised import supervised
from tests.faults.test_lane import HERE, LANE, MTU, THERE, both, datagrams, no_rules, ping, rows, stream, tunnel
from tests.homes import Home
from tests.rig import until

pytestmark = [
    pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN"),
    pytest.mark.needs("ip", "nsenter", "iperf3", "ss"),
]
ENDS = [("lane-a", HERE, MTU), ("lane-b", THERE, MTU)]
PPS, LASTS_S = 100_000, 0.5
# What kinds of bogus records are counted as.
COUNTED: dict[str, Callable[[Home], int]] = {
    "unknown": lambda home: home.pump.state().dropped["strangers_at_port"],
    "forged": lambda home: refused(home, "forged"),
    "replayed": lambda home: refused(home, "replayed"),
}


def refused(home: Home, kind: str) -> int:
    """Those of this kind, and those that were not looked at after so many of them."""
    lane = home.session().lane
    return lane[kind] + lane["unread"]


TOO_LONG = "udp length > 1300"  # for what probes plane 2


def test_a_flood_of_bogus_records_is_counted_and_does_nothing_else() -> None:
    with (
        peers_ground.straight() as wire,
        supervised(wire, ENDS) as (near, far),
        flows.iperf(near.place, far.place, THERE, "20M") as flow,
        flooding.stranger(wire.far) as stranger,
    ):
        port = far.pump.state().port
        real, before, pids = flooding.captured(wire.far, port, 0.5), far.session(), (near.pids, far.pids)
        for kind, count in COUNTED.items():
            counted, full = count(far), flooding.drops(wire.far, port)
            datagrams = flooding.bogus(kind, real)
            with flooding.flooding(stranger, (flooding.THERE, port), datagrams, PPS, LASTS_S) as flood:
                flow.began()
                passed, sent = flow.passed, flood.sent()
                assert flow.passed > passed
            lost = flooding.drops(wire.far, port) - full
            print(f"{kind}: {sent} sent, {lost} found no room; TCP paused for {flow.stall_s:.2f} s")
            assert sent > PPS * LASTS_S / 2, "a flood"
            until(lambda c=count, b=counted, s=sent, n=lost: s - 64 * n <= c(far) - b <= s)  # type: ignore[misc]
        after = far.session()
        for name in ("plane", "path", "remote", "mtu", "why"):
            assert getattr(after, name) == getattr(before, name)
        assert near.session().plane == 3 and (near.pids, far.pids) == pids
        for name in ("rekeys", "falls", "moves", "malformed"):
            assert after.lane[name] == before.lane[name]


def test_no_record_is_taken_that_comes_by_the_tunnel() -> None:
    with peers_ground.straight() as wire, supervised(wire, ENDS) as (near, far):
        port, before = far.pump.state().port, far.session()
        again = flooding.captured(wire.far, port, 2)[0]
        with near.place.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(50):
                sock.sendto(again, (THERE, port))
            until(lambda: far.session().received_packets >= before.received_packets + 50)
            for _ in range(5):
                sock.sendto(again, (peers_ground.FAR, port))
        until(lambda: far.session().lane["replayed"] > before.lane["replayed"])
        assert far.session().lane["replayed"] == before.lane["replayed"] + 5


@pytest.fixture
def wire() -> Iterator[Wire]:
    with peers_ground.straight() as made:
        yield made


def test_packets_fall_from_plane_to_plane_and_rise_again(wire: Wire) -> None:
    rules = "table inet test {{ chain in {{ type filter hook input priority 0; {what} }}; }}"
    no_lane, no_plane_2 = f"{LANE} drop;", f"meta l4proto udp {TOO_LONG} drop;"
    with tunnel(wire) as pair:
        for plane, what in ((2, no_lane), (1, no_lane + no_plane_2), (2, no_lane), (3, "")):
            no_rules(wire.far)
            wire.far.rules(rules.format(what=what))
            both(pair, lambda row, plane=plane: row["plane"] == plane)  # type: ignore[misc]
            until(lambda: ping(wire) == 5)
            assert datagrams(wire, [1, 1100]) == [1, 1100]


@pytest.mark.parametrize("far_is_plain", [False, True])
def test_a_kernel_that_cuts_and_joins_no_datagrams_has_the_lane_too(wire: Wire, far_is_plain: bool) -> None:
    programs = [("our_end", "3,2,1"), ("unjoined_end", "3,2,1")]
    near, far = programs if far_is_plain else reversed(programs)
    with peers_ground.pair(wire, near, ENDS, far=far) as pair, stream(wire) as tcp:
        tcp.goes_on()
        assert [row["plane"] for row in rows(pair)] == [3, 3]
