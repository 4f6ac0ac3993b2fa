"""supervisord is killed under a real suite; its keeper brings it back, and yields to whoever ends or starts it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from procs import journal, locks, proc
from procs.keeper import start
from procs.settings import ROOT
from scripts import health, suite
from scripts.plan import load_plan
from scripts.suite_settings import Suite
from tests.clone import Clone
from tests.rig import clean_environ, until

pytestmark = pytest.mark.timeout(300)  # alone, the first one installs from the package index
IS_LONG = bool(os.environ.get("PLANARIA_LONG"))
TURNS, KILLS, CAUGHT = (20, 6, 3) if IS_LONG else (3, 4, 1)
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


@pytest.fixture
def up(clone: Clone) -> Clone:
    """The clone as `make up` leaves it, with a keeper that watches."""
    if clone.cli("status").returncode:
        assert clone.make("up").returncode == 0
    until(lambda: watching(clone))
    return clone


def pid_of(clone: Clone, name: str) -> int:
    """The pid of a program; 0 if supervisord or the program is down."""
    with contextlib.suppress(Exception):
        return next((p.pid for p in suite.processes(clone.root) if p.name == name), 0)
    return 0


def keepers(clone: Clone) -> list[int]:
    """Every keeper, whoever started it."""
    return [pid for pid in clone.living() if "procs.keeper" in proc.words(pid)]


def watching(clone: Clone) -> bool:
    """Whether there is one keeper, and it watches the living supervisord."""
    pid = proc.supervisord(clone.root)
    pid_of(clone, "keeper")  # a supervisord that nobody asks starts its programs up to a second late
    return bool(pid) and len(keepers(clone)) == 1 and f'"watching supervisord", "pid": {pid}}}' in log_of(clone)


def log_of(clone: Clone) -> str:
    """What keepers have written."""
    path = clone.root / "run/log/keeper.log"
    return path.read_text() if path.exists() else ""


def serves(clone: Clone) -> bool:
    """Whether go2rtc's API answers."""
    settings: Suite = load_plan(clone.root, clean_environ()).suite
    try:
        return bool(health.get_json(settings, "/api/streams"))
    except (OSError, ValueError):
        return False


def kill_supervisord(clone: Clone) -> int:
    """Kill it; returns the pid that it had."""
    pid = proc.supervisord(clone.root)
    assert pid
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_supervisord_is_back_with_everything_once(up: Clone) -> None:
    before, killed_at_s, environ = set(up.living()), time.time(), suite.environment(up.root)
    old = kill_supervisord(up)
    until(lambda: proc.supervisord(up.root) not in (0, old), 10)
    until(lambda: serves(up), 10)
    until(lambda: watching(up))
    assert up.living() == up.supervised() and not before & set(up.living()), "all of it is new"
    until(lambda: up.cli("status").returncode == 0, 30)
    assert suite.environment(up.root) == {"PLANARIA_RUN_DIR": str(up.root / "run"), **environ}, "as all its children"
    down, back = [e for e in journal.read(up.root / "run", killed_at_s - 1) if e["process"] == "supervisord"]
    assert (down["event"], down["kind"], down["pid"]) == ("down", "killed", old)
    assert (back["event"], back["pid"]) == ("up", proc.supervisord(up.root)) and 0 < back["ms"] < 60_000


def test_it_comes_back_however_often_and_soon_it_is_killed(up: Clone) -> None:
    """Also within the 2 s in which the former keeper still watches and the next one waits."""
    chance = random.Random(SEED)
    for _ in range(KILLS):
        old = kill_supervisord(up)
        until(lambda old=old: proc.supervisord(up.root) not in (0, old), 10)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.5))
    until(lambda: watching(up) and serves(up))
    assert up.living() == up.supervised(), f"SEED={SEED}"


def test_a_keeper_that_is_killed_is_back_and_does_its_work(up: Clone) -> None:
    (old,) = keepers(up)
    os.kill(old, signal.SIGKILL)
    until(lambda: [pid for pid in keepers(up) if pid != old], 5, every_s=0.001)
    supervisord = kill_supervisord(up)  # before the new keeper has looked at its parent
    until(lambda: proc.supervisord(up.root) not in (0, supervisord))
    until(lambda: watching(up))
    assert up.living() == up.supervised()


def test_a_keeper_that_is_frozen_before_it_hands_over_is_ended(up: Clone) -> None:
    """Its parent is dead, so no warden looks at it."""
    (former,) = keepers(up)
    old = kill_supervisord(up)
    until(lambda: proc.supervisord(up.root) not in (0, old) and len(keepers(up)) == 2)
    os.kill(former, signal.SIGSTOP)
    until(lambda: watching(up))
    assert not proc.is_alive(former) and up.living() == up.supervised()


