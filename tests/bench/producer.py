"""Producer: CPU a picture, time to first byte, latency added by go2rtc, gap after a kill, memory.

Peers: ffmpeg's own pipeline on the same pictures (testsrc2), the older RGBA pipe into an ffmpeg child, and the older
egl producer (older_egl.py) on the same scene.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from procs.errors import NotHere
from procs.headless_agent import egl
from procs.settings import ROOT
from tests import rig
from tests.bench.measure import Result, Size, cpu_s, median, percentile, rss_mb, say
from tests.rig import AGENT, until
from tests.viewers import RtspViewer

SIZE, FPS, BITRATE = (1280, 720), 60, "4M"
WARM_S = 1.5
VIDEO_PID = 0x100
OURS = [*AGENT, "--width", "1280", "--height", "720", "--fps", "60", "--bitrate", BITRATE]
ENCODE = (
    f"-c:v libx264 -preset ultrafast -tune zerolatency -b:v {BITRATE} -maxrate {BITRATE} -bufsize 400k -g 60 -f mpegts"
    " -omit_video_pes_length 0 -muxdelay 0 -muxpreload 0 -flush_packets 1 pipe:1"
)
FFMPEG = f"ffmpeg -nostdin -v error -re -f lavfi -i testsrc2=size=1280x720:rate=60 {ENCODE}"
FFMPEG_1 = FFMPEG.replace("-c:v libx264", "-c:v libx264 -threads 1")
RGBA = f"ffmpeg -v error -f rawvideo -pix_fmt rgba -s 1280x720 -r 60 -i pipe:0 -pix_fmt yuv420p -bf 0 {ENCODE}"
EGL = [*OURS, "--renderer", "egl", "--encoder", "x264"]
# As published it names no pixel format, and so encodes 4:4:4, which browsers do not play; the second one does.
OLDER_444 = RGBA.replace("-pix_fmt yuv420p ", "")
OLDER = [sys.executable, "-m", "tests.bench.older_egl", "1280", "720", "60"]


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    cpu_s: float
    starts: int
    latency_s: float
    kills: int


PLANS: dict[Size, Plan] = {
    "full": Plan(5, 6.0, 15, 10.0, 15),
    "quick": Plan(1, 2.0, 3, 2.0, 2),
    "least": Plan(1, 0.5, 1, 1.0, 1),
}


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere without an ffmpeg."""
    if not shutil.which("ffmpeg"):
        raise NotHere("ffmpeg is missing: sh scripts/setup_tests.sh")
    egl.need_libraries()
    result = Result("producer")
    result.peers = {
        "ffmpeg": FFMPEG,
        "ffmpeg_threads_1": FFMPEG_1,
        "rgba_pipe": f"Python | {RGBA}",
        "older": f"Python, OpenGL | {OLDER_444}",
        "older_420": f"Python, OpenGL | {RGBA}",
    }
    result.targets = {
        "cpu_vs_ffmpeg": "at most 1.0",
        "rgba_pipe_cpu_over_ours": "at least 2",
        "added_latency_ms_p50": "under 2",
        "first_byte_extra_ms": "at most 150",
        "gap_ms_p50": "under 250",
        "rss_mb": "under 80",
        "psnr_extra_db": "from -0.5 to 0.5",
        "egl_cpu_vs_older": "at most 0.65",
        "egl_first_byte_vs_older": "at most 0.5",
    }
    plan = PLANS[size]
    _cpu(result, plan.rounds, plan.cpu_s)
    _first_byte(result, plan.starts)
    _egl(result, plan.rounds, plan.cpu_s, plan.starts)
    _latency(result, plan.latency_s)
    _gap(result, plan.kills)
    if size == "full":
        _psnr(result)
    return result


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A producer whose stdout is ours to read; killed at the end."""
    environ = rig.clean_environ(PLANARIA_RUN_DIR=tempfile.mkdtemp(prefix="planaria-bench-"))
    running = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()
        shutil.rmtree(environ["PLANARIA_RUN_DIR"], ignore_errors=True)


class Pictures:
    """Counts the pictures of an MPEG-TS stream as it is read."""

    def __init__(self, running: subprocess.Popen[bytes]) -> None:
        assert running.stdout
        self._descriptor, self._rest = running.stdout.fileno(), b""

    def count(self, seconds: float) -> int:
        """Read for so long; how many pictures began."""
        deadline, found = time.monotonic() + seconds, 0
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._descriptor], [], [], left)[0]:
                continue
            data = self._rest + os.read(self._descriptor, 1 << 20)
            whole = len(data) // 188 * 188
            found += sum(_begins_picture(data[at : at + 3]) for at in range(0, whole, 188))
            self._rest = data[whole:]
        return found


def _begins_picture(head: bytes) -> bool:
    return bool(head[1] & 0x40) and ((head[1] & 0x1F) << 8 | head[2]) == VIDEO_PID


def cpu_ms_per_picture(command: list[str], seconds: float) -> tuple[float, float]:
    """(CPU ms a picture of a command and its children once it runs, resident MB of the command itself)."""
    with process(command) as running:
        pictures = Pictures(running)
        pictures.count(WARM_S)
        pids = [running.pid, *rig.children(running.pid)]
        before = sum(map(cpu_s, pids))
        count = pictures.count(seconds)
        spent = sum(map(cpu_s, pids)) - before
        return 1000 * spent / max(count, 1), rss_mb(running.pid)


def _cpu(result: Result, rounds: int, seconds: float) -> None:
    rgba = [sys.executable, "-m", "tests.bench.rgba_pipe", "1280", "720", "60", *RGBA.split()]
    commands = {
        "ours": [*OURS, "--pattern", "testsrc2"],
        "ffmpeg": FFMPEG.split(),
        "ffmpeg_threads_1": FFMPEG_1.split(),
        "rgba_pipe": rgba,
        "pattern": OURS,
    }
    spent: dict[str, list[float]] = {name: [] for name in commands}
    memory: list[float] = []
    for number in range(rounds):
        say(f"CPU at 720p60, round {number + 1} of {rounds}")
        for name, command in commands.items():
            ms, mb = cpu_ms_per_picture(command, seconds)
            spent[name].append(ms)
            if name == "pattern":
                memory.append(mb)
    result.figures["cpu_ms_per_frame"] = round(median(spent["ours"]), 2)
    result.figures["ffmpeg_cpu_ms_per_frame"] = round(median(spent["ffmpeg"]), 2)
    result.figures["ffmpeg_threads_1_cpu_ms_per_frame"] = round(median(spent["ffmpeg_threads_1"]), 2)
    result.figures["rgba_pipe_cpu_ms_per_frame"] = round(median(spent["rgba_pipe"]), 2)
    result.figures["pattern_cpu_ms_per_frame"] = round(median(spent["pattern"]), 2)
    result.figures["rss_mb"] = round(median(memory), 1)
    result.ratio("cpu_vs_ffmpeg", spent["ours"], spent["ffmpeg"])
    result.ratio("cpu_vs_ffmpeg_threads_1", spent["ours"], spent["ffmpeg_threads_1"])
    result.ratio("rgba_pipe_cpu_over_ours", spent["rgba_pipe"], spent["ours"])


def first_byte_ms(command: list[str]) -> float:
    """From starting a command to its first byte."""
    started = time.monotonic()
    with process(command) as running:
        assert running.stdout
        os.read(running.stdout.fileno(), 188)
        return (time.monotonic() - started) * 1000


def _first_byte(result: Result, rounds: int) -> None:
    say(f"time to first byte, {rounds} rounds")
    times = [(first_byte_ms(OURS), first_byte_ms(FFMPEG.split())) for _ in range(rounds)]
    result.figures["first_byte_ms"] = round(median([ours for ours, _ in times]), 1)
    result.figures["ffmpeg_first_byte_ms"] = round(median([theirs for _, theirs in times]), 1)
    result.figures["first_byte_extra_ms"] = round(median([ours - theirs for ours, theirs in times]), 1)
    result.ratio("first_byte_vs_ffmpeg", [ours for ours, _ in times], [theirs for _, theirs in times])


def _egl(result: Result, rounds: int, seconds: float, starts: int) -> None:
    """Our egl renderer against the older one, on the same scene."""
    commands = {"ours": EGL, "older": [*OLDER, *OLDER_444.split()], "older_420": [*OLDER, *RGBA.split()]}
    spent: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        say(f"CPU of the egl renderer, round {number + 1} of {rounds}")
        for name, command in commands.items():
            spent[name].append(cpu_ms_per_picture(command, seconds)[0])
    for name, values in spent.items():
        result.figures[f"egl_{name}_cpu_ms_per_frame"] = round(median(values), 2)
    result.ratio("egl_cpu_vs_older", spent["ours"], spent["older"])
    result.ratio("egl_cpu_vs_older_420", spent["ours"], spent["older_420"])
    say(f"time to first byte of the egl renderer, {starts} rounds")
    times = [(first_byte_ms(EGL), first_byte_ms(commands["older"])) for _ in range(starts)]
    result.figures["egl_first_byte_ms"] = round(median([ours for ours, _ in times]), 1)
    result.figures["egl_older_first_byte_ms"] = round(median([older for _, older in times]), 1)
    result.ratio("egl_first_byte_vs_older", [ours for ours, _ in times], [older for _, older in times])


def added_latency_ms(extra: list[str], seconds: float) -> list[float]:
    """From the producer's write to the last byte at an RTSP viewer, for each picture, at 720p30."""
    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory:
        notes = Path(directory) / "written.txt"
        agent = [*AGENT, "--width", "1280", "--height", "720", "--fps", "30", "--bitrate", BITRATE, *extra]
        command = " ".join([sys.executable, "-m", "tests.bench.timing_pipe", str(notes), *agent])
        with rig.go2rtc({"workers": 0}, sources={"x": f"exec:{command}"}) as running:
            viewer = RtspViewer(running.rtsp, "x")
            viewer.start()
            until(lambda: viewer.arrivals, 20)
            time.sleep(seconds)
            viewer.leave()
        pairs = (line.split() for line in notes.read_text().splitlines())
        written = {int(frame): int(written_ns) for frame, written_ns in pairs}
    arrivals = {a.stamp.frame: a.at_ns for a in viewer.arrivals[5:] if a.stamp}
    return [(at - written[frame]) / 1e6 for frame, at in arrivals.items() if frame in written]


