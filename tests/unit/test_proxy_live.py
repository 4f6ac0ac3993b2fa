"""Where pictures begin and end in what go2rtc sends, and which are left out for a slow viewer."""

from __future__ import annotations

import json
import random
import struct
import subprocess

import pytest

from procs.proxy.live import Backlog, Messages, Mjpeg
from procs.proxy.mp4 import Mp4
from procs.proxy.unit import Unit
from procs.wire.mux1 import DROPPED_BEFORE, KEY, TEXT

GOP, FRAMES = 10, 50


def made_by_ffmpeg(*more: str) -> bytes:
    """Fragmented MP4, a fragment for each picture; a keyframe every GOP."""
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=s=160x90:r=25:d={FRAMES / 25}", *more]
    command += [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-g",
        str(GOP),
        "-keyint_min",
        str(GOP),
    ]
    command += ["-f", "mp4", "-movflags", "frag_every_frame+empty_moov+default_base_moof", "-"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def fed(splitter: Mp4 | Mjpeg, data: bytes, seed: int = 1) -> list[Unit]:
    """What comes out when the bytes come in pieces of any size."""
    numbers, units, at = random.Random(seed), [], 0
    while at < len(data):
        step = numbers.choice((1, 7, 100, 5000, 100_000))
        units += splitter.feed(data[at : at + step])
        at += step
    return units


@pytest.mark.needs("ffmpeg")
def test_fragments_and_their_keyframes() -> None:
    data = made_by_ffmpeg()
    for seed in range(5):
        splitter = Mp4()
        units = fed(splitter, data, seed)
        assert b"".join(unit.data for unit in units) + splitter.rest() == data
        assert not units[0].may_drop and b"moov" in units[0].data
        pictures = units[1:]
        assert len(pictures) == FRAMES and all(unit.may_drop for unit in pictures)
        assert [number for number, unit in enumerate(pictures) if unit.is_key] == list(range(0, FRAMES, GOP))


@pytest.mark.needs("ffmpeg")
def test_sound_is_no_keyframe_beside_pictures_and_always_one_alone() -> None:
    tone = ("-f", "lavfi", "-i", f"sine=d={FRAMES / 25}", "-c:a", "aac", "-shortest")
    units = [unit for unit in fed(Mp4(), made_by_ffmpeg(*tone)) if unit.may_drop]
    assert len(units) > FRAMES and sum(unit.is_key for unit in units) == FRAMES / GOP
    alone = fed(Mp4(), made_by_ffmpeg(*tone, "-map", "1:a"))
    assert len(alone) > 50 and all(unit.is_key for unit in alone if unit.may_drop)


def part(data: bytes) -> bytes:
    """One part as go2rtc writes it."""
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(data), data)


def test_parts_of_mjpeg() -> None:
    pictures = [bytes([number]) * (number * 50) + b"\r\n--frame\r\n\r\n" for number in range(40)]
    parts = [part(picture) for picture in pictures]
    splitter = Mjpeg()
    units = fed(splitter, b"".join(parts) + b"--frame--")
    assert [unit.data for unit in units] == parts
    assert all(unit.is_key and unit.may_drop for unit in units) and splitter.rest() == b"--frame--"


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 40,
        b"--frame\r\nContent-Type: image/jpeg\r\n\r\nno length" + bytes(2000),
        b"--frame\r\nContent-Length: 99999999999999\r\n\r\n" + bytes(2000),
        b"--frame\r\nContent-Length: 5\r\n\r\n" + bytes(2000),
        struct.pack(">I4s", 0, b"ftyp") + bytes(3000),
        struct.pack(">I4s", 1, b"mdat") + bytes(3000),
        struct.pack(">I4s", 16, b"moov") + struct.pack(">I4s", 99, b"trak") + bytes(3000),
        struct.pack(">I4s", 20, b"moov") + struct.pack(">I4s", 12, b"trak") + bytes(3000),
    ],
)
def test_what_is_not_understood_passes_as_it_is(data: bytes) -> None:
    for splitter in (Mp4(), Mjpeg()):
        units = fed(splitter, data)
        assert b"".join(unit.data for unit in units) + splitter.rest() == data
        assert not any(unit.may_drop for unit in units)