def test_nothing_escapes_make_down_at_any_moment_of_a_revival(up: Clone) -> None:
    """Without the lock too, and however far the keeper is."""
    suite.kill_all(up.root)
    chance, environ = random.Random(SEED), clean_environ()
    for turn in range(TURNS):
        start.start(up.root, environ)
        until(lambda: watching(up))
        kill_supervisord(up)
        time.sleep(chance.uniform(0, 0.4))
        assert suite.kill_all(up.root) >= 1
        assert up.living() == [], f"SEED={SEED} turn {turn}"
        time.sleep(0.1)
        assert up.living() == [] and not proc.supervisord(up.root), f"SEED={SEED} turn {turn}"


def test_a_keeper_killed_while_the_new_supervisord_waits_leaves_nothing(up: Clone) -> None:
    """Unless it was told to begin by then, which it may read much later: it is a supervisord with a keeper then."""
    suite.kill_all(up.root)
    caught = 0
    for _ in range(20):
        start.start(up.root, clean_environ())
        until(lambda: watching(up))
        (keeper,) = keepers(up)
        kill_supervisord(up)
        until(lambda: proc.children(keeper), every_s=0.0005)  # noqa: B023
        os.kill(keeper, signal.SIGKILL)
        if until(lambda: start.running(up.root) or not (up.living() or start.running(up.root))) is True:
            time.sleep(0.3)
            assert up.living() == [] and not proc.supervisord(up.root)
            caught += 1
        else:
            until(lambda: watching(up))
        suite.kill_all(up.root)
        if caught == CAUGHT:
            return
    assert caught, "it was always told before we looked"


def test_it_waits_for_who_has_the_lock_and_leaves_another_supervisord_alone(up: Clone) -> None:
    lock = locks.hold(up.root / "run/suite.lock")
    kill_supervisord(up)
    until(lambda: '"supervisord is dead"' in log_of(up).splitlines()[-1])
    time.sleep(0.3)
    (keeper,) = up.living()
    start.start(up.root, clean_environ())
    another = until(lambda: proc.supervisord(up.root))
    os.close(lock)
    until(lambda: not proc.is_alive(keeper))
    until(lambda: watching(up))
    assert proc.supervisord(up.root) == another and "another supervisord runs" in log_of(up)
    assert up.living() == up.supervised()


def test_one_that_cannot_start_is_tried_until_it_can(up: Clone) -> None:
    conf = up.root / "supervisord.conf"
    text = conf.read_text()
    (keeper,), already = keepers(up), len(log_of(up))
    try:
        conf.write_text("[supervisord\n")
        kill_supervisord(up)
        until(lambda: "crash loop: waiting" in log_of(up).splitlines()[-1])
        assert keepers(up) == [keeper] and "supervisord did not start: " in log_of(up)
        assert log_of(up)[already:].count("did not start") == 3, "at once, then with pauses"
    finally:
        conf.write_text(text)
    until(lambda: watching(up) and serves(up), 15)
    assert up.living() == up.supervised()
    assert json.loads((up.root / "run/supervisord.starts").read_text())[0] == 0, "the row is over"


def test_in_the_foreground_it_is_idle_and_dies_too(clone: Clone) -> None:
    suite.kill_all(clone.root)
    foreground = subprocess.Popen(
        [".venv/bin/python", "scripts/cli.py", "up", "--foreground"],
        cwd=clone.root,
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert foreground.stdout
    for line in foreground.stdout:
        if "idle: supervisord runs in the foreground" in line:
            break
    until(lambda: pid_of(clone, "keeper"))
    foreground.kill()
    foreground.communicate(timeout=20)
    until(lambda: not clone.living(), 10)
    time.sleep(0.5)
    assert clone.living() == []


def test_by_hand_it_says_who_starts_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "procs.keeper"],
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2 and json.loads(done.stderr)["event"] == "the keeper is started by supervisord: make up"


def test_its_log_does_not_grow_for_ever(up: Clone) -> None:
    path: Path = up.root / "run/log/keeper.log"
    with path.open("ab") as file:
        file.truncate(5_000_001)
    (old,) = keepers(up)
    os.kill(old, signal.SIGKILL)
    until(lambda: path.with_suffix(".log.1").exists() and watching(up))
    assert path.stat().st_size < 10_000
