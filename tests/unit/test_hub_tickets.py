"""Tickets: good once, for half a minute, for whom they were given."""

from __future__ import annotations

from procs.hub.devices.tickets import GOOD_FOR_S, MAX_OF_DEVICE, Tickets


def test_a_ticket_is_good_once() -> None:
    tickets = Tickets[str]()
    ticket = tickets.grant("cam", "i1", 0.0)
    assert len(ticket) >= 40
    bearer = tickets.take(ticket, 1.0)
    assert bearer is not None and (bearer.device_id, bearer.holder) == ("cam", "i1")
    assert tickets.take(ticket, 1.0) is None
    assert tickets.take("made up", 1.0) is None


def test_a_ticket_is_good_for_half_a_minute() -> None:
    tickets = Tickets[str]()
    early, late = tickets.grant("cam", "i1", 0.0), tickets.grant("cam", "i1", 10.0)
    assert tickets.take(early, GOOD_FOR_S) is None
    assert tickets.take(late, GOOD_FOR_S) is not None


def test_what_is_no_good_is_forgotten() -> None:
    tickets = Tickets[str]()
    for number in range(100):
        tickets.grant(f"cam {number}", "", 0.0)
    tickets.expire(GOOD_FOR_S - 0.1)
    assert len(tickets) == 100
    tickets.expire(GOOD_FOR_S)
    assert len(tickets) == 0


def test_one_device_can_not_hoard() -> None:
    tickets = Tickets[str]()
    others = tickets.grant("other", "", 0.0)
    given = [tickets.grant("cam", "", 0.0) for _ in range(10 * MAX_OF_DEVICE)]
    assert len(tickets) == MAX_OF_DEVICE + 1
    assert tickets.take(given[0], 0.0) is None and tickets.take(given[-1], 0.0) and tickets.take(others, 0.0)


def test_a_device_that_is_replaced_loses_its_tickets() -> None:
    tickets = Tickets[str]()
    old, other = tickets.grant("cam", "i1", 0.0), tickets.grant("other", "", 0.0)
    tickets.revoke("cam")
    tickets.revoke("nobody")
    assert tickets.take(old, 0.0) is None and tickets.take(other, 0.0)
    assert tickets.take(tickets.grant("cam", "i2", 0.0), 0.0)
