"""The tools themselves: each fault is done to a real process of the suite and seen from outside; each broken
invariant is planted and found."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from procs import bus, proc
from procs.kinds import Address
from procs.settings import ROOT
from tests.faults import disks, faults, invariants, links
from tests.faults.faults import CannotFault
from tests.faults.invariants import Broken, Census, Seen
from tests.faults.subject import Subject
from tests.rig import clean_environ, until

pytestmark = pytest.mark.timeout(300)  # the first to need the clone waits for what it installs
PRODUCER = "go2rtc/headless_agent"


def cpu_s(pid: int) -> float:
    """What a process has used."""
    its = proc.stat(pid)
    return its.cpu_s if its else 0.0


def used_in(pid: int, seconds: float) -> float:
    """The part of a core that a process uses."""
    before = cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / seconds


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[int]:
    """A Python with our hooks and no supervisor: what is done to it stays done. It counts, by a thread too."""
    code = faults._SHIM + (
        "import threading, time, pathlib, sys\n"
        "def count(name):\n"
        "    for number in range(10**9): pathlib.Path(sys.argv[1], name).write_text(str(number)); time.sleep(0.01)\n"
        "threading.Thread(target=count, args=('thread',), daemon=True).start()\n"
        "count('main')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    try:
        until(lambda: (tmp_path / "main").exists() and (tmp_path / "thread").exists())
        yield process.pid
    finally:
        process.kill()
        process.wait()


def counts(folder: Path, name: str, within_s: float = 0.15) -> bool:
    """Whether a thread of the toy goes on counting."""
    before = (folder / name).read_text()
    time.sleep(within_s)
    return (folder / name).read_text() != before


# --- processes ---------------------------------------------------------------------------------------


def test_killed_is_dead_within_milliseconds(toy: int) -> None:
    with faults.killed(toy) as fault:
        assert fault.wait_dead(2) < 0.5
    assert not proc.is_alive(toy)


def test_frozen_stands_still_and_goes_on_afterwards(toy: int, tmp_path: Path) -> None:
    with faults.frozen(toy) as fault:
        until(lambda: (its := proc.stat(toy)) and its.state == "T")
        assert not counts(tmp_path, "main") and not counts(tmp_path, "thread")
        assert not fault.is_dead()
    until(lambda: counts(tmp_path, "main") and counts(tmp_path, "thread"))


def test_looping_burns_its_core_while_its_threads_go_on(toy: int, tmp_path: Path) -> None:
    with faults.looping(toy):
        until(lambda: not counts(tmp_path, "main"))
        until(lambda: counts(tmp_path, "thread", 0.3))  # on a machine with other things to do, too
        until(lambda: used_in(toy, 0.3) > 0.1)
    until(lambda: not proc.is_alive(toy))


def test_hung_runs_not_a_line_and_uses_nothing(toy: int, tmp_path: Path) -> None:
    with faults.hung(toy) as fault:
        until(lambda: not counts(tmp_path, "main"))
        assert not counts(tmp_path, "thread", 0.3), "the interpreter's lock is held"
        assert used_in(toy, 0.2) < 0.06
        fault.send(faults.LOOP)
        assert used_in(toy, 0.2) < 0.06, "no signal brings it back"
    until(lambda: not proc.is_alive(toy))


def test_leaking_grows_while_everything_goes_on(toy: int, tmp_path: Path) -> None:
    before = proc.rss_bytes(toy)
    with faults.leaking(toy):
        until(lambda: proc.rss_bytes(toy) > before + 100e6)
        until(lambda: counts(tmp_path, "main") and counts(tmp_path, "thread"))
    until(lambda: not proc.is_alive(toy))


BEATING = """
from procs import life
def main(settings, alive):
    import time
    alive.serving()
    while True:
        alive.beat()
        time.sleep(0.05)
