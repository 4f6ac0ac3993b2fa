"""NAL units in and out of access units, and the look-ahead against a model of go2rtc's splitter."""

from __future__ import annotations

import re
import time

import pytest

from procs.errors import Refused
from procs.media import annexb
from procs.media.annexb import LookAhead, SetsFirst
from tests.unit import h264

SPS, PPS, SEI = b"\x67sps", b"\x68pps", b"\x06sei"
IDR, SLICE, AUD = b"\x65idr", b"\x41p", b"\x09\xf0"


@pytest.fixture(scope="module")
def stream() -> list[bytes]:
    """25 access units of x264, keyframes at 0, 10 and 20, three slices a picture."""
    return h264.encode(h264.moving(25), slices="3")


def types(unit: bytes) -> list[int]:
    return [annexb.nal_type(nal) for nal in annexb.split(unit)]


class Go2rtc:
    """What go2rtc's raw H.264 reader does: a unit is out once the NEXT 4-byte start code of type 1 or 7 is in."""

    boundary = re.compile(rb"\x00\x00\x00\x01[\x01\x21\x41\x61\x07\x27\x47\x67]")

    def __init__(self) -> None:
        self.held = b""

    def feed(self, written: bytes) -> list[bytes]:
        self.held += written
        units = []
        # The first slice of a picture does not end the parameter sets and SEI that lead it.
        while found := self.boundary.search(self.held, 4):
            units.append(self.held[: found.start()])
            self.held = self.held[found.start() :]
        return units


def test_split_takes_both_start_codes_and_drops_padding() -> None:
    unit = b"\0\0\0\0\1" + SPS + b"\0\0\0\1" + PPS + b"\0\0\1" + IDR + b"\0\0\0"
    assert annexb.split(unit) == [SPS, PPS, IDR]


@pytest.mark.parametrize(
    "unit", [b"", b"\0\0\0", b"\0\0\1", b"x\0\0\1e", b"\x65abc", b"\0\0\1\0\0\1e", b"\0\0\1e\0\0\1"]
)
def test_split_refuses_what_is_no_access_unit(unit: bytes) -> None:
    with pytest.raises(Refused):
        annexb.split(unit)


def test_nal_type_ignores_the_reference_bits() -> None:
    assert [annexb.nal_type(nal) for nal in (b"\x67", b"\x27", b"\x65", b"\x01\xff")] == [7, 7, 5, 1]
    with pytest.raises(Refused):
        annexb.nal_type(b"")


def test_join_codes_the_first_unit_and_parameter_sets_with_four_bytes() -> None:
    assert (
        annexb.join([SEI, SPS, IDR, IDR]) == b"\0\0\0\1" + SEI + b"\0\0\0\1" + SPS + b"\0\0\1" + IDR + b"\0\0\1" + IDR
    )
    assert annexb.join([SPS, IDR]) == b"\0\0\0\1" + SPS + b"\0\0\1" + IDR
    for nothing in ([], [SPS, b""]):
        with pytest.raises(Refused):
            annexb.join(nothing)


def test_join_is_the_inverse_of_split(stream: list[bytes]) -> None:
    rejoined = [annexb.join(annexb.split(unit)) for unit in stream]
    assert [annexb.split(unit) for unit in rejoined] == [annexb.split(unit) for unit in stream]
    assert len(h264.decode(rejoined)) == len(stream)


@pytest.mark.parametrize(
    ("rbsp", "ebsp"),
    [
        (b"", b""),
        (b"\0\0\1", b"\0\0\3\1"),
        (b"\0\0\3", b"\0\0\3\3"),
        (b"\0\0\4", b"\0\0\4"),
        (b"\0\0\0\0\0\x80", b"\0\0\3\0\0\3\0\x80"),
        (b"\0\0\0\0\1", b"\0\0\3\0\0\3\1"),
        (b"a\0\0\2b\0\0b\0\0\0b", b"a\0\0\3\2b\0\0b\0\0\3\0b"),
    ],
)
def test_escape_hides_every_start_code(rbsp: bytes, ebsp: bytes) -> None:
    assert annexb.escape(rbsp) == ebsp
    assert annexb.unescape(ebsp) == rbsp


