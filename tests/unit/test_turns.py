"""Who calls after a loss, and when."""

from __future__ import annotations

from procs.agent.turns import AGAIN_S, GRACE_S, PATIENCE_S, Turns


def test_the_smaller_id_calls_at_once_and_the_larger_one_a_little_later() -> None:
    for is_smaller, grace_s in ((True, 0.0), (False, GRACE_S)):
        turns = Turns(is_smaller=is_smaller, keep=False)
        assert not turns.is_due(0.0)
        turns.want()
        assert turns.is_due(0.0)
        turns.begun()
        turns.connected()
        turns.lost(100.0)
        assert turns.is_due(100.0 + grace_s + 0.1) and turns.is_due(100.0) == (is_smaller and turns.is_due(100.0))
        assert is_smaller or not turns.is_due(100.0 + grace_s - 0.001)


def test_who_was_called_calls_back_for_a_minute_and_only_with_the_smaller_id() -> None:
    larger = Turns(is_smaller=False, keep=False)
    larger.lost(0.0)
    assert not larger.is_waiting
    smaller = Turns(is_smaller=True, keep=False)
    now, calls = 0.0, 0
    smaller.lost(now)
    while smaller.is_waiting:
        while not smaller.is_due(now):
            now += 0.1
        calls += 1
        smaller.begun()
        smaller.lost(now)
    assert PATIENCE_S <= now <= PATIENCE_S + AGAIN_S + 0.2 and calls > 5
    smaller.now()
    assert not smaller.is_due(now + 1e6)


def test_calls_of_a_peer_that_is_wanted_never_end_and_never_pause_for_long() -> None:
    turns = Turns(is_smaller=False, keep=True)
    for _ in range(100):
        turns.lost(0.0)
        assert turns.is_due(GRACE_S + AGAIN_S)
