"""Frames of the TUN as texts of records, and back. Pure; the loops that each byte of the fast lane goes through."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from procs.wire.records import HEAD, OVERHEAD, Opener, Sealer

CONTROL, PACKETS, PARTIAL, SLICE = range(4)  # the last byte of a text
MOST_IN_RUN, RUN_BYTES = 64, 64_000  # of one UDP_SEGMENT
VIRTIO = struct.Struct("<BBHHHH")  # flags, kind, size of all headers, of a segment; where the sum begins, where it goes
NEEDS_CSUM, TCP4, TCP6, UDP, ECN = 1, 1, 4, 5, 0x80
_TAIL = struct.Struct("!IHHBBB")  # base, count, size of a segment, kind of frame, size of the headers, SLICE
_H, _HH, _I = struct.Struct("!H"), struct.Struct("!HH"), struct.Struct("!I")
_PLAIN = bytes(VIRTIO.size)
_TCP, _UDP = 6, 17
_FIN_PSH, _CWR = 0x09, 0x80  # of the last segment only, of the first only
_SUM_AT = {_TCP: 16, _UDP: 6}
_KINDS = [bytes([each]) for each in range(4)]
_LEAST_CUT = 64  # bytes of TCP in a slice, below which it is not worth it
_MOST = 65_535  # bytes of an IP packet
_ARENA = 1 << 19  # bytes for the payload of a batch, mostly
_M = 0xFFFF


def mtu(size: int) -> int:
    """The largest packet, or segment with its headers, that goes into a datagram of this size."""
    return size - OVERHEAD - _TAIL.size


def outgoing(sealer: Sealer, frames: Sequence[bytes], size: int) -> list[tuple[bytes, int]]:
    """Runs for UDP_SEGMENT: datagrams of `step` bytes behind each other, the last maybe shorter, none above `size`.

    What does not fit (`mtu`) is left out: whoever routes has told its sender. So is all from where the key is spent.
    """
    runs: list[tuple[bytes, int]] = []
    packed = _Packed(sealer, size - OVERHEAD, runs)
    for frame in frames:
        if frame[1]:
            packed.flush()
            _slice(sealer, frame, size - OVERHEAD, runs)
        else:
            packed.add(frame)
    packed.flush()
    return runs


def _slice(sealer: Sealer, frame: bytes, room: int, runs: list[tuple[bytes, int]]) -> None:
    """A frame of many segments, each in a text."""
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
    step = segment + len(trailer) + OVERHEAD
    most = min(MOST_IN_RUN, RUN_BYTES // step)
    for done in range(0, count, most):
        cuts = _cuts(at + done * segment, segment, segment)[: min(most, count - done)]
        if joined := sealer.seal([frame[cut] + trailer for cut in cuts]):
            runs.append((joined, step))


class _Packed:
    """Packets, as many in a text as there is room for."""

    def __init__(self, sealer: Sealer, room: int, runs: list[tuple[bytes, int]]) -> None:
        self._sealer, self._room, self._runs = sealer, room, runs
        self._texts: list[bytes] = []
        self._parts: list[bytes] = []
        self._left, self._kind = room - 1, PACKETS

    def add(self, frame: bytes) -> None:
        kind = PARTIAL if frame[0] & NEEDS_CSUM else PACKETS
        packet = frame[VIRTIO.size :]
        if len(packet) > self._left or kind != self._kind:
            if len(packet) >= self._room:
                return
            self._end()
            self._kind = kind
        self._parts.append(packet)
        self._left -= len(packet)

    def _end(self) -> None:
        if self._parts:
            self._parts.append(_KINDS[self._kind])
            self._texts.append(b"".join(self._parts))
            self._parts, self._left = [], self._room - 1

    def flush(self) -> None:
        """Those of the same size, and a shorter one behind them, make a run."""
        self._end()
        texts, at = self._texts, 0
        while at < len(texts):
            size, end = len(texts[at]), at + 1
            most = min(len(texts), at + MOST_IN_RUN, at + RUN_BYTES // (size + OVERHEAD))
            while end < most and len(texts[end]) == size:
                end += 1
            end += end < most and len(texts[end]) < size
            if joined := self._sealer.seal(texts[at:end]):
                self._runs.append((joined, size + OVERHEAD))
            at = end
        self._texts = []


@lru_cache(256)
def _cuts(start: int, step: int, size: int) -> tuple[slice, ...]:
    """Where to cut: pieces of a size, a step apart."""
    return tuple(slice(at, at + size) for at in range(start, start + MOST_IN_RUN * step, step))


class Incoming:
    """Datagrams of one key, as what to write to the TUN. `controls` is for whoever reads it to empty."""

    def __init__(self, opener: Opener) -> None:
        self.controls: list[bytes] = []
        self.malformed = 0
        self._opener = opener
        self._frames: list[list[bytes | memoryview]] = []
        self._arena = memoryview(bytearray(_ARENA))
        self._begun = self._at = 0  # in the arena: where the payload of this frame begins, and ends so far
        self._trailer = b""  # of the frame whose slices are coming; if any are
        self._count = self._segment = 0  # as it says
        self._first = self._next = 0  # the slices of it that are here

    def take(self, joined: memoryview, step: int) -> None:
        """Datagrams of `step` bytes behind each other, the last maybe shorter."""
        at, size = 0, len(joined)
        while at < size:
            opened = self._opener.open(joined[at : at + step])
            at += step
            if opened is None:
                continue
            counter, text = opened
            kind = text[-1] if text else -1
            if kind == SLICE:
                if self._slice(counter, text) and at < size and counter == self._opener.newest:
                    at += self._follow(joined[at:], step) * step
            elif kind in (PACKETS, PARTIAL):
                self._end()
                self._packets(text, is_partial=kind == PARTIAL)
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

    def _slice(self, counter: int, text: bytes) -> bool:
        """One slice, which goes on with the frame that is coming, or begins one."""
        tail = len(text) - _TAIL.size
        base, count, segment, _, headers, _ = _TAIL.unpack_from(text, tail) if tail > 0 else (0,) * 6
        number, size = (counter - base) & 0xFFFFFFFF, tail - headers
        is_whole = size == segment or (size < segment and number == count - 1)
        if number >= count or size <= 0 or not is_whole or (count - 1) * segment > _MOST:
            self.malformed += 1
            return False
        trailer = text[size:]
        if trailer != self._trailer or number != self._next:
            self._end()
            if self._at > _ARENA - 3 * _MOST:
                self._arena, self._begun, self._at = memoryview(bytearray(_ARENA)), 0, 0
            self._trailer, self._count, self._segment, self._first = trailer, count, segment, number
        self._arena[self._at : self._at + size] = text[:size]
        self._at += size
        self._next = number + 1
        return True

    def _follow(self, joined: memoryview, step: int) -> int:
        """The slices behind that one; how many datagrams they were."""
        segment, text = self._segment, self._segment + len(self._trailer)
        count = min(self._count - self._next, -(-len(joined) // step))
        if step != text + OVERHEAD or not count:
            return 0
        rooms, short = _cuts(0, segment, text)[:count], len(joined) - count * step
        if short < 0:  # which only the last slice of a frame may be
            if self._next + count < self._count or short <= -segment:
                return 0
            rooms = (*rooms[:-1], slice(rooms[-1].start, rooms[-1].stop + short))
        cuts = _cuts(HEAD, step, step - HEAD)[:count]
        done = self._opener.follow(joined, cuts, self._arena[self._at :], rooms)
        self._next += done
        self._at += done * segment + (short if short < 0 and done == count else 0)
        return done

    def _end(self) -> None:
        """No more slices of this frame follow, for now."""
        if self._trailer:
            payload, self._begun = self._arena[self._begun : self._at], self._at
            if headers := _headers(self._trailer, self._first, self._next, len(payload)):
                self._frames.append([headers, payload])
            else:
                self.malformed += 1
            self._trailer = b""

    def _packets(self, text: bytes, *, is_partial: bool) -> None:
        at, end = 0, len(text) - 1
        while at < end:
            size, start, protocol = _packet(text, at, end - at)
            if not size or (is_partial and (not protocol or size < start + _SUM_AT[protocol] + 2)):
                self.malformed += 1
                return
            virtio = _partial(start, _SUM_AT[protocol]) if is_partial else _PLAIN
            self._frames.append([virtio + text[at : at + size]])
            at += size


@lru_cache(64)
def _partial(start: int, sum_at: int) -> bytes:
    return VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, start, sum_at)


def _packet(text: bytes, at: int, left: int) -> tuple[int, int, int]:
    """The length of the packet that begins here, that of its IP header, and 6 or 17 if TCP or UDP comes right behind
    that, and all of it; 0 where there is none."""
    version = text[at] >> 4
    if version == 4 and left >= 20:
        size, start, protocol = text[at + 2] << 8 | text[at + 3], (text[at] & 15) * 4, text[at + 9]
        if (text[at + 6] & 0x3F) | text[at + 7]:
            protocol = 0
    elif version == 6 and left >= 40:
        size, start, protocol = (text[at + 4] << 8 | text[at + 5]) + 40, 40, text[at + 6]
    else:
        return 0, 0, 0
    return size if 20 <= start <= size <= left else 0, start, protocol if protocol in _SUM_AT else 0


def _headers(trailer: bytes, first: int, end: int, payload: int) -> bytes:
    """virtio's and all others of the slices from `first` up to `end`, as they are in their trailer but for what differs
    between segments; b"" where they can't be right."""
    _, count, segment, kind, size, _ = _TAIL.unpack_from(trailer, len(trailer) - _TAIL.size)
    start, protocol = _transport(trailer, size, kind)
    if not protocol or size + payload > _MOST:
        return b""
    found = bytearray(VIRTIO.size) + trailer[:size]
    ip, transport, sum_at = VIRTIO.size, VIRTIO.size + start, _SUM_AT[protocol]
    if protocol == _UDP:
        _H.pack_into(found, transport + 4, 8 + payload)
    elif first or end < count:
        (sequence,) = _I.unpack_from(found, transport + 4)
        _I.pack_into(found, transport + 4, (sequence + first * segment) & 0xFFFFFFFF)
        if first:
            found[transport + 13] &= ~_CWR
            kind &= ~ECN
        if end < count:
            found[transport + 13] &= ~_FIN_PSH
    if trailer[0] < 0x60:
        number = (trailer[4] << 8 | trailer[5]) + first
        _HH.pack_into(found, ip + 2, size + payload, number & _M)
        _H.pack_into(found, ip + 10, 0)
        _H.pack_into(found, ip + 10, -int.from_bytes(found[ip:transport], "big") % _M)
        addresses = trailer[12:20]
    else:
        _H.pack_into(found, ip + 4, size - start + payload)
        addresses = trailer[8:40]
    pseudo = int.from_bytes(addresses, "big") + protocol + size - start + payload
    _H.pack_into(found, transport + sum_at, pseudo % _M or _M)
    if end - first > 1:
        VIRTIO.pack_into(found, 0, NEEDS_CSUM, kind, size, segment, start, sum_at)
    else:
        VIRTIO.pack_into(found, 0, NEEDS_CSUM, 0, size, 0, start, sum_at)
    return bytes(found)


def _transport(headers: bytes, size: int, kind: int) -> tuple[int, int]:
    """Where TCP or UDP begins in headers of this size, and which it is; 0 if they are none of a frame of this kind."""
    if headers[0] >> 4 == 4:
        start, protocol, tcp = (headers[0] & 15) * 4, headers[9], TCP4
        if start < 20 or (headers[6] & 0x3F) | headers[7]:  # a fragment
            return 0, 0
    elif headers[0] >> 4 == 6:
        start, protocol, tcp = 40, headers[6], TCP6
    else:
        return 0, 0
    if protocol == _TCP:
        is_good = size >= start + 20 and (headers[start + 12] >> 4) * 4 == size - start and kind & ~ECN == tcp
    else:
        is_good = protocol == _UDP and size == start + 8 and kind == UDP
    return (start, protocol) if is_good else (0, 0)
