"""What the leader and the child of a session say to each other over a socket: a length, a kind, then bytes. Pure.

leader -> child: MESSAGE, as the caller sent it; FILE, a whole sound file.
child -> leader: MESSAGE, for the caller; STEP, the same after the seconds that it took; FAILED, why, which is the last;
DONE, once all that came from one frame of the leader has been said, by which it knows how much is still to be done.
"""

from __future__ import annotations

import struct

import msgspec

MESSAGE, FILE, STEP, FAILED, DONE = range(1, 6)
HEAD = struct.Struct(">IB")
TOOK = struct.Struct(">f")
MAX_BYTES = 32 * 1024 * 1024  # a file, or a message with much sound


class ChildSpec(msgspec.Struct, frozen=True):
    """What a child lives by."""

    id: str
    path: str  # of the leader's socket, where it says its id first
    pause_s: float


def frame(kind: int, data: bytes = b"") -> bytes:
    """One of them."""
    return HEAD.pack(len(data), kind) + data
