"""Rates of the hub: so many at once, then so many a second, for each key by itself, in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.hub.rates import Buckets, Rate, network_of


def test_a_burst_then_the_rate() -> None:
    buckets = Buckets(Rate(0.5, 3))
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a", 0.0) == pytest.approx(2.0)
    assert buckets.take("a", 1.5) == pytest.approx(0.5)
    assert buckets.take("a", 2.0) == 0.0
    assert buckets.take("a", 2.0) == pytest.approx(2.0)


def test_keys_do_not_share() -> None:
    buckets = Buckets(Rate(1, 1))
    assert buckets.take("a", 0.0) == 0.0 and buckets.take("a", 0.0) > 0
    assert buckets.take("b", 0.0) == 0.0


def test_looking_counts_nothing_and_what_is_given_back_is_there() -> None:
    buckets = Buckets(Rate(1, 1))
    assert buckets.wait_s("a", 0.0) == 0.0 and buckets.wait_s("a", 0.0) == 0.0
    buckets.take("a", 0.0)
    assert buckets.wait_s("a", 0.0) == pytest.approx(1.0)
    buckets.give_back("a", 0.0)
    buckets.give_back("a", 0.0)
    assert buckets.take("a", 0.0) == 0.0
    assert buckets.take("a", 0.0) > 0, "more was given back than the burst"


def test_memory_is_bounded_and_the_quietest_is_forgotten_first() -> None:
    buckets = Buckets(Rate(0.001, 1), limit=10)
    buckets.take("quiet", 0.0)
    for number in range(9):
        buckets.take(f"{number}", 1.0 + number)
    assert buckets.take("quiet", 20.0) > 0
    for number in range(10):
        buckets.take(f"more {number}", 30.0)
    assert buckets.take("quiet", 40.0) == 0.0


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200), st.floats(0.1, 50), st.integers(1, 20))
def test_never_more_than_burst_and_rate(steps: list[float], per_s: float, burst: int) -> None:
    buckets, now, taken = Buckets(Rate(per_s, burst)), 0.0, 0
    for step in steps:
        now += step
        taken += buckets.take("a", now) == 0.0
    assert taken <= burst + now * per_s + 1e-6 * len(steps)


def test_an_attacker_has_a_whole_network_of_ipv6() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert network_of("2001:db8:1:3::4") != network_of("2001:db8:1:2::4")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("x" * 1000) == "x" * 64
