"""IP packets of a tunnel: whose they are, opened TCP connections, what is too large. Made by hand, checked by sums."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from struct import pack, unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.agent import packets
from procs.agent.packets import Prefixes, checksum, clamped, may_be_split, overlap, split, too_big

ME4, BOB4 = ip_address("10.77.0.1").packed, ip_address("10.77.0.2").packed
ME6, BOB6 = ip_address("fd77::1").packed, ip_address("fd77::2").packed
DONT_FRAGMENT = 0x4000


def v4(body: bytes, protocol: int = 17, flags: int = 0, source: bytes = ME4, to: bytes = BOB4) -> bytes:
    """A packet with a right checksum."""
    head = pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, flags, 64, protocol, 0) + source + to
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


def v6(body: bytes, following: int = 17, source: bytes = ME6, to: bytes = BOB6) -> bytes:
    """The same of IPv6."""
    return pack("!IHBB", 6 << 28, len(body), following, 64) + source + to + body


def is_whole(packet: bytes) -> bool:
    """It is all there."""
    return packets.is_whole(packet[:60], len(packet))


def tcp_sum(packet: bytes) -> int:
    """0 where the TCP checksum is right."""
    is_4 = packet[0] >> 4 == 4
    body = packet[20:] if is_4 else packet[40:]
    addresses = packet[12:20] if is_4 else packet[8:40]
    return checksum(addresses + pack("!HHI", 0, 6, len(body))[2:] + body)


def syn(options: bytes, *, is_4: bool, flags: int = 2) -> bytes:
    """The first packet of a TCP connection."""
    options += bytes(-len(options) % 4)
    body = bytearray(pack("!HHIIBBHHH", 1, 2, 3, 0, (20 + len(options)) * 4, flags, 9, 0, 0) + options)
    whole = v4(bytes(body), 6) if is_4 else v6(bytes(body), 6)
    body[16:18] = tcp_sum(whole).to_bytes(2, "big")
    return v4(bytes(body), 6) if is_4 else v6(bytes(body), 6)


@pytest.mark.parametrize("is_4", [True, False])
@pytest.mark.parametrize("before", [b"", b"\1", b"\1\1\1", b"\4\2"])  # the option begins at a word, or does not
def test_a_connection_that_is_opened_gets_segments_that_fit(is_4: bool, before: bytes) -> None:
    packet = syn(before + b"\2\4" + pack("!H", 1460) + b"\3\3\7", is_4=is_4)
    assert tcp_sum(packet) == 0
    changed = clamped(packet, 1380)
    assert pack("!H", 1340 if is_4 else 1320) in changed and tcp_sum(changed) == 0 and len(changed) == len(packet)
    assert clamped(changed, 1380) is changed, "what fits stays as it is"


def test_other_packets_stay_as_they_are() -> None:
    mss = b"\2\4" + pack("!H", 1460)
    for packet in (syn(mss, is_4=True, flags=16), syn(b"\1\1", is_4=True), syn(b"\3\0\0\0" + mss, is_4=False), v4(mss)):
        assert clamped(packet, 1380) is packet


@pytest.mark.parametrize("is_4", [True, False])
def test_options_that_are_cut_short_stay_as_they_are(is_4: bool) -> None:
    cut = syn(b"\1\2\4\xff\xff" + bytes(7), is_4=is_4)[:-7]  # the last of an odd number of bytes is the option's
    assert clamped(cut, 600) is cut


@given(st.binary(max_size=120), st.booleans())
def test_nothing_breaks_on_garbage(data: bytes, is_4: bool) -> None:
    size = len(data)
    packet = (
        b"\x45\0" + (size + 4).to_bytes(2, "big") + data
        if is_4
        else b"\x60\0\0\0" + bytes([0, max(0, size - 34)]) + data
    )
    for each in (packet, data):
        if is_whole(each):
            assert len(clamped(each, 600)) == len(each)
            assert not (told := too_big(each, 600)) or is_whole(told)
            if may_be_split(each):
                assert b"".join(part[(each[0] & 15) * 4 :] for part in split(each, 600)) in each


def test_what_is_no_packet_is_known() -> None:
    good = v4(b"x" * 30)
    assert is_whole(good) and is_whole(v6(b"x"))
    for bad in (b"", good[:-1], good + b"x", b"\x44" + good[1:], b"\x4f" + good[1:], v6(b"x")[:39], b"\x65" + good[1:]):
        assert not is_whole(bad)


def test_a_sender_is_told_what_fits() -> None:
    packet = v4(bytes(1300), flags=DONT_FRAGMENT)
    told = too_big(packet, 1158)
    assert is_whole(told) and (told[12:16], told[16:20]) == (BOB4, ME4) and checksum(told[:20]) == 0
    assert told[20:22] == b"\3\4" and unpack_from("!H", told, 26) == (1158,) and checksum(told[20:]) == 0
    assert told[28:] == packet[:28]
    told = too_big(v6(bytes(1400)), 1280)
    assert is_whole(told) and len(told) == 1280 and (told[8:24], told[24:40]) == (BOB6, ME6)
    assert (told[40:42], unpack_from("!I", told, 44)) == (b"\2\0", (1280,))
    assert checksum(told[8:40] + pack("!II", len(told) - 40, 58) + told[40:]) == 0


def test_nobody_is_told_of_errors() -> None:
    assert too_big(v4(b"\3\4" + bytes(1300), 1), 1158) == b""
    assert too_big(v6(b"\1\0" + bytes(1300), 58), 1280) == b""
    assert too_big(v4(bytes(1300), flags=5), 1158) == b"", "nor of a fragment that is not the first"
    assert too_big(v4(b"\x08\0" + bytes(1300), 1), 1158) and too_big(v6(b"\x80\0" + bytes(1300), 58), 1280)


def test_fragments_make_the_packet_again() -> None:
    body = bytes(range(256)) * 12
    packet = v4(body, flags=0)
    parts = split(packet, 1158)
    again = b"".join(part[20:] for part in parts)
    assert again == body and all(is_whole(part) and checksum(part[:20]) == 0 for part in parts)
    assert max(map(len, parts)) <= 1158
    words = [unpack_from("!H", part, 6)[0] for part in parts]
    assert [word & 0x1FFF for word in words] == [0, 142, 284] and [word >> 13 for word in words] == [1, 1, 0]
    nested = split(parts[1], 600)  # of a fragment
    assert [unpack_from("!H", part, 6)[0] for part in nested] == [0x2000 | 142, 0x2000 | 214]


def test_an_address_belongs_to_who_is_allowed_it() -> None:
    table = Prefixes({
        "bob": [IPv4Network("10.77.0.2/32"), IPv6Network("fd77::2/128"), IPv4Network("192.168.4.0/22")],
        "eve": [IPv4Network("10.78.0.0/16"), IPv6Network("fd78::/16")],
    })  # fmt: skip
    whose = {
        "10.77.0.2": "bob", "10.77.0.3": "", "192.168.7.255": "bob", "192.168.8.0": "", "10.78.9.9": "eve",
        "fd77::2": "bob", "fd77::3": "", "fd78:9::1": "eve", "255.255.255.255": "", "::": "",
    }  # fmt: skip
    for _ in range(2):  # the second time from memory
        assert {text: table.peer(ip_address(text).packed) for text in whose} == whose
    assert Prefixes({"all": [IPv4Network("0.0.0.0/0")]}).peer(ME4) == "all"
    for number in range(10_000):
        table.peer(number.to_bytes(4, "big"))
    assert len(table.known) <= 4096


def test_prefixes_of_two_that_overlap_are_named() -> None:
    networks = {"bob": [ip_network("10.0.0.0/8")], "eve": [ip_network("fd00::/8"), ip_network("10.1.0.0/16")]}
    assert overlap(networks) == "10.0.0.0/8 of bob and 10.1.0.0/16 of eve"
    assert overlap({"bob": [ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16")], "eve": [ip_network("::/0")]}) == ""
