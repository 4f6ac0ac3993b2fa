"""Which devices this backend may call: it holds a lease of each, and never calls without one. Pure: the store's answers
and the time go in. The clock is one that also runs while the machine sleeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LEASE_S = 5.0
RENEW_S = 1.5
MARGIN_S = 0.5  # before the end of a lease its child is ended
LAST_S = 0.25  # before it a child ends by itself, should its leader stand still
SOON_S = 0.05  # after another's lease is over


class Held(NamedTuple):
    """What the store says of one device: who holds it, and for how long yet."""

    owner: str
    left_s: float


class Leases:
    """Those of one backend."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._until: dict[str, float] = {}  # of ours
        self._others: dict[str, float] = {}  # when those of others may be over

    def answered(self, asked_at: float, now: float, answer: Mapping[str, Held]) -> None:
        """The store has answered what was asked at `asked_at`: a lease of ours counts from then, no later."""
        self._until, self._others = {}, {}
        for device, held in answer.items():
            if held.owner == self.owner:
                self._until[device] = asked_at + LEASE_S
            else:
                self._others[device] = now + held.left_s

    def holds(self, device: str, now: float) -> bool:
        """Whether a child of this device may live."""
        return now < self._until.get(device, 0.0) - MARGIN_S

    def until(self, device: str) -> float:
        """When its child ends by itself, if nobody has ended it."""
        return self._until.get(device, 0.0) - LAST_S

    def is_elsewhere(self, device: str) -> bool:
        """Whether another backend held it when the store was asked last."""
        return device in self._others

    def wait_s(self, now: float) -> float:
        """How long until the store is to be asked again: in time to renew, or when another's lease is over."""
        soonest = min((until - now + SOON_S for until in self._others.values()), default=RENEW_S)
        return min(RENEW_S, max(SOON_S, soonest))
