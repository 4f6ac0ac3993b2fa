"""Every renderer, encoder and sound through a real go2rtc, while things are killed."""

from __future__ import annotations

import configparser
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from procs import proc
from procs.kinds import Address
from procs.settings import ROOT
from scripts import suite
from scripts.capture_programs import PROGRAM
from tests import rig
from tests.clone import Clone
from tests.decoding import frames_of, seen_in
from tests.rig import clean_environ, until
from tests.viewers import RtspViewer

SMALL = {"width": 320, "height": 180, "fps": 30, "gop": 30, "bitrate": "1M"}
needs_ffmpeg = pytest.mark.needs("ffmpeg", "ffprobe")
CAPTURE = (
    "ffmpeg -v error -re -f lavfi -i testsrc2=size=320x180:rate=30 -c:v libx264 -preset ultrafast -tune zerolatency"
    " -g 30 -f mpegts pipe:1"
)


def watch(running: rig.Go2rtc, stream: str) -> RtspViewer:
    """An RTSP viewer that has seen some pictures."""
    viewer = RtspViewer(running.rtsp, stream)
    viewer.start()
    until(lambda: len(viewer.arrivals) > 10, 20)
    return viewer


def living(pids: set[int]) -> list[int]:
    return [pid for pid in pids if proc.is_alive(pid)]


@needs_ffmpeg
def test_kill_9_of_the_ffmpeg_child_of_its_producer_and_of_go2rtc() -> None:
    with rig.go2rtc({"workers": 1, "producer": {**SMALL, "encoder": "ffmpeg"}}) as running:
        viewer = watch(running, "omega-0")
        for kill_child in (True, False):
            producer, child = family(running)
            before = proc.descendants(running.process.pid)
            kill_and_wait(viewer, child if kill_child else producer)
            until(lambda before=before: not living(before))  # type: ignore[misc]
        producer, child = family(running)
        running.process.kill()
        until(lambda: not living({producer, child}))


def family(running: rig.Go2rtc) -> tuple[int, int]:
    """Pids of the one producer and of its ffmpeg."""
    (producer,) = running.producers("omega-0")
    (child,) = rig.children(producer)
    return producer, child


def probed(url: str) -> list[list[str]]:
    """Codec, rate and channels of each sound track, and codec and size of each video track, as ffprobe sees them."""
    command = ["ffprobe", "-v", "error", "-rtsp_transport", "tcp", "-of", "csv=p=0"]
    entries = ["-show_entries", "stream=codec_name,sample_rate,channels,width"]

    def probe() -> subprocess.CompletedProcess[str] | None:
        done = subprocess.run([*command, *entries, url], capture_output=True, text=True, timeout=30, check=False)
        return None if done.returncode else done

    done = until(probe, 5)  # a go2rtc that has just started listens before it knows of exec:
    return sorted(line.split(",") for line in done.stdout.split())


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["aac", "opus"])
def test_sound_comes_through_go2rtc_and_holds_no_picture_back(codec: str) -> None:
    streams = {"loud": {"audio": "tone", "audio_codec": codec}, "mute": {}}
    with rig.go2rtc({"workers": 0, "producer": SMALL, "streams": streams}) as running:
        assert probed(running.stream("loud")) == sorted([[codec, "48000", "2"], ["h264", "320"]])
        latency_ms = {}
        for name in streams:
            viewer = watch(running, name)
            until(lambda viewer=viewer: len(viewer.arrivals) > 70, 20)  # type: ignore[misc]
            viewer.leave()
            ages = sorted((a.at_ns - _captured_ns(a.stamp.time_ns)) / 1e6 for a in viewer.arrivals[20:] if a.stamp)
            latency_ms[name] = ages[len(ages) // 2]
        assert latency_ms["loud"] - latency_ms["mute"] < 16, f"half a picture's time: {latency_ms}"


def _captured_ns(wall_ns: int) -> int:
    """A wall clock time on CLOCK_MONOTONIC."""
    return wall_ns - time.time_ns() + time.monotonic_ns()


def writer_of(clone: Clone) -> int:
    """Pid of the process that fills the pipe of `desk`."""
    return until(lambda: next(p.pid for p in suite.processes(clone.root) if p.name == "capture_desk"))


def kill_and_wait(viewer: RtspViewer, victim: int) -> None:
    """kill -9; then pictures return to a viewer who stayed connected."""
    seen = len(viewer.arrivals)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(viewer.arrivals) > seen + 20, 30)
    assert not viewer.ended


