"""Ogg-Opus: what is written is what ffmpeg reads and the other way round, and nothing puts the reader out of step."""

from __future__ import annotations

import itertools
import random
import struct
import subprocess

import numpy as np
import pytest

from procs.errors import Refused
from procs.media import ogg, opus
from procs.media.ogg import OggPacket, OggReader, OggWriter
from procs.media.opuspackets import packet_samples

FRAME = 480  # samples of 20 ms


def packet(number: int) -> bytes:
    """One of 20 ms, which holds its number."""
    return b"\x48" + struct.pack(">I", number) * 20


def pages(count: int, serial: int = 7, first: int = 0) -> list[bytes]:
    """The headers, then one page a packet."""
    writer = OggWriter(serial)
    return [writer.write([]), *(writer.write([packet(first + number)]) for number in range(count))]


def numbers(packets: list[OggPacket]) -> list[int]:
    return [struct.unpack_from(">I", each.packet, 1)[0] for each in packets]


def slow_checksum(page: bytes) -> int:
    """As RFC 3533 describes it, bit by bit."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFF_FFFF
    return crc


def test_pages_are_as_the_two_documents_draw_them() -> None:
    head, tags = OggWriter(0x01020304, preskip=312).write([]).split(b"OggS")[1:]
    body = b"OpusHead\1\1\x38\1\xc0\x5d\0\0\0\0\0"
    want = b"OggS\0\2" + bytes(8) + b"\4\3\2\1" + bytes(8) + b"\1\x13" + body
    assert b"OggS" + head[:18] + bytes(4) + head[22:] == want
    assert head[18:22] == slow_checksum(want).to_bytes(4, "little")
    assert tags[24:] == b"OpusTags\x08\0\0\0planaria\0\0\0\0"
    data = random.Random(5).randbytes(999)
    assert ogg.checksum(data) == slow_checksum(data)


def test_packets_come_out_as_they_went_in_however_the_bytes_are_cut() -> None:
    writer = OggWriter(9)
    sizes = [1, 2, 254, 255, 256, 510, 1275]
    said = [b"\x48" + bytes(size - 1) for size in sizes] * 20
    data = writer.write(said[:50]) + writer.write(said[50:], end=True)
    for cut in (1, 7, 300, len(data)):
        reader = OggReader(gated=True)
        found = [each for at in range(0, len(data), cut) for each in reader.feed(data[at : at + cut])]
        assert [each.packet for each in found] == said
        assert [each.timestamp for each in found] == [FRAME * index for index in range(len(said))]
        assert [each.first for each in found] == [True] + [False] * (len(said) - 1)
        assert not reader.bad_bytes and not reader.lost_pages and not any(each.gap for each in found)


def test_a_packet_over_several_pages_is_put_together_and_dropped_where_one_of_them_is_lost() -> None:
    whole = b"\x4b\x82" + b"\xaa" * 600
    first = _page(0, 0, b"\xff", whole[:255], -1)
    second = _page(1, ogg.CONTINUED, b"\xff", whole[255:510], -1)
    third = _page(2, ogg.CONTINUED, bytes((len(whole) - 510, 81)), whole[510:] + packet(3), 1920)
    assert [each.packet for each in OggReader().feed(first + second + third)] == [whole, packet(3)]
    assert [each.packet for each in OggReader().feed(first + third)] == [packet(3)]
    assert [each.packet for each in OggReader().feed(third)] == [packet(3)]


def _page(seq: int, flags: int, table: bytes, body: bytes, granule: int) -> bytes:
    page = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, 7, seq, 0, len(table)) + table + body
    return page[:22] + slow_checksum(page).to_bytes(4, "little") + page[26:]


def test_a_stream_is_joined_in_its_middle_unless_a_beginning_is_asked_for() -> None:
    said = pages(20)
    open_, gated = OggReader(), OggReader(gated=True)
    found = open_.feed(b"".join(said[11:]))
    assert numbers(found) == list(range(10, 20))
    assert found[0] == OggPacket(packet(10), 10 * FRAME, 0, True), "the granule says when"
    assert gated.feed(b"".join(said[11:])) == [] and gated.lost_pages == 0
    anew = gated.feed(b"".join(pages(3, serial=8, first=100)))
    assert numbers(anew) == [100, 101, 102] and anew[0].timestamp == 0


def test_lost_pages_are_told_as_a_gap_and_late_or_doubled_ones_left_out() -> None:
    said = pages(20)
    reader = OggReader()
    found = reader.feed(b"".join(said[:6] + said[9:12] + said[8:9] + said[11:]))
    assert numbers(found) == [0, 1, 2, 3, 4, *range(8, 20)]
    assert [each.gap for each in found] == [0] * 5 + [3 * FRAME] + [0] * 11
    assert found[5].timestamp == 8 * FRAME and found[-1].timestamp == 19 * FRAME
    assert (reader.lost_pages, reader.late_pages) == (3, 2)


def test_one_stream_after_another_and_one_whose_beginning_is_lost() -> None:
    reader = OggReader()
    found = reader.feed(b"".join(pages(3) + pages(3, 8, 10) + pages(5, 9, 20)[3:]))
    assert numbers(found) == [0, 1, 2, 10, 11, 12, 22, 23, 24]
    assert [each.timestamp // FRAME for each in found] == [0, 1, 2, 0, 1, 2, 2, 3, 4]
    assert [each.first for each in found] == [True, False, False] * 3
    other = _page(0, ogg.BOS, b"\x08", b"\x80theora!", 0).replace(b"\7\0\0\0", b"\6\0\0\0", 1)
    other = other[:22] + slow_checksum(other[:22] + bytes(4) + other[26:]).to_bytes(4, "little") + other[26:]
    assert OggReader().feed(other) == [] and numbers(reader.feed(other + pages(6, 9, 20)[6])) == [25]


@pytest.mark.parametrize(
    "poison",
    [
        b"x" * 1000,
        b"OggS",
        b"OggS" + bytes(22) + b"\xff" + b"\xff" * 255,  # says that it is as long as can be
        b"OggS\0\0" * 300,
        pages(3)[2][:60],  # its end was lost
        pages(3)[2][:-1] + b"\0",  # one bit is wrong
        pages(3)[2][:26] + b"\xff" + pages(3)[2][27:],
        _page(0, ogg.BOS, b"\x08", b"OpusHead", 0),
        _page(2, 0, b"\x01\x00\x03", b"\x4b\x4b\x00\x48", 2**62),  # right, but of packets that are none
    ],
    ids=["letters", "capture", "longest", "captures", "cut", "flipped", "segments", "head", "packets"],
)
def test_poison_costs_no_more_than_itself(poison: bytes) -> None:
    """The next page is read at once, not when as much has come as the poison said."""
    reader = OggReader()
    reader.feed(b"".join(pages(4)))
    assert numbers(reader.feed(poison + b"".join(pages(9)[5:]))) == [4, 5, 6, 7, 8]
    assert numbers(reader.feed(pages(10)[10])) == [9], "nor is anything left of it"
    assert len(reader._buffer) <= ogg.MAX_PAGE + len(poison)


def test_who_makes_it_look_for_pages_that_are_not_there_is_not_looked_at_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Overlapping pages that all look whole: each would have its checksum taken."""
    header, taken = b"OggS" + bytes(22) + b"\xff", list[int]()
    monkeypatch.setattr(ogg, "checksum", lambda page: taken.append(len(page)))
    reader = OggReader()
    for _ in range(8):
        reader.feed(header * 2400)
    fed = 8 * 2400 * len(header)
    assert sum(taken) < 17 * fed + 4 * ogg.MAX_PAGE, "without a bound it is many times as much"
    monkeypatch.undo()
    assert numbers(reader.feed(bytes(ogg.MAX_PAGE) + b"".join(pages(2)))) == [0, 1]