def _latency(result: Result, seconds: float) -> None:
    say("latency that go2rtc adds")
    ours = added_latency_ms([], seconds)
    annexb = added_latency_ms(["--out", "h264"], seconds)
    result.figures["added_latency_ms_p50"] = round(median(ours), 3)
    result.figures["added_latency_ms_p95"] = round(percentile(ours, 0.95), 3)
    result.figures["h264_added_latency_ms_p50"] = round(median(annexb), 3) if annexb else -1


def gaps_ms(running: rig.Go2rtc, stream: str, kills: int, name: str) -> list[float]:
    """Pauses that an RTSP viewer sees when the stream's child, whose command names `name`, is killed."""
    viewer = RtspViewer(running.rtsp, stream)
    viewer.start()
    until(lambda: len(viewer.arrivals) > 30, 20)
    gaps = []
    for _ in range(kills):
        time.sleep(0.7)
        (victim,) = [p for p in rig.children(running.process.pid) if re.search(name, " ".join(rig.command_line(p)))]
        killed_ns = time.monotonic_ns()
        os.kill(victim, signal.SIGKILL)
        gaps.append(until(lambda since=killed_ns: viewer.gap_ms(since), 15) or 0.0)  # type: ignore[misc]
    viewer.leave()
    return gaps


def _gap(result: Result, kills: int) -> None:
    say(f"gap after kill -9, {kills} kills each")
    document = {"workers": 1, "producer": {"width": 1280, "height": 720, "fps": 30, "gop": 30, "bitrate": BITRATE}}
    with rig.go2rtc(document) as running:
        ours = gaps_ms(running, "omega-0", kills, "procs.headless_agent")
    peer = FFMPEG.replace("rate=60", "rate=30").replace("-g 60", "-g 30")
    with rig.go2rtc({"workers": 0}, sources={"peer": f"exec:{peer}"}) as running:
        theirs = gaps_ms(running, "peer", kills, "^ffmpeg")
    result.figures["gap_ms_p50"] = round(median(ours), 1)
    result.figures["gap_ms_max"] = round(max(ours), 1)
    result.figures["ffmpeg_gap_ms_p50"] = round(median(theirs), 1)
    result.ratio("gap_vs_ffmpeg", sorted(ours), sorted(theirs))


