"""The life of a process, with real processes that are killed, frozen, stuck and doubled."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from procs import bus, life, locks
from procs.messages import decode
from procs.messages.warden import Heartbeat
from procs.settings import ROOT
from tests.rig import clean_environ, command_line, until

PRELUDE = """
import os, sys, time, threading
from procs import life
from procs.errors import ConfigError, NotHere
def load(): return sys.argv[1:]
"""


@contextlib.contextmanager
def program(run_dir: Path, body: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process whose `main(settings, alive)` is `body`; `options` go to life.run."""
    code = f"{PRELUDE}\n{body}\nlife.run('toy', load, main, {', '.join(f'{k}={v!r}' for k, v in options.items())})"
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def ends(running: subprocess.Popen[str], within_s: float = 20) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    out, err = running.communicate(timeout=within_s)
    return running.returncode, out, err


def line_of(running: subprocess.Popen[str]) -> str:
    """The next line it prints."""
    assert running.stdout
    return running.stdout.readline().strip()


def has_said(running: subprocess.Popen[str], within_s: float) -> bool:
    """Whether it has printed something."""
    assert running.stdout
    return bool(select.select([running.stdout], [], [], within_s)[0])


STAY = (
    "def main(s, alive):\n    alive.serving(); print('up', flush=True)\n    while True: alive.beat(); time.sleep(0.05)"
)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("def main(s, alive): pass", 0, ""),
        ("def main(s, alive): raise ConfigError('width=3: must be even')", 2, "width=3: must be even"),
        ("def main(s, alive): raise NotHere('no egl')", 3, "no egl"),
        ("def main(s, alive): import nosuch", 3, "No module named 'nosuch': make up installs what is needed"),
        ("def main(s, alive): 1 / 0", 1, "unforeseen ZeroDivisionError: division by zero"),
        ("def load(): raise ConfigError('bad')\ndef main(s, alive): print('ran')", 2, "bad"),
        ("async def main(s, alive): raise NotHere('async')", 3, "async"),
        ("def main(s, alive): sys.exit(7)", 7, ""),
    ],
)
def test_it_ends_with_the_code_of_what_ended_it(run_dir: Path, body: str, code: int, said: str) -> None:
    with program(run_dir, body) as running:
        returned, out, err = ends(running)
    assert (returned, out) == (code, "")
    assert [json.loads(line)["event"] for line in err.splitlines()] == ([said] if said else [])


def test_a_thread_that_fails_ends_the_process(run_dir: Path) -> None:
    body = (
        "def fail(): raise NotHere('from a thread')\n"
        "def main(s, alive):\n    threading.Thread(target=fail, name='side').start(); time.sleep(30)"
    )
    with program(run_dir, body) as running:
        code, _, err = ends(running)
    assert code == 3
    assert json.loads(err)["event"] == "thread side: NotHere: from a thread"


def test_it_dies_with_its_parent(run_dir: Path) -> None:
    child = f"{PRELUDE}\n{STAY}\nlife.run('toy', load, main)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir))
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environ, stdout=subprocess.PIPE)
    assert parent.stdout
    assert parent.stdout.readline() == b"up\n"
    parent.kill()
    assert parent.stdout.read() == b"", "end of file: nobody holds the pipe any more"
    parent.communicate()


def test_a_parent_that_died_before_is_noticed(run_dir: Path) -> None:
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir), PLANARIA_PARENT="1")
    code = f"{PRELUDE}\n{STAY}\nlife.run('toy', load, main)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 9
    assert "parent 1 died while we started" in done.stderr


