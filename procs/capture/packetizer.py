"""H.264 pictures as MPEG-TS packets, one stream, every length stated. Pure.

Not libavformat's muxer (media/mpegts.py): loading that costs 100 ms and 40 MB, more than all else a capture does.
"""

from __future__ import annotations

from procs.media.tspackets import CLOCK_HZ, PACKET, PAT_PID, PES_LENGTH_MAX, SYNC, WRAP, crc, put_time

PMT_PID, VIDEO_PID = 0x1000, 0x100  # as ffmpeg has them
_H264 = 0x1B
_TABLES_EVERY = CLOCK_HZ // 10
_PCR_LEAD = CLOCK_HZ // 10  # how long before its time a picture is there, for players that go by the clock reference
_ROOM = PACKET - 4


def _table(table_id: int, body: bytes) -> bytes:
    """A section with its header and CRC, and the pointer field in front."""
    length = 5 + len(body) + 4
    head = bytes((table_id, 0xB0 | length >> 8, length & 0xFF, 0, 1, 0xC1, 0, 0))
    return b"\0" + head + body + crc(head + body)


_PAT = _table(0, bytes((0, 1, 0xE0 | PMT_PID >> 8, PMT_PID & 0xFF)))
_PMT = _table(
    2,
    bytes((0xE0 | VIDEO_PID >> 8, VIDEO_PID & 0xFF, 0xF0, 0, _H264, 0xE0 | VIDEO_PID >> 8, VIDEO_PID & 0xFF, 0xF0, 0)),
)


class Packetizer:
    """Makes packets of pictures. Keeps the counters that a reader notices losses by."""

    def __init__(self) -> None:
        self._counters = {PAT_PID: 0, PMT_PID: 0, VIDEO_PID: 0}
        self._tables_at = -WRAP

    def picture(self, access_unit: bytes, time: int, *, keyframe: bool) -> bytes:
        """The packets of one picture, shown at `time` ticks. PAT and PMT come before each keyframe and ten times a
        second."""
        out = []
        if keyframe or time - self._tables_at >= _TABLES_EVERY:
            self._tables_at = time
            out += [self._packet(PAT_PID, _PAT, begins=True), self._packet(PMT_PID, _PMT, begins=True)]
        length = 8 + len(access_unit)
        stated = length if length <= PES_LENGTH_MAX else 0
        pes = b"\0\0\1\xe0" + stated.to_bytes(2, "big") + b"\x84\x80\5" + put_time(2, time) + access_unit
        head = _clock_reference(time - _PCR_LEAD, keyframe)
        first = _ROOM - 1 - len(head)
        out.append(self._packet(VIDEO_PID, pes[:first], head, begins=True))
        out += [self._packet(VIDEO_PID, pes[at : at + _ROOM]) for at in range(first, len(pes), _ROOM)]
        return b"".join(out)

    def _packet(self, pid: int, payload: bytes, adaptation: bytes = b"", *, begins: bool = False) -> bytes:
        counter = self._counters[pid]
        self._counters[pid] = counter + 1 & 0xF
        field = _filled(adaptation, _ROOM - len(payload))
        head = bytes((SYNC, begins << 6 | pid >> 8, pid & 0xFF, (0x30 if field else 0x10) | counter))
        return head + field + payload


def _filled(adaptation: bytes, room: int) -> bytes:
    """An adaptation field, with its length byte, of exactly `room` bytes."""
    if room <= 1:
        return b"\0" * room
    return bytes((room - 1,)) + (adaptation or b"\0").ljust(room - 1, b"\xff")


def _clock_reference(time: int, keyframe: bool) -> bytes:
    time %= WRAP
    return bytes((0x10 | keyframe << 6,)) + (time << 15 | 0x7E00).to_bytes(6, "big")
