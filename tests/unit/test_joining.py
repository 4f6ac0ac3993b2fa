"""Segments joined on their way to the TUN: what comes out is what they carry, under sums that still tell of damage."""

from __future__ import annotations

import itertools
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.agent.joining import datagrams, iovs
from procs.agent.lane import vnet
from procs.agent.lane.vnet import PLAIN
from procs.agent.packets import checksum
from tests.examples import some_of
from tests.unit.test_vnet import frame

TCP = 6
ADDRESSES = {4: bytes(range(8)), 6: bytes(range(32))}
ACK, PSH, FIN, SYN, CWR = 16, 8, 1, 2, 128
SIZE = 1328


def pseudo(version: int, size: int) -> bytes:
    """What a TCP checksum covers beside TCP."""
    return ADDRESSES[version] + struct.pack("!II", size, TCP)


def segment(version: int, data: bytes, *, at: int = 0, flags: int = ACK, number: int = 7, ack: int = 5) -> bytes:
    """A packet whose sums are right."""
    tcp = struct.pack("!HHIIBBHHH", 80, 443, at & 0xFFFFFFFF, ack, 0x80, flags, 512, 0, 0) + b"options12345" + data
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo(version, len(tcp)) + tcp)) + tcp[18:]
    if version == 6:
        return struct.pack("!IHBB", 6 << 28 | 9, len(tcp), TCP, 64) + ADDRESSES[6] + tcp
    head = struct.pack("!BBHHHBBH", 0x45, 3, 20 + len(tcp), number, 0x4000, 64, TCP, 0) + ADDRESSES[4]
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