def test_what_is_no_packet_is_not_written() -> None:
    for poor in (b"", b"\x4b", b"\x4b\x3f", b"\x48" + bytes(65_025)):
        with pytest.raises(Refused):
            OggWriter(1).write([poor])


@pytest.mark.parametrize(("first", "samples"), [(0x08, 480), (0x18, 1440), (0x10, 960), (0x68, 480), (0x80, 60)])
def test_a_packet_says_how_long_it_is(first: int, samples: int) -> None:
    assert packet_samples(bytes((first,))) == samples
    assert packet_samples(bytes((first & 0xFC | 3, 2))) == 2 * samples


def speech(seconds: float) -> opus.Samples:
    """Something like it: a tone whose pitch and loudness change."""
    at = np.arange(int(seconds * opus.RATE)) / opus.RATE
    loud = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * at)
    tones = sum(np.sin(2 * np.pi * (150 + 20 * np.sin(at)) * each * at) / each for each in range(1, 6))
    pcm: opus.Samples = (6000 * loud * tones).astype(np.int16)
    return pcm


def likeness(one: opus.Samples, other: opus.Samples) -> float:
    """How alike they are, at the delay of `other` at which they are most: up to 10 ms."""
    size = min(len(one), len(other)) - 240
    return float(max(np.corrcoef(one[:size], other[delay : delay + size])[0, 1] for delay in range(240)))


