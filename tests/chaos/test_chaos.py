"""The schedule and the report of `make chaos`: pure, so tested by themselves."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping

import pytest

from procs.settings import ROOT
from tests.chaos import schedule
from tests.chaos.report import Report, Row
from tests.faults.faults import Fault
from tests.faults.subject import Subject

POSSIBLE = {
    "supervisord": ("killed", "frozen", "looping", "hung", "leaking"),
    "keeper": ("killed", "frozen", "looping", "hung"),
    "warden": ("killed", "frozen", "looping", "hung"),
    "go2rtc": ("killed", "frozen"),
    "go2rtc/headless_agent": ("killed", "frozen", "looping", "hung"),
    "capture_a": ("killed", "frozen", "looping", "hung"),
    "capture_a/fork": ("killed", "frozen"),
    "capture_a/fork/ffmpeg": ("killed", "frozen"),
}
SEEDS = range(20)


def rounds(seed: int, number: int) -> list[schedule.Round]:
    """The first rounds of a seed."""
    return list(itertools.islice(schedule.rounds(seed, POSSIBLE), number))


def test_a_seed_gives_the_same_faults_again_and_another_gives_others() -> None:
    shuffled = dict(reversed(POSSIBLE.items()))
    assert rounds(7, 100) == rounds(7, 100) == list(itertools.islice(schedule.rounds(7, shuffled), 100))
    assert rounds(7, 100) != rounds(8, 100)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_are_hit_evenly_by_all_that_can_be_done_to_them(seed: int) -> None:
    calm = [round_.hits[0] for round_ in rounds(seed, 200) if len(round_.hits) == 1]
    for length in (8, 16, 24, 40):
        counts = Counter(hit.target for hit in calm[:length])
        assert set(counts.values()) == {length // 8} and set(counts) == set(POSSIBLE)
    done = {(hit.target, hit.kind) for hit in calm[:32]}
    assert done == {(name, kind) for name, kinds in POSSIBLE.items() for kind in kinds if kind in schedule.KINDS}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_leaves_somebody_who_can_start_the_rest(seed: int) -> None:
    storms = [round_.hits for round_ in rounds(seed, 200) if len(round_.hits) > 1]
    assert len(storms) > 15
    for hits in storms:
        names = [hit.target for hit in hits]
        assert len(names) == len(set(names))
        assert not set(schedule.NEVER_BOTH) <= set(names)
        assert all(hit.kind in POSSIBLE[hit.target] for hit in hits)
    assert {len(hits) for hits in storms} >= {2, len(POSSIBLE) - 1}, "small ones and whole ones"


def test_pauses_lie_on_both_sides_of_startsecs() -> None:
    pauses = [round_.pause_s for round_ in rounds(1, 200)]
    assert min(pauses) < 0.5 and max(pauses) > 1.5


class Slow(Subject):
    """A hub that is another one at the third look, and answers a while later than it is asked."""

    def __init__(self) -> None:
        self.watching, self.asked = (), 0
        self._looks = iter([7, 7, 8])

    def targets(self) -> dict[str, int]:
        return {"hub": next(self._looks)}

    def why_unhealthy(self, gone: Mapping[str, int] | None = None, since_ns: int = 0) -> str:
        assert next(self._looks, None) is None, "whoever is not there is asked"
        self.asked += 1
        threading.Event().wait(0.2)
        return "" if self.asked > 1 else "hub: it does not serve yet"


def test_who_is_slow_to_answer_does_not_hide_when_there_was_another(monkeypatch: pytest.MonkeyPatch) -> None:
    paused_s: list[float] = []
    monkeypatch.setattr(time, "sleep", paused_s.append)
    found = Slow().recover({"hub": Fault(7, time.monotonic_ns(), -1)}, 30)
    assert found.missing == "" and set(found.new_pid_ms) == {"hub"}
    assert max(paused_s) < 0.2, "to wait for an answer takes no processor"


def row(target: str = "go2rtc", number: int = 1, **more: object) -> Row:
    """One fault that went well, but for `more`."""
    known = {"at_s": 1.0, "kind": "killed", "new_pid_ms": 12.0, "healthy_ms": 230.0, "gap_ms": 400.0}
    return Row(target=target, round=number, **{**known, **more})  # type: ignore[arg-type]


def good(minutes: float = 1.0) -> Report:
    """A run in which all went well."""
    rows = [row(name, number) for number, name in enumerate([*"abc"] * 20, 1)]
    return Report(5, minutes, ("a", "b", "c"), rows)


def test_a_good_run_is_good_and_says_so() -> None:
    for minutes in (1.0, 10.0):
        assert good(minutes).failures() == []
    assert good().as_table().splitlines()[-1] == "60 faults, 0 storms, 0 invariants broken; seed 5: all recovered"
    assert json.loads(json.dumps(good().as_json()))["failures"] == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda report: report.broken.append("3.0 s: orphan 7: x"), "broken: 3.0 s: orphan 7: x"),
        (lambda report: report.rows.append(row("a", 61, missing="no picture", healthy_ms=None)), "no picture"),
        (lambda report: report.rows.clear(), "0 faults only; it takes 60"),
        (lambda report: setattr(report, "targets", ("a", "new")), "new was hit 0 times only; it takes 3"),
    ],
)
def test_a_run_fails_for_each_reason(change: object, why: str) -> None:
    report = good(10.0)
    assert callable(change)
    change(report)
    assert any(why in failure for failure in report.failures())
    assert "FAILED: " in report.as_table() and why in report.as_table()


def test_the_table_shows_every_fault_with_its_times() -> None:
    report = Report(5, 1.0, ("go2rtc",), [row(), row("warden", 2, new_pid_ms=None), row("a", 3), row("b", 3)])
    lines = report.as_table().splitlines()
    assert lines[1].split() == ["1.0", "s", "1", "go2rtc", "killed", "12", "ms", "230", "ms", "400", "ms"]
    assert "never" in lines[2]
    assert "1 storms" in lines[-2] or "1 storms" in report.as_table()
    summary = [line for line in lines if line.startswith("go2rtc")]
    assert len(summary) == 1 and summary[0].split()[:3] == ["go2rtc", "killed", "1"]


def test_help_says_what_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "--minutes" in done.stdout and "--seed" in done.stdout
