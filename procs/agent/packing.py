"""Plane 1: IP packets over a data channel, as many in a message as go without SCTP cutting it in two.

For paths and peers where plane 2 does not go through. A message is ([u16 length][packet])*; to published agents it is
one packet and nothing else. The channel is to be unordered, without retransmission (`OPTIONS`): those inside have both.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiortc import RTCDataChannel

from procs.agent.aging import Aging
from procs.agent.conduit import packets_of
from procs.errors import Refused

MESSAGE_BYTES = 1160  # one SCTP packet of aiortc's; two halve the rate, and under loss cost the sender all its time
HEAD = struct.Struct("!H")
MTU = MESSAGE_BYTES - HEAD.size
HIGH_WATER = 1 << 17  # what is queued delays all that comes after it; less is no whole batch
OPTIONS: dict[str, Any] = {"ordered": False, "maxRetransmits": 0}


class Packing:
    """Packets over one data channel; `packed` if the other side can take several in a message."""

    def __init__(self, channel: RTCDataChannel, *, packed: bool = True) -> None:
        self.on_packets: Callable[[Sequence[bytes]], None] = lambda packets: None
        self.mtu = MTU if packed else MESSAGE_BYTES
        self.sent = self.received = self.dropped = self.sent_bytes = self.received_bytes = 0
        self._channel, self._packed, self._aging = channel, packed, Aging()
        channel.on("message", self._take)

    def send(self, packets: Sequence[bytes]) -> int:
        """Send these, as many as there is room for; how many that was."""
        taken, now = 0, time.monotonic()
        self.age(now)
        for count, message in pack(packets) if self._packed else ((1, each) for each in packets):
            if self._channel.readyState != "open" or self._channel.bufferedAmount > HIGH_WATER:
                break
            try:
                self._channel.send(message)
            except ValueError:  # longer than the peer says that it takes
                break
            self._aging.add(message, count, now)
            taken += count
        self.sent += taken
        self.sent_bytes += sum(map(len, packets[:taken]))
        self.dropped += len(packets) - taken
        return taken

    def age(self, now: float) -> None:
        """Drop what has waited for too long; also to be called now and then."""
        stale = self._aging.stale(self._channel.bufferedAmount, now)
        if not stale:
            return
        counts = {id(message): count for message, count in stale}
        queue = self._channel.transport._data_channel_queue  # of all channels of the session
        for _ in range(len(queue)):
            its = queue.popleft()
            if its[0] is self._channel and id(its[2]) in counts:
                self._channel._addBufferedAmount(-len(its[2]))
                self.dropped += counts[id(its[2])]
            else:
                queue.append(its)

    def _take(self, message: object) -> None:
        if not isinstance(message, bytes) or not message:
            return
        packets = unpack(message) if self._packed else [message]
        self.received += len(packets)
        self.received_bytes += sum(map(len, packets))
        if packets:
            self.on_packets(packets)


def pack(packets: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Messages, each with the number of packets in it. A packet that is too long for one has one of its own."""
    parts: list[bytes] = []
    size = 0
    for packet in packets:
        if parts and size + HEAD.size + len(packet) > MESSAGE_BYTES:
            yield len(parts) // 2, b"".join(parts)
            parts, size = [], 0
        parts += (HEAD.pack(len(packet)), packet)
        size += HEAD.size + len(packet)
    if parts:
        yield len(parts) // 2, b"".join(parts)


def unpack(message: bytes) -> list[bytes]:
    """The packets of a message; none of one that is cut short."""
    try:
        return packets_of(message)
    except Refused:
        return []
