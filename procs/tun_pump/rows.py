"""What the warden is told of each peer."""

from __future__ import annotations

from procs.agent.lane.lanes import Lanes
from procs.agent.planes import LANE
from procs.agent.switch import Switch
from procs.messages.warden import TunnelPeer
from procs.tun_pump.ends import Ends
from procs.tun_pump.rates import Rates

REASON_CHARS = 100  # of each peer's: a state of 64 peers has to fit in one message


class Rows:
    """A row is of what packets take now: the fast lane, or else the session."""

    def __init__(self, ends: Ends, switch: Switch, lanes: Lanes) -> None:
        self._ends, self._switch, self._lanes = ends, switch, lanes
        self._rates = Rates()

    def of(self, peer: str, now: float) -> TunnelPeer:
        """That of one peer."""
        end, traffic, lanes = self._ends[peer], self._switch.traffic[peer], self._lanes
        up, is_fast = end.up, lanes.is_up(peer)
        return TunnelPeer(
            peer,
            is_up=is_fast or up is not None,
            plane=LANE if is_fast else up.plane if up else 0,
            path="direct" if is_fast else up.path if up else "",
            remote=lanes.remote(peer) if is_fast else up.remote if up else "",
            mtu=min(lanes.mtu(peer), end.most) if is_fast else up.mtu if up else 0,
            round_trip_ms=lanes.round_trip_ms(peer) if is_fast else up.stats.get("round_trip_ms") if up else None,
            **traffic.passed(),
            dropped=traffic.dropped(),
            lane=lanes.stats(peer),
            why="" if is_fast or up else end.why[:REASON_CHARS],
            slow=lanes.unused(peer)[:REASON_CHARS] if up else "",
            **self._rates.of(peer, traffic, now)._asdict(),
        )
