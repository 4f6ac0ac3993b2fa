"""A stamp of frame number and capture time inside the H.264 stream: it survives every hop that does not re-encode.

Promises: what `stamp` gives goes in front of the first slice of an access unit; decoders skip it or hand it on as side
data; `read` and `read_payload` give back what was stamped, None where nothing was, Refused where it is damaged.
Source: ITU-T H.264 7.3.2.3.1 (SEI message), D.1.7 (user_data_unregistered).

The user data, big-endian: UUID 16 bytes | version u8 = 1 | frame u32 | capture time u64, ns since the Unix epoch.
"""

from __future__ import annotations

from typing import NamedTuple

from procs.errors import Refused
from procs.media import annexb

# Drawn at random until no byte was 3 or less: emulation prevention never touches it, so it stands in a NAL unit as is.
UUID = bytes.fromhex("f6cb865d81a74cdc8bef5122ba50ae57")
VERSION = 1
PAYLOAD_BYTES = len(UUID) + 1 + 4 + 8

FRAME_WRAP = 1 << 32
_TIME_END_NS = 1 << 64  # year 2554
_USER_DATA_UNREGISTERED = 5
_STOP_BIT = b"\x80"
_OPENING = bytes((annexb.SEI, _USER_DATA_UNREGISTERED, PAYLOAD_BYTES))
_FIELD_MAX = 0xFFFF  # of a payload type or size; ours are 5 and 29


class Stamp(NamedTuple):
    """`frame` counts from 0 and wraps at 2**32; `time_ns` is nanoseconds since the Unix epoch."""

    frame: int
    time_ns: int


def stamp(frame: int, time_ns: int) -> bytes:
    """A complete SEI NAL unit, without start code; `frame` is taken modulo 2**32.

    Refused when `time_ns` is negative or needs more than 64 bits.
    """
    if not 0 <= time_ns < _TIME_END_NS:
        raise Refused(f"a capture time of {time_ns} ns does not fit the stamp")
    content = (frame % FRAME_WRAP).to_bytes(4, "big") + time_ns.to_bytes(8, "big")
    return _OPENING + UUID + annexb.escape(bytes((VERSION,)) + content + _STOP_BIT)


def read(access_unit: bytes) -> Stamp | None:
    """The first stamp in front of the first slice, None when there is none.

    Refused when the unit is not Annex-B or our stamp in it is damaged. SEI of others is not parsed, whatever it holds.
    """
    for nal in annexb.before_slice(access_unit):
        if annexb.nal_type(nal) == annexb.SEI and UUID in nal:
            found = _in_messages(annexb.unescape(nal[1:]))
            if found:
                return found
    return None


def read_payload(payload: bytes) -> Stamp | None:
    """The stamp in one user_data_unregistered payload (UUID, then content), None when it is not ours.

    This is what decoders hand over, for example PyAV in `frame.side_data`. Refused when the UUID is ours and the
    length or version is not.
    """
    if not payload.startswith(UUID):
        return None
    if len(payload) != PAYLOAD_BYTES or payload[16] != VERSION:
        raise Refused("a frame stamp of an unknown version or length")
    return Stamp(int.from_bytes(payload[17:21], "big"), int.from_bytes(payload[21:29], "big"))


def _in_messages(body: bytes) -> Stamp | None:
    """The first stamp among the messages of one SEI NAL unit; `body` is its RBSP."""
    at = 0
    # Fewer than three bytes hold no message (type, size) and stop bit any more.
    while at + 2 < len(body):
        kind, at = _field(body, at)
        size, at = _field(body, at)
        if at + size >= len(body):
            raise Refused("an SEI message runs past the end of its NAL unit")
        found = read_payload(body[at : at + size]) if kind == _USER_DATA_UNREGISTERED else None
        if found:
            return found
        at += size
    return None


def _field(body: bytes, at: int) -> tuple[int, int]:
    """A payload type or size (a run of FF, each worth 255, and a last byte), and the index behind it."""
    end = at
    while body[end : end + 1] == b"\xff":
        end += 1
        if (end - at) * 0xFF > _FIELD_MAX:
            raise Refused("an SEI message of an impossible type or size")
    if end >= len(body):
        raise Refused("an SEI message runs past the end of its NAL unit")
    return (end - at) * 0xFF + body[end], end + 1
