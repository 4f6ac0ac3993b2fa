"""Delays are jittered, doubled and capped."""

from __future__ import annotations

from itertools import islice

from procs.backoff import crash_pause, delays, uniform


def test_first_delay_is_short_and_the_rest_double_up_to_the_cap() -> None:
    worst = list(islice(delays(rng=lambda: 1.0), 9))
    assert worst == [0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_jitter_is_full() -> None:
    assert list(islice(delays(rng=lambda: 0.0), 5)) == [0.0] * 5


def test_cap_below_the_base_holds() -> None:
    assert max(islice(delays(cap_s=0.5, rng=lambda: 1.0), 10)) == 0.5


def test_uniform_stays_in_its_interval() -> None:
    values = [uniform() for _ in range(2000)]
    assert min(values) >= 0 and max(values) < 1 and 0.4 < sum(values) / 2000 < 0.6


def test_three_failures_cost_nothing_then_pauses_grow_to_the_cap() -> None:
    pauses = [crash_pause(n, rng=lambda: 1.0) for n in range(12)]
    assert pauses == [0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert crash_pause(10_000, cap_s=1.0, rng=lambda: 1.0) == 1.0
    assert crash_pause(3, rng=lambda: 0.0) == 0.5
