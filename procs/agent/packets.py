"""IP packets as a tunnel handles them: whom they are for, who may send them, and what is done where one is too large.

Pure. Only what has a whole IP header and is as long as it says is ever looked at further (`is_whole`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from struct import pack_into, unpack_from

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MIN_MTU4, MIN_MTU6 = 576, 1280  # IPv6 has no smaller one: what carries it has to take so much
_V4_HEADER, _V6_HEADER = 20, 40
_ICMP, _TCP, _ICMP6 = 1, 6, 58
_MAX_KNOWN = 4096  # addresses remembered by a table
_DONT_FRAGMENT, _MORE, _OFFSET = 0x4000, 0x2000, 0x1FFF
_HOPS = 64


def is_whole(packet: bytes, size: int) -> bool:
    """Whether that what begins so is an IPv4 or IPv6 packet, and as long as it says."""
    there = len(packet)
    if there >= _V4_HEADER and 0x45 <= packet[0] <= 0x4F:
        return packet[2] << 8 | packet[3] == size and (packet[0] & 15) * 4 <= there
    return there >= _V6_HEADER and packet[0] >> 4 == 6 and (packet[4] << 8 | packet[5]) + _V6_HEADER == size


def destination(packet: bytes) -> bytes:
    """Of a whole one."""
    return packet[16:20] if packet[0] < 0x60 else packet[24:40]


def source(packet: bytes) -> bytes:
    """Of a whole one."""
    return packet[12:16] if packet[0] < 0x60 else packet[8:24]


def overlap(allowed: Mapping[str, Iterable[Network]]) -> str:
    """Two peers and their prefixes that have addresses in common, in words; "" if none have."""
    every = [(peer, network) for peer, networks in allowed.items() for network in networks]
    for number, (peer, network) in enumerate(every):
        for other, its in every[:number]:
            if peer != other and network.version == its.version and network.overlaps(its):
                return f"{its} of {other} and {network} of {peer}"
    return ""


class Prefixes:
    """Which peer an address belongs to. Prefixes of two peers do not overlap."""

    def __init__(self, allowed: Mapping[str, Iterable[Network]]) -> None:
        every = [(peer, network) for peer, networks in allowed.items() for network in networks]
        self._by_mask: dict[int, list[tuple[int, dict[int, str]]]] = {4: [], 16: []}
        for size, version, bits in ((4, 4, 32), (16, 6, 128)):
            for length in sorted({network.prefixlen for _, network in every if network.version == version}):
                of = {
                    int(network.network_address): peer
                    for peer, network in every
                    if (network.version, network.prefixlen) == (version, length)
                }
                self._by_mask[size].append(((1 << bits) - (1 << (bits - length)), of))
        self.known: dict[bytes, str] = {}  # of addresses that have been asked for

    def peer(self, address: bytes) -> str:
        """Whose it is; "" if it is nobody's."""
        found = self.known.get(address)
        if found is None:
            number = int.from_bytes(address, "big")
            every = (of.get(number & mask) for mask, of in self._by_mask[len(address)])
            found = next((peer for peer in every if peer), "")
            if len(self.known) >= _MAX_KNOWN:  # somebody tries them all
                self.known.clear()
            self.known[address] = found
        return found


def clamped(packet: bytes, mtu: int, *, is_summed: bool = True) -> bytes:
    """A packet that opens a TCP connection, so that each side's segments fit into the MTU; any other as it is. One that
    is not summed up yet has a checksum of what does not change.

    Most of what passes is no such packet, so that is found out first.
    """
    if packet[0] == 0x45:
        if packet[9] != _TCP or len(packet) < 40 or not packet[33] & 2 or (packet[6] & 0x1F) | packet[7]:
            return packet
        return _clamped(packet, _V4_HEADER, mtu - 40, is_summed=is_summed)
    if packet[0] >> 4 != 6 or packet[6] != _TCP or len(packet) < 60 or not packet[53] & 2:
        return packet
    return _clamped(packet, _V6_HEADER, max(mtu, MIN_MTU6) - 60, is_summed=is_summed)