def segments(version: int, data: bytes, first: int, last: int = ACK, size: int = SIZE) -> list[bytes]:
    """This in a row."""
    return [
        segment(
            version,
            data[at : at + size],
            at=first + at,
            flags=last if at + size >= len(data) else ACK,
            number=(65530 + at // size) & 0xFFFF,
        )
        for at in range(0, len(data), size)
    ]


def is_whole(packet: bytes) -> bool:
    """Whether all its sums are right."""
    version = packet[0] >> 4
    tcp = packet[40 if version == 6 else 20 :]
    return checksum(pseudo(version, len(tcp)) + tcp) == 0 and (version == 6 or checksum(packet[:20]) == 0)


def frames(packets: list[bytes]) -> list[tuple[bytes, int]]:
    """What is written for them, and of how many each is."""
    return [(b"".join(iov), max(1, len(iov) - 1)) for iov in iovs(packets)]


def counts(packets: list[bytes]) -> list[int]:
    """How they were joined."""
    return [count for _, count in frames(packets)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("length", [SIZE + 1, 2 * SIZE, 20 * SIZE + 701, 48 * SIZE])
def test_what_follows_is_one_that_carries_all_and_still_adds_up(version: int, length: int) -> None:
    data = random.Random(length).randbytes(length)
    for first in (1000, 0xFFFFF000):  # where sequence numbers begin again, too
        ((frame, count),) = frames(segments(version, data, first, ACK | PSH))
        packet, start = frame[len(PLAIN) :], 40 if version == 6 else 20
        assert count == -(-length // SIZE)
        assert frame[: len(PLAIN)] == struct.pack("<BBHHHH", 0, 4 if version == 6 else 1, start + 32, SIZE, 0, 0)
        assert is_whole(packet)
        assert packet[start + 32 :] == data
        assert packet[start + 4 : start + 8] == struct.pack("!I", first)
        assert packet[start + 13] == ACK | PSH


def test_more_than_a_packet_can_hold_is_several() -> None:
    data = bytes(SIZE * 120)
    assert sum(counts(segments(4, data, 0))) == 120
    assert b"".join(frame[len(PLAIN) + 52 :] for frame, _ in frames(segments(4, data, 0))) == data
    assert all(len(frame) < 1 << 16 for frame, _ in frames(segments(4, data, 0)))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("where", [-1, -SIZE - 100, 20 * SIZE])
def test_damage_in_one_is_damage_in_the_whole(version: int, where: int) -> None:
    whole = segments(version, bytes(SIZE * 30), 9)
    at = where // SIZE if where > 0 else -1 - (-where // SIZE)
    whole[at] = whole[at][:-1] + b"\1"
    ((frame, _),) = frames(whole)
    assert not is_whole(frame[len(PLAIN) :])


@pytest.mark.parametrize("version", [4, 6])
def test_only_what_follows_in_one_connection_is_joined(version: int) -> None:
    row = segments(version, bytes(3000), 1000, size=1000)
    after = segment(version, bytes(1000), at=4000, number=65533)
    assert counts([*row, after]) == [4]
    for other in (
        segment(version, bytes(1000), at=5000),
        segment(version, bytes(1002), at=4000),
        segment(version, bytes(1000), at=4000, ack=6),
        segment(version, bytes(1000), at=4000, flags=ACK | CWR),
        segment(version, bytes(1000), at=4000, flags=ACK | FIN),
        segment(version, b"", at=4000),
        segment(10 - version, bytes(1000), at=4000),
        after[:-1],
    ):
        assert counts([*row, other]) == [3, 1]
        assert frames([*row, other])[1][0] == PLAIN + other
    assert counts([*segments(version, bytes(2000), 1000, ACK | PSH, 1000), after]) == [2, 1]
    assert counts([*segments(version, bytes(1500), 1000, size=1000), after]) == [2, 1]
    assert counts(segments(version, bytes(3003), 1000, size=1001)) == [1, 1, 1]
    assert counts(segments(version, bytes(3000), 1000, size=1000)[::-1]) == [1, 1, 1]
    assert counts([segment(version, b"", flags=SYN), *row]) == [1, 3]


def test_one_with_a_wrong_sum_of_its_header_stands_alone() -> None:
    row = segments(4, bytes(3000), 1000, size=1000)
    row[1] = row[1][:8] + b"\5" + row[1][9:]
    assert counts(row) == [1, 1, 1]
    row = segments(4, bytes(3000), 1000, size=1000)
    row[1] = row[1][:5] + b"\1" + row[1][6:]
    assert counts(row) == [1, 1, 1]


@settings(max_examples=some_of(200))
@given(st.lists(st.binary(min_size=1, max_size=120), max_size=5), st.sampled_from([0x45, 0x60, 0x4F, 0x40, 0x65]))
def test_garbage_of_a_peer_goes_as_it_is(garbage: list[bytes], first: int) -> None:
    packets = [bytes((first,)) + each for each in garbage]
    for protocol in (6, 9):  # as TCP of either, with a length that fits
        packets += [each[:protocol] + bytes((TCP,)) + each[protocol + 1 :] for each in packets[:5]]
    packets += [each[:2] + len(each).to_bytes(2, "big") + each[4:33] + bytes((ACK,)) + each[34:] for each in packets]
    assert sum(counts(packets)) == len(packets)


def datagram(version: int, port: int, size: int, number: int) -> bytes:
    """A frame of UDP that is to be summed up."""
    made = bytearray(frame(version, 17, bytes([number % 251]) * size, 0, number=number))
    start = len(PLAIN) + (20 if version == 4 else 40)
    made[start : start + 2] = struct.pack("!H", port)
    return bytes(made)


def unnumbered(packet: bytes) -> bytes:
    """Without what the kernel may choose, where that is right."""
    if packet[0] >> 4 == 6:
        return packet
    assert checksum(packet[:20]) == 0
    return packet[:4] + packet[6:10] + packet[12:]


@settings(max_examples=some_of(200), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([4, 6]), st.integers(1, 2), st.sampled_from([1, 80, 900]), st.integers(1, 80)),
        max_size=6,
    )
)
def test_datagrams_of_one_flow_and_size_are_joined_and_no_others(runs: list[tuple[int, int, int, int]]) -> None:
    row = [[datagram(version, port, size, index)] for version, port, size, many in runs for index in range(many)]
    found = datagrams(row)
    before, after = (vnet.packets([b"".join(iov) for iov in iovs_]) for iovs_ in (row, found))
    assert list(map(unnumbered, after)) == list(map(unnumbered, before))
    least = sum(1 for _ in itertools.groupby(runs, lambda run: run[:3]))
    assert least <= len(found) <= least + 2 * len(runs) + len(row) // 64
    for iov in found:
        first, whole = bytes(iov[0]), sum(map(len, iov))
        shape = vnet.shape(first, whole)
        assert shape and (len(iov) == 1 or (shape.many == len(iov) - 1 <= 64 and whole <= 58_000))


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_that_differs_stands_alone(version: int) -> None:
    row = [datagram(version, 5, 100, number) for number in range(3)]
    at = len(PLAIN)
    assert len(datagrams([[each] for each in row])) == 1
    places = [0, 1, 6, at, at + 1, at + 8, at + 12, at + 20, at + 22]  # length, TTL, an address, ports, ...
    for place in places:
        other = row[1][:place] + bytes([row[1][place] ^ 1]) + row[1][place + 1 :]
        assert len(datagrams([[row[0]], [other], [row[2]]])) == 3, place
    for cut in (row[1][:-1], row[1][: at + 30], b"", row[1] + b"x"):
        assert len(datagrams([[row[0]], [cut], [row[2]]])) == 3
        assert len(datagrams([[cut], [cut], [cut]])) == 3
    assert len(datagrams([[row[0]], [row[1], b""], [row[2]]])) <= 2
    packets = [[PLAIN + each[at:]] for each in row]
    assert datagrams(packets) == packets, "what is summed up already may be damaged, and nobody would know"
    if version == 4:
        split = [[each[: at + 6] + bytes([bits]) + each[at + 7 :]] for each, bits in zip(row, b"\0\0\0", strict=True)]
        assert len(datagrams(split)) == 3, "whoever makes fragments of it needs its number"
