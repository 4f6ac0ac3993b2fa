"""The pure parts of a capture: where pictures end, which times they get, what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.capture import framing
from procs.capture.clock import Clock
from procs.capture.h264 import H264, PICTURE_BYTES_MAX, AccessUnits
from procs.capture.options import Capture, load
from procs.capture.packetizer import VIDEO_PID, Packetizer
from procs.capture.transport import Transport
from procs.capture.unit import QUIET_MAX_S, QUIET_S, Unit
from procs.errors import ConfigError, EncoderFailed, Refused
from procs.media import annexb, tspackets
from procs.media.tspackets import CLOCK_HZ, PACKET, WRAP
from tests.decoding import frames_of
from tests.unit import h264
from tests.unit.test_tspackets import in_pieces

MS = 1_000_000  # nanoseconds
PICTURES = h264.encode(h264.moving(24))


def at(index: int) -> int:
    """When picture `index` comes, in nanoseconds, at 50 a second."""
    return 10**12 + index * 20 * MS


def as_ffmpeg_writes(units: list[bytes], begin: int = 126_000, period: int = 1800) -> list[bytes]:
    """MPEG-TS of pictures whose lengths are not stated, as ffmpeg's muxer leaves them."""
    packetizer, out = Packetizer(), []
    for index, unit in enumerate(units):
        packets = packetizer.picture(unit, begin + index * period, keyframe=annexb.is_keyframe(unit))
        for packet in (packets[i : i + PACKET] for i in range(0, len(packets), PACKET)):
            start = tspackets.payload_at(packet)
            if tspackets.pid_of(packet) == VIDEO_PID and tspackets.begins(packet):
                packet = packet[: start + 4] + b"\0\0" + packet[start + 6 :]
            out.append(packet)
    return out


def lengths(data: bytes) -> list[int]:
    """The stated length of each picture."""
    found = []
    for packet in (data[i : i + PACKET] for i in range(0, len(data), PACKET)):
        if tspackets.pid_of(packet) == VIDEO_PID and tspackets.begins(packet):
            start = tspackets.payload_at(packet)
            found.append(int.from_bytes(packet[start + 4 : start + 6], "big"))
    return found


def times(data: bytes) -> list[int]:
    """The time of each picture, in ticks."""
    found = []
    for packet in (data[i : i + PACKET] for i in range(0, len(data), PACKET)):
        if tspackets.pid_of(packet) == VIDEO_PID and tspackets.begins(packet):
            start = tspackets.payload_at(packet) + 9
            found.append(tspackets.get_time(packet[start : start + 5]))
    return found


# --- clock -------------------------------------------------------------------------------------------


def test_the_first_picture_gets_the_time_of_its_arrival_and_the_others_keep_their_distance() -> None:
    clock = Clock()
    mapped = [1_000 + i * 1800 + clock.follow(1_000 + i * 1800, at(i) + i % 3 * 5 * MS) for i in range(50)]
    assert mapped[0] % WRAP == tspackets.ticks(at(0))
    assert all((later - earlier) % WRAP == 1800 for earlier, later in pairwise(mapped))
    assert clock.anchors == 1


def test_a_stream_that_jumps_is_anchored_again() -> None:
    clock = Clock()
    clock.follow(1_000, at(0))
    assert (5_000_000 + clock.follow(5_000_000, at(1))) % WRAP == tspackets.ticks(at(1))
    assert clock.anchors == 2


def test_a_jump_below_the_limit_is_kept() -> None:
    clock = Clock()
    shift = clock.follow(1_000, at(0))
    assert clock.follow(1_000 + CLOCK_HZ, at(0)) == shift


@given(steps=st.lists(st.tuples(st.integers(0, WRAP - 1) | st.integers(0, 5000), st.integers(0, 2 * 10**9))))
def test_times_never_go_back_whatever_a_stream_says(steps: list[tuple[int, int]]) -> None:
    clock, now, last = Clock(), 10**12, None
    for time, pause_ns in steps:
        now += pause_ns
        mapped = (time + clock.follow(time, now)) % WRAP
        assert last is None or tspackets.signed(mapped - last) > 0
        last = mapped


# --- H.264 -------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, 100_000), max_size=30))
def test_pictures_are_the_same_however_the_bytes_come(cuts: list[int]) -> None:
    units = AccessUnits()
    found = [unit for piece in in_pieces(b"".join(PICTURES), cuts) for unit in units.push(piece)]
    assert found + units.quiet() == PICTURES
    assert units.patience.wrong == 0


