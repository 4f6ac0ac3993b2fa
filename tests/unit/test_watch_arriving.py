"""When a viewer's own reports say that nothing arrives."""

from __future__ import annotations

from procs.webrtc_peer.arriving import FEWEST, Arriving


def test_what_is_sent_and_never_seen_is_missing_until_something_is_seen() -> None:
    arriving = Arriving()
    for at in range(5):
        arriving.sent(100 * at)
        arriving.reported(90 * at, at)
        assert arriving.missing_s == 0.0
    for at in range(5, 10):
        arriving.sent(100 * at)
        arriving.reported(360, at)
    assert arriving.missing_s == 4.0
    arriving.reported(361, 10)
    assert arriving.missing_s == 0.0


def test_nothing_is_missing_where_nothing_is_sent_or_nobody_reports() -> None:
    arriving = Arriving()
    arriving.sent(1000)
    arriving.reported(500, 0)
    for at in range(60):
        arriving.sent(1000 + FEWEST - 1)
        arriving.reported(500, at)
    assert arriving.missing_s == 0.0
    arriving.sent(2000)
    assert arriving.missing_s == 0.0