@pytest.mark.parametrize(("suite", "code"), [({"PLANARIA_SUITE": "/x"}, 9), ({}, 0)])
def test_a_supervisord_that_died_at_once_is_noticed(run_dir: Path, suite: dict[str, str], code: int) -> None:
    """By then whoever adopted us is our parent, and a wrapper has seen no other: it is known by not being one."""
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir), SUPERVISOR_ENABLED="1", **suite)
    code_text = f"{PRELUDE}\nlife.run('toy', load, lambda loaded, alive: None)"
    done = subprocess.run(
        [sys.executable, "-c", code_text],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == code, done.stderr


def test_a_second_copy_waits_until_the_first_is_killed(run_dir: Path) -> None:
    with program(run_dir, STAY) as one, program(run_dir, STAY) as other:
        up = until(lambda: [running for running in (one, other) if has_said(running, 0)])
        first, second = (one, other) if one in up else (other, one)
        assert line_of(first) == "up"
        assert not has_said(second, 0.5), "both run"
        first.kill()
        assert line_of(second) == "up"


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(run_dir: Path) -> None:
    body = STAY.replace("alive.serving()", "child = os.fork(); child or time.sleep(20); print(child); alive.serving()")
    with program(run_dir, body) as first:
        child = int(line_of(first))
        assert line_of(first) == "up"
        first.kill()
        with program(run_dir, STAY) as second:
            assert has_said(second, 10), "the lock is still held"
        os.kill(child, signal.SIGKILL)


def test_a_lock_with_a_number_is_kept_across_exec(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    code = (
        f"import os; from procs.locks import hold; hold({str(lock)!r}, number=8); os.execvp('sleep', ['sleep', '20'])"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    until(lambda: command_line(holder.pid)[:1] == ["sleep"])
    assert locks.try_hold(lock) is None
    holder.kill()
    holder.wait()
    descriptor = locks.try_hold(lock)
    assert descriptor is not None
    os.close(descriptor)


def test_instances_do_not_wait_for_each_other(run_dir: Path) -> None:
    body = STAY.replace("def main", "name = os.environ.get('TOY', 'a')\ndef main")
    code = f"{PRELUDE}\n{body}\nlife.run('toy', load, main, instance=lambda s: name)"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=clean_environ(PLANARIA_RUN_DIR=str(run_dir), TOY=name),
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    assert [line_of(running) for running in both] == ["up", "up"]
    for running in both:
        running.kill()
        running.communicate()


@pytest.mark.parametrize(
    "hang",
    [
        "def main(s, alive):\n    alive.serving(); time.sleep(60)",
        "def main(s, alive):\n    alive.serving(); len(str(7 ** (10 ** 8)))",  # inside C, with the interpreter's lock
        "async def main(s, alive):\n    alive.serving(); time.sleep(60)",
    ],
)
def test_a_hang_becomes_a_crash_that_shows_where(run_dir: Path, hang: str) -> None:
    with program(run_dir, hang, hang_limit_s=1.5) as running:
        code, _, err = ends(running, 30)
    assert code == 1
    assert "Timeout" in err and "in main" in err


def test_an_event_loop_that_turns_is_no_hang(run_dir: Path) -> None:
    body = "import asyncio\nasync def main(s, alive):\n    alive.serving(); await asyncio.sleep(3.2)"
    with program(run_dir, body, hang_limit_s=1.5) as running:
        assert ends(running) == (0, "", "")


def test_crashes_before_serving_are_paced_and_kills_while_serving_are_not(run_dir: Path) -> None:
    crash = "def main(s, alive): os._exit(1)"
    for _ in range(3):
        with program(run_dir, crash, pause_cap_s=1.0) as running:
            assert ends(running) == (1, "", ""), "the first three are free"
    with program(run_dir, crash, pause_cap_s=1.0) as running:
        assert "crash loop: waiting before this start" in ends(running)[2]
    with program(run_dir, STAY, pause_cap_s=1.0) as running:
        assert line_of(running) == "up"
        running.kill()
        assert "crash loop" in ends(running)[2], "one last pause: the row ends only once it serves"
    for _ in range(6):
        with program(run_dir, STAY, pause_cap_s=1.0) as running:
            assert line_of(running) == "up"
            running.kill()
            assert "crash loop" not in ends(running)[2]


def test_a_run_that_ends_itself_just_after_it_has_served_goes_on_with_the_row(run_dir: Path) -> None:
    """go2rtc starts such a producer again at once, for ever."""
    once = "def main(s, alive): alive.serving(); raise NotHere('after one picture')"
    for _ in range(3):
        with program(run_dir, once, pause_cap_s=1.0) as running:
            assert "crash loop" not in ends(running)[2], "the first three are free"
    with program(run_dir, once, pause_cap_s=1.0) as running:
        assert "crash loop: waiting before this start" in ends(running)[2]


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_a_run_that_dies_of_a_signal_of_its_own_counts_and_its_stack_is_logged(
    run_dir: Path, number: signal.Signals
) -> None:
    with program(run_dir, STAY) as running:
        assert line_of(running) == "up"
        running.send_signal(number)
        until(lambda: running.poll() is not None)
        assert running.returncode == -number
    assert not (run_dir / "toy.crashes").exists(), "it had served"
    with program(run_dir, STAY) as running:
        assert line_of(running) == "up"
        running.kill()
        said = json.loads(ends(running)[2])
    assert said["event"] == "the run before died of a fault of its own" and "in main" in said["stack"]
    row = life.CrashRow(run_dir / "toy.crashes")
    (run_dir / "toy.stack").write_text("Fatal Python error")
    assert row.begin() == (1, True, "Fatal Python error", False)


def test_what_supervisord_starts_is_paced_by_its_plugin_alone(run_dir: Path) -> None:
    (run_dir / "toy.crashes").write_text("20")
    code = f"{PRELUDE}\nlife.run('toy', load, lambda loaded, alive: None)"
    parent = (
        "import os, subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', os.environ['TOY']]).returncode)"
    )
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir), SUPERVISOR_ENABLED="1", PLANARIA_SUITE="/x", TOY=code)
    done = subprocess.run(
        [sys.executable, "-c", parent, "supervisord"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_person_who_mistypes_at_a_terminal_is_told_at_once_again_and_again(run_dir: Path) -> None:
    code = f"{PRELUDE}\ndef main(s, alive): raise ConfigError('no such port')\nlife.run('toy', load, main)"
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir))
    terminal, end = pty.openpty()
    try:
        for asks in (end, end, subprocess.DEVNULL, end):
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, stdin=asks, timeout=20)
            assert done.returncode == 2
    finally:
        os.close(terminal)
        os.close(end)
    assert (run_dir / "toy.crashes").read_text() == "1 refused", "who is no person counts"


