"""Nothing stays down: every process of a real suite is killed, frozen and hung, its disk is full, its clock is set.

The short form of `make chaos`: what is here is found by itself, so a later program joins by being in supervisord.conf.
In every test a census looks five times a second for second copies, orphans, zombies, and what stays stopped.
"""

from __future__ import annotations

import configparser
import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from procs import proc
from procs.kinds import Address
from scripts import suite
from tests.clone import Clone
from tests.faults import disks, faults, links
from tests.faults.conftest import brought_up, mended
from tests.faults.invariants import Census
from tests.faults.subject import Recovery, Subject, growth
from tests.rig import clean_environ, until
from tests.viewers import RtspViewer

pytestmark = pytest.mark.timeout(300)
KILLED_S = 40.0  # until all is well after a kill; 0.3 to 3 s where nothing else runs
STORM_S = 60.0  # the same when all are killed at once: to start them all takes three seconds of a processor
BUSY = 3  # so much longer it may take in a test, which never has the machine for itself; `make chaos` has it
SILENT_S = 6.0  # until whatever is frozen or hangs is another process
WELL_S = 40.0  # and all is well after that
RESTARTS, STORMS = 9, 1
LOOPS_S = 15.0  # how long crash loops are watched at least


@pytest.fixture(autouse=True)
def census(request: pytest.FixtureRequest) -> Iterator[Census | None]:
    """What was broken in a test fails it."""
    fixture = next((name for name in ("subject", "strained") if name in request.fixturenames), "")
    if not fixture:
        yield None
        return
    with Census(request.getfixturevalue(fixture).root, BUSY) as looking:
        yield looking
    assert looking.broken == []
    assert looking.looks


def hit(
    subject: Subject, census: Census, kinds: Mapping[str, str], within_s: float, old: Sequence[int] = ()
) -> Recovery:
    """Do some faults at once and wait until all is well. `old`: pids that have to be dead within three seconds."""
    with faults.together(subject.targets(), kinds) as done:
        census.excused = {fault.pid for fault in done.values()}
        if old:
            until(lambda: not any(proc.is_alive(pid) for pid in old), 3)
        recovery = subject.recover(done, within_s)
    census.excused = set()
    assert not recovery.missing, f"{dict(kinds)}: {recovery.missing}"
    return recovery


def below_supervisord(subject: Subject) -> dict[str, int]:
    """All but supervisord."""
    return {name: pid for name, pid in subject.targets().items() if name != "supervisord"}


# --- crash loops: they go on beside the other tests, in a checkout of their own ----------------------

# Each start is noted, and what it has cost, its children included; once mended it stays. A program of ours under it is
# the shell's child, not supervisord's.
LOOPER = """
unset SUPERVISOR_ENABLED
echo >>{name}.starts
if [ -e mended ]; then echo >>{name}.lives; exec sleep 1000; fi
{command}
times >>{name}.cpu
exit 1
"""
PROGRAM = """
[program:loop_{name}]
command=/bin/sh {name}.sh
directory=%(here)s
autorestart=true
startsecs={startsecs}
stopsignal=KILL
"""
ONE_PICTURE = "ffmpeg -v error -f lavfi -i testsrc2=size=64x64 -frames:v 1 -c:v libx264 -f mpegts pipe:1"
LOOPS = {
    "at_once": ("false", 3),
    "after_one_frame": (f"(cd ../.. && .venv/bin/python -m procs.capture --fifo temp/x.ts -- {ONE_PICTURE})", 0),
    "after_its_grace": ("sleep 1.5", 1),
}  # fmt: skip


