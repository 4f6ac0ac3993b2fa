"""Frames of the TUN as texts of records, and back. Pure; the loops that each byte of the fast lane goes through."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from procs.wire.records import HEAD, OVERHEAD, Opener, Sealer

CONTROL, PACKETS, PARTIAL, SLICE = range(4)  # the last byte of a text
MOST_IN_RUN, RUN_BYTES = 64, 64_000  # of one UDP_SEGMENT
VIRTIO = struct.Struct("<BBHHHH")  # flags, kind, size of all headers, of a segment; where the sum begins, where it goes
NEEDS_CSUM, TCP4, TCP6, UDP, ECN = 1, 1, 4, 5, 0x80
_TAIL = struct.Struct("!IHHBBB")  # base, count, size of a segment, kind of frame, size of the headers, SLICE
_H, _I = struct.Struct("!H"), struct.Struct("!I")
_PLAIN = bytes(VIRTIO.size)
_SUM_AT = {6: 16, 17: 6}  # of TCP, of UDP
_LEAST_CUT = 64  # bytes of TCP in a slice, below which it is not worth it
_MOST = 65_535  # bytes of an IP packet
_ARENA = 1 << 18
_M = 0xFFFF


def mtu(size: int) -> int:
    """The largest packet, or segment with its headers, that goes into a datagram of this size."""
    return size - OVERHEAD - _TAIL.size


def outgoing(sealer: Sealer, frames: Sequence[bytes], size: int) -> list[tuple[bytes, int]]:
    """Runs for UDP_SEGMENT: datagrams of `step` bytes behind each other, the last maybe shorter, none above `size`.

    What does not fit (`mtu`) is left out: whoever routes has told its sender. So is all from where the key is spent.
    """
    texts: list[bytes] = []
    runs: list[tuple[bytes, int]] = []
    packed = _Packed(size - OVERHEAD)
    for frame in frames:
        if not frame[1]:
            packed.add(frame, texts)
            continue
        packed.end(texts)
        _seal(sealer, texts, runs)
        texts = []
        for cut in _cut(sealer, frame, size - OVERHEAD):
            _seal(sealer, cut, runs)
    packed.end(texts)
    _seal(sealer, texts, runs)
    return runs


def _seal(sealer: Sealer, texts: list[bytes], runs: list[tuple[bytes, int]]) -> None:
    at = 0
    while at < len(texts):
        first, end = len(texts[at]), at + 1
        most = min(len(texts), at + MOST_IN_RUN, at + RUN_BYTES // (first + OVERHEAD))
        while end < most and len(texts[end]) == first:
            end += 1
        end += end < most and len(texts[end]) < first
        if joined := sealer.seal(texts[at:end]):
            runs.append((joined, first + OVERHEAD))
        at = end


class _Packed:
    """Small packets, as many in a text as there is room for."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._parts: list[bytes] = []
        self._size, self._kind = 1, PACKETS

    def add(self, frame: bytes, texts: list[bytes]) -> None:
        kind = PARTIAL if frame[0] & NEEDS_CSUM else PACKETS
        size = len(frame) - VIRTIO.size
        if size >= self._room:
            return
        if kind != self._kind or self._size + size > self._room:
            self.end(texts)
            self._kind = kind
        self._parts.append(frame[VIRTIO.size :])
        self._size += size

    def end(self, texts: list[bytes]) -> None:
        if self._parts:
            self._parts.append(bytes([self._kind]))
            texts.append(b"".join(self._parts))
            self._parts, self._size = [], 1