def test_escape_refuses_an_rbsp_without_stop_bit() -> None:
    with pytest.raises(Refused):
        annexb.escape(b"\x80\0")


def test_unescape_takes_the_three_that_ends_a_unit() -> None:
    assert annexb.unescape(b"\x80\0\0\3") == b"\x80\0\0"


def test_insert_puts_the_unit_in_front_of_the_first_slice() -> None:
    code = b"\0\0\0\1"
    long = annexb.join([AUD, SPS, PPS, IDR, IDR])
    assert annexb.insert_before_slice(long, SEI) == code + AUD + code + SPS + code + PPS + code + SEI + (
        b"\0\0\1" + IDR + b"\0\0\1" + IDR
    )
    assert annexb.insert_before_slice(code + SLICE, SEI) == code + SEI + code + SLICE
    assert annexb.insert_before_slice(b"\0\0\1" + SLICE, SEI) == code + SEI + b"\0\0\1" + SLICE


def test_insert_refuses_a_unit_without_slice_and_an_empty_nal() -> None:
    for unit, nal in [(b"", SEI), (annexb.join([SPS, PPS]), SEI), (b"\0\0\1", SEI), (annexb.join([IDR]), b"")]:
        with pytest.raises(Refused):
            annexb.insert_before_slice(unit, nal)


def test_before_slice_gives_what_leads_the_picture(stream: list[bytes]) -> None:
    assert annexb.before_slice(annexb.join([SPS, PPS, SEI, IDR, SEI])) == [SPS, PPS, SEI]
    assert annexb.before_slice(annexb.join([SLICE])) == []
    assert annexb.before_slice(annexb.join([SEI])) == [SEI]
    assert [annexb.nal_type(nal) for nal in annexb.before_slice(stream[10])] == [annexb.SPS, annexb.PPS]
    for unit in (b"", b"x\0\0\1e"):
        with pytest.raises(Refused):
            annexb.before_slice(unit)


def test_the_slice_is_not_read() -> None:
    """Work that grows with the picture would show: the slice here is 16 MB, and copying it is not asked for."""
    unit = annexb.join([SPS, PPS, IDR]) + bytes((1,)) * (16 << 20)
    began = time.process_time()
    for _ in range(100):
        assert annexb.is_keyframe(unit)
        assert len(annexb.before_slice(unit)) == 2
    assert time.process_time() - began < 0.1


def test_is_keyframe_tells_idr_pictures(stream: list[bytes]) -> None:
    assert [index for index, unit in enumerate(stream) if annexb.is_keyframe(unit)] == [0, 10, 20]
    assert not annexb.is_keyframe(b"")
    assert not annexb.is_keyframe(annexb.join([SPS, PPS]))


def test_a_plain_pipe_is_one_frame_late(stream: list[bytes]) -> None:
    """Shows that the model of the splitter can tell: without the look-ahead nothing comes out in time."""
    reader = Go2rtc()
    assert [len(reader.feed(unit)) for unit in stream[:10]] == [0] + [1] * 9


@pytest.mark.parametrize("slice_code", [b"\0\0\1", b"\0\0\0\1"])
def test_look_ahead_has_every_unit_out_at_once(stream: list[bytes], slice_code: bytes) -> None:
    """Also for an encoder that codes every slice with 4 bytes, which would split a picture."""
    ahead, reader = LookAhead(), Go2rtc()
    for unit in stream:
        came = reader.feed(ahead.push(b"".join([slice_code + nal for nal in annexb.split(unit)])))
        assert len(came) == 1
        kinds = types(came[0])
        assert kinds[:2] == [annexb.SPS, annexb.PPS]
        assert kinds[-3:] == types(unit)[-3:]
        assert came[0].startswith(annexb.START_4 + b"\x67")
        assert came[0].count(annexb.START_4) == 1
    assert reader.held == annexb.START_4 + b"\x67"


