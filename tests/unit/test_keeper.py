"""What the keeper decides by: how soon, whose command line, what a log says; and a watched process falls silent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs import proc
from procs.errors import Unhealthy
from procs.keeper import ending, pace, start, watch
from procs.keeper.pace import BURST, REFILL_S, Count, Row, next_start
from procs.keeper.watch import Watch, why
from procs.settings import ROOT
from tests.rig import until


def starts(lives: list[tuple[bool, float]], worst: float = 1.0) -> list[float]:
    """The pauses before each start of supervisords that (answered, lived so long)."""
    count, now_s, pauses = Count(), 1000.0, []
    for answered, lived_s in lives:
        pause_s, count = next_start(count, now_s, lambda: worst)
        pauses.append(pause_s)
        now_s += pause_s + lived_s
        if answered:
            count = count._replace(failures=0)
    return pauses


def test_being_killed_slows_nothing() -> None:
    assert starts([(True, 0.3)] * 50) == [0.0] * 50


def test_starts_that_never_answer_are_paced() -> None:
    assert starts([(False, 0.0)] * 9) == [0, 0, 0, 1, 2, 4, 8, 16, 30]


def test_a_long_row_of_late_deaths_is_paced_too() -> None:
    pauses = starts([(True, 2.0)] * 200)
    assert pauses[: BURST - 1] == [0.0] * (BURST - 1)
    assert all(pause_s == pytest.approx(REFILL_S - 2.0) for pause_s in pauses[-50:])


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1e4)), max_size=60), st.floats(0, 1))
def test_no_row_waits_longer_than_30_s(lives: list[tuple[bool, float]], worst: float) -> None:
    assert all(0 <= pause_s <= 30 for pause_s in starts(lives, worst))


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "3", "[1, 2]", "[NaN, 1, 2]", "[Infinity, 1, 2]", "[1, NaN, Infinity]", "[-5, -5, -5]", "{}"],
)
def test_a_damaged_count_is_only_a_hint(tmp_path: Path, text: str) -> None:
    (tmp_path / "starts").write_text(text)
    assert 0 <= Row(tmp_path / "starts").next_start() <= REFILL_S


def test_the_count_outlives_its_keeper(tmp_path: Path) -> None:
    path = tmp_path / "starts"
    pauses = [Row(path).next_start() for _ in range(4)]
    assert pauses[:3] == [0, 0, 0] and 0.5 <= pauses[3] <= 1
    row = Row(path)
    row.answered()
    assert json.loads(path.read_text())[0] == 0
    assert row.next_start() == 0
    later = Row(path)  # a new keeper, which began before the old one had seen an answer
    row.next_start()
    row.answered()
    later.next_start()
    assert json.loads(path.read_text())[0] == 1, "it counts from what the old one has written since"
    Row(tmp_path / "no such folder/starts").next_start()  # a disk that takes nothing is put up with


@pytest.mark.parametrize(
    ("log", "kind", "reason"),
    [
        ("supervisord started with pid 7\nspawned: 'go2rtc' with pid 8\n", "killed", "it said nothing"),
        (
            "supervisord started with pid 7\nWARN received SIGTERM indicating exit request\n",
            "exited",
            "SIGTERM indicating exit request",
        ),
        ("received SIGTERM indicating exit request\nsupervisord started with pid 7\n", "killed", "it said nothing"),
        ("", "killed", "it said nothing"),
    ],
)
def test_why_it_died(log: str, kind: str, reason: str) -> None:
    found = why(log, 7)
    assert found[0] == kind and found[1].startswith(reason)


@pytest.mark.parametrize(
    ("line", "is_one", "stays"),
    [
        (".venv/bin/python -m supervisor.supervisord -c supervisord.conf", True, False),
        (".venv/bin/python -m procs.keeper.supervisord -c supervisord.conf", True, False),
        (".venv/bin/python -m supervisor.supervisord -c supervisord.conf --nodaemon --loglevel=debug", True, True),
        ("/x/python /x/.venv/bin/supervisord -n", True, True),
        ("tail -F run/log/supervisord.log", False, False),
        ("python -m procs.keeper", False, False),
    ],
)
def test_supervisord_is_known_by_its_command_line(line: str, is_one: bool, stays: bool) -> None:
    assert (start.is_supervisord(line.split()), start.is_foreground(line.split())) == (is_one, stays)


def test_it_is_started_with_what_it_had_and_nothing_that_it_says_to_its_children(tmp_path: Path) -> None:
    given = {"A": "1", "SUPERVISOR_ENABLED": "1", "PLANARIA_PARENT": "3", "PLANARIA_FOREGROUND": "1"}
    assert start.suite_environment(tmp_path, given) == {"A": "1", "PLANARIA_SUITE": str(tmp_path)}


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A unix socket that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        yield server


def test_only_a_dead_socket_is_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    paths = [tmp_path / "run" / name for name in ("supervisor.sock", "supervisor.sock.7", "suite.lock")]
    with listening(paths[0]), listening(paths[1]):
        start.clear_socket(tmp_path)
        assert [path.exists() for path in paths] == [True, True, False]
    paths[2].touch()
    start.clear_socket(tmp_path)
    assert [path.exists() for path in paths] == [False, False, True]


def test_a_refusal_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(Unhealthy, match=r"did not start: .*No such file"):
        start.start(tmp_path, os.environ)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho something; echo 'Error: no such section' >&2; exit 2\n")
    python.chmod(0o755)
    with pytest.raises(Unhealthy, match="did not start: Error: no such section"):
        start.start(tmp_path, os.environ)


def test_a_start_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "START_LIMIT_S", 0.1)
    monkeypatch.setattr(start, "_LOOK_EVERY_S", 0.05)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexec sleep 20\n")
    python.chmod(0o755)
    beats: list[int] = []
    with pytest.raises(Unhealthy, match=r"within 0\.1 s"):
        start.start(tmp_path, os.environ, lambda: beats.append(1))
    assert len(beats) > 1


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """One whose supervisord has no programs."""
    (tmp_path / "run").mkdir()
    for name in (".venv", "procs"):
        (tmp_path / name).symlink_to(ROOT / name)
    run = f"{tmp_path}/run/supervisord"
    (tmp_path / "supervisord.conf").write_text(f"[supervisord]\nlogfile={run}.log\npidfile={run}.pid\n")
    yield tmp_path
    ending.end_all(tmp_path)


def waits(pid: int) -> bool:
    """Whether a supervisord has imported all and waits to be told."""
    before = proc.turns(pid)
    time.sleep(0.1)
    its = proc.stat(pid)
    return its is not None and its.state == "S" and proc.turns(pid) == before


def test_one_that_waits_has_done_nothing_and_ends_with_the_block(checkout: Path) -> None:
    with start.Waiting(checkout, os.environ) as waiting:
        until(lambda: waits(waiting.pid))
        assert proc.marked(checkout) == [waiting.pid] and start.is_supervisord(proc.words(waiting.pid))
        assert start.running(checkout) == 0, "nobody may yield to one that may never begin"
        assert os.listdir(checkout / "run") == []
    assert not proc.is_alive(waiting.pid) and proc.marked(checkout) == []


def test_one_that_waits_begins_when_told(checkout: Path) -> None:
    with start.Waiting(checkout, os.environ) as waiting:
        until(lambda: waits(waiting.pid))
        waiting.begin()
        daemon = start.running(checkout)
    assert daemon not in (0, waiting.pid) and proc.marked(checkout) == [daemon]
    assert until(lambda: proc.supervisord(checkout)) == daemon, "by its pid file too"
    assert os.readlink(f"/proc/{daemon}/fd/0") == os.devnull


def test_one_that_waits_is_ended_with_the_rest_unless_it_is_spared(checkout: Path) -> None:
    with start.Waiting(checkout, os.environ) as waiting, start.Waiting(checkout, os.environ) as other:
        assert ending.end_all(checkout, spare=waiting.pid) == 1
        assert proc.marked(checkout) == [waiting.pid] and not proc.is_alive(other.pid)
        assert ending.end_all(checkout) == 1
        with pytest.raises(Unhealthy, match="did not start"):
            waiting.begin()
    assert proc.marked(checkout) == []


def test_one_that_waits_ends_when_who_started_it_is_killed(checkout: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from procs.keeper import start\n"
        "print(start.Waiting(Path(sys.argv[1]), os.environ).pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(checkout)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout
        pid = int(keeper.stdout.readline())
        until(lambda: waits(pid))
        keeper.kill()
    until(lambda: not proc.is_alive(pid))
    assert os.listdir(checkout / "run") == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of a watch, a tenth and less."""
    monkeypatch.setattr(watch, "ASK_EVERY_S", 0.1)
    monkeypatch.setattr(watch, "SILENT_LIMIT_S", 0.5)


