"""Frames of the TUN as texts of the fast lane's records, and back. Pure; all that the lane carries goes through here.

A text ends with its kind, one byte:

    CONTROL   what the two ends of the lane say to each other
    PACKETS   whole IP packets behind each other: each says its own length
    PARTIAL   the same, where the checksum of TCP or UDP is only that of the pseudo-header, as the TUN gave them
    SLICE     one segment of a frame of many: payload | headers of the frame | base u32 | count u16 | segment u16 |
              kind of frame u8 | size of the headers u8. It is the slice number (counter of its record - base) of count;
              each but the last carries `segment` bytes; all behind the payload is the same in all of them

So each datagram stands for itself, and those that arrive become as few frames as they can: a run of slices of one frame
that follow each other is a frame again, and a lost one costs no other. No payload is ever summed up or copied here: it
is opened to where the one before it ends, and the sum of the pseudo-header, with virtio's word for it, tells the kernel
the rest.

A peer may say anything. What is written has headers that agree with each other and with what came, or it is counted as
malformed; whom it may come from, the switch looks at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

from procs.agent.lane.views import Views
from procs.agent.lane.vnet import ECN, HEAD, MOST_SEGMENTS, NEEDS_CSUM, PLAIN, TCP4, TCP6, UDP, VIRTIO, Iov
from procs.wire import records
from procs.wire.records import OVERHEAD, Opener, Sealer

CONTROL, PACKETS, PARTIAL, SLICE = range(4)
RUN_BYTES = 64_000  # of one UDP_SEGMENT, which the kernel takes up to 65,507 of
_KINDS = [bytes([each]) for each in range(4)]
_TAIL = struct.Struct("!IHHBBB")  # of a slice, behind the headers
_IP = struct.Struct("!BxHHHxB")  # both versions': first byte; IPv4's length, number, fragment and protocol
_H, _HH, _I = struct.Struct("!H"), struct.Struct("!HH"), struct.Struct("!I")
_TCP, _UDP = 6, 17
_SUM_AT = {_TCP: 16, _UDP: 6}
_FIN_PSH, _CWR = 0x09, 0x80  # of the last segment only, of the first only
_LEAST_CUT = 64  # bytes of TCP in a slice, below which it is not worth it
_MOST, _M = 65_535, 0xFFFF  # bytes of an IP packet; what sums are modulo of
_ARENA = 1 << 19  # bytes for the payload of a batch, mostly


def mtu(size: int) -> int:
    """The largest packet, or segment with its headers, that goes into a datagram of this size."""
    return size - OVERHEAD - _TAIL.size


def outgoing(sealer: Sealer, frames: Iterable[bytes], size: int) -> Iterator[tuple[bytes, int]]:
    """Runs for UDP_SEGMENT of frames as the switch has sorted them: datagrams of `step` bytes behind each other, the
    last maybe shorter, none above `size`. Each is sealed when it is asked for, so that it can go before the next is.

    What does not fit (`mtu`) is left out: whoever routes has told its sender. So is all from where the key is spent.
    """
    runs: list[tuple[bytes, int]] = []
    packed = _Packed(sealer, size - OVERHEAD, runs)
    for frame in frames:
        if frame[1]:
            packed.flush()
            _cut(sealer, frame, size - OVERHEAD, runs)
            yield from runs
            runs.clear()
        else:
            packed.add(frame)
    packed.flush()
    yield from runs


def _cut(sealer: Sealer, frame: bytes, room: int, runs: list[tuple[bytes, int]]) -> None:
    """A frame of many segments, each in a text. Those of TCP may be cut smaller than the kernel meant."""
    _, kind, headers, segment, _, _ = VIRTIO.unpack_from(frame)
    if segment + headers + _TAIL.size > room:
        segment = room - headers - _TAIL.size
        if kind & ~ECN == UDP or segment < _LEAST_CUT:
            return
    begins = HEAD + headers
    count = -(-(len(frame) - begins) // segment)
    trailer = frame[HEAD:begins] + _TAIL.pack(sealer.count & 0xFFFFFFFF, count, segment, kind, headers, SLICE)
    step = segment + len(trailer) + OVERHEAD
    most = min(MOST_SEGMENTS, RUN_BYTES // step)
    for done in range(0, count, most):
        cuts = _cuts(begins + done * segment, segment, segment)[: min(most, count - done)]
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
        packet = frame[HEAD:]
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
        """Texts of one size, and a shorter one behind them, make a run."""
        self._end()
        texts, at = self._texts, 0
        while at < len(texts):
            size, end = len(texts[at]), at + 1
            most = min(len(texts), at + MOST_SEGMENTS, at + RUN_BYTES // (size + OVERHEAD))
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
    return tuple(slice(at, at + size) for at in range(start, start + MOST_SEGMENTS * step, step))


class Incoming:
    """Datagrams of one key, as what to write to the TUN. `controls` is for whoever reads it to empty.

    `malformed` counts texts that are genuine and make no sense.
    """

    def __init__(self, opener: Opener) -> None:
        self.controls: list[bytes] = []
        self.malformed = 0
        self._opener = opener
        self._frames: list[Iov] = []
        self._arena = memoryview(bytearray(_ARENA))
        self._begins = self._at = 0  # in the arena: the payload of this frame, up to here
        self._sealed, self._rooms = Views(), Views()
        self._trailer = b""  # of the frame whose slices are coming; if any are
        self._segment = self._first = self._next = self._end_at = 0  # its slices: those here, where it ends

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
                if self._slice(counter, text) and at < size:
                    at += self._follow(counter + 1, joined, at, step) * step
            elif kind in (PACKETS, PARTIAL):
                self._end()
                self._packets(text, is_partial=kind == PARTIAL)
            elif kind == CONTROL:
                self.controls.append(text[:-1])
            else:
                self.malformed += 1

    def frames(self) -> list[Iov]:
        """What has come since the last time, each as the buffers of one write. Valid until the next `take`."""
        self._end()
        found, self._frames, self._begins, self._at = self._frames, [], 0, 0
        return found

    def _slice(self, counter: int, text: bytes) -> bool:
        """One, which goes on with the frame that is coming, or begins one; whether it is such."""
        tail = len(text) - _TAIL.size
        base, count, segment, _, headers, _ = _TAIL.unpack_from(text, tail) if tail > 0 else (0,) * 6
        number, size = (counter - base) & 0xFFFFFFFF, tail - headers
        fits = size == segment or (size < segment and number == count - 1)
        if number >= count or size <= 0 or not fits or (count - 1) * segment > _MOST:
            self.malformed += 1
            return False
        trailer = text[size:]
        if number != self._next or trailer != self._trailer or number == self._end_at:
            self._end()
            if self._at > _ARENA - 3 * _MOST:
                self._arena, self._begins, self._at = memoryview(bytearray(_ARENA)), 0, 0
            self._trailer, self._segment, self._first = trailer, segment, number
            self._end_at = min(count, number + MOST_SEGMENTS)
        self._arena[self._at : self._at + size] = text[:size]
        self._at += size
        self._next = number + 1
        return True

    def _follow(self, first: int, joined: memoryview, at: int, step: int) -> int:
        """The slices from there on, behind that one, whose counter `first` is; how many datagrams they were."""
        segment, count = self._segment, min(self._end_at - self._next, -(-(len(joined) - at) // step))
        less = max(0, at + count * step - len(joined))
        if less and (self._next + count < self._end_at or less >= segment):
            count, less = count - 1, 0  # only the last slice of a frame may be shorter
        sealed = self._sealed.at(joined, at + records.HEAD, step, step - records.HEAD, count)
        rooms = self._rooms.at(self._arena, self._at, segment, step - OVERHEAD, count)
        if less:
            rooms[-1] = rooms[-1][:-less]
        done = self._opener.follow(first, sealed, rooms)
        self._next += done
        self._at += done * segment - (less if done == count else 0)
        return done

    def _end(self) -> None:
        """No more slices of this frame follow, for now."""
        if self._trailer:
            payload, self._begins = self._arena[self._begins : self._at], self._at
            if headers := _headers(self._trailer, self._first, self._next, len(payload)):
                self._frames.append([headers, payload])
            else:
                self.malformed += 1
            self._trailer = b""

    def _packets(self, text: bytes, *, is_partial: bool) -> None:
        at, end, found = 0, len(text) - 1, self._frames
        while end - at >= 20:
            first, size, number, place, protocol = _IP.unpack_from(text, at)
            start = (first & 15) * 4 if first & 0xF0 == 0x40 else 0
            if first & 0xF0 == 0x60:
                start, size, place, protocol = 40, 40 + number, 0, place >> 8
            if not 20 <= start <= size <= end - at:
                break
            virtio, least = PLAIN, 0
            if is_partial:
                virtio, least = _partial(start, 0 if place & 0x3FFF else protocol)
            if size < least:
                break
            found.append([virtio + text[at : at + size]])
            at += size
        self.malformed += at < end


@lru_cache(64)
def _partial(start: int, protocol: int) -> tuple[bytes, int]:
    """virtio's header of a packet whose sum is to be finished, and how long it is at least."""
    if protocol not in _SUM_AT:
        return b"", _MOST + 1
    return VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, start, _SUM_AT[protocol]), start + _SUM_AT[protocol] + 2


