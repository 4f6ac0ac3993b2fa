"""The binary frames of a voice backend and a device that both speak ours (procs/wire/realtime.py): one Opus packet of
20 or 40 ms each (numbers are big-endian). Pure.

     0      1       2               4                               8
     +------+-------+---------------+-------------------------------+-----------
     | kind | flags | seq     (u16) | timestamp               (u32) | packet
     +------+-------+---------------+-------------------------------+-----------

kind 1 is Opus; bit 0 of flags marks the first packet of a response, or after a gap; seq counts packets and timestamp
samples at 24 kHz, and both wrap.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from procs.errors import Refused

MAX_PACKET = 1275 * 3 + 7  # the largest that a frame of 60 ms makes (RFC 6716, 3.2)
OPUS = 1
FIRST = 1
_HEADER = struct.Struct(">BBHI")


class AudioFrame(NamedTuple):
    """One Opus packet, with where it belongs."""

    packet: bytes
    seq: int
    timestamp: int
    first: bool = False


def pack_audio(frame: AudioFrame) -> bytes:
    """A binary frame. Counters wrap by themselves."""
    flags = FIRST if frame.first else 0
    return _HEADER.pack(OPUS, flags, frame.seq & 0xFFFF, frame.timestamp & 0xFFFF_FFFF) + frame.packet


def parse_audio(data: bytes) -> AudioFrame:
    """What a binary frame holds; flags not known here mean nothing. Raises Refused."""
    if not _HEADER.size < len(data) <= _HEADER.size + MAX_PACKET:
        raise Refused(f"binary frame of {len(data)} bytes")
    kind, flags, seq, timestamp = _HEADER.unpack_from(data)
    if kind != OPUS:
        raise Refused(f"binary frame of unknown kind {kind}")
    return AudioFrame(bytes(data[_HEADER.size :]), seq, timestamp, bool(flags & FIRST))
