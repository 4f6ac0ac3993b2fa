"""Bytes both ways over connections that break anywhere: none is lost, none comes twice, and both ends come through."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.agent.pipe import UNCONFIRMED, Pipe
from procs.errors import LinkLost, Refused
from tests.examples import some_of


class Side:
    """One side, with what it has to say and what it has heard."""

    def __init__(self, data: bytes) -> None:
        self.pipe, self.left, self.heard = Pipe(), data, b""

    def write(self, size: int) -> None:
        """Say so much more."""
        if self.pipe.has_room:
            self.pipe.write(self.left[:size])
            self.left = self.left[size:]
        if not self.left:
            self.pipe.end()

    def take(self, message: str | bytes) -> None:
        """Hear something, and hand it on at once."""
        new = self.pipe.take(message)
        self.heard += new
        self.pipe.handed(len(new))


def carry(sides: list[Side], chance: random.Random, breaks: int) -> None:
    """Have both talk until both are done, over `breaks` connections that end at any message, and one that does not."""
    while not all(side.pipe.is_sent and side.pipe.is_over for side in sides):
        for side in sides:
            side.pipe.on_connected()
        lasts = chance.randrange(12) if breaks else 1_000_000
        breaks -= bool(breaks)
        idle = 0
        while lasts and idle < 4:
            me, other = chance.sample(sides, 2)
            me.write(chance.randrange(200_000))
            message = me.pipe.next()
            if message is not None and chance.random() < 0.9:  # else it was on its way when the connection broke
                other.take(message)
            elif message is not None:
                break
            done = all(side.pipe.is_sent and side.pipe.is_over for side in sides)
            idle = idle + 1 if done else 0
            lasts -= 1


@settings(max_examples=some_of(60), deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.tuples(st.integers(0, 1_500_000), st.integers(0, 300_000)))
def test_nothing_is_lost_wherever_it_breaks(seed: int, sizes: tuple[int, int]) -> None:
    chance = random.Random(seed)
    data = [chance.randbytes(size) for size in sizes]
    sides = [Side(each) for each in data]
    carry(sides, chance, breaks=8)
    assert [sides[1].heard, sides[0].heard] == data


def test_it_takes_no_more_than_it_may_keep() -> None:
    pipe = Pipe()
    while pipe.has_room:
        pipe.write(bytes(100_000))
    pipe.on_connected()
    pipe.take('{"type": "hello", "id": "00000000000000aa", "got": 0}')
    sent = sum(len(message) - 8 for message in iter(pipe.next, None) if isinstance(message, bytes))
    assert UNCONFIRMED <= sent < UNCONFIRMED + 100_000
    pipe.take(f'{{"type": "got", "at": {sent}}}')
    assert pipe.has_room


def test_another_run_of_the_other_side_is_not_gone_on_with() -> None:
    pipe = Pipe()
    pipe.take('{"type": "hello", "id": "00000000000000aa", "got": 0}')
    with pytest.raises(LinkLost, match="begun anew"):
        pipe.take('{"type": "hello", "id": "00000000000000ab", "got": 0}')
    with pytest.raises(LinkLost, match="no more: disk full"):
        pipe.take('{"type": "broken", "why": "disk full"}')


POOR = [
    *(b"", b"1234567", b"\0" * 8, b"\0" * 7 + b"\1x", "", "{}", "x" * 5000),
    *('{"type": "got", "at": 1}', '{"type": "got", "at": -1}', '{"type": "hello", "id": "x", "got": 0}'),
    '{"type": "hello", "id": "00000000000000aa", "got": 9}',
]


@pytest.mark.parametrize("poor", POOR)
def test_what_breaks_the_rules_is_refused(poor: str | bytes) -> None:
    with pytest.raises(Refused):
        Pipe().take(poor)


pieces = st.builds(lambda at, data: at.to_bytes(8, "big") + data, st.integers(0, 9), st.binary(min_size=1, max_size=4))


@settings(max_examples=some_of(200), deadline=None)
@given(st.lists(st.text(max_size=60) | st.binary(max_size=20) | pieces, max_size=8))
def test_any_messages(messages: list[str | bytes]) -> None:
    pipe = Pipe()
    for each in messages:
        try:
            pipe.take(each)
        except (Refused, LinkLost):
            return


def test_what_comes_twice_is_taken_once() -> None:
    """Of a connection that was given up something may still arrive, after the next one has begun."""
    pipe, at = Pipe(), (0).to_bytes(8, "big")
    assert pipe.take(at + b"abc") == b"abc"
    assert pipe.take(at + b"abc") == b"" and pipe.take((1).to_bytes(8, "big") + b"bcd") == b"d"
    with pytest.raises(Refused, match="hole"):
        pipe.take((5).to_bytes(8, "big") + b"x")