def test_a_pause_ends_a_picture_at_once() -> None:
    units = AccessUnits()
    assert units.waiting() is None
    for picture in PICTURES:
        assert units.push(picture) == []
        assert units.waiting() == QUIET_S
        assert units.quiet() == [picture]
        assert units.waiting() is None and units.quiet() == []
    assert units.patience.wrong == 0


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_pause_within_a_picture_makes_it_wait_longer(part: float) -> None:
    units = AccessUnits()
    for count in range(1, 12):
        cut = int(len(PICTURES[0]) * part)
        units.push(PICTURES[0][:cut])
        units.quiet()
        units.push(PICTURES[0][cut:])
        assert units.push(PICTURES[1]) == [], "the rest of what was cut is not glued to what follows"
        assert units.quiet() == [PICTURES[1]]
        assert units.patience.quiet_s == min(QUIET_S * 2**count, QUIET_MAX_S)


def test_slices_of_one_picture_stay_together() -> None:
    first, rest = b"\0\0\0\1\x65\x88\x80", b"\0\0\1\x65\x00\x88\x80"
    units = AccessUnits()
    assert units.push((first + rest) * 2 + b"\0\0\0\1\x41\x9a\x80") == [first + rest] * 2


def test_a_picture_without_end_is_refused() -> None:
    units = AccessUnits()
    with pytest.raises(Refused, match=r"no H\.264"):
        units.push(b"\0\0\0\1\x65\x88" + b"\xaa" * PICTURE_BYTES_MAX)


def test_h264_becomes_transport_stream_stamped_with_arrival() -> None:
    stream, out = H264(), []
    for index, picture in enumerate(PICTURES):
        assert stream.push(picture, at(index)) == []
        out += stream.quiet(at(index) + 4 * MS)
    data = b"".join(unit.data for unit in out)
    assert len(frames_of(data)) == len(PICTURES)
    assert times(data) == [tspackets.ticks(at(index)) for index in range(len(PICTURES))]
    assert min(lengths(data)) > 0
    assert [unit.keyframe for unit in out] == [annexb.is_keyframe(picture) for picture in PICTURES]


def test_with_a_rate_the_pictures_keep_their_distance() -> None:
    stream, out = H264(fps=50), []
    for index, picture in enumerate(PICTURES):
        out += stream.push(picture, at(index) + index % 4 * 5 * MS) + stream.quiet(at(index) + 19 * MS)
    stamps = times(b"".join(unit.data for unit in out))
    assert {later - earlier for earlier, later in pairwise(stamps)} == {1800}


def test_it_begins_with_a_keyframe_and_every_keyframe_has_parameter_sets() -> None:
    """Many encoders write SPS and PPS once."""
    second = next(i for i, p in enumerate(PICTURES) if i and annexb.is_keyframe(p))
    bare = [nal for nal in annexb.split(PICTURES[second]) if annexb.nal_type(nal) not in (annexb.SPS, annexb.PPS)]
    pictures = [PICTURES[1], *PICTURES[:second], annexb.join(bare), *PICTURES[second + 1 :]]
    stream, out = H264(), []
    for index, picture in enumerate(pictures):
        out += stream.push(picture, at(index)) + stream.quiet(at(index))
    assert len(out) == len(PICTURES), "the picture before the first keyframe is left out"
    for unit in (unit for unit in out if unit.keyframe):
        assert len(frames_of(unit.data)) == 1


# --- MPEG-TS -----------------------------------------------------------------------------------------


def rewritten(packets: list[bytes], cuts: list[int]) -> list[Unit]:
    transport = Transport()
    pieces = in_pieces(b"".join(packets), cuts)
    units = [unit for piece in pieces for unit in transport.push(piece, at(0))]
    return units + transport.quiet(at(0))


@given(cuts=st.lists(st.integers(0, 100_000), max_size=30))
def test_every_picture_states_its_length_however_the_bytes_come(cuts: list[int]) -> None:
    units = rewritten(as_ffmpeg_writes(PICTURES), cuts)
    data = b"".join(unit.data for unit in units)
    assert len(data) % PACKET == 0
    assert sum(unit.picture for unit in units) == len(frames_of(data)) == len(PICTURES)
    assert lengths(data) == [8 + len(picture) for picture in PICTURES]
    assert times(data) == [tspackets.ticks(at(0)) + 1800 * index for index in range(len(PICTURES))]


def test_a_damaged_table_is_as_if_it_had_not_come() -> None:
    packets = as_ffmpeg_writes(PICTURES)
    tables = [i for i, p in enumerate(packets) if tspackets.pid_of(p) != VIDEO_PID]
    assert len(tables) > 4, "they come again with each keyframe"
    whole = b"".join(unit.data for unit in rewritten(packets, []))
    for at_table in tables[2:4]:
        damaged = list(packets)
        bad = bytearray(damaged[at_table])
        bad[tspackets.payload_at(bad) + 1 + 14] ^= 4  # in the PMT: the PID of the pictures
        damaged[at_table] = bytes(bad)
        data = b"".join(unit.data for unit in rewritten(damaged, []))
        assert (lengths(data), times(data)) == (lengths(whole), times(whole))
        assert len(frames_of(data)) == len(PICTURES)