def test_messages_of_each_mode() -> None:
    messages = Messages()
    said = json.dumps({"type": "webcodecs", "value": {}}).encode()
    assert messages.unit(said, is_text=True) == Unit(said, False, False, TEXT)
    sound, key, delta = (bytes([flags]) + bytes(20) for flags in (0, 0xC0, 0x80))
    assert [messages.unit(each, is_text=False)[1:3] for each in (sound, key, delta, sound)] == [
        (True, True), (True, True), (False, True), (False, True),
    ]  # fmt: skip
    messages = Messages()
    assert messages.unit(b"\xff\xd8\xff\xe0" + bytes(9), is_text=False)[1:3] == (True, True)
    assert messages.unit(b"anything else", is_text=False)[1:3] == (False, False)
    assert messages.unit(b"not json", is_text=True)[1:3] == (False, False)


def picture(number: int) -> Unit:
    return Unit(b"%d" % number, number % GOP == 0, True)


def shown(backlog: Backlog, count: int = 1000) -> list[tuple[int, int]]:
    """(number, flags) of what is popped now."""
    found: list[tuple[int, int]] = []
    while backlog and len(found) < count:
        data, flags = backlog.pop()
        found.append((int(data), flags))
    return found


def test_a_quick_viewer_gets_everything() -> None:
    backlog, seen = Backlog(), []
    for number in range(100):
        backlog.put(picture(number), number / 25)
        seen += shown(backlog)
    assert [number for number, _ in seen] == list(range(100)) and backlog.dropped == 0
    assert [number for number, flags in seen if flags & KEY] == list(range(0, 100, GOP))
    assert not any(flags & DROPPED_BEFORE for _, flags in seen)


def test_a_viewer_who_stands_still_goes_on_with_the_newest_keyframe() -> None:
    backlog = Backlog()
    for number in range(1, 200):  # in the middle of a picture group, for eight seconds
        backlog.put(picture(number), number / 25)
        assert len(backlog) <= 2 * GOP
    seen = shown(backlog)
    assert seen[0] == (190, KEY | DROPPED_BEFORE)
    assert [number for number, _ in seen] == list(range(190, 200))
    assert not any(flags & DROPPED_BEFORE for _, flags in seen[1:])
    assert backlog.dropped == 189


def test_a_viewer_of_a_tenth_of_the_rate_sees_whole_groups_beginning_with_keyframes() -> None:
    backlog, seen = Backlog(), []
    for number in range(500):
        backlog.put(picture(number), number / 25)
        if number % 10 == 9:
            seen += shown(backlog, 1)
    last = -1
    for number, flags in seen:
        assert number == last + 1 or (flags & DROPPED_BEFORE and flags & KEY)
        last = number
    assert all(number / 25 >= 0.4 * (index + 1) - 1.0 for index, (number, _) in enumerate(seen))  # never older than 1 s
    assert len(seen) == 50


def test_what_must_not_be_left_out_is_not() -> None:
    backlog = Backlog()
    backlog.put(Unit(b"0", False, False, TEXT), 0.0)
    for number in range(1, 100):
        backlog.put(picture(number), number / 25)
        if number == 50:
            backlog.put(Unit(b"-1", False, False), 2.0)
    seen = shown(backlog)
    assert seen[0] == (0, TEXT) and seen[1] == (-1, 0) and seen[2] == (90, KEY | DROPPED_BEFORE)
    for number in range(100):
        backlog.put(Unit(bytes(100_000), False, False), 10.0 + number)
    assert backlog.size == 10_000_000 and len(backlog) == 100  # its reader has to stop; nothing here may


def test_waiting_is_bounded_by_bytes_too() -> None:
    backlog = Backlog()
    for number in range(100):
        backlog.put(Unit(bytes(1_000_000), number == 0, True), 0.0)
        assert backlog.size <= 5_000_000
