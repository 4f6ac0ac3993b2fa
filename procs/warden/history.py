"""What has gone down and come up again, counted. Pure: what is to be written down is returned."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from procs.messages.requests import Recoveries

BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
HOUR_S = 3600.0
BLAMED_KEPT_S = 30.0
EXACT = 1000  # times of which a median is taken
RESTARTED = "restarted"  # how a process ended whose restart somebody asked for


class Down(NamedTuple):
    """A process has ended."""

    process: str
    pid: int
    kind: str
    reason: str
    at: float


class Up(NamedTuple):
    """It serves again."""

    process: str
    pid: int
    ms: float  # since it ended
    at: float


@dataclass
class Histogram:
    """Times to recover of one process."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0
    worst_s: float = 0.0
    lately: array[float] = field(default_factory=lambda: array("f"))

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds
        self.worst_s = max(self.worst_s, seconds)
        self.lately.append(seconds)
        del self.lately[:-EXACT]

    def told(self) -> Recoveries:
        """In short. A bucket says only between what a time lies, so the median is that of the times themselves."""
        median_s = sorted(self.lately)[(len(self.lately) - 1) // 2]
        return Recoveries(list(self.counts), round(median_s * 1000, 1), round(self.worst_s * 1000, 1))


@dataclass
class History:
    """One a warden; what it counts begins with it, and the journal keeps the rest."""

    restarts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (process, kind)
    hangs: Counter[tuple[str, str]] = field(default_factory=Counter)  # those that the warden ended itself
    recoveries: dict[str, Histogram] = field(default_factory=dict)
    _down: dict[str, Down] = field(default_factory=dict)
    _blamed: dict[int, tuple[str, str, float]] = field(default_factory=dict)  # pid -> kind, reason, when
    written: set[tuple[str, int]] = field(default_factory=set)  # restarts that a former warden has written down: who

    def recall(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Count what the journal knows: counters should not begin anew with each warden, least of all those of
        supervisord, with which every warden dies."""
        for line in lines:
            if line["event"] == "down":
                self.restarts[line["process"], str(line.get("kind", ""))] += 1
            elif isinstance(line.get("ms"), int | float):
                self.recoveries.setdefault(line["process"], Histogram()).add(line["ms"] / 1000)

    def blame(self, process: str, pid: int, kind: str, reason: str, now: float) -> None:
        """The warden is about to end it: its end will look like any other."""
        if pid not in self._blamed and kind != RESTARTED:
            self.hangs[process, kind] += 1
        self._blamed = {each: its for each, its in self._blamed.items() if now - its[2] < BLAMED_KEPT_S}
        self._blamed[pid] = (kind, reason, now)

    def ended(self, process: str, pid: int, kind: str, reason: str, at: float) -> Down | None:
        """It has ended; returns what to write down. None: a former warden did, whose own end it was."""
        if pid in self._blamed:
            kind, reason, _ = self._blamed[pid]
        down = Down(process, pid, kind, reason, at)
        self._down.setdefault(process, down)  # until it serves, it is down since the first time
        if (process, pid) in self.written:
            return None
        self.restarts[process, kind] += 1
        return down

    def serves(self, process: str, pid: int, at: float) -> Up | None:
        """It serves; returns what to write down if it was down."""
        down = self._down.get(process)
        if not down or down.pid == pid:
            return None
        del self._down[process]
        at = max(at, down.at)
        self.recoveries.setdefault(process, Histogram()).add(at - down.at)
        return Up(process, pid, (at - down.at) * 1000, at)
