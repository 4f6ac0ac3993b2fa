"""SRTP of some packets at a time, in the very memory that the kernel then reads.

pylibsrtp copies each packet in and out and makes three objects for it, which costs more than the cipher. Private names
of pylibsrtp 1.0.
"""

from __future__ import annotations

from typing import Any

import pylibsrtp
from pylibsrtp import Policy, Session

from procs.errors import Refused

PACKETS = 16
_SLOT = 1536  # bytes, and a multiple of what libsrtp wants its packets aligned to
PACKET_MAX = _SLOT - pylibsrtp.SRTP_MAX_TRAILER_LEN


def session(profile: int, key: bytes) -> Session:
    """To protect RTP with this key. Raises Refused for what is none."""
    try:
        policy = Policy(key, Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
        policy.allow_repeat_tx = True  # where a viewer gets the very packet again
        policy.window_size = 1024
        return Session(policy)
    except (pylibsrtp.Error, ValueError) as error:
        raise Refused(f"no key for SRTP: {error}") from None


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
        """Those packets for the other side, at most PACKETS. Raises Refused."""
        srtp, length, protect = session._srtp[0], self._length, self._lib.srtp_protect
        done = []
        for packet, (start, room) in zip(packets, self._places, strict=False):
            size = len(packet)
            room[:size] = packet
            length[0] = size
            if protect(srtp, start, length):
                raise Refused("a packet that libsrtp does not protect")
            done.append(room[: length[0]])
        return done
