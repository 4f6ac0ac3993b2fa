"""Signals that wait to be taken: when they are sent, in which order, for how long."""

from __future__ import annotations

from procs import unanswered
from procs.unanswered import MAX_OPEN, MAX_SEEN, RESEND_S, Seen, Unanswered


def test_a_signal_is_sent_again_until_it_is_taken() -> None:
    one = Unanswered(10.0)
    one.add("signal_offer", "s", b"{}", 1.0)
    ((first, body),) = one.due(1.0)
    assert (first.kind, first.session_id, body) == ("signal_offer", "s", b"{}")
    assert list(one.due(1.0 + RESEND_S / 2)) == []
    assert [sent.signal for sent in one.due(1.0 + RESEND_S)] == [first], "under the same id"
    assert [sent.signal for sent in one.due(1.0 + RESEND_S, all_of_them=True)] == [first]
    one.taken(first.id)
    one.taken(first.id)
    assert list(one.due(100.0)) == [] and one.open() == []


def test_what_could_not_be_sent_holds_up_what_comes_after_it() -> None:
    one = Unanswered(10.0)
    for kind in ("watch_request", "signal_offer", "signal_ice"):
        one.add(kind, "s", b"", 1.0)
    for sent in one.due(1.0):
        assert sent.signal.kind == "watch_request"
        break  # it did not go
    assert [sent.signal.kind for sent in one.due(1.0)] == ["watch_request", "signal_offer", "signal_ice"]


def test_a_signal_is_worth_nothing_after_a_while() -> None:
    one = Unanswered(10.0)
    one.add("signal_ice", "s", b"", 1.0)
    assert one.late(10.9) == []
    assert [sent.signal.kind for sent in one.late(11.0)] == ["signal_ice"]
    assert list(one.due(11.0)) == []


def test_those_of_one_session_are_dropped_and_all_are_bounded() -> None:
    one = Unanswered(10.0)
    one.add("signal_ice", "a", b"", 0.0)
    one.add("signal_ice", "b", b"", 0.0)
    one.drop("a")
    assert [sent.signal.session_id for sent in one.open()] == ["b"]
    for _ in range(MAX_OPEN + 5):
        one.add("signal_ice", "c", b"", 0.0)
    assert len(one.open()) == MAX_OPEN


def test_ids_of_two_senders_differ() -> None:
    ids = set()
    for _ in range(100):
        one = Unanswered(1.0)
        one.add("signal_ice", "s", b"", 0.0)
        ids |= {sent.signal.id for sent in one.open()}
    assert len(ids) == 100 and max(ids) < 2**63


def test_an_id_that_came_before_is_known_for_a_while() -> None:
    one = Seen()
    assert one.is_new(1) and not one.is_new(1) and one.has(1) and not one.has(2)
    for number in range(2, MAX_SEEN + 2):
        assert one.is_new(number)
    assert one.is_new(1), "memory is bounded"
    assert unanswered.MAX_SEEN >= 2 * unanswered.MAX_OPEN, "or a signal could be acted on twice"
