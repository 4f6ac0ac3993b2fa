"""When a session takes its tun_pump for gone, and when for one that dies again and again."""

from __future__ import annotations

from procs.webrtc_peer.pump_lives import LATELY_S, MANY, SILENT_S, WITHIN_S, PumpLives


def test_one_that_is_silent_is_gone_until_it_speaks() -> None:
    lives = PumpLives(0.0)
    assert not lives.why_not(SILENT_S) and lives.why_not(SILENT_S + 1) == "no tun_pump for 4 s"
    lives.heard(7, 9.0)
    assert not lives.why_not(9.0) and not lives.why_not(9.0 + SILENT_S)


def test_one_that_lives_on_is_well_however_often_it_had_died_before() -> None:
    lives = PumpLives(0.0)
    for life in range(MANY):
        assert not lives.why_not(float(life))
        lives.heard(10 + life, float(life))
    assert lives.why_not(3.5) == "tun_pump was started 4 times within 4 s"
    for second in range(4, 13):
        lives.heard(10 + MANY - 1, float(second))
    assert lives.why_not(12.9) and not lives.why_not(3.0 + LATELY_S)


def test_one_that_dies_now_and_then_is_well() -> None:
    lives = PumpLives(0.0)
    for life in range(3 * MANY):
        at = life * (WITHIN_S / (MANY - 1) + 0.1)
        lives.heard(10 + life, at)
        assert not lives.why_not(at)
