"""How often somebody may try something. Pure: token buckets by key, in bounded memory; the clock is an argument."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import NamedTuple

MAX_KEYS = 20_000  # of each rate; the one that was quiet for longest is forgotten


class Rate(NamedTuple):
    """`burst` at once, then `per_s`."""

    per_s: float
    burst: float


class Buckets:
    """One rate, for each key by itself."""

    __slots__ = ("_buckets", "_limit", "_rate")

    def __init__(self, rate: Rate, limit: int = MAX_KEYS) -> None:
        self._rate, self._limit = rate, limit
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, when)

    def take(self, key: str, now: float) -> float:
        """Seconds to wait before this may be done; 0.0: now, and it is counted."""
        tokens = self._tokens(key, now)
        if tokens < 1:
            return (1 - tokens) / self._rate.per_s
        self._keep(key, tokens - 1, now)
        return 0.0

    def wait_s(self, key: str, now: float) -> float:
        """What `take` would say, without counting."""
        return max(0.0, 1 - self._tokens(key, now)) / self._rate.per_s

    def give_back(self, key: str, now: float) -> None:
        """What was taken need not have been counted."""
        self._keep(key, min(self._rate.burst, self._tokens(key, now) + 1), now)

    def _tokens(self, key: str, now: float) -> float:
        tokens, since = self._buckets.get(key, (self._rate.burst, now))
        return min(self._rate.burst, tokens + max(0.0, now - since) * self._rate.per_s)

    def _keep(self, key: str, tokens: float, now: float) -> None:
        self._buckets[key] = tokens, now
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._limit:
            self._buckets.popitem(last=False)


class Rates:
    """Every rate of the hub. Those of guesses count only what was wrong: the right answer gives back."""

    def __init__(self) -> None:
        self.login_from = Buckets(Rate(20 / 60, 20))  # by address
        self.login_as = Buckets(Rate(5 / 60, 10))  # by address and name: nobody can lock another's name for all
        self.login_name = Buckets(Rate(1, 100))  # by name: against many addresses
        self.accounts = Buckets(Rate(10 / 3600, 10))  # by address; admins make as many as they like
        self.registrations = Buckets(Rate(5, 300))  # by address; every device registers at each start
        self.new_devices = Buckets(Rate(0.5, 60))  # by address
        self.pairing_codes = Buckets(Rate(10 / 60, 10))  # by device
        self.pairing_from = Buckets(Rate(5 / 60, 10))  # by address
        self.pairing_as = Buckets(Rate(5 / 60, 10))  # by user
        # By nobody: all wrong codes together. Six digits are few, and many accounts might guess at once.
        self.pairing_all = Buckets(Rate(1, 100))
        self.look_ups = Buckets(Rate(10 / 60, 20))  # by user: names of other users that are none
        self.proofs = Buckets(Rate(0.2, 10))  # by address and device
        self.proofs_from = Buckets(Rate(1, 60))  # by address: a fleet may stand behind one
        self.suite_events = Buckets(Rate(1, 100))  # by device, which sends half as many
        self.signal_tokens = Buckets(Rate(10 / 60, 30))  # by address: agents' tokens that are none; people choose them
        self.hellos = Buckets(Rate(1000, 2000))  # by nobody: all devices together


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 everybody has a /64 at least."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
