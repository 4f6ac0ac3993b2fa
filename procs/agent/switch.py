"""Packets between one interface and many peers: who gets what, who may send what, what is counted. Pure.

Each packet passes here one by one, so what nearly all are (IPv4 without options, opening no connection, to or from an
address seen before) is found out first, and without a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
        self._mtu = dict.fromkeys(tunnel.allowed, tunnel.mtu)
        self._most = tunnel.mtu
        self.traffic = {peer: Traffic() for peer in tunnel.allowed}
        self.homeless = 0

    def allow(self, peer: str, networks: Sequence[Network]) -> None:
        """One more peer, or other prefixes of one. Raises ConfigError when they overlap with another's."""
        allowed = {**self._allowed, peer: tuple(networks)}
        if twice := overlap(allowed):
            raise ConfigError(f"allowed: {twice} overlap: an address is behind one peer only")
        self._allowed, self._prefixes = allowed, Prefixes(allowed)
        self._mtu.setdefault(peer, self._most)
        self.traffic.setdefault(peer, Traffic())

    def forget(self, peer: str) -> None:
        """Its addresses may be another's."""
        for each in (self._allowed, self._mtu, self.traffic):
            each.pop(peer, None)
        self._prefixes = Prefixes(self._allowed)

    def allowed(self, peer: str) -> Sequence[Network]:
        """Its prefixes."""
        return self._allowed.get(peer, ())

    def takes(self, peer: str, mtu: int) -> None:
        """The largest packet that a peer's session carries whole."""
        self._mtu[peer] = max(MIN_MTU4, min(mtu, self._most))

    def sort(self, packets: Iterable[bytes]) -> tuple[dict[str, list[bytes]], list[bytes]]:
        """What the interface gave: the packets of each peer, and answers for the interface."""
        found: dict[str, list[bytes]] = {}
        answers: list[bytes] = []
        peer_of, known, mtus = self._prefixes.peer, self._prefixes.known, self._mtu
        for packet in packets:
            if len(packet) >= 40 and packet[0] == 0x45 and (packet[9] != 6 or not packet[33] & 2):
                peer = known.get(packet[16:20], "")
                if peer in found and len(packet) <= mtus[peer]:
                    found[peer].append(packet)
                    continue
            peer = peer_of(destination(packet)) if is_whole(packet) else ""
            if not peer:
                self.homeless += 1
                continue
            mtu = mtus[peer]
            its = found.get(peer)
            if its is None:
                its = found[peer] = []
            if len(packet) <= mtu:
                its.append(clamped(packet, mtu))
            else:
                self._too_big(peer, packet, mtu, its, answers)
        return found, answers

    def _too_big(self, peer: str, packet: bytes, mtu: int, its: list[bytes], answers: list[bytes]) -> None:
        if packet[0] >> 4 == 6 and len(packet) <= max(mtu, MIN_MTU6):
            its.append(clamped(packet, mtu))  # such a one can't be refused: the session takes it in pieces
        elif may_be_split(packet):
            its += split(packet, mtu)
        else:
            self.traffic[peer].too_big += 1
            if answer := told(packet, max(mtu, MIN_MTU6) if packet[0] >> 4 == 6 else mtu):
                answers.append(answer)

    def admit(self, peer: str, packets: Sequence[bytes]) -> list[bytes]:
        """Those of what a peer sent that it may send."""
        traffic, mtu, own, peer_of = self.traffic[peer], self._mtu[peer], self._own, self._prefixes.peer
        known = self._prefixes.known
        found = []
        for packet in packets:
            size = len(packet)
            if (
                size >= 40
                and packet[0] == 0x45
                and packet[2] << 8 | packet[3] == size
                and (packet[9] != 6 or not packet[33] & 2)
                and known.get(its := packet[12:16]) == peer
                and its not in own
            ):
                found.append(packet)
            elif not is_whole(packet):
                traffic.malformed += 1
            elif peer_of(its := source(packet)) != peer or its in own:
                traffic.spoofed += 1
            else:
                found.append(clamped(packet, mtu))
        traffic.received_packets += len(found)
        traffic.received_bytes += sum(map(len, found))
        return found

    def sent(self, peer: str, packets: Sequence[bytes], taken: int) -> None:
        """So many of them, the first, were taken by the session."""
        traffic = self.traffic[peer]
        traffic.sent_packets += taken
        traffic.sent_bytes += sum(map(len, packets[:taken]))
        traffic.lost += len(packets) - taken
