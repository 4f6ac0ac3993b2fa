"""How the suite is, for whoever asks: over the bus, and as text for Prometheus."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter, deque
from pathlib import Path

from procs import journal, log, proc
from procs.messages.requests import ProcessState, SuiteState
from procs.warden import limits
from procs.warden.go2rtc import Stream
from procs.warden.history import BUCKETS_S, HOUR_S, RESTARTED, History
from procs.warden.metrics import family, histogram
from procs.warden.policy import GO2RTC, SUPERVISORD, Policy
from procs.warden.sounding import Sounded
from procs.warden.table import Row
from procs.warden.tunnel import Tunnelled
from procs.warden.watching import Watched

FRESH_S = 0.1
PRINT_LIMIT_S = 1.0
# Ends whose reason says it all; before that of another its kind is put.
_PLAIN = ("killed", "crashed", "exited", "not started", RESTARTED)


class State:
    """What the loop has seen last, and what is said of it, which is put together when somebody asks: to read /proc of
    every process for nobody would be a third of the warden's work. Only `text` is for a thread beside the loop's."""

    def __init__(self, run_dir: Path, policy: Policy, history: History) -> None:
        self._run_dir, self._policy, self._history = run_dir, policy, history
        self.rows: list[Row] = []
        self.streams: dict[str, Stream] = {}
        self.dropped: dict[int, int] = {}  # pid -> pictures
        self.watched = Watched()
        self.tunnel = Tunnelled()
        self.sounded = Sounded()
        self.refused = 0  # messages and events that made no sense
        self._ends: deque[tuple[float, str]] = deque()  # of the last hour: when, and who
        self._last: dict[str, tuple[str, str]] = {}  # how each process ended last, and when
        for line in journal.read(run_dir, time.time() - HOUR_S):
            if line["event"] == "down":
                self.ended(line["process"], str(line.get("kind", "")), str(line.get("reason", "")), line["time"])
        self._told_at = -math.inf
        self._answer = SuiteState(processes=[], troubles=[])
        self.wanted = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # readable: `text` waits for `print`
        self._printed = threading.Event()
        self._text = ""

    def text(self) -> str:
        """For Prometheus. What was said before, should the loop stand still."""
        self._printed.clear()
        os.eventfd_write(self.wanted, 1)
        self._printed.wait(PRINT_LIMIT_S)
        return self._text

    def print(self, now: float) -> None:
        """What `text` waits for."""
        os.eventfd_read(self.wanted)
        self.told(now)
        self._text = self._metrics() + self.watched.text(now) + self.tunnel.text(now) + self.sounded.text(now)
        self._printed.set()

    def ended(self, process: str, kind: str, reason: str, at: str = "") -> None:
        """A process has ended. Those of before this warden count from its own start on: a clock may have been set."""
        self._ends.append((time.monotonic(), process))
        why = reason if kind in _PLAIN else f"{kind}: {reason}"
        self._last[process] = (why, at or log.timestamp())

    def told(self, now: float) -> SuiteState:
        """For the bus: as it is now, or was a moment ago, however many ask."""
        if now - self._told_at < FRESH_S:
            return self._answer
        self._told_at = now
        while self._ends and now - self._ends[0][0] > HOUR_S:
            self._ends.popleft()
        hour = Counter(process for _, process in self._ends)
        known = [(each.known.name, pid, each.sign_at) for pid, each in self._policy.watched.items()]
        if self._policy.supervisord:
            known.append((SUPERVISORD, self._policy.supervisord, self._policy.heard_at))
        supervised = {row.name: row for row in self.rows}
        rows = [
            self._process(name, pid, sign_at, supervised.get(name), hour[name], now) for name, pid, sign_at in known
        ]
        away = {row.name for row in self.rows if row.begun} - {name for name, _, _ in known}
        rows += [self._process(name, 0, None, supervised[name], hour[name], now) for name in away]
        rows.sort(key=lambda row: row.name)
        watching, tunnel = self.watched.sessions(now), self.tunnel.state(now)
        self._answer = SuiteState(rows, self._troubles(now), list(BUCKETS_S), watching, tunnel)
        return self._answer

    def _process(
        self, name: str, pid: int, sign_at: float | None, row: Row | None, hour: int, now: float
    ) -> ProcessState:
        sign_age_s = None if sign_at is None else round(now - sign_at, 1)
        silence_s = self._policy.limits_of(name).silence_s
        word = row.state if row else "RUNNING"
        if pid and sign_age_s is not None:
            word = "SERVING" if sign_age_s < silence_s else "HANGING"
        its = proc.stat(pid) if pid else None
        last_end, last_end_at = self._last.get(name, ("", ""))
        recoveries = self._history.recoveries.get(name)
        return ProcessState(
            name=name,
            pid=pid,
            state=word,
            age_s=round(its.age_s, 1) if its else 0.0,
            sign_age_s=sign_age_s,
            restarts_hour=hour,
            last_end=last_end,
            memory=proc.rss_bytes(pid) if pid else 0,
            failures=row.failures if row else 0,
            wait_s=row.wait_s if row else 0.0,
            restarts=sum(count for (each, _), count in self._history.restarts.items() if each == name),
            last_end_at=last_end_at,
            recoveries=recoveries.told() if recoveries else None,
        )

    def _troubles(self, now: float) -> list[str]:
        dry = {name: self._policy.dry_s(name, now) for name, stream in self.streams.items() if stream.watched_by}
        return [
            f"{name} is watched, and no byte has come for {s:.0f} s" for name, s in dry.items() if s > limits.STREAM_S
        ]

    def _metrics(self) -> str:
        """One family a line of thought; Prometheus wants all samples of a family together."""
        rows, history = self._answer.processes, self._history
        up = [({"process": row.name}, row.state in ("SERVING", "RUNNING")) for row in rows]
        restarts = [({"process": name, "cause": kind}, count) for (name, kind), count in history.restarts.items()]
        hangs = [({"process": name, "kind": kind}, count) for (name, kind), count in history.hangs.items()]
        drops = [({"process": row.name}, self.dropped[row.pid]) for row in rows if row.pid in self.dropped]
        drops += [({"process": f"{GO2RTC} {name}"}, stream.dropped) for name, stream in self.streams.items()]
        memory = [({"process": row.name}, row.memory) for row in rows if row.pid]
        ages = [({"process": row.name}, row.sign_age_s) for row in rows if row.sign_age_s is not None]
        watchers = [({"stream": name}, stream.watched_by) for name, stream in self.streams.items()]
        return "".join((
            family("up", "gauge", "1: it serves, or runs and tells no more.", up),
            family("restarts_total", "counter", "Ends of a process, by how it ended.", restarts),
            family("hangs_total", "counter", "Processes that the warden ended itself.", hangs),
            histogram("recovery_seconds", "From the end of a process until it serves again.", history.recoveries),
            family("drops_total", "counter", "Pictures left out by a producer, packets by go2rtc.", drops),
            family("refused_total", "counter", "Messages to the warden that made no sense.", [({}, self.refused)]),
            family("resident_memory_bytes", "gauge", "Memory of a process in RAM.", memory),
            family("sign_age_seconds", "gauge", "Since the last sign of life.", ages),
            family("watchers", "gauge", "Viewers of a stream.", watchers),
        ))  # fmt: skip
