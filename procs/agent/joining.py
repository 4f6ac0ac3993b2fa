"""Packets that follow each other in one flow, joined to what the kernel takes as one (IFF_VNET_HDR): it then works once
for many, and its TCP acknowledges once. Pure.

What is joined of TCP still stands under the sender's checksums. They are sums, so the one of the whole follows from
those of its parts and from their headers, without a look at what they carry: if a part was damaged before it came to
the tunnel, the whole does not add up, and the receiver drops it. All sums here are modulo 0xFFFF (RFC 1071).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from procs.agent.lane.vnet import (
    HEAD,
    MOST_BYTES,
    MOST_SEGMENTS,
    NEEDS_CSUM,
    PLAIN,
    TCP4,
    TCP6,
    UDP,
    VIRTIO,
    Buffer,
    Iov,
    layout,
)

_H = struct.Struct("!H")
_TCP, _ACK, _PSH = 6, 0x10, 8
_MOST = 65_000
_M = 0xFFFF
_UDP4_HEADERS, _UDP6_HEADERS = HEAD + 28, HEAD + 48
_UDP_LATER = {  # what stands before UDP that is to be summed up
    VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, 20, 6): _UDP4_HEADERS,
    VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, 40, 6): _UDP6_HEADERS,
}
_DONT_FRAGMENT = b"\x40\0"


def iovs(packets: Sequence[bytes]) -> list[Iov]:
    """What to write to the TUN for these (procs/agent/lane/vnet.py). Their order stays."""
    found: list[Iov] = []
    put, skip = found.append, 0
    for at, packet in enumerate(packets):
        if at < skip:
            continue
        if len(packet) <= 40 or packet[9 if packet[0] == 0x45 else 6] != _TCP:
            put([PLAIN + packet])
        elif (start := _begins(packet)) and (joined := _joined(packets, at, start)):
            put(joined)
            skip = at + len(joined) - 1
        else:
            put([PLAIN + packet])
    return found


def _begins(packet: bytes) -> int:
    """Where TCP begins in a whole packet of it that says nothing but "more of what you know"; 0 in any other."""
    size = len(packet)
    if size > 60 and packet[0] >> 4 == 6:
        is_one = packet[53] == _ACK and (packet[4] << 8 | packet[5]) + 40 == size
        return 40 if is_one and packet[52] >= 0x50 else 0
    if packet[0] != 0x45 or packet[33] != _ACK or packet[32] < 0x50:
        return 0
    return 20 if not packet[6] & 0x3F and not packet[7] and packet[2] << 8 | packet[3] == size else 0


def _joined(packets: Sequence[bytes], at: int, start: int) -> list[bytes]:
    """The run that begins with this one: all headers, and then what each carries; nothing for one. Its last may be
    shorter, and say that it is the last for now (PSH). Each packet passes here, so what is the same in all is compared
    at once."""
    first = packets[at]
    whole, less = len(first), 0 if start == 20 else 40
    head_size = start + (first[start + 12] >> 4) * 4
    size = whole - head_size
    if size <= 0 or size & 1:  # what comes behind an odd number of bytes counts otherwise in the sum
        return []
    fields = layout(start, head_size, is_4=start == 20).unpack_from
    kind, length, number, which, ip_sum, who, sequence, ack, last, window, sums, rest = fields(first)
    same = kind, which, who, ack, window, rest
    ip_sums = (length + number + ip_sum) % _M if start == 20 else 0
    parts, following = [first[head_size:]], sequence
    for packet in packets[at + 1 : at + min(MOST_SEGMENTS, max(1, _MOST // size))]:
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
        return []
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
    virtio = VIRTIO.pack(0, TCP4 if start == 20 else TCP6, head_size, size, 0, 0)
    return [virtio + head, *parts]


def datagrams(iovs: Sequence[Iov]) -> list[Iov]:
    """The same, with those joined that follow each other in one flow of UDP, are of one size and not summed up yet. For
    a kernel that takes segments of UDP (`TunDevice.offload`): it has a third of the work with them."""
    found: list[Iov] = []
    at = 0
    while at < len(iovs):
        first: bytes = iovs[at][0]  # type: ignore[assignment]  # of an iov it always is
        headers = _UDP_LATER.get(first[:HEAD], 0)
        run = _alike(iovs, at, first, headers) if headers and at + 1 < len(iovs) else []
        if len(run) > 1:
            found.append([_head_of(first, headers, len(run)), *run])
            at += len(run)
        else:
            found.append(iovs[at])
            at += 1
    return found


def _alike(iovs: Sequence[Iov], at: int, first: bytes, headers: int) -> list[Buffer]:
    """What the run that begins with this one carries. IPv4 without fragments may have any numbers, which the kernel
    gives anew; nothing else differs."""
    size = len(first)
    is_4 = headers == _UDP4_HEADERS
    if size <= headers or (first[headers - 4] << 8 | first[headers - 3]) != size - headers + 8:
        return []
    if is_4 and (first[10] != 0x45 or first[12] << 8 | first[13] != size - HEAD or first[16:18] != _DONT_FRAGMENT):
        return []
    if not is_4 and (first[10] & 0xF0 != 0x60 or first[14] << 8 | first[15] != size - HEAD - 40):
        return []
    found: list[Buffer] = [first[headers:]]
    begins, middle, rest = (first[:14], first[16:20], first[22:38]) if is_4 else (first[:headers], b"", b"")
    for iov in iovs[at + 1 : at + min(MOST_SEGMENTS, MOST_BYTES // size)]:
        its = iov[0]
        if len(its) != size or its[: len(begins)] != begins:
            break
        if is_4 and (its[22:38] != rest or its[16:20] != middle):
            break
        found.append(its[headers:])
    return found


def _head_of(first: bytes, headers: int, many: int) -> bytes:
    """All headers of so many of these."""
    step = len(first) - headers
    more, start = (many - 1) * step, headers - HEAD - 8
    made = bytearray(first[:headers])
    VIRTIO.pack_into(made, 0, NEEDS_CSUM, UDP, headers - HEAD, step, start, 6)
    for place in (12 if start == 20 else 14, headers - 4):
        _H.pack_into(made, place, (made[place] << 8 | made[place + 1]) + more)
    _H.pack_into(made, headers - 2, ((made[headers - 2] << 8 | made[headers - 1]) + more) % _M)
    if start == 20:
        made[20:22] = b"\0\0"
        _H.pack_into(made, 20, -int.from_bytes(made[HEAD:30], "big") % _M)
    return bytes(made)
