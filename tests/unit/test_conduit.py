"""The way between tun_pump and a session: what goes in comes out, and never more than the window is on its way."""

from __future__ import annotations

import pytest

from procs.agent.conduit import MAX_BATCH, TELL_EVERY, WINDOW, Conduit, packets_of
from procs.errors import Refused

PACKET = bytes(1400)


def test_packets_come_out_as_they_went_in() -> None:
    sent = [bytes([n % 251]) * (1 + 37 * n % 3000) for n in range(100)] + [bytes(MAX_BATCH - 2)]
    bodies = [body for _, body in Conduit(2**20).batches(sent)]
    assert [packet for body in bodies for packet in packets_of(body)] == sent
    assert len(bodies) > 1 and max(map(len, bodies)) == MAX_BATCH


def test_a_reader_that_stands_still_costs_packets_and_nothing_else() -> None:
    conduit = Conduit()
    bodies = [body for _ in range(10) for _, body in conduit.batches([PACKET] * 50)]
    assert WINDOW - len(PACKET) - 2 < sum(map(len, bodies)) <= WINDOW
    assert conduit.dropped == 500 - WINDOW // (len(PACKET) + 2)


def test_what_was_heard_makes_room_again() -> None:
    here, there = Conduit(), Conduit()
    total = 0
    for _ in range(1000):
        for message, body in here.batches([PACKET] * 40):
            there.heard(message.at, message.seen)
            total += len(packets_of(body))
        if there.is_news_due():
            news = there.news()
            here.heard(news.at, news.seen)
    assert (total, here.dropped) == (40_000, 0)
    assert not there.is_news_due() and here.at == 40_000 * 1402 > TELL_EVERY


@pytest.mark.parametrize("seen", [0, 10**9])
def test_one_that_is_back_or_speaks_of_who_is_gone_is_sent_to(seen: int) -> None:
    conduit = Conduit()
    list(conduit.batches([PACKET] * 400))
    assert list(conduit.batches([PACKET])) == []
    conduit.heard(0, seen)
    assert list(conduit.batches([PACKET]))


def test_a_lost_message_does_not_close_the_way() -> None:
    here, there = Conduit(), Conduit()
    list(here.batches([PACKET] * 400))  # all of it is lost
    here.heard(0, 1)
    assert list(here.batches([PACKET])) == []
    there.heard(here.at, here.seen)  # as PumpUp says it within a second
    here.heard(there.at, there.seen)
    assert list(here.batches([PACKET]))


@pytest.mark.parametrize("body", [b"\0", b"\0\2x", b"\0\0", b"\0\1x\0"])
def test_what_is_no_body_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        packets_of(body)