def _psnr(result: Result) -> None:
    """Luma PSNR of both against the source, on the first pictures: CPU is compared at equal quality only."""
    say("quality")
    ours = psnr_db([*OURS, "--pattern", "testsrc2", "--duration", "5"])
    theirs = psnr_db(FFMPEG.replace("-c:v libx264", "-t 5 -c:v libx264").split())
    result.figures["psnr_db"], result.figures["ffmpeg_psnr_db"] = round(ours, 2), round(theirs, 2)
    result.figures["psnr_extra_db"] = round(ours - theirs, 2)


def psnr_db(command: list[str]) -> float:
    """Mean luma PSNR of what a command writes against testsrc2, picture by picture in order."""
    with process(command) as running:
        assert running.stdout
        stream = running.stdout.read()
    order = "[0:v]setpts=N/60/TB[a];[1:v]setpts=N/60/TB[b];[a][b]psnr"
    compare = ["-i", "pipe:0", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=60", "-lavfi", order]
    done = subprocess.run(
        ["ffmpeg", "-v", "info", *compare, "-frames:v", "240", "-f", "null", "-"],
        input=stream,
        capture_output=True,
        timeout=120,
        check=True,
    )
    return float(re.findall(rb"PSNR y:([0-9.]+)", done.stderr)[-1])
