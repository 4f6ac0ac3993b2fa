"""A producer on the fake drivers and the stand-in for CV-CUDA, and what it needs to be run."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from procs.settings import ROOT
from tests import drivers
from tests.rig import AGENT

WIDTH, HEIGHT, FPS = 322, 242, 30  # rows are padded everywhere
VPF = ["--encoder", "vpf", "--width", str(WIDTH), "--height", str(HEIGHT), "--fps", str(FPS)]

_MARKS = (
    pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0", drivers.NEEDED),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("cuda", "PyNvVideoCodec"))), reason="NVIDIA's packages are missing"
    ),
)


def on_drivers(test: Callable[..., None]) -> Callable[..., None]:
    """A test that runs a producer here."""
    for mark in _MARKS:
        test = mark(test)
    return test


def environ(run_dir: Path, fail: str = "", **more: str) -> dict[str, str]:
    """Of a producer; the calls of its drivers are in the file `calls` of its folder."""
    own = {"PYTHONPATH": str(ROOT / "tests/drivers/python"), "PLANARIA_RUN_DIR": str(run_dir)}
    return drivers.environ(run_dir / "calls", fail, PLANARIA_FIRST_FRAME_LIMIT_S="30", **own, **more)


def run(run_dir: Path, *options: str, fail: str = "", **more: str) -> tuple[int, bytes, str]:
    """Exit code, stdout and stderr of a producer."""
    told = environ(run_dir, fail, **more)
    done = subprocess.run([*AGENT, *VPF, *options], cwd=ROOT, env=told, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr.decode()
