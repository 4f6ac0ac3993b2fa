"""The warden's policy and supervisord's pacing, held against what they promise, under any sequence of events."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.warden import limits
from procs.warden.go2rtc import Stream
from procs.warden.pacing import BURST, CAP_S, EARLY_COST, SETTLED_S, Row
from procs.warden.policy import Known, Policy, Verdict

BOSS, GO2RTC, KEEPER, PRODUCER, FOREIGN = 10, 11, 12, 13, 14
ALL = [
    Known("go2rtc", GO2RTC, 0.0, gives_signs=True),
    Known("keeper", KEEPER, 0.0, gives_signs=True),
    Known("headless_agent omega-0", PRODUCER, 0.0, gives_signs=True),
    Known("coturn", FOREIGN, 0.0, gives_signs=False),
]
SIGNS = [known.pid for known in ALL if known.gives_signs]
gaps = st.lists(st.sampled_from([0.1, 0.5, 0.9, 1.0, 3.0, 60.0]), min_size=1, max_size=60)


def at_work(policy: Policy, until_s: float, *, silent: Sequence[int] = (), start_s: float = 0.0) -> list[Verdict]:
    """Twice a second all give signs but the silent ones (BOSS: supervisord); returns what is decided."""
    found = []
    for half in range(int(start_s * 2), int(until_s * 2)):
        now = half / 2
        if BOSS not in silent:
            policy.see_supervisord(BOSS, now)
        policy.see_processes(ALL)
        for pid in SIGNS:
            if pid not in silent:
                policy.see_sign(pid, now)
        found += policy.decide(now)
    return found


@given(gaps, st.data())
def test_who_gives_signs_is_left_alone_whatever_happens_to_the_warden(steps: list[float], data: st.DataObject) -> None:
    policy, now = Policy(), 1000.0
    for gap in steps:
        now += gap  # a long one: we were stopped, or the machine slept
        policy.see_supervisord(BOSS, now)
        policy.see_processes(ALL)
        for pid in data.draw(st.permutations(SIGNS)):
            policy.see_sign(pid, now - data.draw(st.sampled_from([0.0, 0.4, 0.9])))
        assert policy.decide(now) == []


@given(st.floats(3, 1000))
def test_a_warden_that_was_away_hears_all_before_it_judges(away_s: float) -> None:
    policy = Policy()
    assert at_work(policy, 10) == []
    policy.see_supervisord(BOSS, 10 + away_s)
    assert policy.decide(10 + away_s) == [], "what they said meanwhile is still to be read"
    silent = [pid for step in range(1, 12) for pid in [v.pid for v in _later(policy, 10 + away_s + step / 2)]]
    assert silent, "but who stays silent is judged"


def _later(policy: Policy, now: float) -> list[Verdict]:
    policy.see_supervisord(BOSS, now)
    return policy.decide(now)


@given(st.sampled_from([GO2RTC, KEEPER, PRODUCER]), st.floats(3, 50))
def test_who_falls_silent_is_ended_within_six_seconds_and_nobody_else(pid: int, after_s: float) -> None:
    policy = Policy()
    assert at_work(policy, after_s) == []
    (verdict, *more) = at_work(policy, after_s + 6, silent=[pid], start_s=after_s)
    assert (verdict.pid, verdict.kind) == (pid, "silent") and "no sign of life for 4" in verdict.reason
    assert all(each.pid == pid for each in more), "only again, if it is still there"
    assert verdict.asks_for_stack == (pid != GO2RTC)


def test_what_never_served_is_ended_after_its_start_limit() -> None:
    verdicts = at_work(Policy(), 100, silent=[GO2RTC, KEEPER, PRODUCER])
    first = {verdict.pid: verdict for verdict in reversed(verdicts)}
    assert "has not served for 15" in first[GO2RTC].reason and "has not served for 20" in first[KEEPER].reason
    assert PRODUCER not in first, "it sees to that itself"


@given(st.sampled_from([GO2RTC, KEEPER, FOREIGN, 99]))
def test_what_is_stopped_is_ended_within_three_seconds_heartbeats_or_not(pid: int) -> None:
    policy = Policy()
    at_work(policy, 5)
    verdicts = []
    for half in range(10, 18):
        policy.see_stopped({pid: "it"}, half / 2)
        verdicts += at_work(policy, half / 2 + 0.5, start_s=half / 2)
    assert {(v.pid, v.kind) for v in verdicts} == {(pid, "stopped")}
    policy.see_stopped({}, 9.0)
    assert at_work(policy, 20, start_s=9) == []


def test_a_silent_supervisord_is_ended_and_nobody_before_it() -> None:
    policy = Policy()
    at_work(policy, 5)
    verdicts = at_work(policy, 11, silent=[BOSS, GO2RTC, KEEPER, PRODUCER], start_s=5)
    assert [(v.pid, v.kind) for v in verdicts][:1] == [(BOSS, "silent")]
    assert {v.pid for v in verdicts} == {BOSS}, "what is ended now would not be started again"


def test_a_stopped_supervisord_is_ended_sooner() -> None:
    policy = Policy()
    at_work(policy, 5)
    policy.see_stopped({BOSS: "supervisord", KEEPER: "keeper"}, 5.0)
    (verdict,) = at_work(policy, 8, silent=[BOSS], start_s=5)
    assert (verdict.pid, verdict.kind) == (BOSS, "stopped")


@pytest.mark.parametrize(
    ("name", "used_mb", "ends"), [("go2rtc", 900, False), ("go2rtc", 1100, True), ("keeper", 60, True)]
)
def test_memory_has_a_ceiling(name: str, used_mb: int, ends: bool) -> None:
    policy = Policy(ceilings={"keeper": 50_000_000})
    at_work(policy, 5)
    pid = next(known.pid for known in ALL if known.name == name)
    policy.see_memory(pid, used_mb * 1_000_000)
    verdicts = at_work(policy, 5.5, start_s=5)
    assert [(v.pid, v.kind) for v in verdicts] == ([(pid, "memory")] if ends else [])


def flowing(
    policy: Policy, seconds: range, watched_by: int, received: Sequence[int | None], pids: tuple[int, ...]
) -> set[str]:
    """A stream second by second; returns the kinds of all verdicts."""
    kinds = set()
    for second, count in zip(seconds, received, strict=True):
        policy.see_streams({"omega-0": Stream(watched_by, count, True, 0)}, {"omega-0": pids}, second)
        kinds |= {verdict.kind for verdict in at_work(policy, second + 1, start_s=second)}
    return kinds


@pytest.mark.parametrize(
    ("watched_by", "received", "pids", "kinds"),
    [
        (1, list(range(12)), (PRODUCER,), set()),
        (1, [7] * 12, (PRODUCER,), {"stream"}),
        (0, [7] * 12, (), set()),  # nobody watches, nobody makes it
        (1, [None] * 12, (PRODUCER,), set()),  # it has just been started
        (0, [None] * 40, (77,), {"stream"}),  # go2rtc waits for its first byte for ever, and so does whoever asked
        (1, [None] * 12, (), set()),  # go2rtc tries again by itself
    ],
)
def test_a_producer_that_lives_and_gives_nothing_is_ended(
    watched_by: int, received: list[int | None], pids: tuple[int, ...], kinds: set[str]
) -> None:
    policy = Policy()
    at_work(policy, 3)
    assert flowing(policy, range(3, 3 + len(received)), watched_by, received, pids) == kinds


def test_a_stream_that_go2rtc_has_forgotten_ends_go2rtc_once() -> None:
    policy = Policy()
    at_work(policy, 3)
    until = 3 + int(limits.FORGOTTEN_S)
    assert flowing(policy, range(3, until), 1, [7] * (until - 3), ()) == set()
    assert flowing(policy, range(until, until + 7), 1, [7] * 7, ()) == {"escalated"}
    assert flowing(policy, range(until + 7, until + 400), 1, [7] * 393, ()) == set(), "at most every ten minutes"


def test_one_forgotten_stream_does_not_cut_off_those_who_watch_another() -> None:
    policy = Policy()
    at_work(policy, 3)
    for second in range(3, 400):
        streams = {"a": Stream(1, 7, True, 0), "b": Stream(1, second, True, 0)}
        policy.see_streams(streams, {"b": (PRODUCER,)}, second)
        assert at_work(policy, second + 1, start_s=second) == []


def test_a_slow_show_and_a_reader_of_a_pipe_are_left_alone() -> None:
    slow, waiting = Policy(stall_limit_s=20.0), Policy()
    at_work(slow, 3)
    at_work(waiting, 3)
    for second in range(3, 60):
        slow.see_streams({"a": Stream(1, second // 18, True, 0)}, {"a": (77,)}, second)
        waiting.see_streams({"a": Stream(1, 7, True, 0)}, {"a": (77,)}, second, readers=[77])
        assert at_work(slow, second + 1, start_s=second) + at_work(waiting, second + 1, start_s=second) == []


def test_a_hopeless_go2rtc_ends_supervisord_once_an_hour() -> None:
    policy = Policy()
    at_work(policy, 3)
    policy.see_failures({"go2rtc": limits.HOPELESS_STARTS})
    assert [(v.pid, v.kind) for v in at_work(policy, 3500, start_s=3)] == [(BOSS, "escalated")]
    assert [v.kind for v in at_work(policy, 3700, start_s=3500)] == ["escalated"]
    again = Policy(escalated_at={"supervisord": 3700.0})
    again.see_failures({"go2rtc": limits.HOPELESS_STARTS})
    assert at_work(again, 3800, start_s=3700) == [], "a former warden has done so"


ends = st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 0.1, 1.0, 4.0, 59.0, SETTLED_S, 1e6]))


@given(st.lists(ends, max_size=200))
def test_nobody_is_down_for_longer_than_the_cap(
    runs: list[tuple[bool, bool, float]],
) -> None:
    row = Row()
    for killed, served, age_s in runs:
        pause_s = row.ended(killed=killed, served=served, age_s=age_s)
        assert 0.0 <= pause_s <= CAP_S
        if age_s >= SETTLED_S:
            assert pause_s == 0.0


@given(st.lists(st.sampled_from([0.1, 1.0, 4.0, 70.0]), max_size=250))
def test_hundreds_of_kills_while_it_serves_cost_nothing(ages: list[float]) -> None:
    row = Row()
    assert [row.ended(killed=True, served=True, age_s=age_s) for age_s in ages] == [0.0] * len(ages)


def test_a_few_dozen_kills_before_it_served_cost_nothing() -> None:
    row = Row()
    pauses = [row.ended(killed=True, served=False, age_s=0.1) for _ in range(40)]
    free = pauses.index(next(pause for pause in pauses if pause))
    assert 25 <= free <= 30 and min(pauses[free:]) >= CAP_S / 2


def test_what_is_killed_again_and_again_for_ever_is_paced_at_last() -> None:
    row, now, starts = Row(), 0.0, 0
    while now < 3600:
        starts += 1
        now += 0.2 + row.ended(killed=True, served=True, age_s=0.2)
    assert BURST < starts < BURST + 3600 / 5


@given(st.sampled_from([0.0, 0.3, 4.0]), st.booleans())
def test_a_crash_loop_is_bounded_at_any_age(age_s: float, killed: bool) -> None:
    row, now, starts = Row(), 0.0, 0
    while now < 600:
        starts += 1
        now += age_s + row.ended(killed=killed, served=not killed, age_s=age_s)
    assert starts <= 4 + BURST / EARLY_COST * killed + 6 + 600 / (CAP_S / 2), f"{starts} starts in ten minutes"


def test_a_row_ends_with_a_run_that_has_settled() -> None:
    row = Row(rng=lambda: 1.0)
    pauses = [row.ended(killed=False, served=False, age_s=0.1) for _ in range(9)]
    assert pauses == [0, 0, 1, 2, 4, 8, 16, 30, 30]
    assert row.ended(killed=False, served=True, age_s=SETTLED_S) == 0
    assert row.ended(killed=False, served=False, age_s=0.1) == 0


def test_names_lead_to_their_limits() -> None:
    kinds = {
        name: limits.kind_of(name)
        for name in ("go2rtc", "capture_front_door", "headless_agent omega-0", "x y", "proxy:proxy_0")
    }
    assert list(kinds.values()) == ["go2rtc", "capture", "headless_agent", "x", "proxy"]
    assert math.isinf(limits.LIMITS["capture"].start_s)