life.run("toy", lambda: None, main)
"""


@pytest.mark.parametrize("kind", ["hung", "looping"])
def test_heartbeats_stop_in_one_that_hangs_or_loops(run_dir: Path, kind: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    warden = bus.binder(context, zmq.PULL, run_dir, bus.WARDEN_HEARTBEAT)
    process = subprocess.Popen([sys.executable, "-c", faults._SHIM + BEATING], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert warden.poll(10_000), "they come"
        warden.recv()
        with faults.KINDS[kind](process.pid):
            if warden.poll(1200):  # one that was on its way
                warden.recv()
            assert not warden.poll(1500)
    finally:
        process.kill()
        process.wait()
        context.destroy()


@pytest.mark.long
def test_hung_stops_pictures(subject: Subject) -> None:
    """The same with a process of the suite."""
    with faults.hung(subject.targets()[PRODUCER]) as fault:
        time.sleep(0.2)  # what is on its way
        since = time.monotonic_ns()
        if not fault.dies_within(1):
            assert not [at for at in subject.watching[0].times_ns(since) if at > since]
            assert used_in(fault.pid, 0.5) < 0.05
    assert subject.recover({PRODUCER: fault}, 10).missing == ""


def test_what_can_be_done_is_read_from_the_kernel(subject: Subject) -> None:
    targets = subject.targets()
    can = {name: faults.possible(pid) for name, pid in targets.items()}
    assert can["go2rtc"] == ("killed", "frozen"), "it is no Python, though it handles every signal"
    assert can["go2rtc/read_fifo"] == ("killed", "frozen"), "python -S reads no .pth"
    assert can["capture_cam/fork"] == ("killed", "frozen"), "a guard blocks all signals"
    for name in ("supervisord", "capture_cam", PRODUCER):
        assert can[name] == tuple(faults.KINDS), name
    with pytest.raises(CannotFault), faults.hung(targets["go2rtc"]):
        pass


def test_no_stranger_is_hit(toy: int) -> None:
    with faults.killed(toy) as fault:
        fault.wait_dead(2)
        os.waitpid(toy, 0)
        fault.send(9)  # its pid may be somebody else's by now
    with pytest.raises(CannotFault), faults.frozen(toy):
        pass


# --- what processes stand on -------------------------------------------------------------------------


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with disks.disk(folder) as mounted:
        (mounted / "old").write_text("x")
        yield mounted


def test_a_full_disk_takes_no_block_and_has_room_again_afterwards(own_disk: Path) -> None:
    with disks.full_disk(own_disk), pytest.raises(OSError, match="No space left"):
        (own_disk / "new").write_bytes(bytes(8192))
    (own_disk / "new").write_bytes(bytes(8192))


def test_a_read_only_folder_takes_nothing_at_all(own_disk: Path) -> None:
    with (own_disk / "old").open("a") as is_open, disks.read_only(own_disk):
        for refused in (
            lambda: (own_disk / "new").touch(),
            lambda: (own_disk / "old").write_text("y"),
            lambda: (own_disk / "old").unlink(),
            lambda: os.mkfifo(own_disk / "fifo"),
        ):
            with pytest.raises(PermissionError):
                refused()
    (own_disk / "old").write_text("y")
    is_open.close()


def test_a_slow_disk_is_slow(own_disk: Path) -> None:
    def write_s() -> float:
        before = time.monotonic()
        (own_disk / "old").write_text("y")
        return time.monotonic() - before

    with disks.slow_disk(own_disk):
        until(lambda: write_s() > 0.1)
    assert min(write_s() for _ in range(3)) < 0.05


def clock_of(environ: dict[str, str]) -> float:
    """What a new process takes for the wall clock's lead over the monotonic one."""
    code = f"{faults._SHIM}\nimport time; print(time.time() - time.monotonic(), time.time_ns() - time.monotonic_ns())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=clean_environ(**environ), capture_output=True, check=True, timeout=20)
    lead_s, lead_ns = map(float, done.stdout.split())
    assert lead_s == pytest.approx(lead_ns / 1e9, abs=0.5)
    return lead_s


