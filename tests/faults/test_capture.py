"""A capture by itself, with ffmpeg as its command: what it hands on, and what is left of it after every kill."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from procs import proc
from procs.capture import guard
from procs.capture.fifo import ATOMIC
from procs.media import tspackets
from procs.media.tspackets import CLOCK_HZ, PACKET
from procs.settings import ROOT
from tests.decoding import frames_of
from tests.rig import children, clean_environ, until
from tests.unit.test_capture import lengths, times

CAPTURE = [sys.executable, "-m", "procs.capture"]
READER = [sys.executable, "-S", "-m", "procs.capture.read_fifo"]
MARK = "size=320x180:rate=30"  # stands in the command line of each ffmpeg here
SECOND = 30


def ffmpeg(kind: str = "mpegts", seconds: float = 600, *, sound: bool = False, paced: bool = True) -> list[str]:
    """A capture command: moving pictures with a keyframe a second."""
    tone = ["-f", "lavfi", "-i", "sine=440", "-c:a", "aac"] if sound else []
    return [
        *("ffmpeg", "-nostdin", "-v", "error", *(["-re"] if paced else []), "-f", "lavfi"),
        *("-i", f"testsrc2={MARK}", *tone[:4], "-t", str(seconds), "-c:v", "libx264", "-preset", "ultrafast"),
        *("-tune", "zerolatency", "-g", str(SECOND), "-b:v", "500k", *tone[4:], "-f", kind, "pipe:1"),
    ]


def start(run_dir: Path, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """A capture with its stderr in a pipe."""
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir))
    return subprocess.Popen([*CAPTURE, *arguments], cwd=ROOT, env=environ, stdout=stdout, stderr=subprocess.PIPE)


def run(run_dir: Path, *arguments: str) -> tuple[int, bytes, list[str]]:
    """Exit code, stdout, and the events on stderr."""
    running = start(run_dir, *arguments)
    out, err = running.communicate(timeout=40)
    return running.returncode, out, [json.loads(line)["event"] for line in err.splitlines()]


def family(pid: int) -> set[int]:
    """A process and its living descendants."""
    return {pid, *proc.descendants(pid)}


def are_gone(pids: set[int]) -> bool:
    """Whether none of them lives."""
    return not any(is_alive(pid) for pid in pids)


def is_alive(pid: int) -> bool:
    """Whether a process runs, or is stopped; one that only waits to be collected is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Reading(threading.Thread):
    """Everything that a process writes to its stdout, as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self.process, self.data = process, bytearray()
        self.first_s = 0.0
        self.start()

    def run(self) -> None:
        assert self.process.stdout
        while piece := os.read(self.process.stdout.fileno(), 65536):
            self.first_s = self.first_s or time.monotonic()
            self.data += piece

    def wait_bytes(self, more: int, within_s: float = 10.0) -> None:
        """Until so many more bytes have come."""
        target = len(self.data) + more
        until(lambda: len(self.data) >= target, within_s)

    def end(self) -> bytes:
        """kill -9; returns all that came."""
        self.process.kill()
        self.join()
        self.process.communicate()
        return bytes(self.data)


@contextlib.contextmanager
def capture(run_dir: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running capture. Whatever the test does, nothing of it is left."""
    running = start(run_dir, *arguments)
    try:
        yield running
    finally:
        left = family(running.pid)
        running.kill()
        running.communicate()
        until(lambda: are_gone(left))