def test_a_reader_may_begin_with_any_keyframe() -> None:
    units = rewritten(as_ffmpeg_writes(PICTURES), [])
    keyframes = [unit for unit in units if unit.keyframe]
    assert len(keyframes) == sum(map(annexb.is_keyframe, PICTURES)) > 1
    for unit in keyframes:
        assert tspackets.pid_of(unit.data) == 0, "PAT first"
        assert len(frames_of(unit.data)) == 1


def test_a_picture_that_looks_whole_does_not_wait() -> None:
    transport, waits = Transport(), []
    for index, picture in enumerate(PICTURES):
        assert transport.push(b"".join(as_ffmpeg_writes([picture])), at(index)) == []
        waits.append(transport.waiting())
        assert [unit.picture for unit in transport.quiet(at(index))] == [True]
    assert waits.count(0.0) >= len(PICTURES) - 2, "1 of 184 fits its last packet by itself"
    assert set(waits) <= {0.0, QUIET_S}


def test_a_picture_that_goes_on_after_all_makes_it_wait_longer() -> None:
    transport = Transport()
    packets = as_ffmpeg_writes([max(PICTURES, key=len)] * 2)
    early = next(i for i, p in enumerate(packets) if tspackets.pid_of(p) == VIDEO_PID) + 1
    transport.push(b"".join(packets[:early]), at(0))
    assert transport.waiting() == QUIET_S, "nothing says that it is over"
    transport.quiet(at(0))
    transport.push(b"".join(packets[early : early + 1]), at(0))
    assert transport.patience.wrong == 1
    transport.push(b"".join(packets[early + 1 :]), at(1))
    assert transport.waiting() == 2 * QUIET_S, "stuffing is not believed any more either"


def test_half_a_packet_is_waited_for() -> None:
    transport = Transport()
    data = b"".join(as_ffmpeg_writes(PICTURES[:2]))
    transport.push(data[:-10], at(0))
    assert transport.waiting() is None
    transport.push(data[-10:], at(0))
    assert transport.waiting() == 0.0


# --- which of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", ""),
        (b"\0\0", ""),
        (b"\0\0\0\1", ""),
        (b"\0\0\0\1\x67", "h264"),
        (b"\0\0\1\x09", "h264"),
        (b"\0\0\1\x06", "h264"),
        (b"G" + bytes(187), ""),
        (b"G" + bytes(187) + b"G", "mpegts"),
    ],
)
def test_kinds(head: bytes, kind: str) -> None:
    assert framing.kind_of(head) == kind


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"hello\n", r"neither H.264 nor MPEG-TS, it began with b'hello\n'; let it write"),
        (b"FLV\1", "began with b'FLV"),
        (b"\0\0\0\1\x40\1", "NAL units that are no H.264 (header 0x40)"),
        (b"\0\0\0\0\0", "neither"),
        (b"\0\1", "neither"),
        (b"G" + bytes(188), "neither"),
    ],
)
def test_anything_else_is_named(head: bytes, said: str) -> None:
    with pytest.raises(EncoderFailed) as caught:
        framing.kind_of(head)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# --- options -----------------------------------------------------------------------------------------


def test_options_and_command() -> None:
    chosen = load(["--fps", "30", "--", "ffmpeg", "--", "-x"], {})
    assert (chosen.fps, chosen.command, chosen.input) == (30, ("ffmpeg", "--", "-x"), "auto")
    assert not chosen.is_alone() and chosen.title() == "ffmpeg"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no command: it comes after --"),
        (["--"], "no command"),
        (["--", ""], "no command"),
        (["ffmpeg"], "unrecognized arguments: ffmpeg"),
        (["--colour", "--", "x"], "unrecognized arguments: --colour"),
        (["--input", "flv", "--", "x"], "--input='flv' (command line): must be one of auto, h264, mpegts"),
        (["--fps", "241", "--", "x"], "--fps='241'"),
        (["--stall-limit-s", "0", "--", "x"], "--stall-limit-s='0'"),
        (["--name", "a b", "--", "x"], "--name='a b'"),
        (["--raw", "--fifo", "x", "--", "x"], "--raw hands stdout on as it is: it can't go with --fifo"),
    ],
)
def test_a_wrong_option_is_one_line(argv: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(argv, {})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_one_fifo_is_one_instance_whatever_it_is_called() -> None:
    def instance(*argv: str) -> str:
        return load([*argv, "--", "x"], {}).instance()

    assert instance("--fifo", "/x/y") == instance("--fifo", "/x/../x/y", "--name", "other")
    assert instance("--fifo", "/x/y") != instance("--fifo", "/z/y")
    assert Capture(command=("x",)).instance() != Capture(command=("y",)).instance()
