"""Encoders by themselves: which one is taken and why, the ffmpeg child's deaths, sound. NVENC's driver is played by a
library that is none, so that what happens with a driver and no NVENC can be seen anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import av
import pytest

from procs import proc
from procs.headless_agent.audio import Audio
from procs.headless_agent.options import Producer
from procs.messages.requests import Bitrate, Keyframe
from procs.settings import ROOT
from tests import rig
from tests.decoding import frames_of, seen_in
from tests.faults.test_producer import SMALL, Running, producer, run
from tests.rig import AGENT, children, clean_environ, command_line, until

needs_ffmpeg = pytest.mark.needs("ffmpeg")
needs_egl = pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")


@pytest.fixture
def false_driver(tmp_path: Path) -> dict[str, str]:
    """An environment in which libcuda.so.1 loads and is no CUDA: the machine has a driver, and NVENC does not open."""
    library = next(path for path in Path("/lib").rglob("libz.so.1") if path.exists())
    (tmp_path / "lib").mkdir()
    shutil.copy(library, tmp_path / "lib/libcuda.so.1")
    return {"LD_LIBRARY_PATH": str(tmp_path / "lib")}


def test_auto_takes_x264_and_its_first_line_says_why(run_dir: Path, false_driver: dict[str, str]) -> None:
    code, stream, events = run(run_dir, *SMALL, "--duration", "0.5", **false_driver)
    assert code == 0 and len(frames_of(stream)) > 5
    assert events[0].startswith("encoder x264 (nvenc: nvenc does not open at 320x180: ")


def test_nvenc_without_one_is_one_line(run_dir: Path, false_driver: dict[str, str]) -> None:
    code, stream, events = run(run_dir, *SMALL, "--encoder", "nvenc", **false_driver)
    assert (code, stream, len(events)) == (3, b"", 1)
    assert events[0].startswith("encoder nvenc: nvenc does not open at 320x180: ")


@pytest.mark.parametrize("encoder", ["nvenc", "nvenc-cuda", "vpf"])
def test_no_driver_is_seen_at_a_glance_and_said_with_the_streams_name(run_dir: Path, encoder: str) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    done = subprocess.run(
        [sys.executable, "-m", "procs.headless_agent", *SMALL, "--instance-id", "named", "--encoder", encoder],
        cwd=ROOT,
        env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)),
        capture_output=True,
        check=False,
        timeout=30,
    )
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (done.returncode, line["tag"]) == (3, "headless_agent named")
    next_step = "" if encoder == "nvenc" else "; use encoder: auto"
    assert line["event"] == f"encoder {encoder}: no NVIDIA driver here (libcuda.so.1 is missing){next_step}"


@needs_ffmpeg
def test_an_ffmpeg_that_was_compiled_with_nvenc_falls_back(run_dir: Path, false_driver: dict[str, str]) -> None:
    listed = subprocess.run(["ffmpeg", "-v", "quiet", "-encoders"], capture_output=True, text=True, check=True).stdout
    assert "h264_nvenc" in listed, "this ffmpeg can't show it"
    code, stream, events = run(run_dir, *SMALL, "--encoder", "ffmpeg", "--duration", "1", **false_driver)
    assert code == 0 and frames_of(stream)
    assert events[0].startswith("encoder ffmpeg libx264 (ffmpeg h264_nvenc: ffmpeg h264_nvenc ")


@needs_ffmpeg
def test_forced_software_tries_no_hardware(run_dir: Path, false_driver: dict[str, str]) -> None:
    options = (*SMALL, "--encoder", "ffmpeg", "--force-sw", "--duration", "0.5")
    assert run(run_dir, *options, **false_driver)[2][0] == "encoder ffmpeg libx264"


@needs_ffmpeg
@pytest.mark.parametrize("source", [["--renderer", "cpu"], ["--pattern", "testsrc2"]])
@pytest.mark.parametrize("size", [("320", "180"), ("642", "362")])
def test_the_child_gets_every_picture_and_gives_it_back(
    run_dir: Path, source: list[str], size: tuple[str, str]
) -> None:
    options = ("--fps", "30", "--gop", "30", "--encoder", "ffmpeg", "--force-sw", "--duration", "1")
    code, stream, _ = run(run_dir, "--width", size[0], "--height", size[1], *source, *options)
    frames = frames_of(stream)
    assert code == 0 and len(frames) > 5
    assert (frames[0].width, frames[0].height, frames[0].format.name) == (int(size[0]), int(size[1]), "yuv420p")
    matrix = 1 if source == ["--renderer", "cpu"] else 6
    assert (frames[0].colorspace, frames[0].color_range) == (matrix, 1)
    if source == ["--renderer", "cpu"]:
        assert all(p.stamp and p.stamp.frame == p.code.frame for p in seen_in(stream))


def child_of(running: Running) -> int:
    """Pid of a producer's ffmpeg."""
    (pid,) = until(lambda: [p for p in children(running.process.pid) if "ffmpeg" in command_line(p)[0]])
    return pid


