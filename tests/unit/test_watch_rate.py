"""What a viewer's path takes: silence while it is well, less when packets are lost, never a flood of wishes."""

from __future__ import annotations

import itertools

from procs.webrtc_peer.rate import FLOOR, NO_LIMIT, Rate

SENT = 2_000_000


def sending(until: float = 6.0, bits: int = SENT) -> Rate:
    rate = Rate()
    for at in range(int(until * 10) + 1):
        rate.sent(bits // 80, at / 10)
    return rate


def test_a_clean_path_asks_for_nothing() -> None:
    rate = sending()
    assert [rate.reported(0.0, 6.0 + at) for at in range(5)] == [None] * 5
    assert rate.estimated(2 * SENT, 9.0) is None


def test_loss_asks_for_less_at_once_and_more_follows_slowly() -> None:
    rate = sending()
    less = rate.reported(0.4, 6.0)
    assert less and less < 0.85 * SENT
    assert rate.reported(0.4, 6.1) is None  # not twice a second
    asked = [found for at in range(60) if (found := rate.reported(0.0, 8.0 + at))]
    assert asked == sorted(asked) and asked[-1] == NO_LIMIT
    assert all(later <= 1.3 * earlier for earlier, later in itertools.pairwise(asked[:-1]))


def test_never_below_the_floor() -> None:
    rate = sending(bits=80 * 2000)
    for at in range(20):
        rate.reported(1.0, 10.0 + 2 * at)
    assert rate.limit == FLOOR


def test_an_estimate_counts_when_it_stays_low_and_not_at_the_beginning() -> None:
    rate = sending(until=2.0)
    assert rate.estimated(SENT // 4, 2.0) is None
    rate = sending()
    assert rate.estimated(SENT // 4, 6.0) is None
    found = rate.estimated(SENT // 4, 8.5)
    assert found and found < SENT // 4
    assert rate.estimated(2 * SENT, 8.6) is None


def test_reports_before_anything_was_sent_mean_nothing() -> None:
    assert Rate().reported(1.0, 1.0) is None and Rate().estimated(100_000, 1.0) is None


def test_what_the_burst_of_the_beginning_lost_is_no_reason() -> None:
    assert sending(until=2.0).reported(0.5, 2.0) is None
