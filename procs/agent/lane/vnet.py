"""Frames, which a TUN with IFF_VNET_HDR gives and takes: a virtio header of 10 bytes, and a packet. The packet may be
many in one: whoever takes it cuts it into segments, and sums them up (RFC 1071). Pure.

To be written a frame is an iov: buffers for one writev, of which the first is bytes and holds all headers.
`joining.iovs` makes such of packets, `packets` makes packets of frames.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview
Iov = Sequence[Buffer]

VIRTIO = Struct("<BBHHHH")  # flags, kind, size of all headers, of a segment; where to sum from, where the sum belongs
HEAD = VIRTIO.size
PLAIN = bytes(HEAD)  # before a packet that is just that
NEEDS_CSUM = 1  # of flags: where the checksum belongs, there is only that of the pseudo-header
TCP4, TCP6, UDP, ECN = 1, 4, 5, 0x80  # kinds, and what may stand beside TCP
MOST_SEGMENTS, MOST_BYTES = 64, 58_000  # in one: a UDP socket sends no more at once, with all headers in each
HEADERS = 120  # of IPv4 and TCP, each with all its options
_TCP, _UDP = 6, 17
_SUM_AT = {_TCP: 16, _UDP: 6}
_LAST_ONLY, _FIRST_ONLY = 0x09, 0x80  # flags of TCP: FIN and PSH; CWR
_M, _LOW_704, _LOW_352 = 0xFFFF, (1 << 8 * 704) - 1, (1 << 8 * 352) - 1


class Shape(NamedTuple):
    """The size of all headers, of what each segment but the last carries (0: it is one packet), how many there are."""

    headers: int
    step: int
    many: int


ONE = Shape(0, 0, 1)
# What the kernel says of one packet (without options of IP) that is to be summed up, and nothing else; by its protocol.
PARTIAL4 = {VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, 20, place): protocol for protocol, place in _SUM_AT.items()}
PARTIAL6 = {VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, 40, place): protocol for protocol, place in _SUM_AT.items()}


def shape(first: bytes, whole: int) -> Shape | None:
    """Of a frame by its first buffer and the size of it all. None where it does not add up, and where TCP or UDP does
    not begin right behind IP: the kernel gets none of that from us, and a peer none."""
    if len(first) < HEAD + 28:
        return None
    flags, kind, _, size, begins, place = VIRTIO.unpack_from(first)
    version, kind = first[HEAD] >> 4, kind & ~ECN
    if version == 4:
        start, protocol, length = (first[HEAD] & 15) * 4, first[HEAD + 9], first[HEAD + 2] << 8 | first[HEAD + 3]
        if start < 20 or first[HEAD + 6] & 0x3F or first[HEAD + 7]:  # a fragment is no datagram
            return None
    elif version == 6:
        start, protocol, length = 40, first[HEAD + 6], (first[HEAD + 4] << 8 | first[HEAD + 5]) + 40
    else:
        return None
    if length != whole - HEAD or (flags & NEEDS_CSUM and (begins, place) != (start, _SUM_AT.get(protocol))):
        return None
    headers = start + _transport(first, protocol, HEAD + start)
    if headers == start or len(first) < HEAD + headers:
        return None
    if not kind:
        return Shape(headers, 0, 1)
    if not size or kind != (UDP if protocol == _UDP else TCP4 if version == 4 else TCP6) or length == headers:
        return None
    return Shape(headers, size, -(-(length - headers) // size))


def _transport(first: bytes, protocol: int, at: int) -> int:
    """The size of the header of TCP or UDP that begins there; 0 where there is none."""
    if protocol == _UDP:
        return 8
    size = (first[at + 12] >> 4) * 4 if protocol == _TCP and len(first) >= at + 20 else 0
    return size if size >= 20 else 0


def counted(frames: Iterable[bytes]) -> tuple[int, int]:
    """How many packets these are, and how many bytes; of frames whose headers are as long as the virtio header says."""
    many = size = 0
    for frame in frames:
        many += 1
        size += len(frame) - HEAD
        if frame[1]:
            _, _, headers, step, _, _ = VIRTIO.unpack_from(frame)
            more = -(-(len(frame) - HEAD - headers) // step) - 1
            many += more
            size += more * headers
    return many, size


def packets(frames: Sequence[bytes]) -> list[bytes]:
    """The packets of frames, each complete, for peers that take nothing else."""
    found = [frame[10:] for frame in frames if not frame[0]]
    if len(found) == len(frames):  # all, where nothing is left to us
        return found
    return [packet for frame in frames for packet in segments(frame)]


def segments(frame: bytes) -> list[bytes]:
    """The packets of one frame that is IP; none where the rest does not add up."""
    flags, kind, _, size, start, place = VIRTIO.unpack_from(frame)
    if not kind & ~ECN:
        return [_completed(frame, start, place) if flags & NEEDS_CSUM else frame[HEAD:]]
    protocol, is_4 = _UDP if kind & ~ECN == UDP else _TCP, frame[HEAD] >> 4 == 4
    if flags & NEEDS_CSUM:
        at = HEAD + start + _SUM_AT[protocol]
        pseudo = _sum(frame[at : at + 2]) - (len(frame) - HEAD - start)
    else:  # it came here as one, under a checksum of it all
        start = (frame[HEAD] & 15) * 4 if is_4 else 40
        pseudo = _sum(frame[HEAD + 12 : HEAD + 20] if is_4 else frame[HEAD + 8 : HEAD + 40]) + protocol
    headers = start + _transport(frame, protocol, HEAD + start)
    if not size or headers < start + 8 or len(frame) < HEAD + headers or start < (20 if is_4 else 40):
        return []
    cut = _cut_tcp if protocol == _TCP else _cut_udp
    return cut(frame, start, headers, size, pseudo)


def _completed(frame: bytes, start: int, place: int) -> bytes:
    at = HEAD + start + place
    if len(frame) < at + 2:
        return frame[HEAD:]
    checksum = -_sum(frame[HEAD + start :]) % _M
    if not checksum and place == _SUM_AT[_UDP]:  # where that would say that there is none
        checksum = _M
    return b"".join((frame[HEAD:at], checksum.to_bytes(2, "big"), frame[at + 2 :]))


@functools.lru_cache(256)
def layout(start: int, headers: int, *, is_4: bool) -> Struct:
    """Both headers, by what changes between segments. Of IP: same, length, number, same, sum, same with ports; of TCP:
    sequence, same, flags, window, sum, same; of UDP: length, sum. IPv6 has neither number nor sum."""
    ip = f"2sHH4sH{start - 8}s" if is_4 else f"4sH0s2s0s{start - 4}s"
    return Struct(f"!{ip}HH" if headers == start + 8 else f"!{ip}I5sB2sH{headers - start - 18}s")


def _cut_tcp(frame: bytes, start: int, headers: int, size: int, pseudo: int) -> list[bytes]:
    is_4 = frame[HEAD] >> 4 == 4
    fields, found, less = layout(start, headers, is_4=is_4), [], 0 if is_4 else 40
    kind, _, number, which, _, who, sequence, ack, flags, window, _, rest = fields.unpack_from(frame, HEAD)
    ip = _sum(kind) + _sum(which) + _sum(who[:-4])
    tcp = pseudo + headers - start + _sum(who[-4:]) + _sum(ack + b"\0") + _sum(window) + _sum(rest)
    its, ip_sum, last = flags & ~_LAST_ONLY, number, len(frame) - size
    for at in range(HEAD + headers, len(frame), size):
        part = frame[at : at + size]
        if at >= last:
            its |= flags & _LAST_ONLY
        length = headers + len(part)
        if is_4:
            ip_sum = -(ip + length + number) % _M
        tcp_sum = -(tcp + len(part) + sequence + its + _sum(part)) % _M
        found.append(
            fields.pack(kind, length - less, number, which, ip_sum, who, sequence, ack, its, window, tcp_sum, rest)
            + part
        )
        its &= ~_FIRST_ONLY
        sequence = (sequence + size) & 0xFFFFFFFF
        if is_4:
            number = (number + 1) & 0xFFFF
    return found


def _cut_udp(frame: bytes, start: int, headers: int, size: int, pseudo: int) -> list[bytes]:
    is_4 = frame[HEAD] >> 4 == 4
    fields, found, less = layout(start, headers, is_4=is_4), [], 0 if is_4 else 40
    kind, _, number, which, ip_sum, who, _, _ = fields.unpack_from(frame, HEAD)
    ip = _sum(kind) + _sum(which) + _sum(who[:-4])
    udp = pseudo + _sum(who[-4:])
    for at in range(HEAD + headers, len(frame), size):
        part = frame[at : at + size]
        length, its = headers + len(part), 8 + len(part)
        if is_4:
            ip_sum = -(ip + length + number) % _M
        udp_sum = -(udp + 2 * its + _sum(part)) % _M or _M
        found.append(fields.pack(kind, length - less, number, which, ip_sum, who, its, udp_sum) + part)
        if is_4:
            number = (number + 1) & 0xFFFF
    return found


def _sum(data: bytes) -> int:
    """Modulo 0xFFFF, of a whole datagram or of an even part of one."""
    found = int.from_bytes(data, "big")
    if len(data) > 400:  # words are added to words, at which many at once are faster than division
        found = (found & _LOW_704) + (found >> 8 * 704)
        found = (found & _LOW_352) + (found >> 8 * 352)
    found %= _M
    return found << 8 if len(data) & 1 else found
