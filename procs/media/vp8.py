"""Pictures of VP8 to RTP payloads. Source: RFC 7741 4.2 (payload descriptor)."""

from __future__ import annotations

_START, _EXTENDED, _HAS_ID, _LONG_ID = 0x10, 0x80, 0x80, 0x8000
_DESCRIPTOR = 4


def payloads(picture: bytes, size: int, number: int) -> list[bytes]:
    """Of at most `size` bytes each, and of one size but for the last. `number` counts the pictures."""
    identity = bytes((_HAS_ID,)) + (_LONG_ID | number & 0x7FFF).to_bytes(2, "big")
    step = size - _DESCRIPTOR
    first, later = (bytes((_EXTENDED | bits,)) + identity for bits in (_START, 0))
    return [(later if at else first) + picture[at : at + step] for at in range(0, len(picture), step)]
