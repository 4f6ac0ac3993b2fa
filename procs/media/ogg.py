"""Opus in Ogg (RFC 3533 and 7845), one mono stream live: a writer, and a reader that nothing puts out of step. Pure.

The reader takes a stream from its middle, pages that are lost, late or doubled, and one stream after another. Bytes
that are no page with a right checksum cost themselves and no more: it goes on at the next one that is. What it holds
is at most one page and one packet that is not whole yet, and how much it computes for each byte is bounded, too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from procs.errors import Refused
from procs.media.opuspackets import MAX_PACKET, RATE, packet_samples

PRESKIP = 312  # at 48 kHz: how far libopus looks ahead
CONTINUED, BOS, EOS = 1, 2, 4
MAX_PAGE = 27 + 255 + 255 * 255
LATE = 64  # pages: farther back than this is another beginning
LONGEST_GAP = 60 * RATE  # samples
_MAX_OTHERS = 16  # streams in between that are no Opus
_CAPTURE = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_EFFORT = 16  # bytes looked at for each that came
_MOST_EFFORT = 4 * MAX_PAGE


def checksum(page: bytes) -> int:
    """Ogg's CRC of a page whose own CRC is zero. It is zlib's with every bit from the other end."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")


class OggWriter:
    """Makes pages of packets. The first bytes carry the headers."""

    def __init__(self, serial: int, *, preskip: int = PRESKIP) -> None:
        self._serial, self._preskip = serial & 0xFFFF_FFFF, preskip
        self._pages = 0
        self._granule = 0  # samples at 48 kHz, to the end of the last packet

    def write(self, packets: Iterable[bytes], *, end: bool = False) -> bytes:
        """As few pages as hold these packets; by `end` the last is marked as such. Raises Refused for what is none."""
        pages = self._headers() if not self._pages else []
        body, table, granule = b"", b"", self._granule
        for packet in packets:
            samples = packet_samples(packet)
            lacing = _lacing(packet)
            if len(lacing) > 255:
                raise Refused(f"Opus packet of {len(packet)} bytes does not fit on a page")
            if len(table) + len(lacing) > 255:
                pages.append(self._page(body, table, granule, 0))
                body = table = b""
            body, table, granule = body + packet, table + lacing, granule + 2 * samples
        if table or end:
            pages.append(self._page(body, table, granule, EOS if end else 0))
        self._granule = granule
        return b"".join(pages)

    def _headers(self) -> list[bytes]:
        head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, self._preskip, RATE, 0, 0)
        tags = struct.pack("<8sI8sI", b"OpusTags", 8, b"planaria", 0)
        return [self._page(head, _lacing(head), 0, BOS), self._page(tags, _lacing(tags), 0, 0)]

    def _page(self, body: bytes, table: bytes, granule: int, flags: int) -> bytes:
        head = _HEADER.pack(_CAPTURE, 0, flags, granule, self._serial, self._pages, 0, len(table))
        self._pages = (self._pages + 1) & 0xFFFF_FFFF
        page = head + table + body
        return page[:22] + checksum(page).to_bytes(4, "little") + page[26:]


def _lacing(packet: bytes) -> bytes:
    whole, rest = divmod(len(packet), 255)
    return b"\xff" * whole + bytes((rest,))


class OggPacket(NamedTuple):
    """One Opus packet out of a stream; times are samples at 24 kHz."""

    packet: bytes
    timestamp: int  # since the stream began, as far as that is known
    gap: int = 0  # samples that were lost right before it
    first: bool = False  # of a stream


class _Page(NamedTuple):
    flags: int
    granule: int
    serial: int
    seq: int
    table: bytes
    body: bytes