def _clamped(packet: bytes, tcp: int, limit: int, *, is_summed: bool) -> bytes:
    at, end = tcp + 20, tcp + (packet[tcp + 12] >> 4) * 4
    while at + 4 <= end <= len(packet) and packet[at]:  # a header that is cut short is its receiver's to refuse
        if packet[at] == 1:
            at += 1
            continue
        if packet[at] == 2 and packet[at + 1] == 4:
            has = packet[at + 2] << 8 | packet[at + 3]
            if has <= limit:
                return packet
            if not is_summed:
                return packet[: at + 2] + limit.to_bytes(2, "big") + packet[at + 4 :]
            return _with_word(packet, at + 2, limit, tcp + 16)
        at += max(packet[at + 1], 2)
    return packet


def _with_word(packet: bytes, at: int, value: int, checksum_at: int) -> bytes:
    """Two bytes replaced, and the checksum over them mended (RFC 1624)."""
    changed = bytearray(packet)
    (checksum,) = unpack_from("!H", packet, checksum_at)
    pack_into("!H", changed, at, value)
    total = 0
    for word in range(at & ~1, at + 2, 2):  # one that does not begin at a word lies in two
        (before,), (after,) = unpack_from("!H", packet, word), unpack_from("!H", changed, word)
        total += (before ^ 0xFFFF) + after
    pack_into("!H", changed, checksum_at, 0xFFFF ^ _folded((checksum ^ 0xFFFF) + total))
    return bytes(changed)


def too_big(packet: bytes, mtu: int) -> bytes:
    """What its sender is to be told of one that is larger than the MTU: "fragmentation needed" (RFC 1191) or "packet
    too big" (RFC 4443), as if it came from where the packet goes to; b"" where nothing may be said."""
    if packet[0] >> 4 == 4:
        ihl = (packet[0] & 15) * 4
        is_error = packet[9] == _ICMP and len(packet) > ihl and packet[ihl] not in (0, 8)
        if is_error or (packet[6] << 8 | packet[7]) & _OFFSET:  # never about errors, nor about a later fragment
            return b""
        body = bytearray(b"\3\4" + bytes(6) + packet[: ihl + 8])
        pack_into("!H", body, 6, mtu)
        pack_into("!H", body, 2, checksum(body))
        head = bytearray(_V4_HEADER)
        pack_into("!BBHHHBB", head, 0, 0x45, 0xC0, _V4_HEADER + len(body), 0, 0, _HOPS, _ICMP)
        head[12:20] = packet[16:20] + packet[12:16]
        pack_into("!H", head, 10, checksum(head))
        return bytes(head + body)
    if packet[24] == 0xFF or (packet[6] == _ICMP6 and len(packet) > _V6_HEADER and packet[40] < 128):
        return b""
    body = bytearray(b"\2\0\0\0" + bytes(4) + packet[: MIN_MTU6 - _V6_HEADER - 8])
    pack_into("!I", body, 4, mtu)
    head = bytearray(_V6_HEADER)
    pack_into("!IHBB", head, 0, 6 << 28, len(body), _ICMP6, _HOPS)
    head[8:40] = packet[24:40] + packet[8:24]
    pseudo = bytes(head[8:40]) + len(body).to_bytes(4, "big") + bytes([0, 0, 0, _ICMP6])
    pack_into("!H", body, 2, checksum(pseudo + body))
    return bytes(head + body)


def may_be_split(packet: bytes) -> bool:
    """Whether whoever carries it may make fragments of it: an IPv4 packet that does not forbid it."""
    return packet[0] >> 4 == 4 and not (packet[6] << 8) & _DONT_FRAGMENT


def split(packet: bytes, mtu: int) -> list[bytes]:
    """The fragments of an IPv4 packet (RFC 791), each at most as large as the MTU."""
    ihl = (packet[0] & 15) * 4
    step = (mtu - ihl) & ~7
    (flags,) = unpack_from("!H", packet, 6)
    found = []
    for at in range(ihl, len(packet), step):
        part = packet[at : at + step]
        head = bytearray(packet[:ihl])
        more = flags & _MORE if at + step >= len(packet) else _MORE
        pack_into("!H", head, 2, ihl + len(part))
        pack_into("!H", head, 6, more | ((flags & _OFFSET) + (at - ihl) // 8))
        pack_into("!H", head, 10, 0)
        pack_into("!H", head, 10, checksum(head))
        found.append(bytes(head) + part)
    return found


def checksum(data: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    return 0xFFFF ^ _folded(sum(unpack_from(f"!{len(data) // 2}H", data)))


def _folded(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
