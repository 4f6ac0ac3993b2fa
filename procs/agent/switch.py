"""Packets between one interface and many peers: who gets what, who may send what, what is counted. Pure.

What passes are frames (procs/agent/lane/vnet.py), each of which may be many packets. They pass one by one, so what
nearly all are (one packet of IP without options, opening no connection, to or from an address seen just before) is
found out first, without a call; there the numbers of bytes are those of a frame, which IP begins in at 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from procs.agent.lane import vnet
from procs.agent.lane.vnet import HEAD, HEADERS, MOST_SEGMENTS, NEEDS_CSUM, ONE, PARTIAL4, PARTIAL6, PLAIN, Iov, Shape
from procs.agent.network import Tunnel
from procs.agent.packets import (
    MIN_MTU4,
    MIN_MTU6,
    Network,
    Prefixes,
    clamped,
    destination,
    is_whole,
    may_be_split,
    overlap,
    source,
    split,
)
from procs.agent.packets import too_big as told
from procs.errors import ConfigError

PASSED = ("sent_packets", "sent_bytes", "received_packets", "received_bytes")
Way = tuple[int, Callable[[bytes], None]]  # the largest frame of one packet, and where it goes
Ways = dict[bytes, Way]  # of addresses
_MOST_FAIR, _MOST_JUDGED = 1024, 256
# All that the judgement of a frame of many depends on, but for sizes: virtio's header, the version, length, fragment,
# protocol and source of IP, and the size of TCP's header.
_JUDGED = {
    0x45: (slice(11), slice(12, 14), slice(16, 18), slice(19, 20), slice(22, 26), slice(42, 43)),
    0x60: (slice(11), slice(14, 17), slice(18, 34), slice(62, 63)),
}
DROPPED = ("too_big", "spoofed", "malformed", "lost", "unreadable")


class Traffic:
    """Of one peer, since we started. `unreadable` are no packets: datagrams at the port of its session that are none of
    its own."""

    __slots__ = PASSED + DROPPED

    def __init__(self) -> None:
        self.sent_packets = self.sent_bytes = self.received_packets = self.received_bytes = 0
        self.too_big = self.spoofed = self.malformed = self.lost = self.unreadable = 0

    def passed(self) -> dict[str, int]:
        """What TunnelPeer says of packets."""
        return {name: getattr(self, name) for name in PASSED}

    def dropped(self) -> dict[str, int]:
        """Packets, by reason."""
        return {name: getattr(self, name) for name in DROPPED}


class Switch:
    """`homeless` counts packets of ours that are for nobody's address."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._allowed = dict(tunnel.allowed)
        self._prefixes = Prefixes(tunnel.allowed)
        self._own = {address.ip.packed for address in tunnel.address}
        self._room = dict.fromkeys(tunnel.allowed, HEAD + tunnel.mtu)  # of one packet's frame
        self._most = tunnel.mtu
        self._fair: dict[str, set[bytes]] = {}  # addresses that a peer may send from
        self._judged: dict[tuple[str, int, int, bytes], Shape] = {}  # frames of many that may pass
        self.traffic = {peer: Traffic() for peer in tunnel.allowed}
        self.homeless = 0

    def allow(self, peer: str, networks: Sequence[Network]) -> None:
        """One more peer, or other prefixes of one. Raises ConfigError when they overlap with another's."""
        allowed = {**self._allowed, peer: tuple(networks)}
        if twice := overlap(allowed):
            raise ConfigError(f"allowed: {twice} overlap: an address is behind one peer only")
        self._allowed = allowed
        self._changed()
        self._room.setdefault(peer, HEAD + self._most)
        self.traffic.setdefault(peer, Traffic())

    def forget(self, peer: str) -> None:
        """Its addresses may be another's."""
        for each in (self._allowed, self._room, self.traffic):
            each.pop(peer, None)
        self._changed()

    def _changed(self) -> None:
        """Forget what was found by the prefixes of before."""
        self._prefixes = Prefixes(self._allowed)
        self._fair.clear()
        self._judged.clear()

    def allowed(self, peer: str) -> Sequence[Network]:
        """Its prefixes."""
        return self._allowed.get(peer, ())

    def takes(self, peer: str, mtu: int) -> None:
        """The largest packet that a peer's session carries whole."""
        self._room[peer] = HEAD + max(MIN_MTU4, min(mtu, self._most))

    def sort(self, frames: Iterable[bytes]) -> tuple[dict[str, list[bytes]], list[Iov]]:
        """What the interface gave: the frames of each peer, and answers for the interface."""
        found: dict[str, list[bytes]] = {}
        answers: list[Iov] = []
        ways: Ways = {}
        for frame in frames:
            if (
                len(frame) >= 50
                and frame[10] == 0x45
                and (frame[19] != 6 or not frame[43] & 2)
                and (not frame[0] | frame[1] or frame[:10] in PARTIAL4)
            ):
                way = ways.get(frame[26:30]) or self._way(frame[26:30], ways, found)
            elif (
                len(frame) >= 64
                and frame[10] & 0xF0 == 0x60
                and (frame[16] != 6 or not frame[63] & 2)
                and (not frame[0] | frame[1] or frame[:10] in PARTIAL6)
            ):
                way = ways.get(frame[34:50]) or self._way(frame[34:50], ways, found)
            else:
                way = None
            if way and len(frame) <= way[0]:
                way[1](frame)
            else:
                self._take(frame, found, answers)
        return found, answers

    def _way(self, address: bytes, ways: Ways, found: dict[str, list[bytes]]) -> Way | None:
        """That of an address that was seen in an earlier batch."""
        if not (peer := self._prefixes.known.get(address)):
            return None
        ways[address] = self._room[peer], found.setdefault(peer, []).append
        return ways[address]

    def _take(self, frame: bytes, found: dict[str, list[bytes]], answers: list[Iov]) -> None:
        """One, with a closer look."""
        head = frame[HEAD : HEAD + HEADERS]
        peer = self._prefixes.peer(destination(head)) if is_whole(head, len(frame) - HEAD) else ""
        is_partial = frame[0] & NEEDS_CSUM
        shape = vnet.shape(frame, len(frame)) if frame[1] or is_partial else ONE
        if not peer:
            self.homeless += shape.many if shape else 1
            return
        its = found.setdefault(peer, [])
        if shape and (is_partial or not shape.step):
            if shape.step and shape.headers != frame[2] | frame[3] << 8:  # what the kernel says is only a hint
                frame = b"".join((frame[:2], shape.headers.to_bytes(2, "little"), frame[4:]))
            self._fit(peer, frame, shape, its, answers)
        else:  # options of IPv6, and what else is rare
            for packet in vnet.segments(frame):
                if is_whole(packet[:HEADERS], len(packet)):  # the sum may belong anywhere, also into IP's header
                    self._fit(peer, PLAIN + packet, ONE, its, answers)
                else:
                    self.homeless += 1

    def _fit(self, peer: str, frame: bytes, shape: Shape, its: list[bytes], answers: list[Iov]) -> None:
        size, mtu = shape.headers + shape.step if shape.step else len(frame) - HEAD, self._room[peer] - HEAD
        is_6 = frame[HEAD] >> 4 == 6
        if size <= (max(mtu, MIN_MTU6) if is_6 else mtu):  # such a one of IPv6 the session takes in pieces
            its.append(_clamped(frame, mtu))
        elif may_be_split(frame[HEAD : HEAD + HEADERS]):
            its += [PLAIN + part for packet in vnet.segments(frame) for part in split(packet, mtu)]
        else:
            self.traffic[peer].too_big += shape.many
            if answer := told(frame[HEAD : HEAD + MIN_MTU6], max(mtu, MIN_MTU6) if is_6 else mtu):
                answers.append([PLAIN + answer])

    def admit(self, peer: str, iovs: Iterable[Iov]) -> list[Iov]:
        """Those of what a peer sent that it may send, and that do the kernel no harm."""
        traffic, room = self.traffic[peer], self._room[peer] - HEAD
        found: list[Iov] = []
        more = whole = 0
        fair = self._fair.setdefault(peer, set())
        if len(fair) > _MOST_FAIR:
            fair.clear()
        for iov in iovs:
            first: bytes = iov[0]  # type: ignore[assignment]  # of an iov it always is
            size = len(first)
            kind = first[:10]
            if (
                size >= 50
                and len(iov) == 1
                and (
                    (
                        first[10] == 0x45
                        and first[22:26] in fair
                        and first[12] << 8 | first[13] == size - 10
                        and (first[19] != 6 or not first[43] & 2)
                        and (kind == PLAIN or (PARTIAL4.get(kind) == first[19] and not first[16] & 63 | first[17]))
                    )
                    or (
                        size >= 64
                        and first[10] & 0xF0 == 0x60
                        and first[18:34] in fair
                        and first[14] << 8 | first[15] == size - 50
                        and (first[16] != 6 or not first[63] & 2)
                        and (kind == PLAIN or PARTIAL6.get(kind) == first[16])
                    )
                )
            ):
                found.append(iov)
                whole += size
                continue
            size = sum(map(len, iov))
            if shape := (self._judge_many if kind[1:2] > b"\0" else self._judge)(peer, first, size):
                fair.add(source(first[10:50]))
                changed = _clamped(first, room)
                found.append(iov if changed is first else [changed, *iov[1:]])
                more += shape.many - 1
                whole += size + (shape.many - 1) * shape.headers
        traffic.received_packets += len(found) + more
        traffic.received_bytes += whole - HEAD * len(found)
        return found

    def _judge_many(self, peer: str, first: bytes, size: int) -> Shape | None:
        """The same of a frame of many packets. Those of one flow differ in little that is looked at."""
        if not (places := _JUDGED.get(first[10] if len(first) > HEAD else 0)):
            return self._judge(peer, first, size)
        alike = peer, len(first), size, b"".join([first[place] for place in places])
        if not (shape := self._judged.get(alike)) and (shape := self._judge(peer, first, size)):
            if len(self._judged) >= _MOST_JUDGED:
                self._judged.clear()
            self._judged[alike] = shape
        return shape

    def _judge(self, peer: str, first: bytes, size: int) -> Shape | None:
        """Of one that needs a closer look: what it is, if it may pass."""
        traffic, head = self.traffic[peer], first[HEAD : HEAD + HEADERS]
        shape = (ONE if first.startswith(PLAIN) else vnet.shape(first, size)) if is_whole(head, size - HEAD) else None
        if not shape or shape.many > MOST_SEGMENTS:
            traffic.malformed += 1
            return None
        its = source(head)
        if self._prefixes.peer(its) != peer or its in self._own:
            traffic.spoofed += shape.many
            return None
        return shape

    def sent(self, peer: str, frames: Sequence[bytes], taken: int) -> None:
        """So many of its frames, the first, were taken by the session."""
        passed, lost = vnet.counted(frames[:taken]), vnet.counted(frames[taken:])
        self._count(peer, *passed, lost[0])

    def sent_packets(self, peer: str, packets: Sequence[bytes], taken: int) -> None:
        """The same of packets."""
        self._count(peer, taken, sum(map(len, packets[:taken])), len(packets) - taken)

    def _count(self, peer: str, many: int, size: int, lost: int) -> None:
        if not (traffic := self.traffic.get(peer)):  # forgotten while they waited
            self.homeless += many + lost
            return
        traffic.sent_packets += many
        traffic.sent_bytes += size
        traffic.lost += lost


def _clamped(frame: bytes, mtu: int) -> bytes:
    """One that opens a TCP connection, so that its segments fit; any other as it is."""
    at = HEAD + (20 if frame[HEAD] < 0x60 else 40)
    if (
        frame[1]
        or frame[HEAD + 9 if frame[HEAD] < 0x60 else HEAD + 6] != 6
        or len(frame) <= at + 13
        or not frame[at + 13] & 2
    ):
        return frame
    packet = frame[HEAD:]
    changed = clamped(packet, mtu, is_summed=not frame[0] & NEEDS_CSUM)
    return frame if changed is packet else frame[:HEAD] + changed
