"""A queue in which nothing stands for long, though short standstills cost nothing."""

from __future__ import annotations

import time
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

from procs.agent.aging import FOR_S, MOST_S, SHORT_S, Aging
from procs.agent.packing import Packing

SIZE = 1000


def passed(
    rate: float, seconds: float, *, sends_s: float = 0.01, stall: tuple[float, float] = (0.0, 0.0)
) -> list[float]:
    """How long messages waited that got through a path of so many a second, while one is sent every `sends_s`; it
    stands still from one time to the other."""
    aging, queue, waited, sent_at = Aging(), list[bytes](), list[float](), dict[int, float]()
    credit = 0.0
    for turn in range(round(seconds / sends_s)):
        now = turn * sends_s
        for message, _ in aging.stale(len(queue) * SIZE, now):
            queue.remove(message)
        message = turn.to_bytes(SIZE, "big")
        sent_at[turn] = now
        queue.append(message)
        aging.add(message, 1, now)
        credit = 0.0 if stall[0] <= now < stall[1] else min(credit + rate * sends_s, len(queue))
        while credit >= 1 and queue:
            waited.append(now - sent_at[int.from_bytes(queue.pop(0), "big")])
            credit -= 1
    return waited


def test_a_path_that_takes_all_loses_nothing_of_a_short_standstill() -> None:
    assert len(passed(200.0, 5.0)) == 500
    waited = passed(400.0, 5.0, stall=(1.0, 1.25))
    assert len(waited) == 500 and 0.2 < max(waited) < 0.3


def test_more_than_a_path_takes_waits_for_a_moment_and_no_longer() -> None:
    waited = passed(50.0, 10.0)
    assert len(waited) > 450 and max(waited) < SHORT_S + FOR_S + 0.1
    assert max(waited[100:]) <= SHORT_S + 0.021


def test_what_was_sent_into_an_outage_is_gone_after_it() -> None:
    waited = passed(400.0, 8.0, sends_s=0.02, stall=(2.0, 6.0))
    assert max(waited) <= MOST_S + 0.02 and len(waited) > 190
    aging = Aging()
    aging.add(b"ping", 1, 0.0)
    assert not aging.stale(4, MOST_S) and aging.stale(4, MOST_S + 0.1) == [(b"ping", 1)] and not aging.stale(0, 9.0)


class FakeChannel:
    """A data channel whose path stands still, with the queue that it shares."""

    readyState = "open"

    def __init__(self, queue: deque[tuple[Any, int, bytes]]) -> None:
        self.transport, self.bufferedAmount = SimpleNamespace(_data_channel_queue=queue), 0

    def on(self, _name: str, _take: object) -> None:
        """Nothing comes."""

    def send(self, message: bytes) -> None:
        self.transport._data_channel_queue.append((self, 53, message))
        self._addBufferedAmount(len(message))

    def _addBufferedAmount(self, size: int) -> None:
        self.bufferedAmount += size


def test_what_has_waited_for_too_long_leaves_the_queue_of_all_channels_and_is_counted() -> None:
    queue: deque[tuple[Any, int, bytes]] = deque()
    ours, other = FakeChannel(queue), FakeChannel(queue)
    other.send(b"chat")
    packing = Packing(cast(Any, ours), packed=True)
    assert packing.send([b"x" * 1000] * 3) == 3
    packing.age(time.monotonic() + MOST_S / 2)
    assert (len(queue), packing.dropped) == (4, 0)
    packing.age(time.monotonic() + MOST_S + 0.1)
    assert [message for _, _, message in queue] == [b"chat"]
    assert (ours.bufferedAmount, other.bufferedAmount, packing.dropped) == (0, 4, 3)
