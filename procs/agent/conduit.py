"""One end of the way between tun_pump and a session: packets into bodies and back, and a bound in bytes on what is on
its way, so that a reader that stands still costs packets and not memory or seconds. Pure.

Each side counts the bytes that it has sent (`at`) and repeats what it has last heard of the other (`seen`); the
difference is on its way. Both go out each second too (PeerUp, PumpUp), so what was lost, or said by one who has died
since, is right again within a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

from procs.errors import Refused
from procs.messages.tunnel import Packets

MAX_BATCH = 64 * 1024  # of one body
WINDOW = 256 * 1024  # on its way; 4 ms at 0.5 Gbit/s
TELL_EVERY = WINDOW // 4  # what has come of the other side, if nothing goes there that would say so
_LENGTH = Struct("!H")


class Window:
    """How much may be on its way to the other side."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self.at = self.seen = 0
        self._acknowledged = self._told = 0

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return max(0, self._window - (self.at - self._acknowledged))

    def heard(self, at: int, seen: int) -> None:
        """What any message of the other side says of itself."""
        self.seen = at
        # It has seen nothing yet, or it speaks of one who died: nothing of ours is on its way to it.
        self._acknowledged = self.at if not seen or seen > self.at else seen

    def is_news_due(self) -> bool:
        """Whether the other side is to be told what has come, though there is nothing else for it."""
        return abs(self.seen - self._told) >= TELL_EVERY

    def sends(self, size: int) -> tuple[int, int]:
        """So many bytes go with a message: the `at` and `seen` that it says."""
        self.at += size
        self._told = self.seen
        return self.at, self.seen


class Conduit(Window):
    """Packets of one session, at either end. `dropped` counts those that were not let in."""

    def __init__(self, window: int = WINDOW) -> None:
        super().__init__(window)
        self.dropped = 0

    def batches(self, packets: Sequence[bytes]) -> Iterator[tuple[Packets, bytes]]:
        """Messages that carry as many of them as may be on their way; the rest is dropped."""
        parts: list[bytes] = []
        size, room = 0, self.room
        for packet in packets:
            more = len(packet) + 2
            if size and size + more > MAX_BATCH:
                room -= size
                yield self._message(parts, size)
                parts, size = [], 0
            if size + more > min(room, MAX_BATCH):
                self.dropped += 1
            else:
                parts += (_LENGTH.pack(more - 2), packet)
                size += more
        if parts:
            yield self._message(parts, size)

    def lost(self, count: int) -> None:
        """So many packets of a message could not be sent: nobody is there."""
        self.dropped += count

    def news(self) -> Packets:
        """What has come, without packets."""
        return Packets(*self.sends(0))

    def _message(self, parts: list[bytes], size: int) -> tuple[Packets, bytes]:
        return Packets(*self.sends(size)), b"".join(parts)


def body_of(packets: Sequence[bytes]) -> bytes:
    """A body that holds these."""
    return b"".join([part for packet in packets for part in (_LENGTH.pack(len(packet)), packet)])


def packets_of(body: bytes) -> list[bytes]:
    """The packets of a body. Raises Refused for what is none."""
    found, at, end = [], 0, len(body)
    while at < end:
        start = at + 2
        if start > end:
            raise Refused("a packet without its length")
        at = start + (body[start - 2] << 8 | body[start - 1])
        if at > end or at == start:
            raise Refused("a packet that is cut short")
        found.append(body[start:at])
    return found
