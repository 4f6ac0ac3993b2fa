"""What a capture reads against anything: bytes of no sense raise our own errors and nothing else, and stay bounded."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from procs.capture.framing import Detecting
from procs.errors import EncoderFailed, Refused
from procs.media import annexb, tspackets
from procs.media.tspackets import PACKET, Aligner
from tests.unit.test_capture import PICTURES, as_ffmpeg_writes, at

REAL = b"".join(as_ffmpeg_writes(PICTURES[:3]))
heads = st.tuples(
    st.sampled_from([0x00, 0x40, 0x41, 0x50, 0x1F]),
    st.sampled_from([0, 17, 255]),
    st.sampled_from([0x10, 0x20, 0x30, 0]),
)
packets = st.builds(
    lambda head, fields: (b"G" + bytes(head) + fields).ljust(PACKET, b"\xff")[:PACKET],
    heads,
    st.binary(max_size=30)
    | st.just(b"\0\0\1\xe0\0\0\x80\x80\5\x21\0\1\0\1")
    | st.just(b"\7\x50" + bytes(6) + b"\0\0\1\xe0"),
)
transport = st.lists(packets | st.binary(max_size=200), max_size=20).map(b"".join)
broken = st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)), max_size=30)
nals = st.lists(st.sampled_from([b"\0\0\1", b"\0\0\0\1\x65\x88", b"\0\0\0\1\x67", b"\x41\x9a"]) | st.binary(max_size=9))


def swallow(kind: str, data: bytes, step: int) -> None:
    """Push data in steps, with pauses between."""
    framing = Detecting(kind, 0)
    for index, begin in enumerate(range(0, len(data), step)):
        units = framing.push(data[begin : begin + step], at(index))
        if framing.waiting() is not None and index % 3:
            units += framing.quiet(at(index))
        for unit in units:
            assert unit.data and len(unit.data) % PACKET == 0
            assert unit.data[::PACKET] == b"G" * (len(unit.data) // PACKET)


@given(data=transport, step=st.integers(1, 1000))
def test_any_transport_stream_is_taken_or_refused(data: bytes, step: int) -> None:
    with suppress(Refused):
        swallow("mpegts", data, step)
    with suppress(Refused):
        swallow("mpegts", REAL + data + REAL, 50 + step)


@given(changes=broken, step=st.integers(50, 5000))
def test_a_damaged_transport_stream_is_taken_or_refused(changes: list[tuple[int, int]], step: int) -> None:
    data = bytearray(REAL)
    for where, value in changes:
        data[where] = value
    with suppress(Refused):
        swallow("mpegts", bytes(data), step)


@given(parts=nals, step=st.integers(1, 40))
def test_any_byte_stream_is_taken_or_refused(parts: list[bytes], step: int) -> None:
    for data in (b"".join(parts), PICTURES[0] + b"".join(parts)):
        with suppress(Refused):
            swallow("h264", data, step if len(data) < 1000 else 97 * step)


@given(data=st.binary(max_size=1000) | transport, step=st.integers(1, 300))
def test_anything_is_detected_or_refused(data: bytes, step: int) -> None:
    with suppress(Refused, EncoderFailed):
        swallow("auto", data, step)


@given(pieces=st.lists(st.binary(max_size=500) | packets))
def test_the_aligner_gives_whole_packets_and_keeps_little(pieces: list[bytes]) -> None:
    aligner, taken, given_ = Aligner(), 0, 0
    for piece in pieces:
        out = aligner.push(piece)
        taken, given_ = taken + len(piece), given_ + len(out)
        assert len(out) % PACKET == 0 and out[::PACKET] == b"G" * (len(out) // PACKET)
        assert 0 <= taken - given_ - aligner.skipped <= 3 * PACKET


@given(data=st.binary(max_size=300))
def test_tables_of_no_sense_are_read_without_harm(data: bytes) -> None:
    section = tspackets.section_in(data)
    if section:
        assert len(tspackets.pmt_pids(section)) <= len(data)
        assert all(0 <= pid < 8192 for pid in tspackets.stream_types(section))
    with suppress(Refused):
        annexb.is_keyframe(data)
