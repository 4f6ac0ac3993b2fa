"""Rules of nft, and what the kernel tells of them: that they are well-formed whatever is asked for."""

from __future__ import annotations

import os
import random
import subprocess
from ipaddress import ip_interface, ip_network
from struct import pack

import pytest

from procs.agent import reach
from procs.agent.network import Tunnel
from procs.tun_pump.guard import removed
from procs.tun_pump.ruleset import away, forwarded, rules

ADDRESSES = ip_interface("10.77.0.1/24"), ip_interface("fd77::1/64")
BOB = {"bob": (ip_network("10.77.0.2/32"), ip_network("10.77.0.0/28"), ip_network("fd77::2/128"))}
EVE = {"eve@home:2": (ip_network("10.77.0.32/32"),)}
LAN = ip_network("192.168.7.0/24"), ip_network("192.168.7.0/25"), ip_network("fd07::/64")
TUNNEL = Tunnel(address=ADDRESSES, allowed={**BOB, **EVE})


def test_none_where_none_are_wanted() -> None:
    assert rules(TUNNEL) == "" and forwarded(TUNNEL) == set()
    assert forwarded(TUNNEL.but(masquerade=True)) == {4, 6}
    assert forwarded(TUNNEL.but(masquerade=True, subnets=LAN[:1])) == {4}, "what is wanted, and no more"


@pytest.mark.skipif(os.geteuid() != 0, reason="nft wants root, even to look at rules")
@pytest.mark.parametrize(
    "tunnel",
    [
        TUNNEL.but(masquerade=True),
        TUNNEL.but(subnets=LAN),
        TUNNEL.but(reach={"bob": ()}),
        TUNNEL.but(
            reach={"eve@home:2": reach.parse("icmp tcp udp/1-65535 tcp/80,22,20-30,31 fd07::/64:icmp 10.0.0.0/8")}
        ),
        TUNNEL.but(
            interface="a.b_c-5", reach={"bob": reach.parse("tcp/22"), "eve@home:2": ()}, subnets=LAN, masquerade=True
        ),
    ],
)
def test_nft_takes_them(tunnel: Tunnel) -> None:
    text = away(tunnel.interface) + rules(tunnel)
    done = subprocess.run(["nft", "-c", "-f", "-"], input=text, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{text}"


def message(kind: int, name: bytes) -> bytes:
    """As the kernel tells of a table, a chain or a rule."""
    attributes = pack("=HH", 8, 2) + bytes(4) + pack("=HH", 4 + len(name), 1) + name + bytes(-len(name) % 4)
    return pack("=IHHII", 20 + len(attributes), kind, 0, 0, 0) + bytes(4) + attributes


def test_what_was_removed_is_read_and_nothing_else_of_what_may_come() -> None:
    told = [message(0x0A00 | kind, b"table%d\0" % kind) for kind in range(25)] + [message(2, b"other\0")]
    assert list(removed(b"".join(told))) == [b"table2", b"table5", b"table8"]
    chance = random.Random(7)
    for _ in range(3000):
        text = bytearray(b"".join(chance.choices(told, k=3)))
        for _ in range(chance.randrange(1, 4)):
            text[chance.randrange(len(text))] = chance.randrange(256)
        assert all(isinstance(each, bytes) for each in removed(bytes(text[: chance.randrange(len(text))])))
