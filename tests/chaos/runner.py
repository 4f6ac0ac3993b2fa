"""Does the rounds of a schedule to a running suite, and waits each time until all is well again.

A suite that does not recover has failed the run; it is started anew, so that the rest of the run finds what else there
is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from procs.agent.signaling import SETTLED_S
from tests.chaos import schedule
from tests.chaos.report import Report, Row
from tests.chaos.schedule import Round
from tests.faults import faults
from tests.faults.invariants import Census
from tests.faults.subject import Recovery, Subject, growth

ALONE_S = 12.0  # to recover from one fault: 6 s until it is noticed at the latest, and the start of everything
STORM_S = 30.0  # a warden that hangs hides a hung supervisord until the keeper's ping, 8 s, finds it
MEET_S = 6.0  # more, for both ends of a tunnel to find each other again at a new hub
NEW_PID_S = 6.0  # the promise for whatever is frozen or hangs
RESTARTS_A_MINUTE = 20
HEARD_OF_S = 1.5  # until supervisord's plugin knows that a program serves


class Runner:
    """One run. `say` gets a line for each round; `anew` ends the suite and brings it up."""

    def __init__(
        self,
        subject: Subject,
        report: Report,
        census: Census,
        say: Callable[[str], None],
        anew: Callable[[], None],
    ) -> None:
        self._subject, self._report, self._census = subject, report, census
        self._say, self._anew = say, anew
        self._started_s = time.monotonic()
        self._told = 0

    def run(self) -> None:
        """Rounds until the time is over, then whether those who saw them all have grown."""
        targets = self._subject.settle()
        possible = {name: faults.possible(pid) for name, pid in targets.items()}
        self._report.targets = tuple(sorted(possible))
        for number, each in enumerate(schedule.rounds(self._report.seed, possible), 1):
            if self._now_s() > self._report.minutes * 60:
                break
            time.sleep(each.pause_s)
            if not self._round(number, each):
                self._anew()
                self._subject.settle()
        try:
            self._subject.settle()
            self._say("kills of all but those who see them: does anything grow?")
            pause_s = SETTLED_S + HEARD_OF_S if self._subject.far else HEARD_OF_S
            self._report.broken += growth(self._subject, self._restarts(), pause_s)
            self._subject.settle()
        except AssertionError as error:
            self._report.broken.append(f"at the end: {error}")
        self._note_broken()

    def _restarts(self) -> int:
        return round(RESTARTS_A_MINUTE * self._report.minutes)

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s

    def _round(self, number: int, each: Round) -> bool:
        """Whether the suite came back."""
        at_s, pids = self._now_s(), self._subject.targets()
        limit_s = ALONE_S if len(each.hits) == 1 else STORM_S
        limit_s += MEET_S if self._subject.far else 0.0
        kinds = {hit.target: hit.kind for hit in each.hits}
        with faults.together(pids, kinds) as done:
            self._census.excused = {fault.pid for fault in done.values()}
            recovery = self._subject.recover(done, limit_s)
        self._census.excused = set()
        self._note(number, at_s, kinds, recovery)
        return recovery.healthy_ms is not None

    def _note(self, number: int, at_s: float, kinds: Mapping[str, str], recovery: Recovery) -> None:
        for name, kind in kinds.items():
            new_ms = recovery.new_pid_ms.get(name)
            missing = recovery.missing
            if not missing and len(kinds) == 1 and (new_ms is None or new_ms > NEW_PID_S * 1000):
                missing = f"replaced after more than {NEW_PID_S:g} s"
            row = Row(at_s, number, name, kind, new_ms, recovery.healthy_ms, recovery.gap_ms, missing)
            self._report.rows.append(row)
            self._say(f"{at_s:6.1f} s  round {number}: {name} {kind}: {_in_short(row)}")
        self._note_broken()

    def _note_broken(self) -> None:
        new, self._told = self._census.broken[self._told :], len(self._census.broken)
        for each in new:
            text = f"{self._now_s():.1f} s: {each.kind} {' '.join(map(str, each.pids))}: {each.text}"
            self._report.broken.append(text)
            self._say(f"BROKEN {text}")


def _in_short(row: Row) -> str:
    if row.healthy_ms is None:
        return f"NOT WELL: {row.missing}"
    new = "?" if row.new_pid_ms is None else f"{row.new_pid_ms:.0f}"
    return f"new pid {new} ms, all well {row.healthy_ms:.0f} ms, gap {row.gap_ms:.0f} ms {row.missing}".rstrip()
