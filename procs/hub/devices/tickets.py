"""Tickets, good once and soon: with one a device's worker comes in by a data connection of its own, or a browser to a
device's own pages. Pure; the clock is an argument.

In memory only: when the hub is gone, so are the connections, and new tickets are asked for.
"""

from __future__ import annotations

import secrets
from typing import Generic, NamedTuple, TypeVar

H = TypeVar("H")

GOOD_FOR_S = 30.0
MAX_OF_DEVICE = 16  # not yet used; the oldest goes
MAX_ALL = 100_000


class Bearer(NamedTuple, Generic[H]):
    """For which device a ticket is, and whose."""

    device_id: str
    holder: H
    expires_at: float


class Tickets(Generic[H]):
    """Those that were given and not yet used."""

    def __init__(self) -> None:
        self._given: dict[str, Bearer[H]] = {}  # by age
        self._of_device: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._given)

    def grant(self, device_id: str, holder: H, now: float) -> str:
        """A new one, good once and for GOOD_FOR_S seconds."""
        self.expire(now)
        of_device = self._of_device.setdefault(device_id, [])
        if len(of_device) >= MAX_OF_DEVICE:
            self._drop(of_device[0])
        if len(self._given) >= MAX_ALL:
            self._drop(next(iter(self._given)))
        ticket = secrets.token_urlsafe(32)
        self._given[ticket] = Bearer(device_id, holder, now + GOOD_FOR_S)
        self._of_device.setdefault(device_id, []).append(ticket)
        return ticket

    def take(self, ticket: str, now: float) -> Bearer[H] | None:
        """Whose it is, if it is good; it is used up by that."""
        bearer = self._given.get(ticket)
        if bearer is None:
            return None
        self._drop(ticket)
        return bearer if now < bearer.expires_at else None

    def revoke(self, device_id: str) -> None:
        """None of a device's is good any more."""
        for ticket in list(self._of_device.get(device_id, ())):
            self._drop(ticket)

    def expire(self, now: float) -> None:
        """Forget what is no longer good."""
        while self._given:
            ticket, bearer = next(iter(self._given.items()))
            if now < bearer.expires_at:
                return
            self._drop(ticket)

    def _drop(self, ticket: str) -> None:
        device_id = self._given.pop(ticket).device_id
        left = self._of_device[device_id]
        left.remove(ticket)
        if not left:
            del self._of_device[device_id]
