"""How a suite is, from its warden's words to those of the wire, and which of them are worth a frame. Pure."""

from __future__ import annotations

import re

from procs.messages import ProcessState, SuiteState
from procs.wire.envelope import Process, Recovery, Suite

EVERY_S = 1.0  # between two frames
SMALL_EVERY_S = 5.0  # the same where only memory has changed, or a duration in a text
GROWN = 0.03  # by so much memory has to change to be told of,
GROWN_BYTES = 1_000_000  # and by so much
MAX_PROCESSES = 500
MAX_TROUBLES = 100


def told(state: SuiteState, at: str) -> Suite:
    """What the warden says, as a frame's payload. `at`: now."""
    processes = [_process(each, state.bounds_s) for each in state.processes[:MAX_PROCESSES]]
    return Suite(at, processes, [text[:500] for text in state.troubles[:MAX_TROUBLES]])


def _process(each: ProcessState, bounds_s: list[float]) -> Process:
    its = each.recoveries
    return Process(
        name=each.name[:200] or "?",
        pid=each.pid,
        state=each.state[:64],
        age_s=max(0.0, each.age_s),
        restarts_hour=each.restarts_hour,
        restarts=each.restarts,
        last_end=each.last_end[:500],
        last_end_at=each.last_end_at.removesuffix("Z"),
        memory=each.memory,
        failures=each.failures,
        wait_s=max(0.0, each.wait_s),
        recovery=Recovery(bounds_s, its.counts, its.p50_ms, its.worst_ms) if its else Recovery(),
    )


class Teller:
    """Which of the looks at a suite are told to somebody. The first one is."""

    def __init__(self) -> None:
        self._last: Suite | None = None
        self._told_at = 0.0

    def is_due(self, suite: Suite, now: float) -> bool:
        """Whether to tell it now, as is then taken for done."""
        last, ago_s = self._last, now - self._told_at
        if last and (ago_s < EVERY_S or not (_differ(last, suite) or (ago_s >= SMALL_EVERY_S and _grew(last, suite)))):
            return False
        self._last, self._told_at = suite, now
        return True


def _differ(one: Suite, other: Suite) -> bool:
    return _substance(one) != _substance(other)


def _substance(suite: Suite) -> object:
    rows = [
        (p.name, p.pid, p.state, p.restarts_hour, p.restarts, p.last_end, p.last_end_at, p.failures, p.recovery.counts)
        for p in suite.processes
    ]
    return rows, [re.sub("[0-9]+", "0", text) for text in suite.troubles]


def _grew(one: Suite, other: Suite) -> bool:
    pairs = zip(one.processes, other.processes, strict=True)  # of the same substance, so of the same processes
    grown = any(abs(a.memory - b.memory) > max(GROWN_BYTES, GROWN * a.memory) for a, b in pairs)
    return grown or one.troubles != other.troubles