@needs_ffmpeg
def test_a_capture_of_the_settings_is_kept_running_and_its_viewers_stay(down: Clone, tmp_path: Path) -> None:
    """The command, the writer and the reader are killed in turn."""
    down.write_settings(workers=1, mode="fifo", captures={"omega-0": CAPTURE, "desk": f"sh -c '{CAPTURE} | cat'"})
    done = down.make("up")
    assert done.returncode == 0, done.stderr
    assert "waiting for a first picture of desk" in done.stderr and "capture_desk" in done.stdout
    assert not re.search(r"^fill ", done.stdout, re.M), "every pipe is filled"
    viewer = RtspViewer(suite_address(down.rtsp), "desk")
    viewer.start()
    until(lambda: len(viewer.arrivals) > 10, 20)
    (reader,) = [pid for pid in proc.marked(down.root) if "procs.capture.read_fifo" in rig.command_line(pid)]
    kill_and_wait(viewer, next(p for p in proc.descendants(writer_of(down)) if rig.command_line(p)[:1] == ["ffmpeg"]))
    below = proc.descendants(writer_of(down))
    kill_and_wait(viewer, writer_of(down))
    until(lambda: not living(below))
    kill_and_wait(viewer, reader)
    times = [arrival.rtp_time for arrival in viewer.arrivals]
    assert times == sorted(times), "time never runs back"
    assert down.make("down").returncode == 0
    assert down.living() == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sh -c 'echo oh no >&2; exit 4'", "exited with 4; its last words: oh no"),
        # what else a capture says of itself is in faults/test_capture.py
        pytest.param("no-such-command", "cannot run no-such-command", marks=pytest.mark.long),
        pytest.param("sh -c 'yes garbage'", "neither H.264 nor MPEG-TS", marks=pytest.mark.long),
    ],
)
def test_a_capture_that_fails_is_named_with_its_reason(down: Clone, command: str, said: str) -> None:
    down.write_settings(workers=1, captures={"desk": command})
    started = time.monotonic()
    done = down.cli("up")
    assert (done.returncode, down.living()) == (8, [])
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("planaria: ")]
    assert line.startswith("planaria: capture desk: ") and said in line and "404" not in done.stderr
    assert "everything was ended" in done.stderr
    assert time.monotonic() - started < 15, "nobody waits for a picture that can't come"


@needs_ffmpeg
def test_a_capture_that_fails_later_is_failing(down: Clone) -> None:
    switch = down.root / "run/works"
    script = f"sh -c 'test -e run/works || exit 9; exec {CAPTURE}'"
    (down.root / "run").mkdir(exist_ok=True)
    switch.touch()
    down.write_settings(workers=1, captures={"desk": script})
    assert down.make("up").returncode == 0
    switch.unlink()
    os.kill(writer_of(down), signal.SIGKILL)
    until(lambda: "failing" in down.cli("status").stdout, 20)
    status = down.cli("status")
    assert status.returncode == 8 and "capture_desk" in status.stdout
    assert "starts in a row failed: the command exited with 9" in status.stderr
    switch.touch()
    until(lambda: down.cli("status").returncode == 0, 20)


def test_a_template_that_fails_is_named_with_what_it_said(down: Clone) -> None:
    down.write_settings(workers=1, exec_cmd_template="sh -c 'echo oh no >&2; exit 4' {instance_id}")
    done = down.cli("up")
    assert done.returncode == 8
    assert "planaria: omega-0: the command exited with 4; its last words: oh no" in done.stderr


def suite_address(text: str) -> Address:
    host, port = text.split(":")
    return Address(host, int(port))


