"""What a lane takes its path to be, on simulated ones: wide, narrow, lossy, slow, and such as change."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from procs.agent.lane.mtu import RAISE_S, SMALL, PathMtu

STEP_S = 0.05
LEAST, MOST = 1232, 1420


class Way:
    """A path, on which what is larger than `room` is lost, and answers come after the round trip."""

    def __init__(self, room: int, *, most: int = MOST, round_trip_s: float = 0.02, loss: float = 0.0) -> None:
        self.room, self.round_trip_s, self.loss = room, round_trip_s, loss
        self.mtu = PathMtu(LEAST, most)
        self.now = 100.0
        self.sent: list[int] = []
        self._answers: list[tuple[float, int, float]] = []  # when it comes, size, when it was sent
        self._chance = random.Random(7)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Go on for so long, or until that is so; how long it took."""
        began = self.now
        while self.now - began < seconds and not until():
            self.now += STEP_S
            for size in self.mtu.due(self.now):
                self.sent.append(size)
                if size <= self.room and self._chance.random() >= self.loss:
                    self._answers.append((self.now + self.round_trip_s, size, self.now))
            for at, size, sent_at in [each for each in self._answers if each[0] <= self.now]:
                self._answers.remove((at, size, sent_at))
                self.mtu.answered(size, sent_at, self.now)
        return self.now - began


def test_a_wide_path_is_settled_within_a_round_trip_and_asked_once_a_second_then() -> None:
    way = Way(1472)
    assert way.run(5, lambda: way.mtu.is_settled) <= 3 * STEP_S
    assert way.mtu.size == MOST
    way.sent.clear()
    way.run(10)
    assert 9 <= len(way.sent) <= 11 and set(way.sent) == {MOST}


@pytest.mark.parametrize(("room", "size"), [(1419, 1412), (1300, 1292), (1232, 1232)])
def test_a_narrow_path_is_settled_within_a_second(room: int, size: int) -> None:
    way = Way(room)
    assert way.run(5, lambda: way.mtu.is_settled) <= 1.0
    assert way.mtu.size == size


def test_one_that_is_too_narrow_for_anything_is_never_settled_and_not_flooded() -> None:
    way = Way(1200)
    way.run(20)
    assert (way.mtu.size, way.mtu.is_settled) == (0, False)
    way.sent.clear()
    way.run(20)
    assert sum(way.sent) <= 21 * LEAST
    way.room = 1472
    way.run(RAISE_S + 3)
    assert way.mtu.size == MOST
    way = Way(-1)
    way.run(10)
    way.sent.clear()
    way.run(10)
    assert set(way.sent) == {SMALL} and len(way.sent) <= 11


def test_one_that_becomes_narrower_is_noticed_within_three_seconds_and_wider_again_within_a_minute() -> None:
    way = Way(1472)
    for _ in range(3):
        way.run(7.3)
        assert way.mtu.size == MOST
        way.room = 1380
        assert way.run(10, lambda: way.mtu.size == 1372) < 3.0
        way.run(3)
        assert way.mtu.is_settled
        way.room = 1472
        assert way.run(2 * RAISE_S, lambda: way.mtu.size == MOST) <= RAISE_S + 1


def test_a_dead_path_is_no_narrow_one() -> None:
    way = Way(1472)
    way.run(5)
    way.room = -1
    way.run(30)
    assert way.mtu.size == MOST
    way.room = 1472
    way.run(3)
    assert way.mtu.size == MOST
    way.room = -1
    way.run(30)
    way.room = 1300  # it comes back as another
    assert way.run(10, lambda: way.mtu.size == 1292) < 5.0


@pytest.mark.parametrize("round_trip_s", [0.02, 0.3, 0.6, 1.2])
def test_a_slow_path_is_as_wide_as_it_is(round_trip_s: float) -> None:
    way = Way(1472, round_trip_s=round_trip_s)
    way.run(20)
    assert way.mtu.size == MOST
    narrow = Way(1400, round_trip_s=round_trip_s)
    narrow.run(20)
    assert (narrow.mtu.size, narrow.mtu.is_settled) == (1392, True)


def test_loss_alone_makes_nothing_narrower_for_long() -> None:
    way = Way(1472, loss=0.1)
    sizes = []
    for _ in range(600):
        way.run(1)
        sizes.append(way.mtu.size)
    assert sizes.count(MOST) > 590


def test_jumbo_frames_are_found_where_they_are_wanted() -> None:
    way = Way(8972, most=9040)
    way.run(2)
    assert way.mtu.size == 8952
    way.room = 1472
    assert way.run(10, lambda: way.mtu.size == 1472) < 3.0


def test_what_our_own_machine_refuses_is_not_tried_further() -> None:
    way = Way(1472)
    way.run(2)
    way.room = 1400
    way.mtu.refused(MOST, way.now)
    assert way.run(2, lambda: way.mtu.size == 1392) <= 3 * STEP_S
    fresh = Way(1400)
    fresh.mtu.due(fresh.now)
    fresh.mtu.refused(1412, fresh.now)
    fresh.mtu.answered(1392, fresh.now, fresh.now)
    assert (fresh.mtu.size, fresh.mtu.is_settled) == (1392, True)


def test_another_path_is_looked_at_anew_while_the_size_of_before_is_in_use() -> None:
    way = Way(1472)
    way.run(2)
    way.mtu.moved()
    assert (way.mtu.size, way.mtu.is_settled) == (MOST, True)
    way.room = 1300
    assert way.run(2, lambda: way.mtu.size == 1292) <= 3 * STEP_S
