"""Packets between an interface and its peers: each to whom it is for, none from who may not send it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from procs.agent.lane import vnet
from procs.agent.lane.vnet import HEAD, PLAIN
from procs.agent.network import Tunnel
from procs.agent.switch import Switch
from tests.unit.test_packets import BOB4, BOB6, DONT_FRAGMENT, ME4, ME6, is_whole, v4, v6

EVE4 = ip_address("10.77.0.3").packed
TUNNEL = Tunnel(
    address=(ip_interface("10.77.0.1/24"), ip_interface("fd77::1/64")),
    allowed={
        "bob": (ip_network("10.77.0.2/32"), ip_network("fd77::2/128")),
        "eve": (ip_network("10.77.0.3/32"), ip_network("10.77.0.0/31")),  # our own address, too: no licence to use it
    },
)


def sort(switch: Switch, *given: bytes) -> tuple[dict[str, list[bytes]], list[bytes]]:
    """The same of packets."""
    found, answers = switch.sort([PLAIN + packet for packet in given])
    return {peer: vnet.packets(its) for peer, its in found.items()}, [b"".join(iov)[HEAD:] for iov in answers]


def admit(switch: Switch, peer: str, *given: bytes) -> list[bytes]:
    """The same of packets."""
    return [b"".join(iov)[HEAD:] for iov in switch.admit(peer, [[PLAIN + packet] for packet in given])]


def test_each_packet_goes_to_who_has_its_address() -> None:
    switch = Switch(TUNNEL)
    to_bob, to_eve, to_nobody = v4(b"1"), v4(b"2", to=EVE4), v4(b"3", to=ip_address("10.77.0.9").packed)
    sorted_, answers = sort(switch, to_bob, to_eve, to_nobody, v6(b"4"), b"garbage", v6(b"5", to=ME6))
    assert sorted_ == {"bob": [to_bob, v6(b"4")], "eve": [to_eve]} and answers == []
    assert switch.homeless == 3


@pytest.mark.parametrize("body", [b"1", b"1" * 40])  # those of 40 bytes and more go the short way
def test_nobody_sends_from_an_address_that_is_not_its(body: bytes) -> None:
    switch = Switch(TUNNEL)
    good = v4(body, source=BOB4, to=ME4), v6(body, source=BOB6, to=ME6)
    bad = v4(body, source=EVE4, to=ME4), v4(body, source=ME4, to=ME4), v6(body, source=ME6, to=ME6)
    for _ in range(2):  # the second time every address is known
        assert admit(switch, "bob", *good, *bad, b"", b"garbage" * 9, good[0][:-1], good[0] + b"x") == list(good)
        assert admit(switch, "eve", v4(body, source=ME4, to=ME4)) == []
    its = switch.traffic["bob"]
    assert (its.received_packets, its.spoofed, its.malformed) == (4, 6, 8)
    assert its.received_bytes == 2 * sum(map(len, good)) and switch.traffic["eve"].spoofed == 2


def test_what_a_session_can_not_carry_is_split_or_its_sender_told() -> None:
    switch = Switch(TUNNEL)
    whole, strict = v4(bytes(1300)), v4(bytes(1300), flags=DONT_FRAGMENT)
    assert sort(switch, whole, strict, whole) == ({"bob": [whole, strict, whole]}, [])
    switch.takes("bob", 1158)
    small = v4(bytes(100))
    assert sort(switch, small, whole)[0]["bob"][0] == small
    sorted_, answers = sort(switch, whole, strict, v6(bytes(1200)), v6(bytes(1300)), v4(bytes(1300), to=EVE4))
    assert [len(each) for each in sorted_["bob"]] == [1156, 184, 1240], "two fragments, and what IPv6 always carries"
    assert len(answers) == 2 and all(map(is_whole, answers)) and switch.traffic["bob"].too_big == 2
    assert len(sorted_["eve"]) == 1, "of another's session it says nothing"


def test_a_frame_whose_sum_belongs_into_the_header_of_ip_goes_nowhere() -> None:
    switch = Switch(TUNNEL)
    for body in (bytes(40), bytes(3000)):  # of which one would be split
        found, answers = switch.sort([bytes([vnet.NEEDS_CSUM]) + bytes(HEAD - 1) + v4(body)])
        assert found == {"bob": []} and answers == []
    assert switch.homeless == 2


def test_what_was_sent_is_counted() -> None:
    switch = Switch(TUNNEL)
    switch.sent_packets("bob", [b"12", b"345", b"6"], 2)
    assert switch.traffic["bob"].passed() == {
        "sent_packets": 2, "sent_bytes": 5, "received_packets": 0, "received_bytes": 0,
    }  # fmt: skip
    assert switch.traffic["bob"].dropped() == {"too_big": 0, "spoofed": 0, "malformed": 0, "lost": 1, "unreadable": 0}
