"""What went down in this device's suite and is back, for the hub to keep: at most so many a minute, the rest summed up.
Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from procs.wire.frames.suite import SuiteEvent

A_MINUTE = 30
MAX_WAITING = 100  # while the hub is away, or there are too many


class Ends:
    """Fed with lines of the journal, asked for what is to be told."""

    def __init__(self, past: Iterable[Mapping[str, Any]] = ()) -> None:
        self._reasons: dict[str, str] = {}  # of those that are down
        self._waiting: deque[SuiteEvent] = deque()
        self._summed: dict[str, tuple[int, SuiteEvent]] = {}  # process -> how many more, and the last of them
        self._sent: deque[float] = deque()  # within the last minute
        for line in past:
            self._event(line)

    def take(self, line: Mapping[str, Any]) -> None:
        """One more line."""
        event = self._event(line)
        if event and len(self._waiting) < MAX_WAITING:
            self._waiting.append(event)
        elif event:
            self._sum_up(event)

    def _event(self, line: Mapping[str, Any]) -> SuiteEvent | None:
        process = str(line["process"])[:200]
        if line["event"] == "down":
            self._reasons.setdefault(process, str(line.get("reason") or line.get("kind") or "")[:500])
        if line["event"] != "up" or not process:
            return None
        pid, ms = line.get("pid"), line.get("ms")
        return SuiteEvent(
            process,
            pid if isinstance(pid, int) and pid > 0 else 0,
            self._reasons.pop(process, ""),
            float(ms) if isinstance(ms, int | float) and 0 <= ms < 1e15 else None,
        )

    def _sum_up(self, event: SuiteEvent) -> None:
        self._summed[event.process] = (self._summed.get(event.process, (0, event))[0] + 1, event)

    def all_told(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting and not self._summed

    def due(self, now: float) -> list[SuiteEvent]:
        """What is to be sent now, and is then taken for sent."""
        while self._sent and now - self._sent[0] >= 60.0:
            self._sent.popleft()
        free = A_MINUTE - len(self._sent)
        found = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        if len(found) == free:
            while self._waiting:
                self._sum_up(self._waiting.popleft())
        while self._summed and len(found) < free:
            found.append(_sum(*self._summed.pop(next(iter(self._summed)))))
        self._sent.extend([now] * len(found))
        return found


def _sum(times: int, last: SuiteEvent) -> SuiteEvent:
    if times == 1:
        return last
    return SuiteEvent(last.process, last.pid, f"{times} times more; at last: {last.reason}"[:500], last.took_ms)
