"""MPEG-TS in, MPEG-TS out: pictures get their length, all times become this machine's. Nothing is taken apart. Pure.

Whatever codecs are inside stay as they are, sound too, which is passed on as it comes and never waits for a picture.
"""

from __future__ import annotations

from collections.abc import Iterator

from procs.capture.clock import Clock
from procs.capture.unit import Patience, Unit
from procs.errors import Refused
from procs.media import annexb, tspackets
from procs.media.tspackets import NULL_PID, PACKET, PAT_PID, PES_LENGTH_MAX

PES_BYTES_MAX = 8 << 20
_H264 = 0x1B
_VIDEO = frozenset({0x01, 0x02, 0x10, _H264, 0x24, 0x33})  # MPEG-1, -2, -4, H.264, H.265, H.266
_HEAD_PACKETS = 16  # enough to find the type of a picture's first slice


class Pes:
    """The packets of one PES packet, as they come."""

    __slots__ = ("arrived_ns", "is_stuffed", "length", "packets")

    def __init__(self, arrived_ns: int) -> None:
        self.arrived_ns = arrived_ns
        self.packets = bytearray()
        self.length = 0  # bytes of payload so far
        self.is_stuffed = False  # the newest packet is filled up

    def add(self, packet: bytes) -> None:
        """Take the next packet. Refused when it grows past all measure."""
        self.packets += packet
        self.length += PACKET - tspackets.payload_at(packet)
        self.is_stuffed = tspackets.is_stuffed(packet)
        if len(self.packets) > PES_BYTES_MAX:
            raise Refused(f"no picture ends within {PES_BYTES_MAX} bytes")

    def is_whole(self) -> bool:
        """Whether it has the length that it states."""
        at = tspackets.payload_at(self.packets)
        stated = int.from_bytes(self.packets[at + 4 : at + 6], "big")
        return at + 6 <= PACKET and bool(stated) and self.length >= 6 + stated

    def head(self) -> bytes:
        """The first bytes of its payload."""
        starts = range(0, min(len(self.packets), _HEAD_PACKETS * PACKET), PACKET)
        packets = (self.packets[at : at + PACKET] for at in starts)
        return b"".join(packet[tspackets.payload_at(packet) :] for packet in packets)


class Tables:
    """PAT and PMT: kept as they came, to be repeated before each keyframe, and read."""

    def __init__(self) -> None:
        self._raw: dict[int, bytearray] = {}  # whole and undamaged
        self._coming: dict[int, bytearray] = {}
        self._counters: dict[int, int] = {}
        self._pmt_pids: set[int] = set()
        self._types: dict[int, dict[int, int]] = {}  # by PMT
        self.types: dict[int, int] = {}  # PID -> stream type
        self.main = -1  # the PID of the pictures, else of the first stream; -1: not known yet
        self.are_new = False

    def takes(self, pid: int) -> bool:
        """Whether packets of this PID carry tables."""
        return pid == PAT_PID or pid in self._pmt_pids

    def take(self, pid: int, packet: bytes) -> None:
        """The next packet of a table."""
        if tspackets.begins(packet):
            self._coming[pid] = bytearray()
        coming = self._coming.setdefault(pid, bytearray())
        coming += packet
        section = tspackets.section_in(b"".join(p[tspackets.payload_at(p) :] for p in _cut(coming)))
        if section and any(tspackets.crc(section)):
            return  # damaged: the one before it holds
        if section:
            self._raw[pid] = coming
        if section and section[0] == 0:
            self._pmt_pids = tspackets.pmt_pids(section)
            self._raw = {pid: raw for pid, raw in self._raw.items() if self.takes(pid)}
            self._types = {pid: types for pid, types in self._types.items() if self.takes(pid)}
        elif section and section[0] == 2:
            self._types[pid] = tspackets.stream_types(section)
            self.types = {p: kind for types in self._types.values() for p, kind in types.items()}
            self.main = next((p for p, kind in self.types.items() if kind in _VIDEO), next(iter(self.types), -1))
            self.are_new = True
        elif len(coming) > PES_LENGTH_MAX:
            raise Refused("a table has no end")

    def again(self) -> bytes:
        """All of them, with counters that go on. PAT first: it came first."""
        self.are_new = False
        return b"".join(self._numbered(pid, packet) for pid, raw in sorted(self._raw.items()) for packet in _cut(raw))

    def _numbered(self, pid: int, packet: bytes) -> bytes:
        counter = self._counters.get(pid, 0)
        self._counters[pid] = counter + 1 & 0xF
        return packet[:3] + bytes((packet[3] & 0xF0 | counter,)) + packet[4:]


def _cut(packets: bytes | bytearray) -> Iterator[bytes]:
    return (bytes(packets[at : at + PACKET]) for at in range(0, len(packets), PACKET))


