"""Frames of a TUN and the packets in them, against a segmenter of a few lines that sums every packet anew."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack, pack_into, unpack_from

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.agent.lane.vnet import (
    ECN,
    HEAD,
    NEEDS_CSUM,
    PLAIN,
    TCP4,
    TCP6,
    UDP,
    Shape,
    counted,
    packets,
    segments,
    shape,
)
from procs.agent.packets import checksum, is_whole
from tests.examples import some_of

ADDRESSES = {4: bytes(range(1, 9)), 6: ip_address("fd77::1").packed + ip_address("fd77::2").packed}
FIN, PSH, ACK, CWR = 1, 8, 16, 128
KINDS = {(4, 6): TCP4, (6, 6): TCP6, (4, 17): UDP, (6, 17): UDP}


def packet(
    version: int, protocol: int, data: bytes, *, at: int = 0, number: int = 0, flags: int = ACK, more: bytes = b""
) -> bytes:
    """A whole one; `more` are options of TCP and, of version 4, of IP."""
    if protocol == 6:
        head = pack("!HHIIBBHHH", 80, 443, at & 0xFFFFFFFF, 5, (20 + len(more)) << 2, flags, 512, 0, 0) + more
    else:
        head = pack("!HHHH", 80, 443, 8 + len(data), 0)
    place = 16 if protocol == 6 else 6
    size = len(head) + len(data)
    found = checksum(ADDRESSES[version] + pack("!II", size, protocol) + head + data)
    head = head[:place] + pack("!H", found or 0xFFFF * (protocol == 17)) + head[place + 2 :]
    if version == 6:
        return pack("!IHBB", 6 << 28 | 9, size, protocol, 64) + ADDRESSES[6] + head + data
    ihl = 20 + len(more)
    ip = (
        pack("!BBHHHBBH", 0x40 | ihl >> 2, 3, ihl + size, number & 0xFFFF, 0x4000, 64, protocol, 0)
        + ADDRESSES[4]
        + more
    )
    return ip[:10] + pack("!H", checksum(ip)) + ip[12:] + head + data


def frame(version: int, protocol: int, data: bytes, step: int, *, partial: bool = True, **other: int | bytes) -> bytes:
    """As the kernel gives many in one, or one that is to be summed up."""
    whole = bytearray(packet(version, protocol, data, **other))  # type: ignore[arg-type]
    start = (whole[0] & 15) * 4 if version == 4 else 40
    place = 16 if protocol == 6 else 6
    headers = start + ((whole[start + 12] >> 4) * 4 if protocol == 6 else 8)
    if partial:
        pseudo = checksum(ADDRESSES[version] + pack("!II", len(whole) - start, protocol)) ^ 0xFFFF
        pack_into("!H", whole, start + place, pseudo)
    kind = KINDS[version, protocol] if step else 0
    flags = (NEEDS_CSUM, start, place) if partial else (2, 0, 0)
    return pack("<BBHHHH", flags[0], kind, headers if step else 0, step, *flags[1:]) + whole


CASES = st.tuples(
    st.sampled_from([4, 6]),
    st.sampled_from([6, 17]),
    st.binary(min_size=1, max_size=4000),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFF),
    st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, ACK | CWR | PSH]),
    st.sampled_from([b"", bytes([1] * 12), bytes([1] * 40)]),
    st.booleans(),
)


@settings(max_examples=some_of(300), deadline=None)
@given(CASES, st.integers(70, 1500))
def test_each_segment_is_as_if_it_had_been_sent_alone(case: tuple, step: int) -> None:  # type: ignore[type-arg]
    version, protocol, data, at, number, flags, more, partial = case
    options = {"flags": flags, "more": more, "at": at, "number": number}
    given_ = frame(version, protocol, data, step, partial=partial, **options)
    expected = []
    for index, begin in enumerate(range(0, len(data), step)):
        its = flags & ~(0 if index == 0 else CWR) & ~(0 if begin + step >= len(data) else FIN | PSH)
        part = data[begin : begin + step]
        expected.append(packet(version, protocol, part, at=at + begin, number=number + index, flags=its, more=more))
    assert segments(given_) == expected == packets([given_])
    assert packets([PLAIN + b"x", given_, PLAIN + b"y"]) == [b"x", *expected, b"y"]
    if step < len(data):
        assert counted([given_, PLAIN + b"x"]) == (len(expected) + 1, sum(map(len, expected)) + 1)
        assert shape(given_, len(given_)) == Shape(unpack_from("<H", given_, 2)[0], step, len(expected))


@settings(max_examples=some_of(100), deadline=None)
@given(CASES)
def test_a_sum_that_was_left_to_us_is_made(case: tuple) -> None:  # type: ignore[type-arg]
    version, protocol, data, at, number, flags, more, _ = case
    options = {"flags": flags, "more": more, "at": at, "number": number}
    expected = packet(version, protocol, data, **options)
    assert packets([frame(version, protocol, data, 0, **options)]) == [expected]


def test_a_sum_of_zero_is_said_as_the_protocol_has_it() -> None:
    for version in (4, 6):
        for protocol, said in ((6, b"\0\0"), (17, b"\xff\xff")):
            begins = 20 if version == 4 else 40
            place = begins + (16 if protocol == 6 else 6)
            rest = packet(version, protocol, bytes(2))[place : place + 2]  # which makes the sum of it all 0
            (found,) = segments(frame(version, protocol, rest, 0))
            assert found[place : place + 2] == said, (version, protocol)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
def test_what_does_not_add_up_is_no_frame(version: int, protocol: int) -> None:
    good = frame(version, protocol, bytes(3000), 1000)
    start = 20 if version == 4 else 40
    headers = start + (20 if protocol == 6 else 8)
    length_at, protocol_at = (2, 9) if version == 4 else (4, 6)
    assert shape(good, len(good)) == Shape(headers, 1000, 3) == shape(good[: HEAD + headers], len(good))

    def is_one(changes: dict[int, int], size: int = len(good), first: int = HEAD + headers) -> bool:
        changed = bytearray(good)
        for at, value in changes.items():
            changed[at] = value
        return shape(bytes(changed[:first]), size) is not None

    assert is_one({}) and is_one({1: good[1] | ECN}) and is_one({6: 0, 8: 0, 0: 0}), "or summed up already"
    for kind in {*range(1, 8), 0x40} - {good[1]}:
        assert not is_one({1: kind}), "of another kind"
    for changes in (
        {4: 0, 5: 0},  # segments of nothing
        {6: good[6] + 1},
        {8: good[8] + 1},  # a sum that is elsewhere
        {HEAD: good[HEAD] ^ 0x20},
        {HEAD: 0x50},  # of no version
        {HEAD + protocol_at: 1},
        {HEAD + length_at: good[HEAD + length_at] + 1},
        *([{HEAD: 0x44}, {HEAD: 0x4F}, {HEAD + 6: 0x20}, {HEAD + 7: 1}] if version == 4 else []),  # a fragment
        *([{HEAD + start + 12: 0x40}, {HEAD + start + 12: 0xF0}] if protocol == 6 else []),
    ):
        assert not is_one(changes), changes
    assert not is_one({}, len(good) + 1) and not is_one({}, first=HEAD + headers - 1)
    assert not is_one({HEAD + length_at: 0, HEAD + length_at + 1: headers - (version == 6) * 40}, HEAD + headers)


@settings(max_examples=some_of(300), deadline=None)
@given(st.sampled_from([4, 6]), st.sampled_from([6, 17]), st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255))))
def test_nothing_breaks_on_garbage(version: int, protocol: int, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(frame(version, protocol, bytes(200), 90))
    for at, value in changes:
        changed[at] = value
    for size in (len(changed), len(changed) - 90, 50, 40, 30, HEAD + 1):
        cut = bytes(changed[:size])
        if shape(cut, size):
            assert all(len(each) <= size - HEAD for each in segments(cut))
        if is_whole(cut[HEAD:], size - HEAD):
            segments(cut)


def test_a_segment_of_nothing_is_none() -> None:
    empty = frame(4, 6, b"", 1000)
    assert segments(empty) == [] and shape(empty, len(empty)) is None
