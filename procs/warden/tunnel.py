"""What tun_pump says of the tunnel and its peers, and what of it is for Prometheus. Peers have names
there: the settings name them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter

from msgspec.structs import replace

from procs.agent import nft
from procs.messages.warden import TunnelPeer, TunnelState
from procs.warden.metrics import Sample, family
from procs.warden.watching import FRESH_S

_SUMS = {
    "sent_packets": "Packets given to a peer's session.",
    "sent_bytes": "Bytes of them.",
    "received_packets": "Packets of a peer that were let in.",
    "received_bytes": "Bytes of them.",
}
REFUSED = ("forged", "replayed", "malformed", "unread")  # records of the fast lane


class Tunnelled:
    """What was said last."""

    def __init__(self) -> None:
        self._said: TunnelState | None = None
        self._at = float("-inf")
        self._by_rules: Mapping[str, int] = {}

    def take(self, said: TunnelState, now: float) -> None:
        """It has come."""
        self._said, self._at = said, now

    def look(self, now: float, dropped: Callable[[str], Mapping[str, int]] = nft.dropped) -> None:
        """Read what its rules of nft have dropped: tun_pump can't, as it has given up the right to."""
        said = self.state(now)
        with contextlib.suppress(OSError):  # we may not, either
            self._by_rules = dropped(said.interface) if said and said.has_rules else {}

    def state(self, now: float) -> TunnelState | None:
        """All of it; None if that is not known."""
        if self._said is None or now - self._at > FRESH_S:
            return None
        return _counted(self._said, self._by_rules) if self._said.has_rules else self._said

    def text(self, now: float) -> str:
        """The families of these figures; none where there is no tunnel."""
        said = self.state(now)
        if said is None or not said.interface:
            return ""
        up = [({"peer": its.peer, "path": its.path, "plane": str(its.plane)}, 1) for its in said.peers if its.is_up]
        lost: list[Sample] = [
            ({"peer": its.peer, "reason": reason}, count) for its in said.peers for reason, count in its.dropped.items()
        ]
        lost += [
            ({"peer": its.peer, "reason": f"{reason}_record"}, its.lane[reason])
            for its in said.peers
            for reason in REFUSED
            if reason in its.lane
        ]
        lost += [({"peer": "", "reason": reason}, count) for reason, count in said.dropped.items()]
        known = [its for its in said.peers if its.round_trip_ms is not None]
        return "".join((
            family("tunnel_up", "gauge", "Peers whose packets pass, by path and plane.", up),
            family("tunnel_mtu_bytes", "gauge", "The largest packet.", _of(said.peers, lambda its: its.mtu)),
            family("tunnel_round_trip_seconds", "gauge", "To the peer and back.",
                   _of(known, lambda its: (its.round_trip_ms or 0) / 1000)),
            *(family(f"tunnel_{name}_total", "counter", words, _of(said.peers, attrgetter(name)))
              for name, words in _SUMS.items()),
            family("tunnel_rekeys_total", "counter", "New keys of a peer's fast lane.",
                   _of(said.peers, lambda its: its.lane.get("rekeys", 0))),
            family("tunnel_dropped_packets_total", "counter", "Packets that were not passed on.", lost),
        ))  # fmt: skip


def _counted(said: TunnelState, by_rules: Mapping[str, int]) -> TunnelState:
    peers = [
        replace(its, dropped=its.dropped | {"by_reach": by_rules[its.peer]}) if its.peer in by_rules else its
        for its in said.peers
    ]
    of_nobody = {"by_subnets": by_rules[""]} if "" in by_rules else {}
    return replace(said, peers=peers, dropped=said.dropped | of_nobody)


def _of(peers: Iterable[TunnelPeer], value: Callable[[TunnelPeer], float]) -> list[Sample]:
    return [({"peer": its.peer}, value(its)) for its in peers]