@needs_ffmpeg
def test_a_killed_child_ends_the_producer_with_a_line(run_dir: Path) -> None:
    with producer(run_dir, "--encoder", "ffmpeg", "--force-sw") as running:
        os.kill(child_of(running), signal.SIGKILL)
        assert running.process.wait(5) == 7
        assert running.process.stderr
        assert "ffmpeg libx264 was killed by signal 9" in running.process.stderr.read().decode()


@needs_ffmpeg
def test_a_frozen_child_ends_the_producer_and_is_ended(run_dir: Path) -> None:
    with producer(run_dir, "--encoder", "ffmpeg", "--force-sw") as running:
        os.kill(child := child_of(running), signal.SIGSTOP)
        assert running.process.wait(10) == 7
        until(lambda: not Path(f"/proc/{child}").exists())


@needs_ffmpeg
def test_a_killed_producer_leaves_no_child(run_dir: Path) -> None:
    with producer(run_dir, "--encoder", "ffmpeg", "--force-sw") as running:
        os.kill(child := child_of(running), signal.SIGSTOP)  # it can't notice the end of its input
        running.process.kill()
        until(lambda: not Path(f"/proc/{child}").exists())


@needs_ffmpeg
def test_keyframe_and_bit_rate_on_demand(run_dir: Path) -> None:
    with producer(run_dir, "--encoder", "ffmpeg", "--force-sw") as running:
        before = child_of(running)
        running.wait_frames(10)
        running.ask(Keyframe())
        running.wait_frames(10)
        assert child_of(running) != before
        running.ask(Bitrate(bits_per_s=300_000))
        running.wait_frames(20)
        seen = seen_in(running.end())
    assert sum(p.keyframe for p in seen) == 3, "the first, the one asked for, and the new rate's"


@needs_ffmpeg
@pytest.mark.parametrize(
    "fps", ["1", pytest.param("4", marks=pytest.mark.long), pytest.param("101", marks=pytest.mark.long), "240"]
)
def test_a_child_at_any_rate(run_dir: Path, fps: str) -> None:
    options = ("--width", "160", "--height", "90", "--fps", fps, "--encoder", "ffmpeg", "--force-sw", "--duration", "2")
    code, stream, _ = run(run_dir, *options)
    assert code == 0 and frames_of(stream)


@needs_ffmpeg
def test_a_new_bit_rate_is_the_new_childs(run_dir: Path) -> None:
    with producer(run_dir, "--encoder", "ffmpeg", "--force-sw", "--pattern", "testsrc2", "--gop", "30") as running:
        running.wait_frames(60)
        before = len(running.data) / running.frames()
        running.ask(Bitrate(bits_per_s=100_000))
        running.wait_frames(30)
        at, frames = len(running.data), running.frames()
        running.wait_frames(60)
        after = (len(running.data) - at) / (running.frames() - frames)
    assert after < before / 2


