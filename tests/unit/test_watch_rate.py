"""What a viewer's path takes: silence while it is well, less when packets are lost, never a flood of wishes."""

from __future__ import annotations

import itertools

from procs.webrtc_peer.again import MAX_KNOWN, OWED_S, SAVED_MAX, Again
from procs.webrtc_peer.rate import FLOOR, NO_LIMIT, Losses, Rate

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
    assert found and found <= SENT // 4
    assert rate.estimated(2 * SENT, 8.6) is None


def test_reports_before_anything_was_sent_mean_nothing() -> None:
    assert Rate().reported(1.0, 1.0) is None and Rate().estimated(100_000, 1.0) is None


def test_what_the_burst_of_the_beginning_lost_is_no_reason() -> None:
    assert sending(until=2.0).reported(0.5, 2.0) is None


class Path:
    """A source that gives what it is asked for, a path that takes `takes`, and a viewer who reports and estimates."""

    def __init__(self) -> None:
        self.rate, self.now, self.asked = Rate(), 0.0, NO_LIMIT
        self.sent: list[float] = []

    def go(self, seconds: int, takes: int, gives: float = 0.8) -> list[float]:
        """What was sent in each of these seconds. An encoder gives less than it may."""
        for _ in range(seconds):
            bits = gives * min(SENT, self.asked)
            came = min(bits, takes)
            self.sent.append(bits)
            for part in range(10):
                self.rate.sent(round(bits / 80), self.now + part / 10)
            self.now += 1.0
            estimate = came * (1.5 if bits <= takes else 0.85)
            for found in (self.rate.estimated(int(estimate), self.now), self.rate.reported(1 - came / bits, self.now)):
                self.asked = found or self.asked
        return self.sent[-seconds:]


def test_a_path_that_narrows_is_filled_and_not_overfilled_and_one_that_widens_is_used() -> None:
    path = Path()
    assert set(path.go(10, 10 * SENT)) == {0.8 * SENT}
    narrow = path.go(60, SENT // 4)[5:]
    assert max(narrow) < 1.25 * SENT / 4
    assert sum(narrow) > 0.6 * len(narrow) * SENT / 4
    wide = path.go(40, 10 * SENT)
    assert wide == sorted(wide) and wide[25] == 0.8 * SENT
    assert path.asked == NO_LIMIT


def test_one_packet_of_a_handful_is_no_path_that_loses_a_tenth() -> None:
    losses = Losses()
    # Five packets a report, twenty reports a second; one of fifty packets is lost.
    found = [losses.reported(5 * at, at // 10, at / 20) for at in range(100)]
    said = [each for each in found if each is not None]
    assert len(said) == 4 and all(0 <= each <= 0.04 for each in said)
    assert losses.reported(1000, 9 + 250, 10.0) == losses.fraction > 0.4
    assert losses.reported(1001, 259, 12.0) is None, "of one packet nothing follows"
    assert losses.reported(10, 0, 14.0) is None and losses.reported(60, 0, 15.1) == 0.0, "a source that began again"


def test_many_reports_a_second_raise_it_no_faster_than_one() -> None:
    rate = sending()
    rate.reported(0.4, 6.0)
    before = rate.limit
    for at in range(100):
        rate.reported(0.0, 6.0 + at / 100)
    assert before and rate.limit and rate.limit < 1.12 * before


def test_what_was_sent_again_is_not_until_it_may_have_come_and_never_more_than_a_share() -> None:
    again = Again()
    assert again.may(1, 1000, 0, 0.0)
    assert [again.is_on_its_way(1, 0.2, at) for at in (0.1, 0.19, 0.2)] == [True, True, False]
    assert not again.is_on_its_way(2, 0.2, 0.1)
    assert sum(again.may(number, 1000, 0, 1.0) for number in range(2, 200)) == SAVED_MAX // 1000 - 1
    sent = sum(again.may(number, 1000, 300_000, 2.0) for number in range(200, 400))
    assert sent == SAVED_MAX // 1000, "never more than that at once"
    sent = sum(again.may(number, 1000, 330_000, 3.0) for number in range(400, 500))
    assert sent == 10, "a third of what is sent"


def test_what_there_was_no_room_for_is_owed_for_a_while() -> None:
    again = Again()
    assert [again.may(number, SAVED_MAX // 2, 0, 1.0) for number in range(5)] == [True, True, False, False, False]
    assert again.owed(1.0) == 2
    assert again.may(2, SAVED_MAX // 2, 3 * SAVED_MAX // 2 + 3, 2.0) and again.owed(2.0) == 3
    again.forgive(3)
    assert again.owed(3.9) == 4 and again.owed(1.0 + OWED_S) is None


def test_what_is_owed_is_bounded() -> None:
    again = Again()
    assert not any(again.may(number, SAVED_MAX + 1, 0, 1.0) for number in range(2 * MAX_KNOWN))
    assert len(again._owed) == MAX_KNOWN
