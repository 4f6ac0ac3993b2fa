"""MPEG-TS as bytes: alignment, times, tables, stuffing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from procs.media import tspackets
from procs.media.tspackets import PACKET, WRAP, Aligner

# Nothing in it looks like SYNC, so that there is one right answer.
packets = st.lists(st.integers(0, 70), min_size=0, max_size=12).map(
    lambda fills: [b"G" + bytes((fill,)) * (PACKET - 1) for fill in fills]
)


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at some places."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def aligned(pieces: list[bytes]) -> bytes:
    aligner = Aligner()
    return b"".join(aligner.push(piece) for piece in pieces)


@given(stream=packets, cuts=st.lists(st.integers(0, 5000)))
def test_whole_packets_pass_however_they_come(stream: list[bytes], cuts: list[int]) -> None:
    data = b"".join(stream)
    assert aligned(in_pieces(data, cuts)) == (data if len(stream) >= 3 else b"")


@given(stream=packets, lead=st.binary(max_size=400), cuts=st.lists(st.integers(0, 5000)))
def test_what_comes_before_the_first_packet_is_left_out(stream: list[bytes], lead: bytes, cuts: list[int]) -> None:
    out = aligned(in_pieces(lead.replace(b"G", b"g") + b"".join(stream), cuts))
    assert out == (b"".join(stream) if len(stream) >= 3 else b"")


@given(before=packets, after=packets, half=st.integers(1, PACKET - 1))
def test_half_a_packet_of_a_killed_writer_is_left_out(before: list[bytes], after: list[bytes], half: int) -> None:
    """What came before it has been passed on already, and what comes after it is whole."""
    before, after = [*before, b"G" + b"\1" * 187] * 3, [*after, b"G" + b"\2" * 187] * 3
    aligner = Aligner()
    assert aligner.push(b"".join(before) + before[0][:half]) == b"".join(before)
    assert aligner.push(b"".join(after)) == b"".join(after)
    assert aligner.skipped == half


def test_the_last_packet_of_a_picture_does_not_wait_for_the_next_picture() -> None:
    aligner = Aligner()
    packet = b"G" + bytes(187)
    aligner.push(packet * 3)
    assert aligner.push(packet[:100]) == b"" and aligner.waits
    assert aligner.push(packet[100:]) == packet and not aligner.waits


def test_what_never_aligns_is_not_kept() -> None:
    aligner = Aligner()
    for _ in range(100):
        assert aligner.push(bytes(10_000)) == b""
    assert aligner.skipped > 990_000


@given(time=st.integers(0, WRAP - 1), prefix=st.integers(1, 3))
def test_time_round_trip(time: int, prefix: int) -> None:
    field = tspackets.put_time(prefix, time)
    assert tspackets.get_time(field) == time
    assert field[0] >> 4 == prefix and field[0] & field[2] & field[4] & 1


@given(base=st.integers(0, WRAP - 1), shift=st.integers(-WRAP, WRAP), extension=st.integers(0, 299))
def test_a_clock_reference_is_moved_and_its_rest_kept(base: int, shift: int, extension: int) -> None:
    head = b"G\1\0\x20\xb7\x10"
    packet = bytearray(head + (base << 15 | 0x7E00 | extension).to_bytes(6, "big") + bytes(176))
    assert tspackets.has_pcr(packet)
    tspackets.shift_pcr(packet, 0, shift)
    assert packet[6:12] == ((base + shift) % WRAP << 15 | 0x7E00 | extension).to_bytes(6, "big")


def test_differences_go_the_nearer_way_round() -> None:
    assert [tspackets.signed(d) for d in (5, -5, WRAP - 5, 5 - WRAP)] == [5, -5, -5, 5]


def test_stuffing_is_told_from_fields() -> None:
    def packet(field: bytes) -> bytes:
        return (b"G\1\0\x30" + field).ljust(PACKET, b"\0")

    assert not tspackets.is_stuffed(b"G\1\0\x10".ljust(PACKET, b"\0"))
    assert tspackets.is_stuffed(packet(b"\0"))
    assert tspackets.is_stuffed(packet(b"\2\0\xff"))
    assert not tspackets.is_stuffed(packet(b"\1\x40"))
    assert not tspackets.is_stuffed(packet(b"\7\x50" + bytes(6)))
    assert tspackets.is_stuffed(packet(b"\x08\x50" + bytes(6) + b"\xff"))
    assert not tspackets.is_stuffed(packet(b"\x08\x04" + bytes(7))), "a field whose length is not read"


def test_a_crc_over_a_table_and_its_crc_is_zero() -> None:
    section = bytes(range(60))
    assert tspackets.crc(section + tspackets.crc(section)) == bytes(4)
    assert tspackets.crc(b"123456789") == bytes.fromhex("0376e6e7"), "CRC-32/MPEG-2's published check value"
