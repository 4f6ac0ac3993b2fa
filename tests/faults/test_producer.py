"""A producer by itself, run as go2rtc runs it: what it writes, what it obeys, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from procs import bus, pipes, rpc
from procs.errors import EncoderFailed, Refused
from procs.headless_agent.libav import X264
from procs.headless_agent.options import Producer
from procs.messages.requests import Bitrate, Describe, Description, Keyframe
from procs.settings import ROOT
from tests.decoding import frames_of, seen_in
from tests.rig import AGENT, children, clean_environ, until

SMALL = ["--width", "320", "--height", "180", "--fps", "30", "--gop", "300", "--bitrate", "1M"]


def run(run_dir: Path, *options: str, **environ: str) -> tuple[int, bytes, list[str]]:
    """Exit code, stdout, and the events on stderr."""
    environment = clean_environ(PLANARIA_RUN_DIR=str(run_dir), **environ)
    done = subprocess.run(
        [*AGENT, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, [json.loads(line)["event"] for line in done.stderr.splitlines()]


def start(run_dir: Path, stdout: int, *options: str) -> subprocess.Popen[bytes]:
    """A small producer that writes to a descriptor of the test's."""
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir))
    return subprocess.Popen([*AGENT, *SMALL, *options], cwd=ROOT, env=environ, stdout=stdout, stderr=subprocess.PIPE)