@needs_ffmpeg
def test_a_hung_encoder_makes_room_for_the_next_and_is_ended(
    run_dir: Path, tmp_path: Path, false_driver: dict[str, str]
) -> None:
    slow = tmp_path / "ffmpeg"
    slow.write_text('#!/bin/sh\ncase "$*" in *h264_nvenc*) sleep 1000 ;; *) exec ffmpeg "$@" ;; esac\n')
    slow.chmod(0o755)
    environ = clean_environ(PLANARIA_RUN_DIR=str(run_dir), **false_driver)
    command = [*AGENT, *SMALL, "--encoder", "ffmpeg", "--ffmpeg", str(slow)]
    running = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout and running.stderr and running.stdout.read(188)
    assert "h264_nvenc stood still for 3 s" in running.stderr.readline().decode()
    below = [rig.command_line(pid)[0] for pid in proc.descendants(running.pid)]
    assert below == ["ffmpeg"], "nothing sleeps on"
    running.kill()
    running.communicate()


@needs_ffmpeg
def test_a_wrapper_around_ffmpeg_leaks_nothing_and_may_talk(run_dir: Path, tmp_path: Path) -> None:
    wrapper = tmp_path / "ffmpeg"
    wrapper.write_text('#!/bin/sh\nhead -c 30000000 /dev/zero | tr "\\0" x >&2\nffmpeg "$@"\n')
    wrapper.chmod(0o755)
    with producer(run_dir, "--encoder", "ffmpeg", "--force-sw", "--ffmpeg", str(wrapper)) as running:
        pid = running.process.pid
        counts = []
        for _ in range(2):
            for _ in range(4):
                running.ask(Keyframe())
                running.wait_frames(20)
            counts.append((len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))))
        assert counts[1][0] <= counts[0][0] + 1 and counts[1][1] <= counts[0][1] + 1, "one may be ending just now"
        assert len(proc.descendants(pid)) <= 2
        assert int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 < 150e6


@needs_ffmpeg
@pytest.mark.parametrize("encoder", ["x264", "ffmpeg"])
def test_testsrc2_is_tagged_as_what_it_is(run_dir: Path, encoder: str) -> None:
    options = (*SMALL, "--pattern", "testsrc2", "--encoder", encoder, "--force-sw", "--duration", "0.5")
    frame = frames_of(run(run_dir, *options)[1])[0]
    assert (frame.colorspace, frame.color_range) == (6, 1), "BT.601, limited"


@needs_ffmpeg
def test_a_storm_of_wishes_for_keyframes_costs_few_children(run_dir: Path) -> None:
    with producer(run_dir, "--encoder", "ffmpeg", "--force-sw") as running:
        running.wait_frames(20)
        started = time.monotonic()
        while time.monotonic() - started < 2:
            running.process.send_signal(signal.SIGUSR1)
            time.sleep(0.005)
        seen = seen_in(running.end())
    assert 3 <= sum(p.keyframe for p in seen) <= 6, "the first, and one every half second"


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [("/nonexistent/ffmpeg", 2, "is no program"), ("/bin/true", 3, "ffmpeg libx264 ended with exit code 0")],
)
def test_a_program_that_is_no_ffmpeg(run_dir: Path, program: str, code: int, said: str) -> None:
    returned, stream, events = run(run_dir, *SMALL, "--encoder", "ffmpeg", "--ffmpeg", program)
    assert (returned, stream, len(events)) == (code, b"", 1)
    assert said in events[0]


@needs_egl
def test_egl_writes_what_its_barcode_says(run_dir: Path) -> None:
    code, stream, events = run(run_dir, *SMALL, "--renderer", "egl", "--duration", "2")
    seen = seen_in(stream)
    assert code == 0 and len(seen) >= 40
    assert all(p.stamp and p.stamp.frame == p.code.frame for p in seen)
    assert any(event.startswith("colour conversion by ") for event in events)


@needs_egl
def test_egl_without_a_driver_names_the_packages(run_dir: Path) -> None:
    nothing = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent"}
    code, stream, events = run(run_dir, *SMALL, "--renderer", "egl", **nothing)
    assert (code, stream, len(events)) == (3, b"", 1)
    assert events[0].startswith("renderer egl: no driver serves") and "apt-get install libegl1" in events[0]