def test_look_ahead_decodes_to_the_same_pictures(stream: list[bytes]) -> None:
    ahead, reader = LookAhead(), Go2rtc()
    written = [reader.feed(ahead.push(unit))[0] for unit in stream]
    want, got = h264.decode(stream), h264.decode(written)
    assert [h264.luma(frame) for frame in got] == [h264.luma(frame) for frame in want]
    assert len(got) == len(stream)


def test_look_ahead_lets_a_viewer_join_at_any_keyframe(stream: list[bytes]) -> None:
    ahead, reader = LookAhead(), Go2rtc()
    written = [reader.feed(ahead.push(unit))[0] for unit in stream]
    assert len(h264.decode(written[10:])) == 15


def test_look_ahead_bytes() -> None:
    ahead = LookAhead()
    code, next_one = b"\0\0\1", b"\0\0\0\1\x67"
    first = b"\0\0\0\1" + SPS + code + PPS + code + SEI + code + IDR + next_one
    assert ahead.push(annexb.join([AUD, SEI, PPS, SPS, IDR])) == first
    assert ahead.push(annexb.join([AUD, SLICE])) == SPS[1:] + code + PPS + code + SLICE + next_one
    # Another SPS: what was written ahead stays true, whatever its reference bits are.
    assert ahead.push(annexb.join([b"\x27new", b"\x28", IDR])) == b"new" + code + b"\x28" + code + IDR + next_one
    assert ahead.push(annexb.join([SLICE])) == b"new" + code + b"\x28" + code + SLICE + next_one


def test_look_ahead_uses_the_header_byte_of_the_stream() -> None:
    assert LookAhead().push(annexb.join([b"\x27sps", PPS, IDR])).endswith(b"\0\0\0\1\x27")


def test_look_ahead_refuses_and_stays_as_it_was() -> None:
    ahead = LookAhead()
    for unit in ([IDR], [SLICE], [SPS, IDR], [PPS, IDR], [SPS, PPS], [SPS, PPS, AUD]):
        with pytest.raises(Refused):
            ahead.push(annexb.join(unit))
    assert ahead.push(annexb.join([SPS, PPS, IDR])).startswith(b"\0\0\0\1" + SPS)
    for unit in ([b"\x67other", SLICE], [b"\x67other", b"\x68other"], [SEI]):
        with pytest.raises(Refused):
            ahead.push(annexb.join(unit))
    with pytest.raises(Refused):
        ahead.push(b"noise")
    assert ahead.push(annexb.join([SLICE])) == SPS[1:] + b"\0\0\1" + PPS + b"\0\0\1" + SLICE + b"\0\0\0\1\x67"


def test_no_picture_begins_with_an_sei_message_once_there_is_a_pps() -> None:
    first = SetsFirst()
    assert types(first.push(annexb.join([SEI, SLICE]))) == [6, 1]
    for plain in ([SPS, PPS, SEI, IDR], [SLICE], [PPS, SEI, SLICE], [AUD, SLICE]):
        assert first.push(annexb.join(plain)) == annexb.join(plain)
    assert annexb.split(first.push(annexb.join([SEI, SLICE]))) == [PPS, SEI, SLICE]
    assert annexb.split(first.push(annexb.join([AUD, SEI, SLICE]))) == [PPS, SEI, SLICE]
    first.push(annexb.join([SPS, b"\x68new", IDR]))
    assert annexb.split(first.push(annexb.join([SEI, SEI, SLICE]))) == [b"\x68new", SEI, SEI, SLICE]
    with pytest.raises(Refused):
        first.push(b"noise")