def _headers(trailer: bytes, first: int, end: int, payload: int) -> bytes:
    """virtio's and all others of the slices from `first` up to `end`: those of their trailer, but for what differs
    between segments. b"" where they can't be right."""
    _, count, segment, kind, size, _ = _TAIL.unpack_from(trailer, len(trailer) - _TAIL.size)
    start, protocol = _transport(trailer, size, kind)
    if not protocol or size + payload > _MOST:
        return b""
    found = bytearray(HEAD) + trailer[:size]
    at, sum_at = HEAD + start, _SUM_AT[protocol]
    if protocol == _UDP:
        _H.pack_into(found, at + 4, 8 + payload)
    elif first or end < count:
        _I.pack_into(found, at + 4, (_I.unpack_from(found, at + 4)[0] + first * segment) & 0xFFFFFFFF)
        if first:
            found[at + 13] &= ~_CWR
            kind &= ~ECN
        if end < count:
            found[at + 13] &= ~_FIN_PSH
    if trailer[0] < 0x60:
        addresses = trailer[12:20]
        _HH.pack_into(found, HEAD + 2, size + payload, ((trailer[4] << 8 | trailer[5]) + first) & _M)
        _H.pack_into(found, HEAD + 10, 0)
        _H.pack_into(found, HEAD + 10, -int.from_bytes(found[HEAD:at], "big") % _M)
    else:
        addresses = trailer[8:40]
        _H.pack_into(found, HEAD + 4, size - start + payload)
    pseudo = int.from_bytes(addresses, "big") + protocol + size - start + payload
    _H.pack_into(found, at + sum_at, pseudo % _M or _M)
    kind, segment = (kind, segment) if end - first > 1 else (0, 0)
    VIRTIO.pack_into(found, 0, NEEDS_CSUM, kind, size, segment, start, sum_at)
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
        is_one = size >= start + 20 and (headers[start + 12] >> 4) * 4 == size - start and kind & ~ECN == tcp
    else:
        is_one = protocol == _UDP and size == start + 8 and kind == UDP
    return (start, protocol) if is_one else (0, 0)
