"""The media folder against anything: round trips hold, and bytes of no sense raise Refused and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.errors import Refused
from procs.media import annexb, barcode, sei
from procs.media.annexb import LookAhead
from procs.media.barcode import Code
from procs.media.gop import GopCache
from procs.media.sei import Stamp

# Bytes rich in what start codes, escapes and SEI fields are made of; plain random bytes hold hardly any.
dense = st.lists(
    st.sampled_from([b"\0", b"\0\0", b"\1", b"\3", b"\x80", b"\xff", b"\0\0\1", b"\0\0\0\1", b"\x41", b"\x65", b"\x67"])
    | st.sampled_from([b"\x68", b"\x06", b"\x05", b"\x1d", sei.UUID, b"\x06\x05\x1d" + sei.UUID + b"\1"])
    | st.binary(max_size=12),
    max_size=40,
).map(b"".join)
anything = st.binary(max_size=200) | dense
nals = st.builds(lambda head, body: bytes((head,)) + annexb.escape(body + b"\x80"), st.integers(1, 127), dense)
READERS: list[Callable[[bytes], object]] = [
    annexb.split,
    annexb.nal_type,
    annexb.escape,
    annexb.unescape,
    annexb.before_slice,
    annexb.is_keyframe,
    lambda data: annexb.join([data]),
    lambda data: annexb.insert_before_slice(data, b"\x06"),
    lambda data: annexb.insert_before_slice(annexb.join([b"\x65"]), data),
    lambda data: LookAhead().push(data),
    lambda data: LookAhead().push(annexb.join([b"\x67", b"\x68", b"\x65"]) + data),
    sei.read,
    sei.read_payload,
    lambda data: sei.read_payload(sei.UUID + data),
    lambda data: sei.read(annexb.join([b"\x06" + data + sei.UUID + data])),
    barcode.decode,
    lambda data: barcode.rows(data, 128),
]


@pytest.mark.parametrize("reader", READERS)
@given(data=anything)
def test_only_refused_is_raised(reader: Callable[[bytes], object], data: bytes) -> None:
    with suppress(Refused):
        reader(data)


@given(rbsp=dense.map(lambda data: data + b"\x80"))
def test_escape_round_trip_without_start_codes(rbsp: bytes) -> None:
    ebsp = annexb.escape(rbsp)
    assert annexb.unescape(ebsp) == rbsp
    assert not any(bytes((0, 0, low)) in ebsp for low in range(3))


@given(units=st.lists(nals, min_size=1, max_size=8))
def test_join_and_split_round_trip(units: list[bytes]) -> None:
    assert annexb.split(annexb.join(units)) == units


@given(units=st.lists(nals, max_size=5), slices=st.lists(nals, max_size=3), nal=nals)
def test_insert_adds_one_unit_and_moves_none(units: list[bytes], slices: list[bytes], nal: bytes) -> None:
    lead = [unit for unit in units if not 1 <= annexb.nal_type(unit) <= 5]
    tail = [b"\x65\x80", *slices]
    inserted = annexb.insert_before_slice(annexb.join([*lead, *tail]), nal)
    assert annexb.split(inserted) == [*lead, nal, *tail]
    assert annexb.before_slice(annexb.join([*lead, *tail])) == lead


@given(pictures=st.lists(st.tuples(st.booleans(), st.lists(nals, max_size=3)), min_size=1, max_size=6))
def test_look_ahead_loses_nothing_and_marks_every_unit(pictures: list[tuple[bool, list[bytes]]]) -> None:
    ahead, written, want = LookAhead(), b"", []
    sets = [b"\x67\x80", b"\x68\x80"]
    for index, (key, extra) in enumerate(pictures):
        rest = [
            b"\x65\x80",
            *[nal for nal in extra if annexb.nal_type(nal) not in (annexb.SPS, annexb.PPS, annexb.AUD)],
        ]
        written += ahead.push(annexb.join([*sets, *rest] if key or not index else rest))
        want += [*sets, *rest]
    assert annexb.split(written) == [*want, b"\x67"]
    assert written.count(annexb.START_4) == len(pictures) + 1


@given(frame=st.integers(), time_ns=st.integers(0, 2**64 - 1), lead=st.lists(nals, max_size=3))
def test_stamp_round_trip(frame: int, time_ns: int, lead: list[bytes]) -> None:
    """Whatever SEI of others stands around it, unless that pretends to be ours."""
    others = [nal for nal in lead if not 1 <= annexb.nal_type(nal) <= 5 and sei.UUID not in nal]
    unit = annexb.insert_before_slice(annexb.join([*others, b"\x65\x80"]), sei.stamp(frame, time_ns))
    assert sei.read(unit) == Stamp(frame % 2**32, time_ns)


@given(frame=st.integers(), time_us=st.integers(0, 2**56 - 1))
def test_code_round_trip(frame: int, time_us: int) -> None:
    assert barcode.decode(barcode.encode(frame, time_us)) == Code(frame % 2**32, time_us)


@settings(deadline=None)
@given(width=st.integers(32, 700), height=st.integers(36, 400), pad=st.integers(0, 40), frame=st.integers(0, 2**32 - 1))
def test_a_drawn_code_is_read_at_every_size(width: int, height: int, pad: int, frame: int) -> None:
    spans = barcode.row_edges(height)
    lines = barcode.rows(barcode.encode(frame, frame), width)
    drawn = b"".join([(line + bytes(pad)) * (end - first) for line, (first, end) in zip(lines, spans, strict=True)])
    luma = bytes(barcode.strip(width, height)[0] * (width + pad)) + drawn
    assert barcode.read(luma, width, height, width + pad) == Code(frame, frame)


@given(luma=st.binary(max_size=5000), sides=st.tuples(*[st.integers(-5, 120) | st.integers()] * 3))
def test_any_picture_is_read_or_refused(luma: bytes, sides: tuple[int, int, int]) -> None:
    with suppress(Refused):
        barcode.read(luma, *sides)


@given(
    pushes=st.lists(st.tuples(st.binary(max_size=9), st.booleans())),
    bytes_max=st.integers(1, 40),
    units_max=st.integers(1, 6),
)
def test_gop_cache_keeps_its_promises(pushes: list[tuple[bytes, bool]], bytes_max: int, units_max: int) -> None:
    cache = GopCache(bytes_max, units_max)
    for index, (unit, keyframe) in enumerate(pushes):
        cache.push(unit, keyframe)
        held = cache.units()
        assert len(held) == len(cache) <= units_max
        assert sum(map(len, held)) == cache.size_bytes <= bytes_max
        # What is held is the end of the stream, from its last keyframe on.
        recent = pushes[index + 1 - len(held) : index + 1]
        assert list(held) == [each for each, _ in recent]
        assert [key for _, key in recent] == [True, *[False] * (len(held) - 1)][: len(held)]
