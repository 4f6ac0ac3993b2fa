"""A mesh of three machines, with networks behind two of them and a NAT before one: everything reaches everything that
is allowed, and nothing else."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest

from tests import flows, meshed, nat
from tests.meshed import ADDRESSES, BARN, PEERS, SHOP, Ask, Mesh, mesh
from tests.rig import until

pytestmark = [
    pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN"),
    pytest.mark.needs("nft", "ip", "nsenter", "iperf3", "ss"),
]
TCP, UDP = (22, 80), (53,)
# Of each machine: what others may begin there. Who is not named may begin everything.
REACH = {
    "bob": {"alice": ["tcp/22", "192.168.7.0/24"], "carol": ["192.168.7.2:udp/53", "tcp/80"]},
    "carol": {"alice": ["192.168.9.0/24:tcp/80"], "bob": []},
}
WHO = (*PEERS, "shop")  # barn knows the way to nobody
NEIGHBOURS = ({"bob", "shop"}, {"carol", "barn"})  # who need no tunnel
TO = {
    "alice": ADDRESSES["alice"],
    "bob": ADDRESSES["bob"],
    "carol": ADDRESSES["carol"],
    "shop": (SHOP,),
    "barn": (BARN,),
}


def is_allowed(who: str, to: str, protocol: str, port: int) -> bool:
    """By the lines above, read by hand. What the shop asks comes from bob."""
    what = f"{protocol}/{port}"
    return {
        ("alice", "bob"): what == "tcp/22",
        ("alice", "shop"): True,
        ("alice", "carol"): False,
        ("alice", "barn"): what == "tcp/80",
        ("bob", "alice"): True,
        ("shop", "alice"): True,
        ("carol", "alice"): True,
        ("carol", "bob"): what == "tcp/80",
        ("carol", "shop"): what == "udp/53",
    }.get((who, to), False)


def asks() -> dict[Ask, bool]:
    """Everybody asks everybody else for everything: what is to be answered."""
    found = {}
    whats = [*(("tcp", port) for port in TCP), *(("udp", port) for port in UDP)]
    for who, (to, addresses), (protocol, port) in product(WHO, TO.items(), whats):
        for address in addresses if who != to and {who, to} not in NEIGHBOURS else ():
            if ":" not in address or (who != "shop" and protocol == "tcp"):
                found[Ask(who, address, protocol, port)] = is_allowed(who, to, protocol, port)
    return found


def sees(its: Mesh) -> None:
    """Whether all is as it should be."""
    wanted = asks()
    answered = its.answered(list(wanted))
    assert answered == {ask for ask, is_wanted in wanted.items() if is_wanted}


def test_everything_reaches_what_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    with mesh(tmp_path, REACH) as its, ExitStack() as stack:
        for place in its.places.values():
            meshed.serve(stack, place, TCP, UDP)
        sees(its)
        # One that claims another's address gets nothing by it.
        carol = its.places["carol"]
        carol.ip("addr add 10.77.0.1/32 dev lo", "route add 10.77.0.2/32 dev mvp-tun0 src 10.77.0.1 metric 1")
        before = spoofed(its)
        assert not its.answered([Ask("carol", ADDRESSES["bob"][0], "tcp", 80)])
        until(lambda: spoofed(its) > before)
        if os.environ.get("PLANARIA_LONG"):
            carol.ip("addr del 10.77.0.1/32 dev lo")  # the route goes with it
            after_kills(its)


def spoofed(its: Mesh) -> int:
    """What bob has dropped of carol's since she said that she was alice."""
    (row,) = (row for row in its.homes["bob"].pump.state().peers if row.peer == "carol")
    return row.dropped["spoofed"]


def after_kills(its: Mesh) -> None:
    """The same once everything of it has been killed under a connection, which goes on."""
    alice, bob = its.homes["alice"], its.homes["bob"]
    with flows.iperf(bob.place, alice.place, ADDRESSES["alice"][1]) as flow:
        faults = {
            "a session's child": lambda: os.kill(alice.child, signal.SIGKILL),
            "webrtc_peer": bob.kill_peer,
            "tun_pump": alice.kill_pump,
        }
        print("stalls in seconds:", {name: flows.stalls([flow], fault)["iperf3"] for name, fault in faults.items()})
    until(lambda: set(its.planes().values()) == {3}, 60)
    sees(its)
