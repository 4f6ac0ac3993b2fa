"""Signals that are sent again until the other side has taken them, and knowing those that came twice. Pure."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal, NamedTuple

from procs.messages.watch import Signal

RESEND_S = 0.5
MAX_OPEN = 1024  # signals that wait; beyond it the oldest are given up
MAX_SEEN = 4096

Kind = Literal["watch_request", "signal_offer", "signal_answer", "signal_ice", "watch_ended"]


class Sent(NamedTuple):
    """A signal and the payload beside it."""

    signal: Signal
    body: bytes


class _Open:
    __slots__ = ("due", "sent", "until")

    def __init__(self, sent: Sent, now: float, for_s: float) -> None:
        self.sent, self.due, self.until = sent, now, now + for_s


class Unanswered:
    """Of one sender, in the order in which they came. `for_s`: how long a signal is worth anything."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._open: OrderedDict[int, _Open] = OrderedDict()
        # Ids of one sender never repeat, also not after its restart.
        self._last = int.from_bytes(os.urandom(6), "big") << 8

    def add(self, kind: Kind, session_id: str, body: bytes, now: float) -> None:
        """One more, which is due now."""
        self._last += 1
        self._open[self._last] = _Open(Sent(Signal(self._last, kind, session_id), body), now, self._for_s)
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)

    def taken(self, number: int) -> None:
        """The other side has it."""
        self._open.pop(number, None)

    def drop(self, session_id: str) -> None:
        """Nobody needs those of this session any more."""
        for number in [number for number, each in self._open.items() if each.sent.signal.session_id == session_id]:
            del self._open[number]

    def open(self) -> list[Sent]:
        """All that wait."""
        return [each.sent for each in self._open.values()]

    def late(self, now: float) -> list[Sent]:
        """Those that nobody has taken in time; they are not sent again."""
        numbers = [number for number, each in self._open.items() if now >= each.until]
        return [self._open.pop(number).sent for number in numbers]

    def due(self, now: float, *, all_of_them: bool = False) -> Iterator[Sent]:
        """Those to be sent now. After one that could not be sent stop: a later one must not overtake it."""
        for each in list(self._open.values()):
            if all_of_them or now >= each.due:
                yield each.sent
                each.due = now + RESEND_S


class Seen:
    """The ids that a sender has used lately."""

    def __init__(self) -> None:
        self._ids: OrderedDict[int, None] = OrderedDict()

    def has(self, number: int) -> bool:
        """Whether this one has come."""
        return number in self._ids

    def is_new(self, number: int) -> bool:
        """Whether this one has not come before."""
        if number in self._ids:
            return False
        self._ids[number] = None
        if len(self._ids) > MAX_SEEN:
            self._ids.popitem(last=False)
        return True
