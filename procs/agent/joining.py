"""Segments of one TCP connection that follow each other, joined to what the kernel takes as one (IFF_VNET_HDR): its
TCP then works, and acknowledges, once for many. Pure.

What comes out still stands under the sender's checksums. They are sums, so the one of the whole follows from those of
its parts and from their headers, without a look at what they carry: if a part was damaged before it came to the tunnel,
the whole does not add up, and the receiver drops it. All sums here are modulo 0xFFFF (RFC 1071).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence

_VIRTIO = struct.Struct("<BBHHHH")  # flags, kind, size of all headers, of a segment; of sums that are left to others
_H = struct.Struct("!H")
PLAIN = bytes(_VIRTIO.size)  # before a packet that is just that
_TCP4, _TCP6 = 1, 4
_TCP, _ACK, _PSH = 6, 0x10, 8
_MOST = 65_000
_M = 0xFFFF


def frames(packets: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """What to write to the TUN for these, and how many of them that is. Their order stays."""
    at = 0
    while at < len(packets):
        packet = packets[at]
        count = 1
        if start := _begins(packet):
            frame, count = _joined(packets, at, start)
        if count == 1:
            frame = PLAIN + packet
        yield frame, count
        at += count


def _begins(packet: bytes) -> int:
    """Where TCP begins in a whole packet that says nothing but "more of what you know"; 0 in any other."""
    size = len(packet)
    if size > 60 and packet[0] >> 4 == 6:
        is_one = packet[6] == _TCP and packet[53] == _ACK and (packet[4] << 8 | packet[5]) + 40 == size
        return 40 if is_one and packet[52] >= 0x50 else 0
    if size <= 40 or packet[0] != 0x45 or packet[9] != _TCP or packet[33] != _ACK or packet[32] < 0x50:
        return 0
    return 20 if not packet[6] & 0x3F and not packet[7] and packet[2] << 8 | packet[3] == size else 0


@functools.lru_cache(64)
def _head(start: int, size: int) -> struct.Struct:
    """Both headers, by what changes between segments: first the same, length, number, same, sum, addresses and ports;
    then sequence, same, flags, window, sum, same. IPv6 has neither number nor sum."""
    ip = "2sHH4sH12s" if start == 20 else "4sH0s2s0s36s"
    return struct.Struct(f"!{ip}I5sB2sH{size - start - 18}s")


def _joined(packets: Sequence[bytes], at: int, start: int) -> tuple[bytes, int]:
    """The run that begins with this one, and of how many; b"" for one. Its last may be shorter, and say that it is the
    last for now (PSH). Each packet passes here, so what is the same in all is compared at once."""
    first = packets[at]
    whole, less = len(first), 0 if start == 20 else 40
    head_size = start + (first[start + 12] >> 4) * 4
    size = whole - head_size
    if size <= 0 or size & 1:  # what comes behind an odd number of bytes counts otherwise in the sum
        return b"", 1
    fields = _head(start, head_size).unpack_from
    kind, length, number, which, ip_sum, who, sequence, ack, last, window, sums, rest = fields(first)
    same = kind, which, who, ack, window, rest
    ip_sums = (length + number + ip_sum) % _M if start == 20 else 0
    parts, following = [first[head_size:]], sequence
    for packet in packets[at + 1 : at + max(1, _MOST // size)]:
        if not head_size < len(packet) <= whole:
            break
        kind, length, number, which, ip_sum, who, its, ack, flags, window, tcp_sum, rest = fields(packet)
        following = (following + size) & 0xFFFFFFFF
        if its != following or (kind, which, who, ack, window, rest) != same or flags & ~_PSH != _ACK:
            break
        if length != len(packet) - less or (less == 0 and (length + number + ip_sum) % _M != ip_sums):
            break
        parts.append(packet[head_size:])
        sums, last = sums + tcp_sum + its, flags
        if len(packet) != whole or flags != _ACK:
            break
    if not (more := len(parts) - 1):
        return b"", 1
    # Of each: sum + sequence + length + flags + what all have in common + what it carries = 0. The whole carries all.
    common = int.from_bytes(b"".join((same[2], same[3], b"\0", same[4], same[5])), "big") + _TCP
    sums += more * (head_size - start + _ACK + common)
    head = bytearray(first[:head_size])
    total = head_size + more * size + len(parts[-1])
    if start == 20:
        _H.pack_into(head, 2, total)
        _H.pack_into(head, 10, (ip_sums - total - (head[4] << 8 | head[5])) % _M)
    else:
        _H.pack_into(head, 4, total - 40)
    head[start + 13] = last
    _H.pack_into(head, start + 16, sums % _M)
    virtio = _VIRTIO.pack(0, _TCP4 if start == 20 else _TCP6, head_size, size, 0, 0)
    return b"".join((virtio, head, *parts)), more + 1
