"""Access units of H.264 to RTP payloads: the inverse of depacketizer.py, for packetization-mode 1.

Promises: fragments of one NAL unit have one size but for the last, so that the kernel can cut them from one buffer (UDP
GSO); no payload is longer than asked for. Source: RFC 6184 5.6 (single NAL unit), 5.7.1 (STAP-A), 5.8 (FU-A).
"""

from __future__ import annotations

from procs.media import annexb

_STAP_A, _FU_A = 24, 28
_START, _END = 0x80, 0x40


def payloads(access_unit: bytes, size: int) -> list[bytes]:
    """Of at most `size` bytes each, in order. Raises Refused when it is no access unit."""
    found: list[bytes] = []
    small: list[bytes] = []
    room = size - 1
    for nal in annexb.split(access_unit):
        if len(nal) + 2 > room and small:
            found.append(_aggregate(small))
            small, room = [], size - 1
        if len(nal) > size - 3:
            found += _fragments(nal, size)
        else:
            small.append(nal)
            room -= len(nal) + 2
    return [*found, _aggregate(small)] if small else found


def _aggregate(nals: list[bytes]) -> bytes:
    if len(nals) == 1:
        return nals[0]
    importance = max(nal[0] & 0x60 for nal in nals)
    return bytes((importance | _STAP_A,)) + b"".join([len(nal).to_bytes(2, "big") + nal for nal in nals])


def _fragments(nal: bytes, size: int) -> list[bytes]:
    if len(nal) <= size:
        return [nal]
    indicator, kind = nal[0] & 0xE0 | _FU_A, nal[0] & 0x1F
    head, step = bytes((indicator, kind)), size - 2
    found = [head + nal[at : at + step] for at in range(1, len(nal), step)]
    found[0] = bytes((indicator, kind | _START)) + nal[1 : 1 + step]
    found[-1] = bytes((indicator, kind | _END)) + found[-1][2:]
    return found
