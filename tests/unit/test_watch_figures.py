"""What webrtc_peer sums up of its sessions, and what the warden makes of it for people and for Prometheus."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from procs.messages import MAX_BYTES, encode, warden
from procs.messages.warden import Watching, decode_to_warden
from procs.messages.watch import Beat
from procs.warden.watching import FRESH_S, Watched
from procs.webrtc_peer.figures import MAX_STREAMS, OTHERS, Figures
from scripts import status

STATS = {"bits_per_s": 2e6, "packets": 100.0, "bytes": 120_000.0, "packets_lost": 5.0, "loss": 0.05, "dropped": 2.0,
         "packets_again": 4.0, "round_trip_ms": 31.26}  # fmt: skip


def beat(session: str, path: Any = "direct", **stats: float) -> Beat:
    return Beat(session, 7, "connected", path=path, stats={**STATS, **stats})


def test_sums_stay_when_a_session_has_gone_and_begin_again_with_each() -> None:
    figures = Figures()
    figures.take("door", beat("a"), 1.0)
    figures.take("door", beat("a", packets=150, packets_lost=3), 2.0)  # late ones came: a viewer counts fewer
    figures.over("a")
    figures.take("door", beat("b", packets=10), 3.0)
    figures.take("door", Beat("c", 7, "connecting"), 3.0)
    told = figures.told(9)
    (total,) = told.totals
    assert (total.sessions, total.packets, total.packets_lost, total.octets) == (2, 160, 10, 240_000)
    assert [(each.session_id, each.state) for each in told.sessions] == [("b", "connected"), ("c", "connecting")]


def test_names_of_viewers_invention_are_bounded_and_all_of_it_fits_one_message() -> None:
    figures = Figures()
    for number in range(200):
        figures.take(f"{number:0200}", beat(f"{number:0128}"), 1.0)
        if number >= 64:
            figures.over(f"{number - 64:0128}")
    told = figures.told(9)
    assert len(told.totals) == MAX_STREAMS + 1 and told.totals[-1].stream == OTHERS
    assert sum(each.sessions for each in told.totals) == 200
    assert len(encode(told)) < MAX_BYTES and decode_to_warden(encode(told)) == told


def test_prometheus_reads_the_worst_of_a_stream_and_the_sum() -> None:
    figures, watched = Figures(), Watched()
    figures.take("door", beat("a"), 1.0)
    figures.take("door", beat("b", "relayed", loss=0.2, bits_per_s=1e6, round_trip_ms=80.0), 1.0)
    watched.take(figures.told(9), 10.0)
    lines = watched.text(10.5).splitlines()
    for line in (
        'planaria_watch_sessions{stream="door",path="relayed"} 1',
        'planaria_watch_bits_per_second{stream="door"} 3000000',
        'planaria_watch_loss_ratio{stream="door"} 0.2',
        'planaria_watch_round_trip_seconds{stream="door"} 0.08',
        'planaria_watch_packets_again_total{stream="door"} 8',
    ):
        assert line in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    order = [line.split("{")[0] for line in lines if not line.startswith("#")]
    assert len(set(families)) == len(families) and [name for name, _ in itertools.groupby(order)] == families


def test_who_says_nothing_any_more_has_no_sessions_that_are_known() -> None:
    watched = Watched()
    assert watched.sessions(1.0) is None
    watched.take(Watching(9, [], [warden.WatchTotals("door", packets=5.0)]), 1.0)
    assert watched.sessions(1.0) == []
    late = 1.1 + FRESH_S
    assert watched.sessions(late) is None
    assert 'planaria_watch_packets_total{stream="door"} 5' in watched.text(late)


def test_a_person_reads_a_row_for_each() -> None:
    figures = Figures()
    figures.take("door", beat("550e8400-e29b", asked_bits_per_s=1.5e6), 1.0)
    its = msgspec.to_builtins(figures.told(9).sessions[0])
    assert status.watcher(its) == (
        *("550e8400", "door", "connected", "0 s", "direct", "2000", "1500", "5.0%", "31 ms"),
        *("4 of 100", "2"),
    )