@contextlib.contextmanager
def watched(path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Watch, list[str]]]:
    """A process, its watch, and what the watch called."""
    process, called = subprocess.Popen(["sleep", "20"]), list[str]()
    handle = os.pidfd_open(process.pid)
    try:
        yield process, Watch(process.pid, handle, path, lambda: called.append("answered"), lambda: None), called
    finally:
        os.close(handle)
        process.kill()
        process.wait()


def answer(server: socket.socket, times: int) -> None:
    """Answer so many questions, then no more."""
    for _ in range(times):
        connection, _ = server.accept()
        with connection:
            assert connection.recv(100).startswith(b"GET ")
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


@pytest.mark.usefixtures("quick")
def test_what_no_longer_answers_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.sock"
    with listening(path) as server, watched(path) as (process, its, called):
        helper = threading.Thread(target=answer, args=(server, 3))
        helper.start()
        began = time.monotonic()
        death = its.until_death(30)
        assert death and (death.kind, death.pid) == ("silent", process.pid) and "no answer" in death.reason
        assert 0.5 <= time.monotonic() - began < 3
        assert process.wait(5) == -signal.SIGKILL and called == ["answered"]
        helper.join()


@pytest.mark.usefixtures("quick")
def test_what_never_listened_is_killed_too(tmp_path: Path) -> None:
    with watched(tmp_path / "none.sock") as (process, its, called):
        death = its.until_death(0.1)
        assert death and death.kind == "silent" and called == []
        process.wait(5)