class Loops:
    """Programs that fail at three ages, under supervision like ours."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "run/supervisor.d"
        self.started_s = time.monotonic()

    def starts(self) -> dict[str, int]:
        """How often each was started."""
        return {name: self._lines(name, "starts") for name in LOOPS}

    def lives(self) -> bool:
        """Whether all of them were started after they had been mended."""
        return all(self._lines(name, "lives") for name in LOOPS)

    def cpu_s(self, name: str) -> float:
        """What all runs of one that are over have used."""
        text = (self.folder / f"{name}.cpu").read_text()
        return sum(60 * int(minutes) + float(seconds) for minutes, seconds in re.findall(r"(\d+)m([\d.]+)s", text))

    def _lines(self, name: str, kind: str) -> int:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / f"{name}.{kind}").read_text().count("\n")
        return 0


@pytest.fixture(scope="module")
def loops(hooked: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loops]:
    """supervisord as it is configured, but for what it serves people with, with three programs that fail."""
    other = Clone(tmp_path_factory.mktemp("loops"))
    (other.root / ".venv").symlink_to(hooked.root / ".venv")
    conf = configparser.RawConfigParser()
    conf.read(other.root / "supervisord.conf")
    for section in conf.sections():
        if re.match(r"(fcgi-)?program:(?!keeper$)", section):
            conf.remove_section(section)
    with (other.root / "supervisord.conf").open("w") as file:
        conf.write(file)
    suite.prepare_run_dir(other.root)
    (other.root / "temp").mkdir()
    found = Loops(other.root)
    found.folder.mkdir()
    for name, (command, startsecs) in LOOPS.items():
        (found.folder / f"{name}.sh").write_text(LOOPER.format(name=name, command=command))
        (found.folder / f"{name}.conf").write_text(PROGRAM.format(name=name, startsecs=startsecs))
    try:
        # by hand: `make up` would take these programs away
        boss: list[str | Path] = [
            other.root / ".venv/bin/python",
            "-m",
            "supervisor.supervisord",
            "-c",
            "supervisord.conf",
        ]
        environ = clean_environ(**{proc.MARK: str(other.root)})
        subprocess.run(boss, cwd=other.root, env=environ, check=True, timeout=30)
        yield found
    finally:
        suite.kill_all(other.root)


def test_loops_begin(loops: Loops) -> None:
    until(lambda: all(count >= 2 for count in loops.starts().values()), 15)


# --- one after the other -----------------------------------------------------------------------------


def test_whatever_is_killed_is_back(subject: Subject, census: Census) -> None:
    names = subject.targets().keys() - {"supervisord"}
    assert len(names) > 5
    for together in packed([(name, "killed") for name in sorted(names)], noticing(subject.root)):
        assert hit(subject, census, dict(together), KILLED_S).healthy_ms is not None


@pytest.mark.long  # test_keeper.py kills it, too, and a storm takes it along
def test_a_killed_supervisord_takes_all_with_it(subject: Subject, census: Census) -> None:
    old = [pid for name, pid in subject.targets().items() if name not in ("supervisord", "keeper")]
    assert hit(subject, census, {"supervisord": "killed"}, KILLED_S, old).healthy_ms is not None


def test_whatever_is_frozen_or_hangs_is_replaced(subject: Subject, census: Census) -> None:
    late = []
    cases = by_turns({name: faults.possible(pid) for name, pid in subject.targets().items()})
    for together in packed(cases, noticing(subject.root)):
        recovery = hit(subject, census, dict(together), BUSY * SILENT_S + WELL_S)
        late += [(name, at_ms) for name, at_ms in recovery.new_pid_ms.items() if at_ms > BUSY * SILENT_S * 1000]
    assert not late


def by_turns(possible: Mapping[str, Collection[str]]) -> list[tuple[str, str]]:
    """Half of the processes frozen, the others hung where they can be; the other half of it all is for `make chaos`.
    So is a supervisord that hangs: it is ended as one that is frozen is, but takes 5 s."""
    cases = []
    for number, name in enumerate(sorted(possible)):
        kind = "hung" if number % 2 and "hung" in possible[name] and name != "supervisord" else "frozen"
        cases.append((name, kind))
    return cases


def noticing(root: Path) -> set[str]:
    """Who notices what others do: supervisord, and its event listeners. Each is hit alone."""
    conf = configparser.RawConfigParser()
    conf.read(root / "supervisord.conf")
    return {"supervisord", *(name.partition(":")[2] for name in conf.sections() if name.startswith("eventlistener:"))}


def packed(cases: Sequence[tuple[str, str]], alone: set[str]) -> list[list[tuple[str, str]]]:
    """Cases that can be done at once, together: neither has to do with the other, and none of them notices. What takes
    longest comes first, so that it comes together."""
    rounds: list[list[tuple[str, str]]] = []
    for case in sorted(cases, key=lambda case: (case[1] != "hung", case)):
        fits = (
            r for r in rounds if case[0] not in alone and all(_are_strangers(case[0], name, alone) for name, _ in r)
        )
        found = next(fits, None)
        if found is None:
            rounds.append([case])
        else:
            found.append(case)
    return rounds


def _are_strangers(one: str, other: str, alone: set[str]) -> bool:
    return not (other in alone or f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"))


def test_what_is_done_at_once_has_nothing_to_do_with_each_other() -> None:
    cases = [(name, kind) for name in ("a", "a/b", "a/b/c", "d", "w", "supervisord") for kind in ("frozen", "hung")]
    rounds = packed(cases, {"w", "supervisord"})
    assert sorted(case for each in rounds for case in each) == sorted(cases)
    assert [len(each) for each in rounds if each[0][0] in ("w", "supervisord")] == [1] * 4
    assert not [each for each in rounds if {"a", "a/b"} <= {name for name, _ in each}]
    assert len(rounds) < len(cases)


def test_crash_loops_cost_little(loops: Loops) -> None:
    until(lambda: time.monotonic() - loops.started_s > LOOPS_S, LOOPS_S)
    free = {"at_once": 4, "after_one_frame": 4, "after_its_grace": 4}
    for name, count in loops.starts().items():
        lasted_s = time.monotonic() - loops.started_s
        paced = count - free[name]
        assert count >= 4, f"{name} is tried again"
        assert paced <= 3 + lasted_s / 15, f"{name}: {count} starts in {lasted_s:.0f} s"
        assert loops.cpu_s(name) / count * max(1, paced) / lasted_s < 0.05, name
    (loops.folder / "mended").touch()


# --- all at once -------------------------------------------------------------------------------------


@pytest.mark.long  # another takes supervisord with it, and others strike while the disk is bad
def test_a_storm_of_all_below_supervisord(subject: Subject, census: Census) -> None:
    for _ in range(STORMS):
        hit(subject, census, dict.fromkeys(below_supervisord(subject), "killed"), STORM_S)


def test_who_sees_many_restarts_does_not_grow(subject: Subject) -> None:
    assert growth(subject, RESTARTS) == []


def test_a_storm_with_supervisord_in_it(subject: Subject, census: Census) -> None:
    names = [name for name in subject.targets() if name != "keeper"]
    hit(subject, census, dict.fromkeys(names, "killed"), STORM_S)


def test_a_slow_reader_harms_nobody(subject: Subject) -> None:
    """It stops reading, wakes up, is cut off; the others see every picture, and nobody grows."""
    producer = subject.targets()["go2rtc/headless_agent"]
    since, rss = time.monotonic_ns(), proc.rss_bytes(producer)
    with links.lossy(subject.plan.suite.rtsp) as link:
        slow = RtspViewer(Address("127.0.0.1", link.here.port), "omega-0")
        slow.start()
        until(lambda: slow.arrivals)
        link.is_black_hole = True
        time.sleep(2)
        assert time.monotonic_ns() - slow.arrivals[-1].at_ns > 1.5e9
        link.is_black_hole = False
        link.reset()
        until(lambda: slow.ended)
    assert subject.targets()["go2rtc/headless_agent"] == producer
    assert proc.rss_bytes(producer) < rss + 10e6
    assert max(each.gap_ms(since) for each in subject.watching) < 500


def test_whoever_leaks_is_replaced(subject: Subject, census: Census) -> None:
    hit(subject, census, {"go2rtc/headless_agent": "leaking"}, BUSY * SILENT_S + WELL_S)


# --- the disk and the clock --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> faults.Clock:
    """The clock of `strained`."""
    return faults.Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def on_its_own_disk(hooked: Clone, clock: faults.Clock) -> Iterator[Subject]:
    """The suite with its run directory on a disk of its own, and with a clock that can be set."""
    suite.kill_all(hooked.root)
    (hooked.root / "run").mkdir(exist_ok=True)
    with disks.disk(hooked.root / "run"), brought_up(hooked, **clock.environ) as running:
        yield running


@pytest.fixture
def strained(hooked: Clone, on_its_own_disk: Subject, clock: faults.Clock) -> Subject:
    """That suite, all well."""
    return mended(on_its_own_disk, hooked, **clock.environ)


BAD_DISKS = {"full": disks.full_disk, "slow": disks.slow_disk}


@pytest.mark.parametrize("kind", ["full", pytest.param("slow", marks=pytest.mark.long)])  # slow it is below, too
def test_all_come_back_while_the_disk_is_bad(strained: Subject, census: Census, kind: str) -> None:
    bad: Callable[[Path], AbstractContextManager[None]] = BAD_DISKS[kind]
    with bad(strained.root / "run"):
        hit(strained, census, dict.fromkeys(below_supervisord(strained), "killed"), STORM_S)


def test_while_nothing_can_be_written_what_runs_runs_on_and_the_rest_is_back_after(strained: Subject) -> None:
    before = strained.targets()
    since = time.monotonic_ns()
    with disks.read_only(strained.root / "run"):
        time.sleep(1)
        # But for the hub, if it had something to write: SQLite's index of its log is mapped memory, and writing to a
        # page of it that can't be had is SIGBUS.
        assert {**strained.targets(), "hub": before["hub"]} == before
        assert max(each.gap_ms(since) for each in strained.watching) < 1000
        with faults.together(before, dict.fromkeys(below_supervisord(strained), "killed")) as done:
            time.sleep(1)
    recovery = strained.recover(done, STORM_S)
    assert not recovery.missing


@pytest.mark.parametrize("by_s", [pytest.param(86_400, marks=pytest.mark.long), -86_400])
def test_the_clock_is_set_and_the_disk_is_slow(
    strained: Subject, census: Census, clock: faults.Clock, by_s: int
) -> None:
    before, since = strained.targets(), time.monotonic_ns()

    def nobody_minds() -> bool:
        gaps = [each.gap_ms(since) for each in strained.watching]
        return strained.targets() == before and max(gaps) < 1000

    with faults.clock_stepped(clock, by_s):
        time.sleep(1.5)
        assert nobody_minds(), "nobody was taken for dead"
        with disks.slow_disk(strained.root / "run"):
            hit(strained, census, dict.fromkeys(below_supervisord(strained), "killed"), STORM_S)
        before, since = strained.targets(), time.monotonic_ns()
    time.sleep(1)
    assert nobody_minds(), "nor when it is set back"


# --- the crash loops, at last ------------------------------------------------------------------------


def test_crash_loops_are_over_once_mended_and_nobody_typed_start(loops: Loops) -> None:
    assert (loops.folder / "mended").exists()
    until(loops.lives, 60)
