"""What a producer does when the GPU is killed under it, full, not the one that was named, or not to be opened."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procs.settings import ROOT
from tests.faults.test_producer import Running, run
from tests.gpu.stage import LONG, Stage, free_mb
from tests.gpu.streams import EGL, ON_CPU
from tests.rig import AGENT, clean_environ, until

KILLS = 20 if LONG else 3
LEFT_MB = 16.0  # of tens or hundreds that a producer has
GONE_S = 10.0
ON_GPU = (*EGL, "--encoder", "nvenc-cuda")
DEFINITE = (0, 3, 4, 16)  # it streams, says why it can't, that it takes too long, or that the GPU is lost
NOBODY = 65534
NOT_SHARED = "not verified here: what one process takes of the device's memory is not missed by another"


def definite(run_dir: Path, *options: str, seconds: str = "1", **environ: str) -> int:
    """Run a producer that may be refused, but only in one line; its exit code."""
    code, stream, events = run(run_dir, *options, "--duration", seconds, **environ)
    assert code in DEFINITE, events
    if code == 0:
        assert len(stream) > 1000
    else:
        assert len(events) == 1 or code == 16, events
        print(f"{' '.join(options[-2:])}: exit {code}: {events[-1]}")
    return code


@contextlib.contextmanager
def serving(run_dir: Path) -> Iterator[Running]:
    """A producer that has made pictures; kill -9 at the end."""
    running = Running(run_dir, *ON_CPU)
    try:
        until(lambda: len(running.data) > 20_000 or running.process.poll() is not None, 20)
        assert running.process.poll() is None
        yield running
    finally:
        running.end()


@pytest.mark.usefixtures("is_shared")
def test_a_killed_producer_leaves_no_memory_behind(run_dir: Path) -> None:
    Stage(64, 64)
    before = free_mb()
    for number in range(KILLS):
        with serving(run_dir):
            used = before - free_mb()
        assert used > LEFT_MB, "what it has is too little to tell"
        killed = time.monotonic()
        until(lambda: free_mb() > before - LEFT_MB, GONE_S)
        print(f"kill {number}: {used:.0f} MiB are back after {time.monotonic() - killed:.2f} s")


@contextlib.contextmanager
def hogged(spare_mb: float) -> Iterator[bool]:
    """All device memory but so much is another process's. Whether that is felt by us."""
    command = [sys.executable, "-m", "tests.gpu.hog", str(int(spare_mb))]
    before = free_mb()
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hog:
        try:
            assert hog.stdout
            taken = int(hog.stdout.readline())
            print(f"{taken} MiB of {before:.0f} taken, {free_mb():.0f} left")
            yield free_mb() < before - taken / 2
        finally:
            hog.kill()
    until(lambda: free_mb() > before - LEFT_MB, GONE_S)


@pytest.fixture(scope="module")
def is_shared() -> None:
    """Skips where what one process takes is not missed by another."""
    Stage(64, 64)
    with hogged(free_mb() - 256) as is_felt:
        if not is_felt:
            pytest.skip(NOT_SHARED)


@contextlib.contextmanager
def full(spare_mb: int) -> Iterator[None]:
    """All device memory but so much is another process's."""
    Stage(64, 64)
    with hogged(spare_mb) as is_felt:
        assert is_felt
        yield


@pytest.mark.usefixtures("is_shared")
@pytest.mark.parametrize("spare_mb", [0, 200, 500])
def test_a_full_device_is_a_refusal_or_a_fallback(run_dir: Path, spare_mb: int) -> None:
    with full(spare_mb):
        definite(run_dir, *ON_GPU)
        definite(run_dir, *ON_CPU)
        definite(run_dir, *EGL, "--encoder", "auto")
    with serving(run_dir):
        pass  # it is over


@pytest.mark.usefixtures("is_shared")
def test_a_device_that_fills_up_ends_no_stream(run_dir: Path) -> None:
    with serving(run_dir) as running, full(0):
        so_far = len(running.data)
        until(lambda: len(running.data) > so_far + 100_000 or running.process.poll() is not None, 20)
        assert running.process.poll() is None


def test_a_device_that_is_not_there(run_dir: Path) -> None:
    for options in (ON_GPU, ON_CPU):
        code, stream, events = run(run_dir, *options, "--device-idx", "63")
        assert (code, stream, len(events)) == (3, b"", 1)
        assert events[0].startswith("device_idx=63: this machine has EGL devices 0 (")
        print(events[0])


def test_every_device_serves_or_says_why_not(run_dir: Path) -> None:
    """Those beside the GPU, such as Mesa's, are no CUDA devices."""
    listed = re.findall(r"\b\d+ \(", run(run_dir, *ON_CPU, "--device-idx", "63")[2][0])
    assert definite(run_dir, *ON_CPU, "--device-idx", "0") == 0
    for index in range(1, len(listed)):
        for options in (ON_GPU, ON_CPU):
            definite(run_dir, *options, "--device-idx", str(index))


def test_a_driver_that_shows_no_device(run_dir: Path) -> None:
    """As in a container without the capability `compute`: OpenGL draws, and CUDA has nothing."""
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
    count = "from cuda.bindings import driver as d; d.cuInit(0); print(d.cuDeviceGetCount()[1])"
    environ = clean_environ(**hidden)
    asked = subprocess.run([sys.executable, "-c", count], env=environ, capture_output=True, text=True, timeout=30)
    if asked.stdout.strip() not in ("0", "None"):
        pytest.skip("not verified here: this driver heeds no CUDA_VISIBLE_DEVICES")
    assert definite(run_dir, *ON_GPU, **hidden) == 3
    assert definite(run_dir, *EGL, "--encoder", "auto", **hidden) == 0


CLOSED = """
for node in /dev/nvidia*; do [ -c "$node" ] && mount --bind "$1" "$node"; done; shift
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""


def test_without_permission_on_the_device_it_says_so(tmp_path: Path) -> None:
    """As another user, in a mount namespace in which the driver's nodes are nobody's to open."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("not verified here: needs root, unshare, setpriv and mount")
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("not verified here: the driver has no device nodes")
    (closed := tmp_path / "closed").touch(mode=0)
    run_dir = tempfile.mkdtemp(prefix="planaria-")
    os.chown(run_dir, NOBODY, NOBODY)
    as_nobody = ["unshare", "--mount", "sh", "-c", CLOSED, "sh", str(closed)]
    environ = clean_environ(PLANARIA_RUN_DIR=run_dir, HOME=run_dir, PYTHONDONTWRITEBYTECODE="1")

    def tried(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*as_nobody, *command], cwd=ROOT, env=environ, capture_output=True, timeout=60, text=True, errors="replace"
        )

    try:
        if (able := tried(*AGENT, "--width", "64", "--height", "64", "--duration", "0.1")).returncode:
            pytest.skip(f"not verified here: nobody can't run it: {able.stderr.strip()[-200:]}")
        began = time.monotonic()
        refused = tried(*AGENT, *ON_GPU, "--duration", "1")
        print(refused.stderr)
        assert refused.returncode == 3 and len(refused.stderr.splitlines()) == 1
        assert time.monotonic() - began < 10
    finally:
        shutil.rmtree(run_dir)