def test_a_stepped_clock_is_another_wall_clock_only(tmp_path: Path) -> None:
    clock, real = faults.Clock(tmp_path), clock_of({})
    assert clock_of(clock.environ) == pytest.approx(real, abs=0.5)
    for by_s in (86_400, -86_400):
        with faults.clock_stepped(clock, by_s):
            assert clock_of(clock.environ) == pytest.approx(real + by_s, abs=0.5)
    assert clock_of(clock.environ) == pytest.approx(real, abs=0.5)


@contextlib.contextmanager
def echo() -> Iterator[Address]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(10)
                        while data := connection.recv(65536):
                            connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield Address("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def test_a_lossy_link_delays_slices_swallows_and_resets() -> None:
    with (
        echo() as server,
        links.lossy(server) as link,
        socket.create_connection((link.here.host, link.here.port)) as connection,
    ):
        connection.settimeout(5)

        def trip_s(data: bytes = b"x") -> float:
            before = time.monotonic()
            connection.sendall(data)
            got = b""
            while len(got) < len(data):
                got += connection.recv(65536)
            assert got == data
            return time.monotonic() - before

        assert min(trip_s() for _ in range(3)) < 0.1
        link.delay_s = 0.2
        assert trip_s() > 0.35
        link.delay_s, link.slice_bytes = 0.0, 10
        trip_s(bytes(range(256)))
        link.is_black_hole = True
        connection.sendall(b"lost?")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(10)
        link.is_black_hole = False
        connection.settimeout(5)
        assert connection.recv(10) == b"lost?"
        link.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(10)


# --- the census --------------------------------------------------------------------------------------


def found_by(census: Census, kind: str, within_s: float = 5.0) -> Broken:
    """The first case of a kind that a census finds."""
    return until(lambda: next((each for each in census.broken if each.kind == kind), None), within_s)


@contextlib.contextmanager
def planted(root: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries the mark of a suite."""
    environ = clean_environ(**{proc.MARK: str(root)})
    process = subprocess.Popen(words, env=environ, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_healthy_suite_breaks_nothing(subject: Subject) -> None:
    with Census(subject.root) as census:
        until(lambda: census.looks > 5)
    assert census.broken == []
    names = {name: subject.look()[pid].words for name, pid in subject.targets().items()}
    assert {"supervisord", "go2rtc", PRODUCER, "capture_cam/fork/ffmpeg"} <= names.keys()


def test_an_orphan_is_found(subject: Subject) -> None:
    with Census(subject.root) as census, planted(subject.root, "sleep", "60") as orphan:
        assert found_by(census, "orphan").pids == (orphan.pid,)
    assert {each.kind for each in census.broken} == {"orphan"}


def test_a_second_copy_is_found_but_not_one_that_waits(subject: Subject) -> None:
    targets = subject.targets()
    words = proc.words(targets[PRODUCER])
    with Census(subject.root) as census, planted(subject.root, *words) as copy:
        assert found_by(census, "copy").pids == tuple(sorted((copy.pid, targets[PRODUCER])))
    waiting = proc.words(targets["capture_cam"])
    environ = {"PLANARIA_RUN_DIR": str(subject.root / "run")}
    with (
        Census(subject.root) as census,
        planted(subject.root, "env", *(f"{k}={v}" for k, v in environ.items()), *waiting) as copy,
    ):
        until(lambda: copy.pid in invariants.waiting_for_locks())
        time.sleep(invariants.GRACE_S + 0.5)
    assert "copy" not in {each.kind for each in census.broken}


def test_a_zombie_is_found_unless_its_parent_can_not_collect_it(subject: Subject) -> None:
    code = "import os, time; os.fork() or os._exit(0); time.sleep(60)"
    with Census(subject.root) as census, planted(subject.root, sys.executable, "-c", code) as parent:
        census.excused = {parent.pid}
        time.sleep(invariants.GRACE_S + 0.5)
        assert "zombie" not in {each.kind for each in census.broken}
        census.excused = set()
        assert f"pid {parent.pid}" in found_by(census, "zombie").text


def test_a_process_that_stays_stopped_is_found(tmp_path: Path) -> None:
    census = Census(tmp_path)
    top = Seen(1, "S", ("python", "-m", "supervisor.supervisord"), "", False)
    seen = {5: top, 6: Seen(5, "T", ("x",), "x", False)}
    for at in range(int(invariants.GRACES_S["stopped"]) + 1):
        census.take(seen, float(at))
    assert census.broken == []
    for at in range(20):
        census.take(seen, invariants.GRACES_S["stopped"] + 0.5 + at)
    assert [each.kind for each in census.broken] == ["stopped"], "once"


def test_a_parent_that_is_busy_may_collect_later_but_not_never(tmp_path: Path) -> None:
    census, later_s = Census(tmp_path), invariants.GRACES_S["uncollected"]
    boss = ("python", "-m", "supervisor.supervisord")
    for at in range(int(later_s) + 1):
        census.take({5: Seen(1, "RDS"[at % 3], boss, "", False), 6: Seen(5, "Z", (), "", False)}, float(at))
    assert census.broken == []
    census.take({5: Seen(1, "R", boss, "", False), 6: Seen(5, "Z", (), "", False)}, later_s + 0.5)
    assert [(each.kind, each.pids) for each in census.broken] == [("uncollected", (6,))]


def test_what_is_right_for_a_moment_is_not_told(tmp_path: Path) -> None:
    census = Census(tmp_path)
    orphan = {6: Seen(1, "S", ("x",), "x", False)}
    for at in (0.0, 0.9, 1.8, 2.7, 3.6):
        census.take(orphan, at)
        census.take({}, at + 0.1)
    assert census.broken == []


def test_names_follow_supervisord_and_the_tree() -> None:
    def python(*words: str) -> tuple[str, ...]:
        return (".venv/bin/python", *words)

    boss, capture = python("-m", "supervisor.supervisord"), python("-m", "procs.capture", "--fifo", "a.ts")
    seen = {
        10: Seen(1, "S", boss, "", False),
        11: Seen(10, "S", capture, "capture_a", False),
        12: Seen(11, "S", capture, "capture_a", False),
        13: Seen(12, "S", ("/usr/bin/ffmpeg", "-re"), "capture_a", False),
        14: Seen(10, "S", boss, "", False),
        15: Seen(10, "Z", (), "", False),
        20: Seen(1, "S", python("-m", "procs.keeper"), "keeper", False),
        21: Seen(1, "S", capture, "capture_a", False),
    }
    assert invariants.names(seen) == {
        10: "supervisord", 11: "capture_a", 12: "capture_a/fork", 13: "capture_a/fork/ffmpeg",
        14: "supervisord/fork", 20: "keeper", 21: "orphan of capture_a",
    }  # fmt: skip
    del seen[20]
    found = [(each.kind, each.pids) for each in invariants.broken(seen, Path("/x"))]
    assert found == [("copy", (11, 21)), ("orphan", (21,)), ("uncollected", (15,)), ("zombie", (15,))]


def test_a_keeper_hands_over_to_its_successor_and_to_nobody_else() -> None:
    keeper = ("python", "-m", "procs.keeper")
    seen = {
        10: Seen(1, "S", ("python", "-m", "supervisor.supervisord"), "", False),
        11: Seen(10, "S", keeper, "keeper", False),
        5: Seen(1, "S", keeper, "keeper", False),
    }
    assert invariants.names(seen) == {10: "supervisord", 5: "keeper", 11: "keeper (waiting)"}
    assert [each.kind for each in invariants.broken(seen, Path("/x"))] == ["handover"]
    seen[12] = Seen(10, "S", keeper, "keeper", False)
    assert [each.kind for each in invariants.broken(seen, Path("/x"))] == ["copy"], "two of one supervisord"


def test_one_that_is_dying_by_what_was_done_to_another_counts_as_hit() -> None:
    with subprocess.Popen(["sleep", "60"]) as its:
        dying = threading.Timer(0.1, its.kill)
        dying.start()
        with faults.together({"its": its.pid}, {"its": "looping"}) as done:
            assert done["its"].pid == its.pid
        dying.join()
