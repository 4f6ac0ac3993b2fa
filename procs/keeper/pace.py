"""How soon supervisord may be started again. Pure but for `Row`, which keeps the count in a file.

A start that never answered is a failure; a row of them is paced as every crash loop of ours is (procs/backoff.py).
One that did answer may be started again at once, BURST times; then only once in REFILL_S: being killed slows nothing,
but a supervisord that dies of itself again and again, however late, must not keep a small machine busy for ever.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from procs.backoff import crash_pause, uniform

BURST = 60
REFILL_S = 10.0
FORGOTTEN_S = 60.0  # two failed starts further apart than this are no loop


class Count(NamedTuple):
    """What is known of the starts so far."""

    failures: int = 0  # in a row, without one that answered
    credit: float = BURST  # starts that may be made at once
    at_s: float = 0.0  # of the last start, on CLOCK_BOOTTIME


def next_start(count: Count, now_s: float, rng: Callable[[], float] = uniform) -> tuple[float, Count]:
    """Seconds to wait, and the count with the start after them, which has failed until it is said to have answered."""
    since_s = now_s - count.at_s
    if since_s < 0:  # of a time before this boot
        count, since_s = Count(), 0.0
    failures = count.failures if since_s < FORGOTTEN_S else 0
    credit = min(BURST, count.credit + since_s / REFILL_S)
    pause_s = max(crash_pause(failures, rng=rng), (1 - credit) * REFILL_S)
    credit = min(BURST, credit + max(0.0, pause_s) / REFILL_S) - 1
    return max(0.0, pause_s), Count(failures + 1, max(0.0, credit), now_s + max(0.0, pause_s))


class Row:
    """The count, in a file that outlives us and in memory. Only a hint: losing it costs nothing but a pause."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = Count()

    def next_start(self) -> float:
        """Seconds to wait before the next start, which is counted with this."""
        pause_s, self._count = next_start(self._newest(), time.clock_gettime(time.CLOCK_BOOTTIME))
        self._write()
        return pause_s

    def answered(self) -> None:
        """What was started serves: the row of failures is over."""
        count = self._newest()
        if count.failures:
            self._count = count._replace(failures=0)
            self._write()

    def _newest(self) -> Count:
        """What the file says, since a former keeper may have written it after we began; but our own where a disk did
        not take it."""
        with contextlib.suppress(OSError, ValueError, TypeError, OverflowError):
            failures, credit, at_s = map(float, json.loads(self._path.read_text()))
            if at_s >= self._count.at_s:
                return Count(int(failures), min(BURST, max(0.0, credit)), at_s)
        return self._count

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps(self._count))