def test_an_old_or_broken_crash_row_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "toy.crashes"
    row = life.CrashRow(path)
    assert [row.begin().failures, row.begin().failures] == [0, 1]
    os.utime(path, (0, time.time() - 2 * life.CRASH_ROW_FORGOTTEN_S))
    assert life.CrashRow(path).begin() == (0, False, "", False)
    path.write_text("torn")
    assert life.CrashRow(path).begin() == (0, False, "", False)
    row.served()
    assert not path.exists()


def test_heartbeats_reach_the_warden_while_the_main_loop_turns(run_dir: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    warden = bus.binder(context, zmq.PULL, run_dir, bus.WARDEN_HEARTBEAT)
    body = (
        "def main(s, alive):\n    alive.serving()\n    end = time.monotonic() + 3\n"
        "    while time.monotonic() < end: alive.beat(); time.sleep(0.05)\n    time.sleep(60)"
    )
    with program(run_dir, body, hang_limit_s=60) as running:
        beats = []
        while warden.poll(3000):
            beats.append(decode(warden.recv(), Heartbeat))
        assert beats, "none came"
        assert len(beats) < 6, "they stop when the main loop stops, though the process lives"
        assert {(b.program, b.pid, b.serving) for b in beats} == {("toy", running.pid, True)}
    context.destroy()


def test_a_warden_that_restarts_hears_the_next_beat(run_dir: Path) -> None:
    with program(run_dir, STAY) as running:
        assert line_of(running) == "up"
        for _ in range(2):
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            warden = bus.binder(context, zmq.PULL, run_dir, bus.WARDEN_HEARTBEAT)
            assert warden.poll(5000), "no beat within 5 s"
            context.destroy()


def test_sigterm_is_death(run_dir: Path) -> None:
    with program(run_dir, STAY) as running:
        assert line_of(running) == "up"
        running.terminate()
        until(lambda: running.poll() is not None)
        assert running.returncode == -signal.SIGTERM
