"""SRTP of some packets at a time, in the very memory that the kernel then reads.

pylibsrtp copies each packet in and out and makes three objects for it, which costs more than the cipher. Private names
of pylibsrtp 1.0.
"""

from __future__ import annotations

from typing import Any

import pylibsrtp
from pylibsrtp import Error, Session

PACKETS = 16
_SLOT = 1536  # bytes, and a multiple of what libsrtp wants its packets aligned to
PACKET_MAX = _SLOT - pylibsrtp.SRTP_MAX_TRAILER_LEN


class Portion:
    """Room for PACKETS packets. What `protect` gives is good until the place is used again."""

    def __init__(self) -> None:
        library: Any = pylibsrtp
        ffi, self._lib = library.ffi, library.lib
        self._memory = ffi.new("char[]", PACKETS * _SLOT)
        whole = memoryview(ffi.buffer(self._memory))
        self._places = [
            (self._memory + start, whole[start : start + _SLOT]) for start in range(0, PACKETS * _SLOT, _SLOT)
        ]
        self._length = ffi.new("int *")

    def protect(self, session: Session, packets: list[bytes]) -> list[memoryview]:
        """Those packets for the other side, at most PACKETS. Raises pylibsrtp.Error."""
        srtp, length, protect = session._srtp[0], self._length, self._lib.srtp_protect
        done = []
        for packet, (start, room) in zip(packets, self._places, strict=False):
            size = len(packet)
            room[:size] = packet
            length[0] = size
            if protect(srtp, start, length):
                raise Error("a packet that libsrtp does not protect")
            done.append(room[: length[0]])
        return done
