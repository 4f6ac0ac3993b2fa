"""RTP to access units: whole, at once, with their parameter sets, and never more memory than bounds allow."""

from __future__ import annotations

import struct

import pytest
from aiortc.codecs.h264 import H264Encoder
from hypothesis import given
from hypothesis import strategies as st

from procs.errors import Refused
from procs.media import annexb, depacketizer

SPS, PPS = b"\x67\x42\xc0\x20", b"\x68\xce\x3c\x80"
IDR, SLICE = b"\x65" + b"i" * 5000, b"\x41" + b"p" * 90


def packets(nals: list[bytes], time: int, first: int = 0) -> list[depacketizer.Packet]:
    """As aiortc packs them: an encoder of somebody else's."""
    payloads = H264Encoder._packetize(nals)
    return [
        depacketizer.Packet(96, at == len(payloads) - 1, (first + at) & 0xFFFF, time, payload)
        for at, payload in enumerate(payloads)
    ]


def pushed(into: depacketizer.H264, every: list[depacketizer.Packet]) -> list[depacketizer.Unit]:
    return [unit for packet in every for unit in into.push(packet)]


def test_a_unit_is_there_with_its_last_packet() -> None:
    into = depacketizer.H264()
    *before, last = packets([SPS, PPS, IDR], 3000)
    assert pushed(into, before) == []
    (unit,) = into.push(last)
    assert unit.is_keyframe and unit.time == 3000
    assert annexb.split(unit.data) == [SPS, PPS, IDR]


def test_a_keyframe_without_its_sets_gets_the_newest() -> None:
    into = depacketizer.H264((b"\x67old", PPS))
    pushed(into, packets([SPS], 1))  # sets may come in a packet of their own, marked or not
    (unit,) = pushed(into, packets([IDR], 2, 1))
    assert annexb.split(unit.data) == [SPS, PPS, IDR]


def test_a_picture_that_is_no_keyframe_stays_as_it_is() -> None:
    (unit,) = pushed(depacketizer.H264((SPS, PPS)), packets([b"\x09\x10", SLICE], 1))
    assert not unit.is_keyframe and annexb.split(unit.data) == [SLICE]


def test_a_unit_without_a_marker_ends_with_the_next_time() -> None:
    into = depacketizer.H264()
    (first,) = packets([SLICE], 1)
    assert into.push(first._replace(is_last=False)) == []
    units = pushed(into, packets([SLICE], 2, 1))
    assert [unit.time for unit in units] == [1, 2]


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_a_unit_that_lacks_a_packet_is_left_out_and_the_next_is_whole(missing: int) -> None:
    into = depacketizer.H264()
    before = packets([SLICE], 0, 65534)
    broken = packets([SPS, PPS, IDR], 1, 65535)
    after = packets([SLICE], 2, (65535 + len(broken)) & 0xFFFF)
    assert len(broken) > 4
    del broken[missing]
    assert [unit.time for unit in pushed(into, before + broken + after)] == [0, 2]
    assert into.lost == 1


def test_what_grows_without_an_end_is_refused() -> None:
    into = depacketizer.H264()
    for at in range(3000):
        body = (b"\x7c\x85" if not at else b"\x7c\x05") + bytes(1200)
        into.push(depacketizer.Packet(96, False, at & 0xFFFF, 1, body))
    assert into.refused and sum(map(len, into._fragments)) < depacketizer.MAX_UNIT


def test_padding_extensions_and_sources_are_no_payload() -> None:
    head = struct.pack(">BBHII", 0xB1, 0xE0, 7, 9, 1) + b"srce" + b"\xbe\xde\0\1abcd"
    assert depacketizer.parse(head + b"pay" + b"\0\0\3") == depacketizer.Packet(96, True, 7, 9, b"pay")


@given(st.binary(max_size=40))
def test_whatever_comes_is_parsed_or_refused(data: bytes) -> None:
    try:
        packet = depacketizer.parse(data)
    except Refused:
        return
    assert len(packet.payload) <= len(data) - 12


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.binary(max_size=30)), max_size=30))
def test_whatever_is_pushed_comes_out_as_pictures_or_not_at_all(every: list[tuple[bool, int, bytes]]) -> None:
    into = depacketizer.H264()
    for number, (last, time, payload) in enumerate(every):
        for unit in into.push(depacketizer.Packet(96, last, number, time, payload)):
            assert b"\0\0\1" in unit.data
