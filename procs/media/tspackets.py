"""MPEG-TS as bytes: packets, their fields, tables and times. Pure and without imports, for programs that start quickly.

Source: ISO/IEC 13818-1: 2.4.3.2 (packet), 2.4.3.4 (adaptation field), 2.4.3.6 (PES), 2.4.4 (PAT, PMT), annex A (CRC).
"""

from __future__ import annotations

CLOCK_HZ = 90_000
PACKET = 188
SYNC = 0x47
PAT_PID = 0
NULL_PID = 0x1FFF
PES_LENGTH_MAX = 0xFFFF
WRAP = 1 << 33  # times count to this and begin anew, after 26.5 hours
_ENOUGH = 3  # packets in a row that begin with SYNC: no accident
_PCR = 0x10
_OPCR = 0x08
_OTHERS = 0x07  # splice countdown, private data, extension: fields whose length we do not read


def ticks(monotonic_ns: int) -> int:
    """A time of CLOCK_MONOTONIC in ticks of 1/CLOCK_HZ."""
    return monotonic_ns * CLOCK_HZ // 1_000_000_000


def first_packet(data: bytes | bytearray) -> int:
    """Where the first whole packet begins, judged by SYNC bytes PACKET apart; -1 when that can't be told (yet)."""
    for at in range(min(PACKET, len(data) - (_ENOUGH - 1) * PACKET)):
        if all(data[at + i * PACKET] == SYNC for i in range(_ENOUGH)):
            return at
    return -1


class Aligner:
    """Cuts a stream of bytes into whole packets. What is no packet (a half one of a killed writer) is left out.

    A packet is passed on when it is whole and no byte is known that speaks against it: what follows it is SYNC, or
    not here yet. So a picture's last packet never waits for the next picture.
    """

    __slots__ = ("_aligned", "_rest", "skipped")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._aligned = False
        self.skipped = 0  # bytes left out so far

    @property
    def waits(self) -> bool:
        """Whether part of a packet is here, so that the rest of it must be under way."""
        return bool(self._rest)

    def push(self, data: bytes) -> bytes:
        """The whole packets there are now, of this data and what was left of earlier data."""
        rest, out = self._rest, b""
        rest += data
        while self._aligned or self._align():
            good = _good(rest)
            out += rest[: good * PACKET]
            del rest[: good * PACKET]
            self._aligned = len(rest) < PACKET and bytes(rest[:1]) in (b"", b"G")
            if self._aligned:
                break
        return out

    def _align(self) -> bool:
        """Drop what comes before the first packet; False when it can't be found yet."""
        at = first_packet(self._rest)
        # Of what holds no packet, only the end can still belong to one.
        drop = at if at >= 0 else max(0, len(self._rest) - _ENOUGH * PACKET)
        del self._rest[:drop]
        self.skipped += drop
        self._aligned = at >= 0
        return self._aligned


def _good(data: bytearray) -> int:
    """How many packets at the beginning are whole, begin with SYNC, and are followed by SYNC or by nothing yet."""
    marks = bytes(data[::PACKET])
    good = len(marks) - len(marks.lstrip(b"G"))
    # The last SYNC of the row begins a packet that is not whole yet, or one that has something else behind it.
    return good if good * PACKET == len(data) else max(0, good - 1)


def pid_of(packet: bytes) -> int:
    """The PID of a packet."""
    return (packet[1] & 0x1F) << 8 | packet[2]


def begins(packet: bytes) -> bool:
    """Whether a PES packet or a table begins in this packet (payload_unit_start_indicator)."""
    return bool(packet[1] & 0x40)


def payload_at(packet: bytes | bytearray) -> int:
    """Where the payload begins; PACKET when there is none."""
    control = packet[3] & 0x30
    if control == 0x10:
        return 4
    return min(PACKET, 5 + packet[4]) if control == 0x30 else PACKET


def is_stuffed(packet: bytes) -> bool:
    """Whether it is filled up to its size. A multiplexer does that with the last packet of a PES packet, where the
    next one must begin in a packet of its own; only 1 of 184 fits by itself."""
    if not packet[3] & 0x20:
        return False
    length, flags = packet[4], packet[5]
    if length == 0:
        return True
    return not flags & _OTHERS and length > 1 + 6 * bool(flags & _PCR) + 6 * bool(flags & _OPCR)


def is_random_access(packet: bytes | bytearray) -> bool:
    """Whether the multiplexer says that a reader may begin here."""
    return bool(packet[3] & 0x20 and packet[4] and packet[5] & 0x40)


def has_pcr(packet: bytes | bytearray, at: int = 0) -> bool:
    """Whether the packet at `at` carries a clock reference."""
    return bool(packet[at + 3] & 0x20 and packet[at + 4] >= 7 and packet[at + 5] & _PCR)


def shift_pcr(packets: bytearray, at: int, shift: int) -> None:
    """Add `shift` ticks to the clock reference of the packet at `at`."""
    base = int.from_bytes(packets[at + 6 : at + 11], "big") >> 7
    packets[at + 6 : at + 10] = ((base + shift) % WRAP >> 1).to_bytes(4, "big")
    packets[at + 10] = packets[at + 10] & 0x7F | (base + shift & 1) << 7


def get_time(field: bytes | bytearray) -> int:
    """A PTS or DTS of 5 bytes, in ticks."""
    return (field[0] >> 1 & 7) << 30 | field[1] << 22 | field[2] >> 1 << 15 | field[3] << 7 | field[4] >> 1


def put_time(prefix: int, time: int) -> bytes:
    """A PTS or DTS as 5 bytes; `prefix` is the 4 bits before it (2: PTS alone, 3: PTS, 1: DTS)."""
    time %= WRAP
    parts = (prefix << 4 | time >> 30 << 1, time >> 22, time >> 15 << 1, time >> 7, time << 1)
    return bytes((parts[0] | 1, parts[1] & 0xFF, parts[2] & 0xFF | 1, parts[3] & 0xFF, parts[4] & 0xFF | 1))


def signed(difference: int) -> int:
    """A difference of two times that count to WRAP, as the nearer way round."""
    return (difference + WRAP // 2) % WRAP - WRAP // 2


def section_in(payloads: bytes) -> bytes | None:
    """The table that begins in the first of these payloads; None while it is not whole."""
    start = 1 + payloads[0] if payloads else 1
    if len(payloads) < start + 3:
        return None
    section = payloads[start : start + 3 + ((payloads[start + 1] & 0x0F) << 8 | payloads[start + 2])]
    whole = len(section) == 3 + ((section[1] & 0x0F) << 8 | section[2])
    return section if whole and len(section) >= 12 else None


def pmt_pids(pat: bytes) -> set[int]:
    """The PIDs of the PMTs that a PAT names."""
    entries = [pat[at : at + 4] for at in range(8, len(pat) - 7, 4)]
    return {(entry[2] & 0x1F) << 8 | entry[3] for entry in entries if entry[:2] != b"\0\0"}


def stream_types(pmt: bytes) -> dict[int, int]:
    """PID -> stream type of each elementary stream of a PMT, in its order."""
    found, at = {}, 12 + ((pmt[10] & 0x0F) << 8 | pmt[11])
    while at + 5 <= len(pmt) - 4:
        found[(pmt[at + 1] & 0x1F) << 8 | pmt[at + 2]] = pmt[at]
        at += 5 + ((pmt[at + 3] & 0x0F) << 8 | pmt[at + 4])
    return found


def crc(section: bytes) -> bytes:
    """The CRC_32 that ends a table."""
    value = 0xFFFFFFFF
    for byte in section:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value.to_bytes(4, "big")
