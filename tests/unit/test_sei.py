"""The frame stamp: its bytes, its way through x264's units and ffmpeg's decoder, and damaged ones."""

from __future__ import annotations

import time

import pytest

from procs.errors import Refused
from procs.media import annexb, sei
from procs.media.sei import Stamp
from tests.unit import h264

TIME_NS = 1_763_740_800_123_456_789
CONTENT = sei.UUID + b"\1" + (7).to_bytes(4, "big") + TIME_NS.to_bytes(8, "big")
IDR = b"\x65idr"


def nal(*messages: bytes) -> bytes:
    return b"\x06" + annexb.escape(b"".join(messages) + b"\x80")


def message(kind: int, payload: bytes) -> bytes:
    fields = [b"\xff" * (value // 255) + bytes((value % 255,)) for value in (kind, len(payload))]
    return fields[0] + fields[1] + payload


def test_the_bytes_of_a_stamp() -> None:
    assert sei.stamp(0x01020304, TIME_NS) == (
        b"\x06\x05\x1d" + sei.UUID + b"\1\1\2\3\4" + TIME_NS.to_bytes(8, "big") + b"\x80"
    )
    assert len(sei.UUID) == 16
    assert min(sei.UUID) > 3


@pytest.mark.parametrize("frame", [0, 1, 0x300, 0x10000, 2**32 - 1])
@pytest.mark.parametrize("time_ns", [0, 1, 0x0000_0300_0001_0000, TIME_NS, 2**64 - 1])
def test_a_stamp_holds_no_start_code_and_reads_back(frame: int, time_ns: int) -> None:
    made = sei.stamp(frame, time_ns)
    assert not any(bytes((0, 0, low)) in made for low in range(3))
    assert sei.read(annexb.join([made, IDR])) == Stamp(frame, time_ns)


def test_frame_wraps_and_time_does_not() -> None:
    assert sei.read(annexb.join([sei.stamp(2**32 + 5, 0), IDR])) == Stamp(5, 0)
    for time_ns in (-1, 2**64):
        with pytest.raises(Refused):
            sei.stamp(0, time_ns)


def test_stamps_in_real_units_reach_the_decoded_frames() -> None:
    units = h264.encode(h264.moving(25))
    stamped = [annexb.insert_before_slice(unit, sei.stamp(n, TIME_NS + n)) for n, unit in enumerate(units)]
    want = [Stamp(n, TIME_NS + n) for n in range(25)]
    assert [sei.read(unit) for unit in stamped] == want
    assert [sei.read(unit) for unit in units] == [None] * 25
    frames = h264.decode(stamped)
    payloads = [h264.user_data(frame) for frame in frames]
    assert len(payloads[0]) == 2  # x264 signs its first unit with user data of its own
    found = [[stamp for payload in each if (stamp := sei.read_payload(payload))] for each in payloads]
    assert found == [[stamp] for stamp in want]
    assert [h264.luma(frame) for frame in frames] == [h264.luma(frame) for frame in h264.decode(units)]


def test_other_sei_is_skipped() -> None:
    stranger = message(5, bytes(range(100, 116)) + b"x264")
    ours = message(5, CONTENT)
    long = message(300, b"\xaa" * 600)
    for unit in (
        [nal(stranger), nal(ours), IDR],
        [nal(stranger, message(1, b""), ours), IDR],
        [nal(long, ours, stranger), IDR],
        [nal(message(4, CONTENT)), nal(ours), IDR],
        [b"\x06", b"\x06\x05\xff\xff", nal(ours), IDR],
    ):
        assert sei.read(annexb.join(unit)) == Stamp(7, TIME_NS)


def test_no_stamp_is_none() -> None:
    for unit in ([IDR], [nal(message(4, CONTENT)), IDR], [b"\x06\x05\xff", IDR], [IDR, nal(message(5, CONTENT))]):
        assert sei.read(annexb.join(unit)) is None


def test_a_stamp_elsewhere_than_in_sei_is_none() -> None:
    assert sei.read(annexb.join([b"\x0c" + nal(message(5, CONTENT))[1:], IDR])) is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x06\x05\x1d" + sei.UUID + b"\x80",
        b"\x06\x05\x1d" + CONTENT,
        b"\x06\x05\x1c" + CONTENT + b"\x80",
        b"\x06\x05\x1d" + CONTENT.replace(sei.UUID + b"\1", sei.UUID + b"\2") + b"\x80",
        b"\x06\x05" + sei.UUID + b"\xff\xff",
        b"\x06\x05\xff\xff" + sei.UUID,
        b"\x06\x01\x10" + sei.UUID + b"\xff\xff\xff",
        b"\x06\x01\x10" + sei.UUID + b"\xff\xff\x05",
    ],
)
def test_a_damaged_stamp_is_refused(damaged: bytes) -> None:
    with pytest.raises(Refused):
        sei.read(annexb.join([damaged, IDR]))


def test_a_field_without_end_costs_nothing() -> None:
    unit = annexb.join([b"\x06" + b"\xff" * (16 << 20) + sei.UUID, IDR])
    began = time.process_time()
    with pytest.raises(Refused):
        sei.read(unit)
    assert time.process_time() - began < 0.4  # a second and more when each byte of it is counted


def test_what_is_no_access_unit_is_refused() -> None:
    with pytest.raises(Refused):
        sei.read(b"noise")


def test_read_payload() -> None:
    assert sei.read_payload(CONTENT) == Stamp(7, TIME_NS)
    assert sei.read_payload(b"") is None
    assert sei.read_payload(b"x" * 29) is None
    for damaged in (CONTENT + b"\0", CONTENT[:-1], sei.UUID, sei.UUID + b"\2" + CONTENT[17:]):
        with pytest.raises(Refused):
            sei.read_payload(damaged)