@pytest.mark.parametrize("frame_ms", [20, 40])
def test_sound_survives_and_any_number_of_samples_may_be_put_in(frame_ms: int) -> None:
    encoder, decoder, said = opus.Encoder(frame_ms=frame_ms), opus.Decoder(), speech(2.0)  # type: ignore[arg-type]
    cuts = [0, 1, 700, 701, 5000, 30_000, len(said)]
    packets = [each for one, two in itertools.pairwise(cuts) for each in encoder.encode(said[one:two])]
    packets += encoder.flush()
    heard = [decoder.decode(each) for each in packets]
    assert {len(each) for each in heard} == {24 * frame_ms} == {packet_samples(each) for each in packets}
    assert likeness(said, np.concatenate(heard)) > 0.98
    assert sum(map(len, packets)) * 8 / 2 < 40_000, "bit/s"


def test_a_packet_that_is_none_is_refused_and_the_next_decoded() -> None:
    encoder, decoder = opus.Encoder(), opus.Decoder()
    packets = encoder.encode(speech(1.0))
    heard = []
    for index, each in enumerate(packets):
        for poor in (b"", b"\xff", b"\x4b\xff" + each, b"\x02"):
            if index % 10 == 0:
                with pytest.raises(Refused):
                    decoder.decode(poor)
        heard.append(decoder.decode(each))
    assert likeness(speech(1.0), np.concatenate(heard)) > 0.95


def test_tones_above_twelve_kilohertz_are_not_heard_as_lower_ones() -> None:
    at = np.arange(9600) / 48_000
    for hertz, least, most in ((1000, 0.99, 1.01), (9000, 0.98, 1.02), (14_000, 0.0, 0.01), (20_000, 0.0, 0.01)):
        tone = (10_000 * np.sin(2 * np.pi * hertz * at)).astype(np.int16)
        left = np.std(opus._Halver().halve(tone)[100:]) / np.std(tone)
        assert least <= left <= most, hertz


@pytest.mark.needs("ffmpeg")
def test_ffmpeg_reads_what_is_written_and_its_own_is_read() -> None:
    said = speech(2.0)
    encoder, writer = opus.Encoder(), OggWriter(3)
    packets = [*encoder.encode(said), *encoder.flush()]
    ours = b"".join([*(writer.write(packets[at : at + 2]) for at in range(0, 100, 2)), writer.write([], end=True)])
    command = ["ffmpeg", "-v", "warning", "-i", "-", "-ar", "24000", "-f", "s16le", "-"]
    done = subprocess.run(command, input=ours, capture_output=True, timeout=60, check=True)
    assert done.stderr == b"", "not even a warning"
    theirs = np.frombuffer(done.stdout, np.int16)
    assert abs(len(theirs) - len(said)) <= 480 and likeness(said, theirs) > 0.98

    command = ["ffmpeg", "-v", "error", "-f", "s16le", "-ar", "24000", "-ac", "1", "-i", "-"]
    command += ["-c:a", "libopus", "-b:a", "32k", "-metadata", "comment=" + "x" * 70_000, "-f", "ogg", "-"]
    done = subprocess.run(command, input=said.tobytes(), capture_output=True, timeout=60, check=True)
    reader, decoder = OggReader(gated=True), opus.Decoder()
    found = [each for at in range(0, len(done.stdout), 999) for each in reader.feed(done.stdout[at : at + 999])]
    assert reader.bad_bytes == reader.bad_packets == reader.lost_pages == 0
    assert likeness(said, np.concatenate([decoder.decode(each.packet) for each in found])) > 0.98