class OggReader:
    """Takes bytes as they come, and says which packets were in them."""

    def __init__(self, *, gated: bool = False) -> None:
        """`gated`: nothing counts before the beginning of a stream. A browser that comes back may begin with pages of
        its last stream."""
        self._gated = gated
        self._buffer = b""
        self._effort = _MOST_EFFORT
        self._others: list[int] = []  # serials
        self._stream = _Stream(-1)
        self.bad_bytes = 0  # that were no page
        self.bad_packets = 0  # on pages that were right
        self.lost_pages = 0
        self.late_pages = 0

    def feed(self, data: bytes) -> list[OggPacket]:
        """The packets that are whole by now."""
        self._effort = min(_MOST_EFFORT, self._effort + _EFFORT * len(data))
        buffer, packets = self._buffer + data, list[OggPacket]()
        done, waiting, at = 0, -1, 0  # end of the last page; first page that is not whole; where to look
        while (at := buffer.find(_CAPTURE, at)) >= 0:
            size = _size(buffer, at)
            self._effort -= 1
            if size > len(buffer) - at:
                waiting = at if waiting < 0 else waiting
                at += 4
            elif page := self._checked(buffer[at : at + size]):
                packets += self._take(page)
                self.bad_bytes += at - done
                at = done = at + size
                waiting = -1
            else:
                at += 4
            if self._effort < 0:  # somebody makes us look for what is not there
                self._effort, waiting, at = 0, -1, len(buffer)
        keep = waiting if waiting >= 0 else max(done, len(buffer) - 3)  # three may be the beginning of the next
        self.bad_bytes += keep - done
        self._buffer = buffer[keep:]
        return packets

    def _checked(self, page: bytes) -> _Page | None:
        """A page, if its checksum is right."""
        self._effort -= len(page)
        _, version, flags, granule, serial, seq, crc, segments = _HEADER.unpack_from(page)
        if version != 0 or crc != checksum(page[:22] + bytes(4) + page[26:]):
            return None
        self._effort += len(page)
        return _Page(flags, granule, serial, seq, page[27 : 27 + segments], page[27 + segments :])

    def _take(self, page: _Page) -> list[OggPacket]:
        if page.flags & BOS:
            if not page.body.startswith(b"OpusHead"):
                self._others = [*self._others, page.serial][-_MAX_OTHERS:]
                return []
            self._stream = _Stream(page.serial, page.seq)
        elif page.serial != self._stream.serial:
            if self._gated or page.serial in self._others:
                return []
            self._stream = _Stream(page.serial, page.seq, in_middle=True)
        packets, lost, bad = self._stream.take(page)
        self.bad_packets += bad
        if lost < 0:
            self.late_pages += 1
        else:
            self.lost_pages += lost
        return packets


def _size(buffer: bytes, at: int) -> int:
    """How long the page that seems to begin here is; more than there is where that can't be known yet."""
    head = at + _HEADER.size
    if len(buffer) < head or len(buffer) < head + buffer[head - 1]:
        return len(buffer) + 1
    return _HEADER.size + buffer[head - 1] + sum(buffer[head : head + buffer[head - 1]])


class _Stream:
    """One logical stream: puts packets together, and knows when they are."""

    def __init__(self, serial: int, seq: int = 0, *, in_middle: bool = False) -> None:
        self.serial = serial
        self._expected = seq  # number of the next page
        self._partial: bytes | None = None  # of a packet that goes on on the next page; None: its beginning is missing
        self._in_middle = in_middle
        self._begun = False  # a packet was found
        self._at = 0  # samples at 24 kHz, to the end of the last packet
        self._page_samples = 0  # of the last page
        self._missing = 0  # pages since the last packet

    def take(self, page: _Page) -> tuple[list[OggPacket], int, int]:
        """Its packets; how many pages were lost before it, -1 if it is late itself; how many packets are none."""
        lost = (page.seq - self._expected) & 0xFFFF_FFFF
        if lost >= 2**32 - LATE:
            return [], -1, 0
        lost = lost if lost < 2**31 else 0  # far behind: it has begun anew
        self._expected = (page.seq + 1) & 0xFFFF_FFFF
        if lost or not page.flags & CONTINUED:
            self._partial = None if page.flags & CONTINUED else b""
        if lost and not self._begun:
            self._in_middle, lost = True, 0  # somebody kept the headers for who comes later
        self._missing += lost
        found, bad = self._sounding(self._packets(page))
        gap = self._moved(page, sum(samples for _, samples in found)) if found else 0
        packets = []
        for packet, samples in found:
            packets.append(OggPacket(packet, self._at, gap, not self._begun))
            self._at, gap, self._begun = self._at + samples, 0, True
        return packets, lost, bad

    def _packets(self, page: _Page) -> list[bytes]:
        """The packets that end on this page; what goes on is kept. One that began where we were not is left out."""
        packets, at = [], 0
        for length in page.table:
            if self._partial is not None:
                self._partial += page.body[at : at + length]
                if len(self._partial) > MAX_PACKET:
                    self._partial = None
            at += length
            if length < 255:
                if self._partial is not None:
                    packets.append(self._partial)
                self._partial = b""
        return packets

    def _sounding(self, packets: list[bytes]) -> tuple[list[tuple[bytes, int]], int]:
        found, bad = [], 0
        for packet in packets:
            if packet.startswith((b"OpusHead", b"OpusTags")):
                continue
            try:
                found.append((packet, packet_samples(packet)))
            except Refused:
                bad += 1
        return found, bad

    def _moved(self, page: _Page, samples: int) -> int:
        """How many samples are missing before this page, by which `_at` moves on. Where all pages came, granules are
        not asked: writers differ in them."""
        begins = page.granule // 2 - samples
        gap = 0
        if not self._begun:
            self._at = max(0, begins) if self._in_middle else 0
        elif self._missing:
            gap = begins - self._at
            if not 0 <= gap <= LONGEST_GAP:
                gap = min(LONGEST_GAP, self._missing * self._page_samples)
            self._at += gap
        self._page_samples, self._missing = samples, 0
        return gap