def test_pipes_that_others_fill_hold_up_nothing_and_are_named(down: Clone) -> None:
    down.write_settings(workers=2, mode="fifo")
    done = down.make("up")
    assert done.returncode == 0, done.stderr
    assert "fill    scripts/fifo_writer.sh" in done.stdout and "(pipes for others to fill: 2)" in done.stdout


@needs_ffmpeg
def test_a_pipe_is_filled_by_hand(down: Clone) -> None:
    down.write_settings(workers=1, mode="fifo")
    assert down.make("up").returncode == 0
    command = ["scripts/fifo_writer.sh", str(down.root / "temp/streams/omega-0.ts"), *CAPTURE.split()]
    writer = subprocess.Popen(command, cwd=down.root, env=clean_environ(), stderr=subprocess.DEVNULL)
    try:
        assert len(frames_of(down.stream("omega-0"), 5, rtsp_transport="tcp")) == 5
    finally:
        writer.kill()
        writer.wait()


def test_a_pipe_that_is_a_file_is_named_and_left_alone(down: Clone) -> None:
    folder = down.root / "temp/streams"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "omega-0.ts"
    file.unlink(missing_ok=True)
    file.write_bytes(b"precious")
    down.write_settings(workers=1, mode="fifo", captures={"omega-0": CAPTURE})
    done = down.cli("up")
    assert (done.returncode, file.read_bytes()) == (2, b"precious")
    assert len(done.stderr.splitlines()) == 1 and "omega-0.ts" in done.stderr and "is a regular file" in done.stderr
    file.unlink()


@pytest.mark.long
def test_every_log_is_bounded_and_turned_over(down: Clone) -> None:
    """Each program of supervisord's, and itself; a producer says what it says to go2rtc, whose log it is in."""
    talks = "sh -c 'while :; do seq 400 >&2; sleep 0.05; done'"
    down.write_settings(workers=1, mode="fifo", captures={"omega-0": talks})
    conf = down.root / "supervisord.conf"
    text = conf.read_text()
    conf.write_text(text.replace("5MB", "2KB"))
    program = down.root / "scripts/capture_programs.py"
    source = program.read_text()
    program.write_text(source.replace("5MB", "2KB"))
    try:
        down.make("up")
        supervisord = subprocess.Popen(
            [".venv/bin/supervisord", "-n", "-c", "supervisord.conf"], cwd=down.root, env=clean_environ(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        logs = down.root / "run/log"
        until(lambda: (logs / "capture_omega-0.log.2").exists(), 30)
        supervisord.kill()
        supervisord.wait()
        assert not (logs / "capture_omega-0.log.3").exists()
        assert all(path.stat().st_size < 20_000 for path in logs.glob("capture_omega-0.log*"))
    finally:
        conf.write_text(text)
        program.write_text(source)


def test_no_program_writes_without_a_bound() -> None:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read_string((ROOT / "supervisord.conf").read_text() + PROGRAM)
    for section in parser.sections():
        if section == "supervisord":
            assert parser[section]["logfile_maxbytes"] == "5MB" and int(parser[section]["logfile_backups"]) == 2
        elif section.startswith(("program:", "eventlistener:")):
            logs = [
                name for name in ("stdout", "stderr") if parser[section].get(f"{name}_logfile") not in (None, "NONE")
            ]
            for name in logs:
                assert parser[section][f"{name}_logfile_maxbytes"] == "5MB"
                assert int(parser[section][f"{name}_logfile_backups"]) == 2
            into_one = parser[section].get("redirect_stderr") == "true"
            assert into_one or parser[section]["stderr_logfile"], "supervisord would make a file of its own"


@needs_ffmpeg
def test_auto_plays_where_there_is_no_nvenc() -> None:
    with rig.go2rtc({"workers": 1, "producer": {**SMALL, "encoder": "auto"}}) as running:
        seen = seen_in(running.stream("omega-0"), 20, rtsp_transport="tcp")
        assert len(seen) == 20 and all(p.stamp and p.stamp.frame == p.code.frame for p in seen)
        until(lambda: '"event": "encoder ' in running.log.read_text())
