"""The tests and the bench of the GPU on drivers of our own, so that they still run on the day when there is a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from procs.headless_agent.options import no_nvidia_driver
from procs.settings import ROOT
from tests import drivers
from tests.bench import __main__ as benches
from tests.bench.measure import Result, Size

PROGRAMS = pytest.mark.needs(drivers.NEEDED, "libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
PACKAGE = pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="cuda-bindings is missing: make up CUDA=1")
LIMIT_S = 110
NO_GPU = "no GPU path here: no NVIDIA driver here (libcuda.so.1 is missing)"
CV_CUDA = str(Path(drivers.__file__).parent / "python")  # of ours
# Sizes that llvmpipe draws quickly.
PICTURES = "16-16 or 322-242 or a_part_of_it or devices_of_cuda"


Test = TypeVar("Test", bound=Callable[..., None])


def needs_fakes(test: Test) -> Test:
    """What the drivers of ours need."""
    marked: Test = PROGRAMS(PACKAGE(test))
    return marked


def gpu_tests(tmp_path: Path, choice: str, environ: dict[str, str] | None = None) -> dict[str, str]:
    """{test: passed, or why it was skipped} of those that are chosen. None may fail."""
    report = tmp_path / "report.xml"
    with tempfile.TemporaryDirectory(prefix="p-") as short:  # sockets' addresses are
        done = _pytest(choice, f"--basetemp={short}/t", f"--junitxml={report}", environ=environ)
    assert done.returncode == 0, done.stdout
    cases = ElementTree.parse(report).iter("testcase")
    skipped = {case.attrib["name"]: case.find("skipped") for case in cases}
    return {name: "passed" if why is None else why.attrib["message"] for name, why in skipped.items()}


def _pytest(choice: str, *options: str, environ: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-p", "pytest_timeout", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*python, "-k", choice, *options],
        cwd=ROOT,
        env={**(os.environ if environ is None else environ), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@needs_fakes
def test_pictures_and_faults(tmp_path: Path) -> None:
    found = gpu_tests(tmp_path, f"{PICTURES} or test_faults", drivers.environ(PYTHONPATH=CV_CUDA))
    skipped = {name: why for name, why in found.items() if why != "passed"}
    assert all(why.startswith("not verified here: ") for why in skipped.values()), skipped
    real = {"full_device", "fills_up", "killed", "shows_no_device", "without_permission"}
    assert all(any(part in name for part in real) for name in skipped), skipped
    assert len(found) - len(skipped) >= 12


@needs_fakes
@pytest.mark.long
def test_streams_where_nvenc_works(tmp_path: Path) -> None:
    choice = "nvenc_is_refused or auto_takes or side_by_side or obeys"
    found = gpu_tests(tmp_path, choice, drivers.environ(PYTHONPATH=CV_CUDA))
    kept = {why for name, why in found.items() if "obeys[nvenc" in name}
    assert kept == {"not verified here: this encoder keeps to no rate"}  # which is asked for last
    assert list(found.values()).count("passed") == 6


@needs_fakes
def test_streams_where_nvenc_is_refused(tmp_path: Path) -> None:
    found = gpu_tests(
        tmp_path, "nvenc_is_refused or auto_takes or shows_what_was_drawn", drivers.environ(FAKE_NVENC="none")
    )
    assert set(found.values()) == {"passed"} and len(found) == 5


def test_without_a_gpu_one_reason_stands_for_all(tmp_path: Path) -> None:
    if not no_nvidia_driver():
        pytest.skip("this machine has a driver")
    found = gpu_tests(tmp_path, "test")
    assert len(found) > 20
    assert set(found.values()) == {NO_GPU}


@needs_fakes
@pytest.mark.long
def test_the_bench_prints_one_object_with_the_agreed_names() -> None:
    command = [sys.executable, "-m", "tests.bench", "gpu", "--least", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=drivers.environ(), capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert {"nv12_ms", "nv12_ms_p99", "streams", "map_us", "readback_pinned_ms"} <= set(result["figures"])
    assert result["ratios"]["pcie_bytes_vs_rgba"] <= 0.38
    assert result["figures"]["pcie_bytes_on_gpu"] < result["figures"]["pcie_bytes_shader"]


@pytest.mark.parametrize(("which", "code"), [("gpu", 3), ("all", 0)])
def test_without_a_gpu_its_bench_is_one_line_and_the_others_run(
    which: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not no_nvidia_driver():
        pytest.skip("this machine has a driver")
    ran = []
    monkeypatch.setattr("sys.argv", ["tests.bench", which, "--least"])
    monkeypatch.setattr(benches, "BENCHES", ("gpu", "other"))
    monkeypatch.setattr("scripts.suite.precompile", lambda root: None)
    real = benches.run

    def run(name: str, size: Size) -> Result:
        ran.append(name)
        return real(name, size) if name == "gpu" else Result(name)

    monkeypatch.setattr(benches, "run", run)
    assert benches.main() == code
    assert capsys.readouterr().err in (f"bench: {NO_GPU}\n", f"bench gpu: {NO_GPU}\n")
    assert ran == (["gpu"] if which == "gpu" else ["gpu", "other"])