class Transport:
    """A stream of MPEG-TS, rewritten. What comes before its tables is left out."""

    def __init__(self) -> None:
        self._aligner = tspackets.Aligner()
        self._tables = Tables()
        self._clock = Clock()
        self._open: dict[int, Pes] = {}
        self._quietly_ended: set[int] = set()
        self.patience = Patience()

    def waiting(self) -> float | None:
        """After how many seconds without a byte `quiet` should be called; None when there is nothing to end."""
        if not self._open or self._aligner.waits:
            return None
        looks_over = not self.patience.wrong and all(pes.is_stuffed for pes in self._open.values())
        return 0.0 if looks_over else self.patience.quiet_s

    def push(self, data: bytes, now_ns: int) -> list[Unit]:
        """The units that this data, which came at `now_ns`, shows to be over. Refused what grows past all measure."""
        return [unit for packet in _cut(self._aligner.push(data)) for unit in self._take(packet, now_ns)]

    def quiet(self, now_ns: int) -> list[Unit]:
        """Nothing came for as long as `waiting` said: what is in hand is over."""
        self._quietly_ended |= set(self._open)
        return [unit for pid in list(self._open) for unit in self._end(pid)]

    def _take(self, packet: bytes, now_ns: int) -> list[Unit]:
        pid = tspackets.pid_of(packet)
        if self._tables.takes(pid):
            self._tables.take(pid, packet)
            return []
        if pid in self._tables.types:
            return self._elementary(pid, packet, now_ns)
        if pid == NULL_PID or self._clock.shift is None:
            return []
        return [Unit(self._shifted(bytearray(packet), self._clock.shift))]

    def _elementary(self, pid: int, packet: bytes, now_ns: int) -> list[Unit]:
        units: list[Unit] = []
        if tspackets.begins(packet):
            units = self._end(pid)
            self._open[pid] = Pes(now_ns)
            self._quietly_ended.discard(pid)
        elif pid not in self._open:
            # Behind a stated end no reader looks at it any more; it comes to pass when a pause was no end.
            if pid in self._quietly_ended and tspackets.payload_at(packet) < PACKET:
                self._quietly_ended.discard(pid)
                self.patience.was_wrong()
            return []
        self._open[pid].add(packet)
        return units + (self._end(pid) if self._open[pid].is_whole() else [])

    def _end(self, pid: int) -> list[Unit]:
        pes = self._open.pop(pid, None)
        shift = self._stated(pid, pes) if pes else None
        if pes is None or shift is None:
            return []
        data = self._shifted(pes.packets, shift)
        if pid != self._tables.main:
            return [Unit(data)]
        keyframe = self._is_keyframe(pid, pes)
        if keyframe or self._tables.are_new:
            data = self._tables.again() + data
        return [Unit(data, picture=True, keyframe=keyframe)]

    def _stated(self, pid: int, pes: Pes) -> int | None:
        """Write length and times into the header; returns the shift of its clock. None for what can't be passed on."""
        packets, at = pes.packets, tspackets.payload_at(pes.packets)
        if at + 9 > PACKET or packets[at : at + 3] != b"\0\0\1":
            return None
        if packets[at + 4 : at + 6] == b"\0\0" and pes.length - 6 <= PES_LENGTH_MAX:
            packets[at + 4 : at + 6] = (pes.length - 6).to_bytes(2, "big")
        flags = packets[at + 7] >> 6  # 2: PTS, 3: PTS and DTS; a picture between others may have neither
        if flags < 2 or at + 9 + 5 * (flags - 1) > PACKET:
            return self._clock.shift
        pts = tspackets.get_time(packets[at + 9 : at + 14])
        dts = tspackets.get_time(packets[at + 14 : at + 19]) if flags == 3 else pts
        shift = self._clock.shift
        if shift is None or pid == self._tables.main:
            shift = self._clock.follow(dts, pes.arrived_ns)
        packets[at + 9 : at + 14] = tspackets.put_time(flags, pts + shift)
        if flags == 3:
            packets[at + 14 : at + 19] = tspackets.put_time(1, dts + shift)
        return shift

    @staticmethod
    def _shifted(packets: bytearray, shift: int) -> bytes:
        """The packets with their clock references moved."""
        for at in range(0, len(packets), PACKET):
            if tspackets.has_pcr(packets, at):
                tspackets.shift_pcr(packets, at, shift)
        return bytes(packets)

    def _is_keyframe(self, pid: int, pes: Pes) -> bool:
        if tspackets.is_random_access(pes.packets):
            return True
        kind = self._tables.types[pid]
        return kind not in _VIDEO or (kind == _H264 and annexb.is_keyframe(pes.head()))
