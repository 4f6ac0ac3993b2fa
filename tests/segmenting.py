"""Frames as a TUN with offloads gives them, and the packets that the kernel makes of one (RFC 1071, tcp_gso_segment,
__udp_gso_segment): written apart from ours, every sum made anew, so that both can be held against each other."""

from __future__ import annotations

from struct import pack, unpack_from

TCP, UDP = 6, 17
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80
KINDS = {(4, TCP): 1, (6, TCP): 4, (4, UDP): 5, (6, UDP): 5}
SUM_AT = {TCP: 16, UDP: 6}
HOSTS = {4: (bytes([10, 77, 0, 1]), bytes([10, 77, 0, 2])), 6: (bytes(15) + b"\1", bytes(15) + b"\2")}


def total(data: bytes | bytearray) -> int:
    """The sum of its words, in one's complement."""
    found: int = sum(unpack_from(f"!{(len(data) + 1) // 2}H", data + b"\0"))
    while found > 0xFFFF:
        found = (found & 0xFFFF) + (found >> 16)
    return found


def headers(
    version: int,
    protocol: int,
    payload: int,
    *,
    options: bytes = b"",
    flags: int = ACK,
    sequence: int = 1000,
    number: int = 7,
    ports: tuple[int, int] | None = None,
) -> bytes:
    """Of a packet with so many bytes behind them; where the sum of TCP or UDP belongs, there is the pseudo-header's."""
    size = (20 + len(options) if protocol == TCP else 8) + payload
    near, far = HOSTS[version]
    source, to = ports or (5201 if protocol == TCP else 53, 40000)
    pseudo = total(near + far + pack("!IHH", size, 0, protocol))
    if protocol == TCP:
        offset = (20 + len(options)) << 2
        rest = pack("!HHIIBBHHH", source, to, sequence, 99, offset, flags, 500, pseudo, 0) + options
    else:
        rest = pack("!HHHH", source, to, size, pseudo)
    if version == 6:
        return pack("!IHBB", 6 << 28 | 5, size, protocol, 64) + near + far + rest
    head = bytearray(pack("!BBHHHBBH", 0x45, 0, 20 + size, number, 0x4000, 64, protocol, 0) + near + far)
    head[10:12] = (0xFFFF ^ total(head)).to_bytes(2, "big")
    return bytes(head) + rest


def frame(version: int, protocol: int, payload: bytes, step: int = 0, ecn: int = 0, **more: object) -> bytes:
    """Of segments of `step` bytes; of one packet without it. `more` is of the headers."""
    head = headers(version, protocol, len(payload), **more)  # type: ignore[arg-type]
    start = 20 if version == 4 else 40
    kind = KINDS[version, protocol] | ecn if step else 0
    return pack("<BBHHHH", 1, kind, len(head) if step else 0, step, start, SUM_AT[protocol]) + head + payload


def cut(frame: bytes) -> list[bytes]:
    """Its packets, whole and summed. Fails where the frame does not agree with itself."""
    flags, kind, size, step, start, place = unpack_from("<BBHHHH", frame)
    packet = frame[10:]
    version, first = packet[0] >> 4, (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    if version == 4:
        assert first >= 20 and unpack_from("!H", packet, 2)[0] == len(packet)
    else:
        assert version == 6 and unpack_from("!H", packet, 4)[0] == len(packet) - 40
    if not flags:
        assert (kind, size, step, start, place) == (0, 0, 0, 0, 0)
        return [packet]
    protocol = packet[9 if version == 4 else 6]
    assert flags == 1 and start == first and place == SUM_AT[protocol] and len(packet) >= start + place + 2
    assert version == 6 or not unpack_from("!H", packet, 6)[0] & 0x3FFF
    if not kind:
        assert step == 0
        return [_summed(packet, start, protocol)]
    size_ = start + ((packet[start + 12] >> 4) * 4 if protocol == TCP else 8)
    assert kind & 0x7F == KINDS[version, protocol] and size == size_ and 0 < step < len(packet) - size
    assert version == 6 or total(packet[:start]) == 0xFFFF
    assert unpack_from("!H", packet, start + place)[0] % 0xFFFF == _pseudo(packet, start, protocol) % 0xFFFF
    assert protocol == TCP or unpack_from("!H", packet, start + 4)[0] == len(packet) - start
    return [_segment(packet, start, size, at, step, protocol) for at in range(size, len(packet), step)]


def _segment(packet: bytes, start: int, size: int, at: int, step: int, protocol: int) -> bytes:
    """The one whose payload begins there."""
    head, payload = bytearray(packet[:size]), packet[at : at + step]
    index = (at - size) // step
    if head[0] >> 4 == 4:
        head[2:4] = (size + len(payload)).to_bytes(2, "big")
        head[4:6] = ((int.from_bytes(head[4:6], "big") + index) & 0xFFFF).to_bytes(2, "big")
        head[10:12] = bytes(2)
        head[10:12] = (0xFFFF ^ total(head[:start])).to_bytes(2, "big")
    else:
        head[4:6] = (size - 40 + len(payload)).to_bytes(2, "big")
    if protocol == TCP:
        sequence = int.from_bytes(head[start + 4 : start + 8], "big") + at - size
        head[start + 4 : start + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
        head[start + 13] &= 0xFF if at == size else 0xFF ^ CWR
        head[start + 13] &= 0xFF if at + step >= len(packet) else 0xFF ^ FIN ^ PSH
    else:
        head[start + 4 : start + 6] = (size - start + len(payload)).to_bytes(2, "big")
    return _summed(bytes(head) + payload, start, protocol)


def _summed(packet: bytes, start: int, protocol: int) -> bytes:
    at = start + SUM_AT[protocol]
    blank = packet[:at] + bytes(2) + packet[at + 2 :]
    found = 0xFFFF ^ total(_pseudo(blank, start, protocol).to_bytes(2, "big") + blank[start:])
    return blank[:at] + (found or 0xFFFF * (protocol == UDP)).to_bytes(2, "big") + blank[at + 2 :]


def _pseudo(packet: bytes, start: int, protocol: int) -> int:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return total(addresses + pack("!IHH", len(packet) - start, 0, protocol))
