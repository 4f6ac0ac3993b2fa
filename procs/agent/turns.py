"""Whose turn it is to call, and when. Pure: times are seconds of CLOCK_MONOTONIC.

Whoever was asked to calls first. After a loss it is the side with the smaller id, and the other one a little later, if
it wants the peer at all; a side that was only called waits a while for the peer to come back, and then to be called.
"""

from __future__ import annotations

from collections.abc import Iterator

from procs.backoff import delays

GRACE_S = 1.5  # that the side with the larger id waits for the other's offer
PATIENCE_S = 60.0  # for a peer to come back, whom we had not called
AGAIN_S = 10.0  # the longest pause between two calls of a peer that is not there
NEVER = float("inf")


class Turns:
    """Of one session. `keep`: a peer that says goodbye is called again."""

    def __init__(self, *, is_smaller: bool, keep: bool) -> None:
        self.is_smaller, self.keep = is_smaller, keep
        self._wants = keep
        self._pauses: Iterator[float] = delays(cap_s=AGAIN_S)
        self._due_at = NEVER
        self._until = NEVER  # when we give up a peer whom we had not called

    @property
    def is_waiting(self) -> bool:
        """Whether there will be a call of ours."""
        return self._due_at < NEVER

    def want(self) -> None:
        """The peer is to be called, and whenever it is lost."""
        self._wants, self._due_at = True, 0.0

    def now(self) -> None:
        """Whoever is waiting need not wait any longer."""
        if self.is_waiting:
            self._due_at = 0.0

    def begun(self) -> None:
        """One of both has called."""
        self._due_at = NEVER

    def connected(self) -> None:
        """It was of use."""
        self._pauses, self._until = delays(cap_s=AGAIN_S), NEVER

    def lost(self, now: float) -> None:
        """There is no connection any more, or the last call has led to none."""
        self._until = min(self._until, now + PATIENCE_S)
        if self._wants or (self.is_smaller and now < self._until):
            self._due_at = now + (0.0 if self.is_smaller else GRACE_S) + next(self._pauses)

    def is_due(self, now: float) -> bool:
        """Whether to call."""
        return now >= self._due_at
