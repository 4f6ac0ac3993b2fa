"""GPU: from drawing to NV12 in CUDA memory, what goes over PCIe for it, and how many streams one GPU feeds.

Peers: reading RGBA back and converting it by swscale, on the same scene in the same context; PyNvVideoCodec as its
samples use it, where NVENC works; GStreamer's road from OpenGL to NV12, where it is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

from procs.errors import NotHere
from procs.settings import ROOT
from tests import rig
from tests.bench import gpu_peers, gpu_streams
from tests.bench.measure import Result, Size, median, percentile, say

WIDTH, HEIGHT = 1280, 720
STAGES = ("draw", "pack", "map_copy", "overlay", "readback_pinned", "readback_pageable")
MAPS = {"map_us": "cuGraphicsMapResources", "unmap_us": "cuGraphicsUnmapResources"}
STAGES_S = 120  # at most


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    pictures: int
    window_s: float
    streams: int  # at most


PLANS: dict[Size, Plan] = {
    "full": Plan(5, 600, 4.0, 128),
    "quick": Plan(2, 120, 2.0, 32),
    "least": Plan(1, 10, 1.0, 2),
}


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere where no CUDA device draws."""
    if reason := _why_not():
        raise NotHere(f"no GPU path here: {reason}")
    result = Result("gpu")
    result.targets = {"pcie_bytes_vs_rgba": "aim: <= 0.38"}
    plan = PLANS[size]
    _stages(result, plan)
    _two(result, plan)
    gpu_peers.measure(result, plan.pictures)
    gpu_streams.measure(result, plan.streams, plan.window_s)
    return result


def _why_not() -> str:
    """Asked of a process of its own: this one never opens the GPU, and so takes no part of it."""
    ask = [sys.executable, "-c", "from tests.gpu.stage import why_not; print(why_not())"]
    done = subprocess.run(ask, cwd=ROOT, env=rig.clean_environ(), capture_output=True, text=True, timeout=STAGES_S)
    return done.stdout.strip() if done.returncode == 0 else (done.stderr.strip() or "?").splitlines()[-1]


def _start(pictures: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bench.gpu_stages", str(WIDTH), str(HEIGHT), str(pictures)]
    return subprocess.Popen(command, cwd=ROOT, env=rig.clean_environ(), stdout=subprocess.PIPE, text=True)


def _found(running: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = running.communicate(timeout=STAGES_S)
    if running.returncode:
        raise NotHere(f"tests.bench.gpu_stages ended with exit code {running.returncode}")
    found: dict[str, Any] = json.loads(said)
    return found


def _stages(result: Result, plan: Plan) -> None:
    rounds = []
    for number in range(plan.rounds):
        say(f"from drawing to NV12 at {WIDTH}x{HEIGHT}, round {number + 1} of {plan.rounds}")
        rounds.append(_found(_start(plan.pictures)))
    last, figures = rounds[-1], result.figures

    def every(name: str, part: str = "ms") -> list[float]:
        return [value for found in rounds for value in found[part][name]]

    def medians(name: str) -> list[float]:
        return [median(found["ms"][name]) for found in rounds]

    result.peers["rgba"] = f"glReadPixels of RGBA, swscale; on {last['gpu']}, OpenGL of {last['renderer']}"
    for name in ("nv12", "host_shader", "host_swscale"):
        figures[f"{name}_ms"] = round(median(every(name)), 3)
        figures[f"{name}_ms_p99"] = round(percentile(every(name), 0.99), 3)
    for name in STAGES:
        figures[f"{name}_ms"] = round(median(every(name)), 3)
    for name, call in MAPS.items():
        figures[name] = round(median(every(call, "calls_us")), 1)
    figures["nv12_pictures_a_second"] = round(median([found["flow"] for found in rounds]), 1)
    moved = last["bytes"]
    for road in ("on_gpu", "shader", "rgba"):
        figures[f"pcie_bytes_{road}"] = moved[road]
    result.ratios["pcie_bytes_vs_rgba"] = round(moved["shader"] / moved["rgba"], 4)
    result.ratios["pcie_bytes_on_gpu_vs_rgba"] = round(moved["on_gpu"] / moved["rgba"], 4)
    result.ratio("nv12_vs_rgba_swscale", medians("nv12"), medians("host_swscale"))
    result.ratio("host_shader_vs_rgba_swscale", medians("host_shader"), medians("host_swscale"))
    result.ratio("readback_pinned_vs_pageable", medians("readback_pinned"), medians("readback_pageable"))


def _two(result: Result, plan: Plan) -> None:
    """The same by two processes at a time."""
    say("two processes on one GPU")
    both = [_found(running) for running in [_start(plan.pictures), _start(plan.pictures)]]
    times = [value for found in both for value in found["ms"]["nv12"]]
    result.figures["nv12_ms_of_two"] = round(median(times), 3)
    result.figures["nv12_ms_of_two_p99"] = round(percentile(times, 0.99), 3)