def sound_of(stream: bytes, path: Path) -> tuple[str, int, list[float], list[int]]:
    """Codec, rate, packet times in seconds, and samples of the left channel."""
    path.write_bytes(stream)
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        times = [float(p.pts * p.time_base) for p in container.demux(track) if p.pts is not None and p.time_base]
    samples: list[int] = []
    to_mono = av.AudioResampler(format="s16", layout="mono", rate=48_000)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            for part in to_mono.resample(frame):
                samples += memoryview(bytes(part.planes[0])[: 2 * part.samples]).cast("h").tolist()
    return track.codec_context.name, track.rate or 0, times, samples


def pitch_hz(samples: list[int]) -> float:
    """Upward zero crossings a second."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return sum(a < 0 <= b for a, b in pairwise(middle)) * 48_000 / len(middle)


@pytest.mark.parametrize(("codec", "name"), [("aac", "aac"), ("opus", "opus")])
def test_a_tone_goes_with_the_pictures(run_dir: Path, tmp_path: Path, codec: str, name: str) -> None:
    code, stream, _ = run(run_dir, *SMALL, "--audio", "tone", "--audio-codec", codec, "--duration", "2")
    assert code == 0
    found, rate, times, samples = sound_of(stream, tmp_path / "tone.ts")
    assert (found, rate) == (name, 48_000)
    assert pitch_hz(samples) == pytest.approx(480, abs=3)
    steps = [b - a for a, b in pairwise(times)]
    assert max(steps) < 0.03, "no hole"
    pictures = seen_in(stream)
    assert times[0] == pytest.approx(pictures[0].time_s, abs=0.05)
    assert times[-1] == pytest.approx(pictures[-1].time_s, abs=0.1)


@needs_ffmpeg
def test_a_file_is_played_in_a_loop(run_dir: Path, tmp_path: Path) -> None:
    wav = tmp_path / "a b.wav"
    make = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=1200:sample_rate=22050:duration=0.7",
        str(wav),
    ]
    subprocess.run(make, check=True, timeout=20)
    code, stream, _ = run(run_dir, *SMALL, "--audio", str(wav), "--duration", "3")
    assert code == 0
    _, _, times, samples = sound_of(stream, tmp_path / "file.ts")
    assert pitch_hz(samples) == pytest.approx(1200, abs=20)
    assert times[-1] - times[0] > 2.5, "longer than the file"


@needs_ffmpeg
def test_what_cannot_be_decoded_in_a_file_is_left_out(run_dir: Path, tmp_path: Path) -> None:
    """Two files in one, of two rates, and a home that is written as ~."""
    for name, rate in (("a", 44100), ("b", 22050)):
        source = f"sine=frequency=1000:sample_rate={rate}:duration=0.5"
        subprocess.run(
            ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, str(tmp_path / f"{name}.mp3")], check=True
        )
    (tmp_path / "mix.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() + (tmp_path / "b.mp3").read_bytes())
    options = (*SMALL, "--audio", "~/mix.mp3", "--duration", "3")
    code, stream, _ = run(run_dir, *options, HOME=str(tmp_path))
    assert code == 0
    assert sound_of(stream, tmp_path / "o.ts")[2][-1] > sound_of(stream, tmp_path / "o.ts")[2][0] + 2.5


def test_sound_that_is_late_is_left_out(tmp_path: Path) -> None:
    container = av.open(str(tmp_path / "o.ts"), "w", format="mpegts")
    sound = Audio(Producer(audio="tone"), container, 0)
    sound.put_until(0.5)
    sound.put_until(3600.0)
    container.close()
    assert len(sound_of((tmp_path / "o.ts").read_bytes(), tmp_path / "p.ts")[2]) < 60


def test_a_file_without_sound_is_one_line(run_dir: Path) -> None:
    code, stream, events = run(run_dir, *SMALL, "--audio", str(ROOT / "LICENSE"))
    assert (code, stream, len(events)) == (2, b"", 1)
    assert "LICENSE': cannot be decoded" in events[0]


def test_producers_options_are_what_the_encoders_get() -> None:
    assert (Producer().nvenc_preset, Producer().nvenc_tune, Producer().nvenc_rc) == ("p1", "ll", "cbr")
