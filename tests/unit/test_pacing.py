"""The schedule: absolute, counted drops, no burst after a stall."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from procs.headless_agent.pacing import Schedule

SECOND = 1_000_000_000


def test_pictures_are_due_at_multiples_of_the_period_without_drift() -> None:
    schedule = Schedule(60, 5)
    dues = []
    for _ in range(61):
        dues.append(schedule.due_ns())
        schedule.take(schedule.due_ns() + 1000)
    assert dues[0] == 5 and dues[60] == 5 + SECOND and schedule.dropped == 0


def test_after_a_stall_the_missed_are_dropped_and_counted() -> None:
    schedule = Schedule(10, 0)
    assert schedule.take(0) == 0
    assert schedule.take(SECOND) == 10  # the picture due just now; 1 to 9 are gone
    assert schedule.dropped == 9
    assert schedule.due_ns() == SECOND + SECOND // 10


def test_a_little_late_drops_nothing() -> None:
    schedule = Schedule(10, 0)
    schedule.take(0)
    assert schedule.take(SECOND // 10 + SECOND // 11) == 1
    assert schedule.dropped == 0


@given(st.integers(1, 240), st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=60))
def test_never_a_burst_and_every_picture_is_made_or_counted(fps: int, stalls: list[int]) -> None:
    schedule, now, taken = Schedule(fps, 0), 0, []
    for stall in stalls:
        now = max(now, schedule.due_ns()) + stall
        taken.append(schedule.take(now))
        assert schedule.due_ns() > now - SECOND // fps - 1, "the next picture may be due, but none before it"
    assert taken == sorted(set(taken))
    assert taken[-1] + 1 == len(taken) + schedule.dropped
