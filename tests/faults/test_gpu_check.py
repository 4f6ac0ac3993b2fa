"""`make gpu-check` as people call it, on machines that lack one thing or another, and on drivers that crash or hang."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from procs.settings import ROOT
from scripts import gpu_check
from tests import drivers
from tests.rig import clean_environ

COMMAND = [sys.executable, "scripts/gpu_check.py", "--pictures", "10"]
LIMIT_S = 100.0
needs_egl = pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
needs_gcc = pytest.mark.needs("gcc")

# What a driver is that ends or holds whoever calls it; cuda-bindings get the same for all that they ask for.
BROKEN = """
#include <stdlib.h>
#include <unistd.h>
int cuInit(unsigned flags) { (void)flags; %s; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuGetProcAddress_v2(const char *name, void **at, int version, unsigned long flags, int *status)
{
    (void)name, (void)version, (void)flags, (void)status;
    *at = (void *)cuInit;
    return 0;
}
"""


def check(*options: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The command, as somebody types it."""
    return subprocess.run(
        [*COMMAND, *options], cwd=ROOT, env=dict(environ), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@needs_egl
@pytest.mark.skipif(has_driver(), reason="this machine has a driver")
def test_a_machine_without_a_gpu_is_told_so_and_what_it_can_do() -> None:
    done = check(environ=clean_environ())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("everything runs on the CPU (llvmpipe, x264); for a GPU that draws: ")
    assert "gpu-check: encode" in done.stderr
    rows = {line[:24].strip(): line[24:].strip() for line in lines}
    assert rows["CUDA device"] == "no NVIDIA driver here (libcuda.so.1 is missing)"
    assert rows["encoder nvenc-cuda"] == "as above (CUDA device)"
    assert "pictures decoded again, luma " in rows["encoder x264"]
    assert rows["producer egl, auto"].startswith("encoder x264 (nvenc-cuda, vpf, nvenc: as above (CUDA device)), ")
    assert "what the CPU makes of it" in rows["pack NV12 (shader)"]


@pytest.mark.skipif(has_driver(), reason="this machine has a driver")
def test_without_any_egl_the_cpus_pictures_are_left() -> None:
    done = check("--json", environ=clean_environ(__EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert facts["egl"]["vendors"] == {"/nonexistent": "unreadable: No such file or directory"}
    assert facts["draw"] == {"error": "not asked: nothing draws"}
    assert [its["renderer"] for its in facts["producer"]] == ["egl", "cpu"] and facts["producer"][0]["exit"] == 3
    assert facts["verdict"].startswith("renderer: cpu works (x264), renderer: egl does not: renderer egl: ")


@needs_egl
def test_a_device_that_is_not_there_is_no_stream_and_a_reader_that_leaves_no_error() -> None:
    make = ["make", "-s", "gpu-check", "DEVICE_IDX=40", "JSON=0"]
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} --device-idx 40 | true; echo ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stdout == "3\n" and "Error" not in done.stderr
    planned = subprocess.run([*make, "-n"], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert planned.stdout.splitlines()[-1].endswith('scripts/gpu_check.py --device-idx "40" ')


@needs_egl
@needs_gcc
def test_where_all_is_there_pictures_stay_on_the_gpu() -> None:
    done = check("--json", environ=drivers.environ(PYTHONPATH=str(ROOT / "tests/drivers/python")))
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["verdict"].startswith("pictures stay on the GPU: nvenc-cuda")
    assert facts["match"]["name"].startswith("Fake GPU") and facts["cuda"]["equal"] == {"rgba": True, "nv12": True}
    assert facts["cvcuda"]["differs_by"] <= 2 and "error" not in facts["cvcuda"]
    for name, held in (("nvenc-cuda", 0), ("vpf", 3), ("nvenc", 0), ("x264", 0)):
        its = facts["encoders"][name]
        assert its["held"] == held and its["decoded"] == its["pictures"] - held and "error" not in its
    assert facts["encoders"]["nvenc-cuda"]["psnr_db"] is None, "its luma is that of the shader, byte for byte"


def asked(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], *words: str, **more: Any) -> dict[str, Any]:
    """One probe in another environment."""
    with monkeypatch.context() as here:
        for name, value in environ.items():
            here.setenv(name, value)
        return gpu_check.ask(*words, "--pictures", "10", **more)


@needs_egl
@needs_gcc
def test_each_refusal_of_a_driver_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    old = asked(monkeypatch, drivers.environ(FAKE_DRIVER_VERSION="11040"), "match")
    assert old["error"].startswith("the NVIDIA driver is too old: it is for CUDA 11.4")
    other = asked(monkeypatch, drivers.environ(FAKE_GL_DEVICES="0"), "cuda")
    assert other["error"] == "llvmpipe draws, which is no CUDA device"
    none = asked(monkeypatch, drivers.environ(FAKE_NVENC="none"), "stream", "--encoder", "auto")
    assert none["frames"] and "this GPU has no NVENC" in none["line"] and none["line"].startswith("encoder x264 (")
    assert asked(monkeypatch, drivers.environ(FAKE_NVENC="none"), "engines") == {"nvenc": 0}


def broken_driver(folder: Path, how: str) -> dict[str, str]:
    """An environment with a libcuda that does that where it is initialised."""
    (folder / "cuda.c").write_text(BROKEN % how)
    command = ["gcc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "cuda.c")]
    subprocess.run(command, check=True, timeout=LIMIT_S)
    return {"LD_LIBRARY_PATH": str(folder)}


@needs_egl
@needs_gcc
def test_a_driver_that_crashes_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = broken_driver(tmp_path, "abort()")
    driver = asked(monkeypatch, environ, "driver")
    assert driver == {"version": "", "libcuda": "found", "cuda": "13.0", "error": "died of SIGABRT at cuInit"}
    assert asked(monkeypatch, environ, "match")["error"] == "died of SIGABRT at CUDA"
    stream = asked(monkeypatch, environ, "stream", "--encoder", "auto")
    assert stream["error"] == "the producer died of SIGABRT" and stream["frames"] == 0


@needs_gcc
def test_a_driver_that_hangs_is_a_row_and_its_probe_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = broken_driver(tmp_path, "pause()")
    driver = asked(monkeypatch, environ, "driver", limit_s=3.0)
    assert driver == {"version": "", "libcuda": "found", "cuda": "13.0", "error": "no answer within 3 s from cuInit"}