@pytest.mark.usefixtures("quick")
def test_what_answers_lives_and_its_death_is_seen_at_once(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.sock"
    with listening(path) as server, watched(path) as (process, its, called):
        threading.Thread(target=_answer_for_ever, args=(server,), daemon=True).start()
        assert its.until_death(1.2) is None and called == ["answered"]
        threading.Timer(0.25, process.kill).start()
        killed_at_s = time.monotonic() + 0.25
        death = its.until_death()
        assert death and death.kind == "killed" and death.at_s - killed_at_s < 0.1


def _answer_for_ever(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            answer(server, 1)


def test_time_in_which_the_keeper_was_frozen_does_not_count(tmp_path: Path) -> None:
    with watched(tmp_path / "none.sock") as (process, its, _):
        its._note(False, 3600.0)
        assert process.poll() is None
        for _ in range(3):
            its._note(False, 2.0)
        assert process.wait(5) == -signal.SIGKILL


def test_the_pause_is_one_of_seconds() -> None:
    assert pace.REFILL_S * 6 == pace.FORGOTTEN_S, "a row that is only held back by its credit is still one"


def test_a_stopped_supervisord_is_ended_though_nobody_else_sees_it(tmp_path: Path) -> None:
    with watched(tmp_path / "none.sock") as (process, its, _):
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: (found := proc.stat(process.pid)) and found.state == "T")
        its._note_stopped(100.0)
        its._note_stopped(103.0)
        assert process.poll() is None
        its._note_stopped(103.6)
        assert process.wait(5) == -signal.SIGKILL
