"""The short form of every bench runs and keeps to the agreed names. No figure is asserted: that is no test."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from procs.settings import ROOT

PRODUCER = {
    "figures": {
        "cpu_ms_per_frame",
        "first_byte_ms",
        "ffmpeg_first_byte_ms",
        "added_latency_ms_p50",
        "gap_ms_p50",
        "rss_mb",
    },
    "ratios": {"cpu_vs_ffmpeg", "rgba_pipe_cpu_over_ours", "egl_cpu_vs_older", "egl_first_byte_vs_older"},
}


@pytest.mark.needs("ffmpeg", "libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
def test_the_producer_bench_prints_one_object_with_the_agreed_names() -> None:
    command = [sys.executable, "-m", "tests.bench", "producer", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {"name", "figures", "peers", "ratios", "machine"}
    for part, names in PRODUCER.items():
        assert names <= set(result[part])
        assert all(value > 0 for value in (result[part][name] for name in names))


def test_an_unknown_bench_is_one_line() -> None:
    command = [sys.executable, "-m", "tests.bench", "telepathy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "telepathy" in done.stderr