def _cut(sealer: Sealer, frame: bytes, room: int) -> Iterator[list[bytes]]:
    """The slices of a frame, so many at once as go into a run."""
    _, kind, _, segment, start, _ = VIRTIO.unpack_from(frame)
    is_udp = kind & ~ECN == UDP
    headers = start + (8 if is_udp else (frame[VIRTIO.size + start + 12] >> 4) * 4)
    at = VIRTIO.size + headers
    if segment + headers + _TAIL.size > room:
        segment = room - headers - _TAIL.size  # TCP does not mind
        if is_udp or segment < _LEAST_CUT:
            return
    count = -(-(len(frame) - at) // segment)
    trailer = frame[VIRTIO.size : at] + _TAIL.pack(sealer.count & 0xFFFFFFFF, count, segment, kind, headers, SLICE)
    most = min(MOST_IN_RUN, RUN_BYTES // (segment + len(trailer) + OVERHEAD))
    for done in range(0, count, most):
        cuts = _cuts(at + done * segment, segment, segment)
        yield [frame[each] + trailer for each in cuts[: min(most, count - done)]]


@lru_cache(256)
def _cuts(start: int, step: int, size: int) -> tuple[slice, ...]:
    """Where to cut: pieces of a size, a step apart."""
    return tuple(slice(at, at + size) for at in range(start, start + MOST_IN_RUN * step, step))


class _Kind(NamedTuple):
    """What a slice says of its frame."""

    trailer: bytes
    base: int
    slices: int
    segment: int
    kind: int
    headers: bytes
    start: int  # of TCP or UDP
    protocol: int


class Incoming:
    """Datagrams of one key, as what to write to the TUN. `controls` is for whoever reads it to empty."""

    def __init__(self, opener: Opener) -> None:
        self.controls: list[bytes] = []
        self.malformed = 0
        self._opener = opener
        self._frames: list[list[bytes | memoryview]] = []
        self._arena = memoryview(bytearray())
        self._at = self._begun = 0  # in the arena: behind all payload, behind that of whole frames
        self._of: _Kind | None = None  # the frame whose slices are coming
        self._first = self._next = 0  # of its slices

    def take(self, joined: memoryview, step: int) -> None:
        """Datagrams of `step` bytes behind each other, the last maybe shorter. Valid until this returns."""
        at, size = 0, len(joined)
        while at < size:
            opened = self._opener.open(joined[at : at + step])
            at += step
            if opened is None:
                continue
            counter, text = opened
            kind = text[-1] if text else -1
            if kind == SLICE:
                if self._begin(counter, text) and at < size and counter == self._opener.newest:
                    at += self._follow(joined[at:], step, len(text)) * step
            elif kind in (PACKETS, PARTIAL):
                self._end()
                self._split(text, is_partial=kind == PARTIAL)
            elif kind == CONTROL:
                self.controls.append(text[:-1])
            else:
                self.malformed += 1

    def frames(self) -> list[list[bytes | memoryview]]:
        """What has come since the last time, each as the buffers of one write. Valid until the next `take`."""
        self._end()
        found, self._frames = self._frames, []
        self._at = self._begun = 0
        return found

    def _begin(self, counter: int, text: bytes) -> bool:
        """One slice, which goes on where the last one ended, or is the first of a frame."""
        of = self._of
        if of is None or not text.endswith(of.trailer):
            self._end()
            of = _read(text)
        if of is None:
            self.malformed += 1
            return False
        number, size = (counter - of.base) & 0xFFFFFFFF, len(text) - len(of.trailer)
        last = of.slices - 1
        if number > last or not size or size > of.segment or (size < of.segment and number < last):
            self.malformed += 1
            return False
        if number != self._next or self._of is None:
            self._end()
            self._of, self._first = of, number
            if self._at + _MOST + len(text) > len(self._arena):
                self._arena, self._at, self._begun = memoryview(bytearray(_ARENA)), 0, 0
        self._arena[self._at : self._at + size] = text[:size]
        self._at += size
        self._next = number + 1
        return True

    def _follow(self, joined: memoryview, step: int, text: int) -> int:
        """The slices behind that one; how many datagrams they were."""
        of = self._of
        assert of
        count = min(of.slices - self._next, len(joined) // step)
        if step != text + OVERHEAD or not count:
            return 0
        cuts, rooms = _cuts(HEAD, step, step - HEAD)[:count], _cuts(0, of.segment, text)
        arena = self._arena[self._at :]
        done = self._opener.follow([joined[each] for each in cuts], map(arena.__getitem__, rooms))
        self._at += done * of.segment
        self._next += done
        return done

    def _end(self) -> None:
        """No more slices of this frame, for now."""
        if of := self._of:
            self._of = None
            payload = self._arena[self._begun : self._at]
            self._begun = self._at
            self._frames.append([_headers(of, self._first, self._next, len(payload)), payload])

    def _split(self, text: bytes, *, is_partial: bool) -> None:
        at, end = 0, len(text) - 1
        while at < end:
            size = _size(text, at)
            head = _partial(text, at, size) if is_partial else _PLAIN
            if not size or at + size > end or not head:
                self.malformed += 1
                return
            self._frames.append([head + text[at : at + size]])
            at += size


def _read(text: bytes) -> _Kind | None:
    """What a slice says, if that can be."""
    if len(text) <= _TAIL.size:
        return None
    base, count, segment, kind, size, _ = _TAIL.unpack_from(text, len(text) - _TAIL.size)
    begins = len(text) - _TAIL.size - size
    headers = text[begins : begins + size]
    if begins <= 0 or size < 28 or not segment or size + (count - 1) * segment >= _MOST:
        return None
    start = (headers[0] & 15) * 4 if headers[0] >> 4 == 4 else 40
    protocol = _protocol(headers, start)
    transport = 8 if protocol == 17 else 20
    if not protocol or size < start + transport or (protocol == 17) != (kind == UDP):
        return None
    if protocol == 6 and (
        (headers[start + 12] >> 4) * 4 != size - start
        or kind & ~ECN != (TCP4, TCP6)[start == 40 and headers[0] >> 4 == 6]
    ):
        return None
    if protocol == 17 and size != start + 8:
        return None
    return _Kind(text[begins:], base, count, segment, kind, headers, start, protocol)


def _protocol(headers: bytes, start: int) -> int:
    """6 or 17 of an IP header with TCP or UDP right behind it, and no fragment; else 0."""
    if headers[0] >> 4 == 4:
        if start < 20 or (headers[6] & 0x3F) | headers[7]:
            return 0
        found = headers[9]
    elif headers[0] >> 4 == 6 and len(headers) >= 40:
        found = headers[6]
    else:
        return 0
    return found if found in _SUM_AT else 0


def _headers(of: _Kind, first: int, end: int, payload: int) -> bytes:
    """virtio's and all others, of the slices from `first` up to `end`."""
    size, start = len(of.headers), of.start
    found = bytearray(VIRTIO.size) + of.headers
    transport, kind = VIRTIO.size + start, of.kind
    if of.protocol == 6:
        (sequence,) = _I.unpack_from(found, transport + 4)
        _I.pack_into(found, transport + 4, (sequence + first * of.segment) & 0xFFFFFFFF)
        if first:
            found[transport + 13] &= 0x7F  # CWR: of the first segment only
            kind &= ~ECN
        if end < of.slices:
            found[transport + 13] &= 0xF6  # FIN, PSH: of the last only
    else:
        _H.pack_into(found, transport + 4, 8 + payload)
    if found[VIRTIO.size] >> 4 == 4:
        (number,) = _H.unpack_from(found, VIRTIO.size + 4)
        _H.pack_into(found, VIRTIO.size + 2, size + payload)
        _H.pack_into(found, VIRTIO.size + 4, (number + first) & _M)
        _H.pack_into(found, VIRTIO.size + 10, 0)
        _H.pack_into(found, VIRTIO.size + 10, -int.from_bytes(found[VIRTIO.size : transport], "big") % _M)
        addresses = found[VIRTIO.size + 12 : VIRTIO.size + 20]
    else:
        _H.pack_into(found, VIRTIO.size + 4, size - 40 + payload)
        addresses = found[VIRTIO.size + 8 : VIRTIO.size + 40]
    total = int.from_bytes(addresses, "big") + of.protocol + size - start + payload
    sum_at = _SUM_AT[of.protocol]
    _H.pack_into(found, transport + sum_at, total % _M or _M)
    if end - first > 1:
        VIRTIO.pack_into(found, 0, NEEDS_CSUM, kind, size, of.segment, start, sum_at)
    else:
        VIRTIO.pack_into(found, 0, NEEDS_CSUM, 0, size, 0, start, sum_at)
    return bytes(found)


def _size(text: bytes, at: int) -> int:
    """The length that the IP header here says; 0 if there is none."""
    left = len(text) - 1 - at
    if left >= 20 and text[at] >> 4 == 4:
        size = text[at + 2] << 8 | text[at + 3]
        return size if size >= (text[at] & 15) * 4 >= 20 else 0
    return (text[at + 4] << 8 | text[at + 5]) + 40 if left >= 40 and text[at] >> 4 == 6 else 0


def _partial(text: bytes, at: int, size: int) -> bytes:
    """virtio's header of a packet whose sum is to be finished; b"" if it is none."""
    headers = text[at : at + min(size, 60)]
    if not headers:
        return b""
    start = (headers[0] & 15) * 4 if headers[0] >> 4 == 4 else 40
    protocol = _protocol(headers, start)
    if not protocol or size < start + _SUM_AT[protocol] + 2:
        return b""
    return VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, start, _SUM_AT[protocol])