class Running:
    """A producer whose stdout is read all the time."""

    def __init__(self, run_dir: Path, *options: str, instance: str = "agent-0") -> None:
        self.run_dir, self.instance = run_dir, instance
        self.process = subprocess.Popen(
            [*AGENT, "--instance-id", instance, *options],
            cwd=ROOT,
            env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.data = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        while piece := os.read(self.process.stdout.fileno(), 65536):
            self.data += piece

    def ask(self, command: Keyframe | Bitrate | Describe) -> Description | None:
        """Send a command over the bus."""
        with rpc.Requester(self.run_dir, bus.control_of(self.instance)) as requester:
            body = requester.ask(command, within_s=10).body
        assert body is None or isinstance(body, Description)
        return body

    def frames(self) -> int:
        """How many pictures it has made."""
        return cast(Description, self.ask(Describe())).frames

    def wait_frames(self, more: int) -> None:
        """Until it has made so many more."""
        target = self.frames() + more
        until(lambda: self.frames() >= target)

    def end(self) -> bytes:
        """kill -9; returns all it wrote."""
        self.process.kill()
        self._reader.join()
        self.process.communicate()
        return bytes(self.data)


@contextlib.contextmanager
def producer(run_dir: Path, *options: str, instance: str = "agent-0") -> Iterator[Running]:
    """A running producer that serves its control endpoint."""
    running = Running(run_dir, *SMALL, *options, instance=instance)
    try:
        running.ask(Describe())
        yield running
    finally:
        running.end()


@pytest.mark.parametrize("out", ["mpegts", "h264"])
def test_every_picture_carries_the_same_number_and_time_in_barcode_and_sei(run_dir: Path, out: str) -> None:
    code, stream, _ = run(run_dir, *SMALL, "--out", out, "--duration", "2")
    assert code == 0
    if out == "h264":
        assert stream.endswith(b"\0\0\0\1\x67"), "the next unit is announced"
        stream = stream[:-5]
    seen = seen_in(stream)
    assert len(seen) >= 10
    for picture in seen:
        assert picture.stamp
        assert (picture.stamp.frame, picture.stamp.time_ns // 1000) == (picture.code.frame, picture.code.time_us)
    assert [p.code.frame for p in seen] == sorted({p.code.frame for p in seen})
    assert abs(seen[-1].code.time_us / 1e6 - time.time()) < 60, "the clock is the wall clock"


def test_every_picture_in_mpegts_states_its_length(run_dir: Path) -> None:
    """A PES packet of length 0 would be held by go2rtc until the next one begins."""
    stream = run(run_dir, *SMALL, "--duration", "1")[1]
    lengths = []
    for at in range(0, len(stream), 188):
        packet = stream[at : at + 188]
        assert packet[0] == 0x47
        begins, pid = packet[1] & 0x40, (packet[1] & 0x1F) << 8 | packet[2]
        if begins and pid == 0x100:
            pes = packet[4 + (1 + packet[4] if packet[3] & 0x20 else 0) :]
            assert pes[:3] == b"\0\0\1"
            lengths.append(pes[4] << 8 | pes[5])
    assert len(lengths) >= 10 and min(lengths) > 0


def test_it_is_420_and_baseline_and_tagged(run_dir: Path) -> None:
    frame = frames_of(run(run_dir, *SMALL, "--duration", "0.2")[1])[0]
    assert (frame.format.name, frame.width, frame.height) == ("yuv420p", 320, 180)
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)


def test_times_are_those_of_the_monotonic_clock(run_dir: Path) -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    seen = seen_in(run(run_dir, *SMALL, "--duration", "1")[1])
    after = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert before <= seen[0].time_s % 2**33 <= seen[-1].time_s <= after + 0.1
    for earlier, later in pairwise(seen):
        assert later.time_s - earlier.time_s == pytest.approx((later.code.frame - earlier.code.frame) / 30, abs=1e-4)


def test_testsrc2_is_drawn_by_ffmpegs_own_filter(run_dir: Path) -> None:
    code, stream, _ = run(run_dir, *SMALL, "--pattern", "testsrc2", "--duration", "0.5")
    assert code == 0
    assert len(frames_of(stream)) >= 10
    with pytest.raises(Refused):
        seen_in(stream)


def test_sizes_that_are_no_multiple_of_16(run_dir: Path) -> None:
    for width, height in (("16", "16"), ("18", "34"), ("642", "362")):
        code, stream, _ = run(run_dir, "--width", width, "--height", height, "--fps", "10", "--duration", "0.3")
        assert code == 0
        assert (frames_of(stream)[0].width, frames_of(stream)[0].height) == (int(width), int(height))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--width", "0"], 2, "--width='0' (command line): must be an even whole number from 16 to 8192"),
        (["--width", "99999"], 2, "--width='99999'"),
        (["--fps", "0"], 2, "--fps='0'"),
        (["--bitrate", "abc"], 2, "--bitrate='abc'"),
        (["--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["--instance-id", "a b"], 2, "--instance-id='a b'"),
        (["--renderer", "egl", "--height", "361"], 2, "--height='361' (command line): must be an even whole number"),
        (["--encoder", "vpf"], 3, "encoder vpf: "),
        (["--first-frame-limit-s", "0.001"], 4, "no first picture within 0.001 s"),
    ],
)
def test_what_cannot_be_is_one_line_and_its_own_exit_code(
    run_dir: Path, options: list[str], code: int, said: str
) -> None:
    returned, stdout, events = run(run_dir, *options)
    assert (returned, stdout, len(events)) == (code, b"", 1)
    assert said in events[0]


def test_a_wrong_variable_and_an_unknown_one_of_ours_are_named(run_dir: Path) -> None:
    assert run(run_dir, METABONK_HEADLESS_FPS="fast")[2][0].startswith("METABONK_HEADLESS_FPS='fast' (environment)")
    assert run(run_dir, PLANARIA_HEADLES_W="640")[2][0].startswith("PLANARIA_HEADLES_W: unknown variable (environment)")


def test_help_has_examples() -> None:
    done = subprocess.run([*AGENT, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0
    assert "examples:" in done.stdout and "METABONK_HEADLESS_W" in done.stdout and "exit codes" in done.stdout


def test_an_encoder_that_does_not_open_is_said() -> None:
    with pytest.raises(EncoderFailed, match="x264 does not open at 1280x720"):
        X264(Producer(x264_preset="nonsense"), "nv12")


def test_a_reader_that_stops_reading_is_noticed(run_dir: Path) -> None:
    read_end, write_end = os.pipe()
    running = start(run_dir, write_end, "--stdout-limit-s", "0.5")
    os.close(write_end)
    _, err = running.communicate(timeout=60)
    os.close(read_end)
    assert running.returncode == 5
    assert json.loads(err.splitlines()[-1])["event"] == "stdout: the reader has taken nothing for 0.5 s"


def test_a_reader_that_goes_away_is_noticed(run_dir: Path) -> None:
    read_end, write_end = os.pipe()
    running = start(run_dir, write_end)
    os.close(write_end)
    assert os.read(read_end, 188)
    os.close(read_end)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 6
    assert json.loads(err.splitlines()[-1])["event"] == "stdout: the reader has closed it"


@pytest.mark.parametrize(("redirection", "said"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left")])
def test_an_output_that_cannot_be_written_is_one_line(run_dir: Path, redirection: str, said: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {' '.join(AGENT)} {' '.join(SMALL)} {redirection}"],
        cwd=ROOT,
        env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)),
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 6
    assert json.loads(line)["event"].startswith(f"stdout: {said}")


def test_a_socket_is_written_to_and_its_reader_watched(run_dir: Path) -> None:
    ours, theirs = socket.socketpair()
    running = start(run_dir, theirs.fileno(), "--stdout-limit-s", "0.5")
    theirs.close()
    with ours:
        assert ours.recv(1)[0] == 0x47
        _, err = running.communicate(timeout=30)
    assert running.returncode == 5
    assert b"the reader has taken nothing for 0.5 s" in err


def test_a_pipe_that_cannot_be_opened_anew_is_written_to_without_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    read_end, write_end = os.pipe()
    monkeypatch.setattr(os, "open", refuse)  # as for a pipe that another user made
    own, write = pipes._reopened(write_end)
    monkeypatch.undo()
    written = 0
    with contextlib.suppress(BlockingIOError):
        while written < 10_000_000:
            written += write(own, memoryview(bytes(65536)))
    assert 0 < written <= 65536, "it wrote what the pipe holds, then said that it would block"
    os.close(read_end)
    os.close(own)


def test_a_terminal_gets_no_video(run_dir: Path) -> None:
    primary, secondary = pty.openpty()
    done = subprocess.run(
        [*AGENT, *SMALL],
        cwd=ROOT,
        env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)),
        stdout=secondary,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    os.close(primary)
    os.close(secondary)
    assert done.returncode == 2
    assert b"stdout is a terminal" in done.stderr


def test_a_keyframe_comes_when_asked_for_by_bus_and_by_signal(run_dir: Path) -> None:
    with producer(run_dir) as running:
        running.wait_frames(5)
        running.ask(Keyframe())
        running.wait_frames(5)
        running.process.send_signal(signal.SIGUSR1)
        running.wait_frames(5)
        keyframes = [picture.code.frame for picture in seen_in(running.end()) if picture.keyframe]
    assert len(keyframes) == 3 and keyframes[0] == 0, "the GOP is ten seconds, so two were asked for"


def test_a_signal_that_comes_too_early_does_no_harm(run_dir: Path) -> None:
    running = Running(run_dir, *SMALL, "--duration", "0.5")
    until(lambda: _ignores(running.process.pid, signal.SIGUSR1), every_s=0.001)
    assert not running.data, "it is still starting"
    running.process.send_signal(signal.SIGUSR1)
    until(lambda: running.process.poll() is not None)
    assert running.process.returncode == 0
    running.end()


def _ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal now, by /proc's mask."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigIgn:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    ("first", "second"), [("400k", 2_000_000), pytest.param("4M", 500_000, marks=pytest.mark.long)]
)
def test_the_bit_rate_changes_while_it_runs_up_and_down(run_dir: Path, first: str, second: int) -> None:
    noisy = ["--pattern", "testsrc2", "--width", "640", "--height", "360", "--bitrate", first]
    with producer(run_dir, *noisy) as running:
        running.wait_frames(30)
        start = len(running.data)
        running.wait_frames(90)
        middle = len(running.data)
        running.ask(Bitrate(bits_per_s=second))
        running.wait_frames(30)
        third = len(running.data)
        running.wait_frames(90)
        end = len(running.data)
        described = cast(Description, running.ask(Describe()))
    assert described.bitrate == second
    before, after = (middle - start) * 8 / 3, (end - third) * 8 / 3
    assert 0.6 * second < after < 1.6 * second, f"{before:.0f} then {after:.0f} bits a second"


def test_a_copy_by_hand_does_not_take_the_endpoint_and_inherits_it(run_dir: Path) -> None:
    with producer(run_dir, instance="x") as first, producer(run_dir, instance="y"):
        by_hand = Running(run_dir, *SMALL, instance="x")
        until(lambda: len(by_hand.data) > 20_000)
        assert cast(Description, first.ask(Describe())).pid == first.process.pid
        first.end()
        until(lambda: cast(Description, by_hand.ask(Describe())).pid == by_hand.process.pid)
        by_hand.end()


def test_after_a_stall_there_is_no_burst_and_the_clock_is_right(run_dir: Path) -> None:
    with producer(run_dir) as running:
        running.wait_frames(10)
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        running.process.send_signal(signal.SIGCONT)
        running.wait_frames(20)
        described = cast(Description, running.ask(Describe()))
        seen = seen_in(running.end())
    jump, at = max((later.code.frame - earlier.code.frame, i) for i, (earlier, later) in enumerate(pairwise(seen), 1))
    assert 30 <= jump <= 90
    assert described.dropped >= jump - 1
    after = seen[at : at + 15]
    made_in_s = (after[-1].code.time_us - after[0].code.time_us) / 1e6
    assert made_in_s > 0.3, f"{len(after)} pictures in {made_in_s} s is a burst"
    for picture in after:
        drift = (picture.code.time_us - seen[0].code.time_us) / 1e6 - (picture.time_s - seen[0].time_s)
        assert abs(drift) < 0.1


def test_it_has_no_children_and_dies_with_its_parent(run_dir: Path) -> None:
    with producer(run_dir) as running:
        assert children(running.process.pid) == []
    parent = subprocess.Popen(
        ["sh", "-c", f"{' '.join(AGENT)} {' '.join(SMALL)} & wait"],
        cwd=ROOT,
        env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)),
        stdout=subprocess.PIPE,
    )
    assert parent.stdout
    assert parent.stdout.read(188)
    parent.kill()
    parent.stdout.read()  # returns at end of file: the producer is gone too
    parent.communicate()


def test_an_unwritable_run_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, stdout, events = run(tmp_path / "file/run")
    assert (code, stdout, len(events)) == (2, b"", 1)
    assert events[0].startswith("PLANARIA_RUN_DIR=")
