"""What devices are to say yet: nothing is lost with a conversation that is ended, and nothing is said twice."""

from __future__ import annotations

import pytest

from procs.errors import Refused
from procs.voice.sayings import MOST, Sayings


def tell(its: Sayings, child: str) -> list[str]:
    """All that this child of the kitchen was not told."""
    texts = its.untold("kitchen", child)
    for _ in texts:
        its.told(child)
    return texts


def test_what_was_not_begun_goes_to_the_next_child() -> None:
    its = Sayings()
    for text in ("one", "two", "three"):
        its.add("kitchen", text)
    assert tell(its, "a") == ["one", "two", "three"] and tell(its, "a") == []
    its.begun("kitchen", "a", 1)
    its.ended("a")
    its.begun("kitchen", "a", 3)
    its.add("kitchen", "four")
    assert tell(its, "a") == [], "it is being ended, and says nothing more"
    assert not its.died("kitchen", "a")
    assert tell(its, "b") == ["two", "three", "four"]
    its.begun("kitchen", "b", 3)
    assert tell(its, "c") == []


def test_what_two_died_of_is_given_up_and_what_is_forgotten_is_not_said() -> None:
    its = Sayings()
    its.add("kitchen", "crash")
    its.add("kitchen", "two")
    for child, given_up in (("a", False), ("b", True)):
        assert tell(its, child) == ["crash", "two"]
        assert its.died("kitchen", child) is given_up
    assert tell(its, "c") == ["two"]
    its.forget("kitchen", "c")
    its.add("kitchen", "anew")
    its.begun("kitchen", "c", 1)
    assert tell(its, "d") == ["anew"]


def test_they_are_not_without_number() -> None:
    its = Sayings()
    for number in range(MOST):
        its.add("kitchen", str(number))
    with pytest.raises(Refused, match="8 announcements wait already at kitchen"):
        its.add("kitchen", "one more")
    its.add("door", "another")
