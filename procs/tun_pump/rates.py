"""How fast each peer's packets pass: from one look at their counts to the next. Pure."""

from __future__ import annotations

from typing import NamedTuple

from procs.agent.switch import Traffic


class Rate(NamedTuple):
    """As TunnelPeer has it. None: looked at once only."""

    sent_bits_per_s: float | None = None
    received_bits_per_s: float | None = None


class Rates:
    """Of all peers."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int, int]] = {}

    def of(self, peer: str, traffic: Traffic, now: float) -> Rate:
        """Since the last look at it."""
        before = self._before.get(peer)
        self._before[peer] = now, traffic.sent_bytes, traffic.received_bytes
        if before is None or now <= before[0]:
            return Rate()
        for_s = now - before[0]
        passed = traffic.sent_bytes - before[1], traffic.received_bytes - before[2]
        return Rate(*(round(8 * count / for_s) for count in passed))
