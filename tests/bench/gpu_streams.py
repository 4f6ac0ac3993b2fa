"""Real producers on one GPU, one more and one more, until one of them misses its pictures' times."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from procs import bus, rpc
from procs.errors import BusError
from procs.messages.requests import Describe, Description
from procs.settings import ROOT
from tests import rig
from tests.bench import nvml
from tests.bench.measure import Result, cpu_s, say

STREAM = (
    *("--width", "1280", "--height", "720", "--fps", "60", "--bitrate", "4M", "--renderer", "egl"),
    *("--first-frame-limit-s", "60"),  # dozens start at once on the way down
)
MISSED = 0.01  # of the pictures due
BOUND_PCT = 85.0
START_S = 60.0
SETTLE_S = 1.5  # the choice of a conversion is over by then


class Load(NamedTuple):
    """What a window of time has shown."""

    missed: float  # part of the pictures due, of the producer that missed the most
    cpu_pct: float  # of one processor, of one producer
    all_cpu_pct: float  # of all processors, of all producers
    gpu_pct: float  # -1 where it can't be asked
    gpu_mb: float


class Crowd:
    """Producers whose pictures nobody sees: what a reader would cost is not theirs."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._nvml = nvml.opened()
        self._idle_mb = self._nvml.used_mb() if self._nvml else 0.0
        self.producers: list[subprocess.Popen[bytes]] = []

    def become(self, count: int) -> None:
        """So many, all of which have made pictures, or will not in time."""
        self.shrink(count)
        environ = rig.clean_environ(PLANARIA_RUN_DIR=str(self._run_dir))
        for number in range(len(self.producers), count):
            command = [*rig.AGENT, "--instance-id", f"s-{number}", *STREAM]
            self.producers.append(
                subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        deadline = time.monotonic() + START_S
        while not all(self.described(number) for number in range(count)) and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(SETTLE_S)

    def shrink(self, count: int) -> None:
        """To so many at most."""
        for producer in self.producers[count:]:
            producer.kill()
            producer.wait()
        del self.producers[count:]

    def described(self, number: int) -> Description | None:
        """What one says of itself; None as long as it says nothing."""
        try:
            with rpc.Requester(self._run_dir, bus.control_of(f"s-{number}")) as requester:
                return cast(Description, requester.ask(Describe(), within_s=2).body)
        except BusError:
            return None

    def encoder(self) -> str:
        """What encodes."""
        found = self.described(0)
        return found.encoder if found else "?"

    def look(self, window_s: float) -> Load:
        """Watch them for a while."""
        before = [self.described(number) for number in range(len(self.producers))]
        cpu = [cpu_s(producer.pid) for producer in self.producers]
        began, busy = time.monotonic(), []
        while time.monotonic() - began < window_s:
            time.sleep(window_s / 5)
            busy.append(self._nvml.busy_pct() if self._nvml else -1)
        spent_s = time.monotonic() - began
        used = [cpu_s(producer.pid) - was for producer, was in zip(self.producers, cpu, strict=True)]
        missed = [self._missed(number, was) for number, was in enumerate(before)]
        return Load(
            missed=max(missed),
            cpu_pct=100 * sum(used) / len(used) / spent_s,
            all_cpu_pct=100 * sum(used) / spent_s / (os.cpu_count() or 1),
            gpu_pct=sum(busy) / len(busy),
            gpu_mb=(self._nvml.used_mb() - self._idle_mb) / len(used) if self._nvml else -1.0,
        )

    def _missed(self, number: int, before: Description | None) -> float:
        """Part of the pictures due since then; all, of one that says nothing."""
        now = self.described(number)
        if not before or not now:
            return 1.0
        made, dropped = now.frames - before.frames, now.dropped - before.dropped
        return dropped / max(1, made + dropped)


@contextlib.contextmanager
def crowd() -> Iterator[Crowd]:
    """None yet; all ended afterwards."""
    run_dir = Path(tempfile.mkdtemp(prefix="planaria-bench-"))
    made = Crowd(run_dir)
    try:
        yield made
    finally:
        made.shrink(0)
        shutil.rmtree(run_dir, ignore_errors=True)


def measure(result: Result, most: int, window_s: float) -> None:
    """Twice as many and twice as many until one misses, then the number in between at which none does yet."""
    held, limit = (0, Load(0, 0, 0, -1, -1)), f"nothing: {most} is as far as this goes"
    with crowd() as streams:
        count, too_many = 1, most + 1
        while count < too_many:
            streams.become(count)
            load = _look(streams, window_s)
            if load.missed > MISSED:  # look twice: a start of so many may still be felt
                load = _look(streams, window_s)
            if load.missed > MISSED:
                too_many, limit = count, _why(load)
            else:
                held = (count, load)
            encoder = streams.encoder()
            ahead = min(2 * held[0], most) if too_many > most else (held[0] + too_many) // 2
            count = ahead if ahead > held[0] else too_many
    streams_held, load = held
    result.figures["streams"] = streams_held
    result.figures["stream_cpu_pct"] = round(load.cpu_pct, 1)
    result.figures["streams_cpu_pct_of_all"] = round(load.all_cpu_pct, 1)
    result.figures["streams_gpu_pct"] = round(load.gpu_pct, 1)
    result.figures["stream_gpu_mb"] = round(load.gpu_mb, 1)
    result.peers["streams"] = f"encoder {encoder}; what binds: {limit}"


def _look(streams: Crowd, window_s: float) -> Load:
    load = streams.look(window_s)
    say(
        f"{len(streams.producers)} streams: {100 * load.missed:.1f} % missed, {load.cpu_pct:.0f} % of a processor each,"
        f" {load.all_cpu_pct:.0f} % of all, GPU {load.gpu_pct:.0f} %, {load.gpu_mb:.0f} MiB each"
    )
    return load


def _why(load: Load) -> str:
    """What a load that is too much has used up."""
    if load.all_cpu_pct >= BOUND_PCT:
        return f"the processors, {load.all_cpu_pct:.0f} % busy with them"
    if load.gpu_pct >= BOUND_PCT:
        return f"the GPU, {load.gpu_pct:.0f} % busy"
    return f"neither: processors {load.all_cpu_pct:.0f} %, GPU {load.gpu_pct:.0f} % busy"
