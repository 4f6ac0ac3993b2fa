"""When packets leave plane 2, and when they come back; and how packets are packed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.agent.packing import MESSAGE_BYTES, pack, unpack
from procs.agent.planes import Planes

STEP_S = 0.25


class Link:
    """A path on which probes and beats go through, or do not."""

    def __init__(self, ours: tuple[int, ...] = (2, 1), theirs: tuple[int, ...] = (2, 1)) -> None:
        self.now = 100.0
        self.planes = Planes(ours, theirs, self.now)
        self.probes = 0

    def run(self, seconds: float, *, answers: bool, beats: bool) -> list[int]:
        """The planes in use, every quarter of a second."""
        used = []
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            if beats and self.now % 1 == 0:
                self.planes.lives(self.now)
            if self.planes.must_probe(self.now):
                self.probes += 1
                if answers:
                    self.planes.answered(self.now + 0.02)
            used.append(self.planes.check(self.now))
        return used


def test_it_falls_back_after_two_silent_seconds_and_returns_after_three_answers() -> None:
    link = Link()
    assert set(link.run(10, answers=True, beats=True)) == {2}
    assert link.probes == 10
    fallen = link.run(4, answers=False, beats=True)
    assert (fallen[:8], fallen[-4:]) == ([2] * 8, [1] * 4)
    assert set(link.run(2, answers=True, beats=True)) == {1}
    assert link.run(2, answers=True, beats=True)[-1] == 2
    assert link.planes.falls == 1


def test_a_path_on_which_nothing_goes_is_no_reason_to_leave_the_plane() -> None:
    link = Link()
    link.run(3, answers=True, beats=True)
    assert set(link.run(60, answers=False, beats=False)) == {2}
    assert set(link.run(1, answers=True, beats=True)) == {2}  # when it is back, both are
    assert link.planes.falls == 0


def test_one_lost_probe_and_one_lost_answer_in_a_row_change_nothing() -> None:
    link = Link()
    for _ in range(20):
        link.run(2, answers=True, beats=True)
        assert set(link.run(1.5, answers=False, beats=True)) == {2}
    assert link.probes > 100  # after a loss it asks more often


def test_three_answers_have_to_follow_each_other() -> None:
    link = Link()
    link.run(5, answers=False, beats=True)
    for _ in range(10):
        assert 2 not in link.run(2, answers=True, beats=True)
        assert 2 not in link.run(2, answers=False, beats=True)


@pytest.mark.parametrize(
    ("theirs", "plane"), [((2, 1), 2), ((1,), 1), ((), 0), ((3, 2), 2), ((7,), 0)], ids=lambda each: str(each)
)
def test_it_uses_what_both_know_and_never_probes_for_what_they_do_not(theirs: tuple[int, ...], plane: int) -> None:
    link = Link(theirs=theirs)
    link.run(1, answers=True, beats=True)
    assert link.planes.plane == plane
    assert bool(link.probes) == (plane == 2)


@given(st.lists(st.binary(min_size=1, max_size=1500)))
def test_what_is_packed_is_unpacked_in_as_few_messages_as_its_order_allows(packets: list[bytes]) -> None:
    messages = list(pack(packets))
    assert [each for _, message in messages for each in unpack(message)] == packets
    assert sum(count for count, _ in messages) == len(packets)
    assert all(count == 1 or len(message) <= MESSAGE_BYTES for count, message in messages)
    for (_, first), (_, second) in itertools.pairwise(messages):
        assert len(first) + 2 + len(unpack(second)[0]) > MESSAGE_BYTES


@given(st.binary(max_size=3000))
def test_garbage_unpacks_to_something_or_nothing(message: bytes) -> None:
    assert sum(len(each) + 2 for each in unpack(message)) <= len(message)