@contextlib.contextmanager
def reader(fifo: Path, **environ: str) -> Iterator[Reading]:
    """The reader that go2rtc runs."""
    process = subprocess.Popen(
        [*READER, str(fifo)], cwd=ROOT, env=clean_environ(**environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    reading = Reading(process)
    try:
        yield reading
    finally:
        reading.end()


# --- stdout ------------------------------------------------------------------------------------------


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("kind", ["mpegts", "h264"])
def test_every_picture_is_handed_on_with_its_length_and_the_machines_time(run_dir: Path, kind: str) -> None:
    before = time.monotonic()
    code, out, events = run(run_dir, "--", *ffmpeg(kind, 2))
    after = time.monotonic()
    assert code == 7 and events[-1] == "the command exited with 0"
    assert len(frames_of(out)) == 60
    assert len(lengths(out)) == 60 and min(lengths(out)) > 0
    stamps = [stamp / CLOCK_HZ for stamp in times(out)]
    # Pictures that come at once get times after each other, so that the last may be a little ahead.
    assert before < stamps[0] < stamps[-1] < after + 2, "times do not wrap for 26 hours after a boot"
    assert stamps[-1] - stamps[0] == pytest.approx(59 / 30, abs=0.2)


@pytest.mark.needs("ffmpeg")
def test_sound_goes_with_the_pictures(run_dir: Path, tmp_path: Path) -> None:
    out = run(run_dir, "--", *ffmpeg("mpegts", 2, sound=True))[1]
    assert len(frames_of(out)) == 60
    (tmp_path / "a.ts").write_bytes(out)
    probe = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,start_time,duration", "-of", "json"]
    found = json.loads(subprocess.run([*probe, tmp_path / "a.ts"], capture_output=True, check=True).stdout)["streams"]
    by_name = {stream["codec_name"]: stream for stream in found}
    assert set(by_name) == {"h264", "aac"}
    assert abs(float(by_name["h264"]["start_time"]) - float(by_name["aac"]["start_time"])) < 0.1
    assert float(by_name["aac"]["duration"]) > 1.7
    check = subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.ts", "-f", "null", "-"], capture_output=True)
    assert check.stderr == b""


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("kind", ["mpegts", "h264"])
def test_a_picture_does_not_wait_for_the_next(run_dir: Path, kind: str) -> None:
    """One picture, then silence: it comes out all the same."""
    one = subprocess.run(ffmpeg(kind, 1 / 30, paced=False), capture_output=True, check=True, timeout=20).stdout
    path = run_dir / "one"
    path.write_bytes(one)
    with capture(run_dir, "--", "sh", "-c", f"cat {path}; exec sleep 600") as running:
        reading = Reading(running)
        until(lambda: reading.data)
        time.sleep(0.1)
        assert len(frames_of(bytes(reading.data))) == 1
        running.kill()
        reading.join()


def test_raw_is_the_commands_own_output_and_its_exit_is_ours(run_dir: Path) -> None:
    code, out, events = run(run_dir, "--raw", "--", "sh", "-c", "echo any bytes; echo no camera >&2; exit 3")
    assert (code, out) == (7, b"any bytes\n")
    assert events == ["no camera", "the command exited with 3; its last words: no camera"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["--", "sh", "-c", "echo hello there"],
            7,
            "the command writes neither H.264 nor MPEG-TS, it began with b'hello",
        ),
        (["--", "sh", "-c", "echo no camera >&2; exit 3"], 7, "the command exited with 3; its last words: no camera"),
        (["--", "sh", "-c", "kill -9 $$"], -9, "the command exited with 137"),
        (
            ["--", "no-such-program"],
            3,
            "the command exited with 127; its last words: cannot run no-such-program: No such",
        ),
        (["--first-frame-limit-s", "0.3", "--", "sleep", "600"], 4, "no first picture within 0.3 s"),
        (["--", "sh", "-c", "exec >&-; sleep 600"], 7, "the command has closed its output, but runs on"),
        (["--input", "flv", "--", "x"], 2, "--input='flv'"),
        (["x"], 2, "unrecognized arguments: x"),
        ([], 2, "no command: it comes after --"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(run_dir: Path, arguments: list[str], code: int, said: str) -> None:
    returned, out, events = run(run_dir, *arguments)
    assert (returned, out) == (code, b"")
    assert said in events[-1] and "\n" not in events[-1]


@pytest.mark.needs("ffmpeg")
def test_a_command_that_talks_a_lot_is_cut_short_and_its_pictures_come(run_dir: Path) -> None:
    talk = f"{shlex.join(ffmpeg())} & while :; do echo word $((n=n+1)) token=abc >&2; done"
    with capture(run_dir, "--", "sh", "-c", talk) as running:
        reading = Reading(running)
        heard: list[bytes] = []
        assert running.stderr
        threading.Thread(target=lambda: heard.extend(running.stderr or []), daemon=True).start()
        until(lambda: len(times(bytes(reading.data[: len(reading.data) // PACKET * PACKET]))) > 2 * SECOND)
        running.kill()
        reading.join()
    assert 20 < len(heard) < 200
    assert not any(b"abc" in line for line in heard), "secrets are cut out"


@pytest.mark.needs("ffmpeg")
def test_a_command_that_stands_still_is_a_crash(run_dir: Path) -> None:
    with capture(run_dir, "--stall-limit-s", "0.5", "--", *ffmpeg()) as running:
        reading = Reading(running)
        reading.wait_bytes(20_000)
        (command,) = proc.descendants(running.pid) - set(children(running.pid))
        os.kill(command, signal.SIGSTOP)
        until(lambda: running.poll() is not None)
        assert running.returncode == 7 and running.stderr
        assert b"the command has written nothing for 0.5 s" in running.stderr.read()
        until(lambda: not is_alive(command))


@pytest.mark.needs("ffmpeg")
def test_a_reader_that_stops_or_goes_ends_it(run_dir: Path) -> None:
    with capture(run_dir, "--stdout-limit-s", "0.5", "--", *ffmpeg(paced=False)) as running:
        until(lambda: running.poll() is not None)
        assert running.returncode == 5
    with capture(run_dir, "--", *ffmpeg()) as running:
        assert running.stdout
        running.stdout.close()
        until(lambda: running.poll() is not None)
        assert running.returncode == 6


def test_help_has_examples() -> None:
    done = subprocess.run([*CAPTURE, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0
    assert "examples:" in done.stdout and "exit codes" in done.stdout and "-- COMMAND" in done.stdout


# --- no orphan ---------------------------------------------------------------------------------------

TREES = {
    "plain": "exec {ffmpeg}",
    "pipeline": "{ffmpeg} | cat",
    "session": "setsid {ffmpeg} | cat",
    "daemon": "(setsid sleep 600 >/dev/null 2>&1 &) ; {ffmpeg}",
    "stopped": "sleep 600 & kill -STOP $!; {ffmpeg}",
    "silent": "{brief}; setsid sleep 600 | sleep 600",  # nothing that a broken pipe would end
}


def script(tree: str) -> str:
    """The shell command of a kind of tree."""
    return TREES[tree].format(ffmpeg=shlex.join(ffmpeg()), brief=shlex.join(ffmpeg(seconds=0.5, paced=False)))


def grown(pid: int, tree: str) -> set[int]:
    """A capture and all below it, once its command has started all that it will."""
    count = 3 if tree == "plain" else 5
    until(lambda: len(family(pid)) >= count)
    return family(pid)


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("raw", [False, True], ids=["remux", "raw"])
@pytest.mark.parametrize("tree", TREES)
def test_a_kill_leaves_nothing_alive(run_dir: Path, tree: str, raw: bool) -> None:
    with capture(run_dir, *(["--raw"] if raw else []), "--", "sh", "-c", script(tree)) as running:
        Reading(running).wait_bytes(10_000)
        pids = grown(running.pid, tree)
        running.kill()
        running.wait()
        until(lambda: are_gone(pids))


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("tree", TREES)
def test_a_kill_of_the_guard_leaves_nothing_alive(run_dir: Path, tree: str) -> None:
    with capture(run_dir, "--", "sh", "-c", script(tree)) as running:
        Reading(running).wait_bytes(10_000)
        pids = grown(running.pid, tree)
        (watching,) = children(running.pid)
        os.kill(watching, signal.SIGKILL)
        until(lambda: are_gone(pids))
        assert running.wait() == -signal.SIGKILL and running.stderr, "as it was done to the guard: no fault of its own"
        assert b"the command exited with 137" in running.stderr.read()


def test_a_stopped_guard_ends_what_it_guards_when_its_capture_is_killed(run_dir: Path) -> None:
    with capture(run_dir, "--", "sh", "-c", script("daemon")) as running:
        Reading(running).wait_bytes(10_000)
        pids = grown(running.pid, "daemon")
        (watching,) = children(running.pid)
        os.kill(watching, signal.SIGSTOP)
        running.kill()
        until(lambda: are_gone(pids))


def test_a_stray_signal_to_the_guard_ends_nothing(run_dir: Path) -> None:
    with capture(run_dir, "--raw", "--", "sh", "-c", "echo up; exec sleep 600") as running:
        assert running.stdout and running.stdout.readline() == b"up\n"
        (watching,) = children(running.pid)
        for number in (signal.SIGWINCH, signal.SIGCONT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(watching, number)
        time.sleep(0.3)
        assert running.poll() is None and len(family(running.pid)) == 3


@pytest.mark.parametrize("is_over", [True, False])
def test_a_command_that_became_another_users_does_not_end_the_guard(
    monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    """It may not be killed as a group then; what is ours of it still is, one by one."""
    tried = []

    def refused(group: int, number: int) -> None:
        tried.append((group, number))
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refused)
    child = subprocess.Popen(["true"] if is_over else ["sleep", "20"])
    if is_over:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    guard._end_group(child.pid)
    assert tried == ([(child.pid, signal.SIGKILL)] if is_over else [])
    child.kill()
    child.wait()


def test_a_chain_that_forks_and_exits_is_not_outrun_by(run_dir: Path) -> None:
    """No link of it lives for long enough to be found in /proc; its process group is ended at one blow."""
    chain = "import os, time; end = time.monotonic() + 20\nwhile time.monotonic() < end:\n    if os.fork(): os._exit(0)"
    command = ["env", f"TEST_CHAIN={run_dir}", sys.executable, "-S", "-c", chain]
    assert run(run_dir, "--raw", "--", *command)[0] == 7
    for _ in range(40):
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                assert f"TEST_CHAIN={run_dir}".encode() not in Path(f"/proc/{entry}/environ").read_bytes()


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_process_group_leaves_nothing_alive(run_dir: Path, number: signal.Signals) -> None:
    """As a terminal and supervisors send them."""
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir))
    command = [*CAPTURE, "--", "sh", "-c", script("silent")]
    running = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    Reading(running).wait_bytes(10_000)
    pids = grown(running.pid, "silent")
    os.killpg(running.pid, number)
    until(lambda: are_gone(pids))
    running.communicate()


def test_what_a_command_leaves_behind_ends_with_it(run_dir: Path) -> None:
    pid_file = run_dir / "pid"
    leave = f"(setsid sleep 600 & echo $! > {pid_file}) ; until [ -s {pid_file} ]; do :; done; exit 5"
    code, _, events = run(run_dir, "--", "sh", "-c", leave)
    assert (code, events[-1]) == (7, "the command exited with 5")
    assert not is_alive(int(pid_file.read_text()))


def test_a_command_gets_three_descriptors_and_no_stdin(run_dir: Path) -> None:
    """And signals as a program expects them: Python ignores SIGPIPE, and the guard blocks everything."""
    show = "ls -l /proc/self/fd >&2; cat >&2; grep -E 'Sig(Blk|Ign)' /proc/self/status >&2"
    with open("/dev/zero", "rb") as zero:
        os.set_inheritable(zero.fileno(), True)
        running = subprocess.Popen(
            [*CAPTURE, "--", "sh", "-c", show],
            cwd=ROOT, env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)), stdin=zero,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[zero.fileno()],
        )  # fmt: skip
        lines = [json.loads(line)["event"] for line in running.communicate(timeout=20)[1].splitlines()]
    shown = [line for line in lines if "->" in line and "/proc/" not in line.partition("->")[2]]
    assert len(shown) == 3 and "/dev/null" in shown[0], lines
    masks = [line for line in lines if line.startswith("Sig")]
    ours = Path("/proc/self/status").read_text().partition("SigIgn:")[2].split()[0]  # whoever runs us may ignore some
    pipe_and_size = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert [int(line.split()[1], 16) for line in masks] == [0, int(ours, 16) & ~pipe_and_size], masks


# --- FIFO --------------------------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Where a FIFO may be."""
    return tmp_path / "omega-0"


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("first", ["writer", "reader"])
def test_writer_and_reader_may_start_in_any_order(run_dir: Path, fifo: Path, first: str) -> None:
    feed = ["--fifo", str(fifo), "--", *ffmpeg()]
    with contextlib.ExitStack() as stack:
        if first == "writer":
            stack.enter_context(capture(run_dir, *feed))
            until(lambda: fifo.exists())
            time.sleep(1.5)  # within the second GOP
            reading = stack.enter_context(reader(fifo))
        else:
            reading = stack.enter_context(reader(fifo))
            until(lambda: fifo.exists())
            stack.enter_context(capture(run_dir, *feed))
        assert stat.S_IMODE(fifo.stat().st_mode) == 0o600
        reading.wait_bytes(40_000)
        data = reading.end()
    data = data[: len(data) // PACKET * PACKET]
    assert tspackets.pid_of(data) == 0, "it begins with PAT"
    frames = frames_of(data)
    assert len(frames) >= 10 and frames[0].key_frame


@pytest.mark.needs("ffmpeg")
def test_a_reader_who_comes_late_has_a_keyframe_at_once(run_dir: Path, fifo: Path) -> None:
    """The GOP is ten seconds; the cache holds it."""
    command = [*ffmpeg()]
    command[command.index("-g") + 1] = "300"
    with capture(run_dir, "--fifo", str(fifo), "--", *command):
        for _ in range(3):
            time.sleep(0.7)
            began = time.monotonic()
            with reader(fifo) as reading:
                until(lambda r=reading: len(r.data) > 5_000)  # type: ignore[misc]
                assert reading.first_s - began < 0.5
                time.sleep(0.2)
                data = reading.end()
            frames = frames_of(data[: len(data) // PACKET * PACKET])
            assert frames[0].key_frame and len(frames) > 10


@pytest.mark.needs("ffmpeg")
def test_a_writer_may_die_and_the_reader_stays(run_dir: Path, fifo: Path) -> None:
    feed = ["--fifo", str(fifo), "--", *ffmpeg()]
    with reader(fifo) as reading:
        for _ in range(3):
            with capture(run_dir, *feed):
                reading.wait_bytes(15_000)
        data = reading.end()
    assert len(data) % PACKET == 0, "no half packet"
    assert data[::PACKET] == b"G" * (len(data) // PACKET)
    stamps = times(data)
    assert all(earlier < later for earlier, later in pairwise(stamps))
    gaps = [later - earlier for earlier, later in pairwise(stamps) if later - earlier > CLOCK_HZ // 8]
    assert len(gaps) == 2, "time goes on across two restarts"


@pytest.mark.needs("ffmpeg")
def test_a_foreign_writer_that_leaves_half_a_packet_does_no_harm(run_dir: Path, fifo: Path) -> None:
    one = subprocess.run(ffmpeg("mpegts", 1, paced=False), capture_output=True, check=True, timeout=20).stdout
    with reader(fifo) as reading:
        until(lambda: fifo.exists())
        fifo.write_bytes(one[: 50 * PACKET + 77])
        until(lambda: len(reading.data) >= 50 * PACKET)
        fifo.write_bytes(one)
        until(lambda: len(reading.data) >= 50 * PACKET + len(one))
        assert reading.end() == one[: 50 * PACKET] + one


@pytest.mark.needs("ffmpeg")
def test_a_slow_reader_loses_whole_pictures_up_to_a_keyframe(run_dir: Path, fifo: Path) -> None:
    command = [*ffmpeg()]
    command[command.index("-b:v") + 1] = "8M"
    command[command.index("-g") + 1] = "10"
    with capture(run_dir, "--fifo", str(fifo), "--", *command, "-y") as running, reader(fifo) as reading:
        reading.wait_bytes(100_000)
        reading.process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        reading.process.send_signal(signal.SIGCONT)
        reading.wait_bytes(600_000)
        data = reading.end()
        running.kill()
        assert running.stderr
        events = [json.loads(line) for line in running.stderr.read().splitlines()]
    dropped = [event["dropped"] for event in events if "too slow" in event["event"]]
    assert len(dropped) == 1 and dropped[0] > 0, "said at most every five seconds"
    data = data[: len(data) // PACKET * PACKET]
    stamps = times(data)
    assert max(later - earlier for earlier, later in pairwise(stamps)) > CLOCK_HZ, "pictures were dropped"
    assert len(frames_of(data)) >= len(stamps) - 1, "and what is left decodes without an error"


@pytest.mark.parametrize("kind", ["regular file", "directory", "socket"])
def test_what_is_no_fifo_is_refused_and_untouched(run_dir: Path, fifo: Path, kind: str) -> None:
    if kind == "regular file":
        fifo.write_text("precious")
    elif kind == "directory":
        fifo.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(fifo))
    code, out, events = run(run_dir, "--fifo", str(fifo), "--", "sleep", "600")
    said = f"FIFO '{fifo}': is a {kind}; move it away, or give another path"
    assert (code, out, events) == (2, b"", [said])
    done = subprocess.run([*READER, str(fifo)], cwd=ROOT, capture_output=True, timeout=20, check=False)
    assert done.returncode == 2
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == [said]
    assert kind != "regular file" or fifo.read_text() == "precious"


@pytest.mark.needs("ffmpeg")
def test_a_second_writer_waits_for_the_first_to_end(run_dir: Path, fifo: Path) -> None:
    feed = ["--fifo", str(fifo), "--", *ffmpeg()]
    with capture(run_dir, *feed) as first, reader(fifo) as reading, contextlib.ExitStack() as stack:
        reading.wait_bytes(20_000)
        second = stack.enter_context(capture(run_dir, *feed, "-y"))
        assert second.stderr and b"another copy is running" in second.stderr.readline()
        assert not children(second.pid), "its command does not run"
        first.kill()
        until(lambda: children(second.pid))
        reading.wait_bytes(20_000)


def test_our_writes_are_atomic() -> None:
    assert ATOMIC <= 4096 and ATOMIC % PACKET == 0


# --- the reader --------------------------------------------------------------------------------------


def test_a_reader_without_a_writer_says_so(fifo: Path) -> None:
    environ = clean_environ(PLANARIA_FIRST_FRAME_LIMIT_S="0.3")
    done = subprocess.run([*READER, str(fifo)], cwd=ROOT, env=environ, capture_output=True, timeout=20, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (4, b"")
    assert json.loads(line)["event"] == f"no writer feeds {fifo} within 0.3 s: is its writer running?"


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--wrong"]])
def test_a_reader_wants_one_path(arguments: list[str]) -> None:
    done = subprocess.run([*READER, *arguments], cwd=ROOT, capture_output=True, timeout=20, check=False)
    assert done.returncode == 2 and b"one argument, the path of a FIFO" in done.stderr


def test_a_reader_dies_with_its_parent_and_notices_that_go2rtc_left(fifo: Path) -> None:
    alone = subprocess.Popen(
        [*READER, str(fifo)], cwd=ROOT, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: b"read_fifo" in Path(f"/proc/{alone.pid}/cmdline").read_bytes())
    time.sleep(0.3)
    assert alone.stdout
    alone.stdout.close()
    assert alone.wait(5) == 6, "though nobody writes"
    alone.communicate()
    reads = f"{shlex.join([*READER, str(fifo)])} & wait"
    shell = subprocess.Popen(["sh", "-c", reads], cwd=ROOT, env=clean_environ(), stdout=subprocess.DEVNULL)
    (child,) = until(lambda: children(shell.pid))
    time.sleep(0.3)
    shell.kill()
    shell.wait()
    until(lambda: not is_alive(child))


@pytest.mark.needs("ffmpeg")
def test_a_reader_whose_writer_is_gone_sleeps(run_dir: Path, fifo: Path) -> None:
    with reader(fifo) as reading:
        with capture(run_dir, "--fifo", str(fifo), "--", *ffmpeg()):
            reading.wait_bytes(5_000)
        before = cpu_ticks(reading.process.pid)
        time.sleep(0.5)
        assert cpu_ticks(reading.process.pid) - before <= 5, "hundredths of a second"


def cpu_ticks(pid: int) -> int:
    """Time on a CPU so far, in ticks of 10 ms."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


# --- wrappers ----------------------------------------------------------------------------------------


@pytest.mark.needs("ffmpeg")
def test_wrappers_hand_on_what_their_commands_write(run_dir: Path, tmp_path: Path) -> None:
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir))
    for name, lead in (("mpegts", []), ("mpegts", ["--"]), ("raw", ["--"])):
        done = subprocess.run(
            [ROOT / f"scripts/go2rtc_exec_{name}.sh", *lead, *ffmpeg("mpegts", 0.5)],
            cwd=tmp_path, env=environ, capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        assert done.returncode == 7 and len(frames_of(done.stdout)) == 15
    for name in ("go2rtc_exec_mpegts", "go2rtc_exec_raw", "go2rtc_exec_fifo", "fifo_writer"):
        done = subprocess.run([ROOT / f"scripts/{name}.sh", "--help"], capture_output=True, timeout=20, check=True)
        assert f"scripts/{name}.sh".encode() in done.stdout and b"set -eu" not in done.stdout


@pytest.mark.needs("ffmpeg")
def test_a_relative_fifo_is_one_of_the_persons_directory(run_dir: Path, fifo: Path) -> None:
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir))
    writer = subprocess.Popen(
        [ROOT / "scripts/fifo_writer.sh", fifo.name, *ffmpeg()], cwd=fifo.parent, env=environ, stderr=subprocess.PIPE
    )
    try:
        with reader(fifo) as reading:
            reading.wait_bytes(10_000)
    finally:
        left = family(writer.pid)
        writer.kill()
        writer.communicate()
        until(lambda: are_gone(left))
