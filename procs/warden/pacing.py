"""How long a program waits before it is started again. Pure: the caller says how its last run ended.

A run that ends by itself before it has settled is a failure; a row of failures is a crash loop, and is paced. A run
that somebody killed says nothing about the program: a hundred kills while it serves never slow its restart. But what
kills it (the kernel for its memory, say) may go on for ever: after BURST kills that came sooner than one in REFILL_S it
is paced too. One that came before it was known to serve counts as EARLY_COST of them.
"""

from __future__ import annotations

from collections.abc import Callable

from procs.backoff import crash_pause, uniform

SETTLED_S = 60.0  # a run that lasted so long ends a row
BURST, REFILL_S = 300.0, 10.0
EARLY_COST = 10.0
CAP_S = 30.0


class Row:
    """What is remembered of one program."""

    def __init__(self, rng: Callable[[], float] = uniform) -> None:
        self._rng = rng
        self.failures = 0  # in a row
        self._credit = BURST  # kills that cost nothing

    def ended(self, *, killed: bool, served: bool, age_s: float) -> float:
        """A run has ended, `killed` by SIGKILL or by itself; returns the seconds to wait before the next.

        `age_s` is how long it lasted, `served` whether it is known to have done its work.
        """
        self._credit = min(BURST, self._credit + age_s / REFILL_S)
        if age_s >= SETTLED_S:
            self.failures = 0
            return 0.0
        if killed:
            self._credit = max(0.0, self._credit - (1.0 if served else EARLY_COST))
            return 0.0 if self._credit else (REFILL_S if served else CAP_S) * (0.5 + 0.5 * self._rng())
        self.failures += 1
        return crash_pause(self.failures, cap_s=CAP_S, rng=self._rng)
