"""What `make gpu-check` says of facts: the verdict, the table, and how a probe's end is told."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from scripts import gpu_check, gpu_report

NO_DRIVER = "no NVIDIA driver here (libcuda.so.1 is missing)"


def encoded(psnr_db: float | None = 45.0) -> dict[str, Any]:
    return {"pictures": 60, "decoded": 60, "held": 0, "ms": 2.5, "psnr_db": psnr_db}


def attempt(line: str, encoder: str = "auto", renderer: str = "egl", **more: Any) -> dict[str, Any]:
    return {
        "encoder": encoder,
        "renderer": renderer,
        "line": line,
        "exit": 0,
        "frames": 60,
        "wanted": 60,
        "size": "1280x720",
        **more,
    }


def bare() -> dict[str, Any]:
    """A machine without a GPU."""
    refused = {"error": NO_DRIVER}
    return {
        "device_idx": 0,
        "machine": {
            "os": "Some Linux",
            "kernel": "6.1",
            "machine": "x86_64",
            "cpus": 2,
            "python": "3.11.7",
            "packages": {"PyAV": "18.1.0", "CuPy": ""},
            "ffmpeg": "8.1.2",
        },
        "nodes": {"nodes": {}, "kernel_module": ""},
        "driver": {"version": "", "libcuda": "", "why": "libcuda.so.1 is missing"},
        "egl": {
            "vendors": {"/usr/share/glvnd/egl_vendor.d/50_mesa.json": "libEGL_mesa.so.0"},
            "devices": [{"cuda": None, "is_software": True}],
            "platform": "device",
            "renderer": "llvmpipe (LLVM 15.0.6, 256 bits)",
            "is_software": True,
        },
        "match": refused,
        "draw": {"ms": {"render": 0.4, "read_rgba": 0.5, "pack": 2.0, "read_nv12": 0.3}, "differs_by": 1},
        "cuda": refused,
        "cvcuda": refused,
        "encoders": {"nvenc-cuda": refused, "vpf": refused, "nvenc": refused, "x264": encoded()},
        "engines": {"error": "Failed to load NVENC library"},
        "nvdec": {"error": "Failed loading nvcuvid."},
        "producer": [attempt(f"encoder x264 (nvenc-cuda, vpf, nvenc: {NO_DRIVER})")],
    }


def gpu(line: str = "encoder nvenc-cuda", **more: Any) -> dict[str, Any]:
    """One with NVIDIA's."""
    facts = bare()
    facts["nodes"] = {"nodes": {"/dev/nvidia0": "", "/dev/nvidiactl": ""}, "kernel_module": "570.86.15"}
    facts["driver"] = {"version": "570.86.15", "libcuda": "found", "cuda": "12.8", "devices": 1}
    facts["egl"] |= {"renderer": "NVIDIA H200/PCIe/SSE2", "is_software": False}
    facts["egl"]["vendors"]["/usr/share/glvnd/egl_vendor.d/10_nvidia.json"] = "libEGL_nvidia.so.0"
    facts["egl"]["devices"] = [{"cuda": 0, "is_software": False}, {"cuda": None, "is_software": True}]
    facts["match"] = {"ordinal": 0, "name": "NVIDIA H200", "memory_bytes": 150 * 2**30, "capability": "9.0"}
    facts["cuda"] = {
        "ms": {"map_rgba": 0.1, "copy_rgba": 0.2, "map_nv12": 0.1, "copy_nv12": 0.1},
        "equal": {"rgba": True, "nv12": True},
    }
    facts["encoders"]["nvenc-cuda"] = encoded(None)
    facts["producer"] = [attempt(line)]
    return facts | more


def with_egl(facts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return facts | {"egl": facts["egl"] | more}


IN_CONTAINER = gpu_report.IN_CONTAINER


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (gpu(), "pictures stay on the GPU: nvenc-cuda"),
        (gpu("encoder vpf (nvenc-cuda: something)"), "pictures stay on the GPU: vpf"),
        (
            gpu("encoder nvenc (nvenc-cuda, vpf: missing here: cuda-bindings: make up CUDA=1 installs it)"),
            "the GPU renders, converts and encodes (nvenc), and each picture goes through the CPU's memory: "
            "nvenc-cuda, vpf: missing here: cuda-bindings: make up CUDA=1 installs it",
        ),
        (
            gpu("encoder x264 (nvenc-cuda, nvenc: this GPU has no NVENC (such have none); vpf: something)"),
            "the GPU renders and converts, the CPU encodes (x264): this GPU has no NVENC",
        ),
        (
            gpu("encoder x264 (nvenc-cuda, nvenc: Cannot load libnvidia-encode.so.1)"),
            "the GPU renders and converts, the CPU encodes (x264): "
            "nvenc-cuda, nvenc: Cannot load libnvidia-encode.so.1",
        ),
    ],
)
def test_the_verdict_names_what_runs_where(facts: Mapping[str, Any], said: str) -> None:
    assert gpu_report.verdict(facts) == f"{said}; set producer: {{renderer: egl}} in planaria.yaml to have it so"


def test_the_verdict_says_when_opengl_is_too_slow() -> None:
    facts = bare()
    facts["producer"][0]["frames"] = 40
    said = "; renderer: egl is too slow here for this size and rate: 40 of 60 pictures in 1 s at 1280x720"
    assert gpu_report.verdict(facts).endswith(said)


def test_a_device_that_was_named_is_not_replaced() -> None:
    lost = attempt("device_idx=1: this machine has EGL devices 0 (software)", exit=3, frames=0)
    assert gpu_report.verdict(bare() | {"device_idx": 1, "producer": [lost]}) == (
        "no stream can be made here: device_idx=1: this machine has EGL devices 0 (software)"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, f"install its driver (NVIDIA's; Mesa's for others); {IN_CONTAINER}"),
        (
            {"nodes": {"nodes": {"/dev/dri/renderD128": "no permission: add yourself to group render"}}},
            "/dev/dri/renderD128: no permission: add yourself to group render",
        ),
        ({"nodes": {"nodes": {"/dev/nvidia0": ""}}}, f"the driver's libraries are missing here; {IN_CONTAINER}"),
        ({"nodes": {"kernel_module": "570.1"}}, f"the driver's libraries are missing here; {IN_CONTAINER}"),
        (
            {"driver": {"libcuda": "found", "error": "died of SIGABRT at cuInit"}},
            "NVIDIA's driver is broken: died of SIGABRT at cuInit",
        ),
        (
            {"driver": {"libcuda": "found", "why": "cuInit: no device (100)"}},
            "NVIDIA's driver serves none: cuInit: no device (100)",
        ),
        (
            {"driver": {"libcuda": "found", "devices": 1}},
            f"NVIDIA's EGL is missing (libEGL_nvidia.so.0 and the file that names it); {IN_CONTAINER}",
        ),
    ],
)
def test_without_a_gpu_the_verdict_says_what_to_do_next(changes: dict[str, Any], said: str) -> None:
    assert gpu_report.verdict(bare() | changes) == (
        f"everything runs on the CPU (llvmpipe, x264); for a GPU that draws: {said}"
    )


def test_another_device_that_is_a_gpu_is_named() -> None:
    devices = [{"cuda": 0, "is_software": False}, {"cuda": None, "is_software": True}]
    facts = with_egl(bare(), devices=devices) | {"device_idx": 1}
    assert gpu_report.verdict(facts).endswith("for a GPU that draws: device_idx 0 is one")


def test_a_gpu_that_encodes_but_does_not_draw_is_no_cpu() -> None:
    facts = bare() | {"producer": [attempt("encoder nvenc (nvenc-cuda: llvmpipe draws, which is no CUDA device)")]}
    assert gpu_report.verdict(facts).startswith("the CPU renders (llvmpipe), the GPU encodes (nvenc); ")


def test_what_works_instead_is_said_with_why() -> None:
    dead = attempt("", exit=-6, frames=0, error="the producer died of SIGABRT")
    x264 = attempt("encoder x264", encoder="x264")
    assert gpu_report.verdict(bare() | {"producer": [dead, x264]}) == (
        "encoder: x264 works (x264), encoder: auto does not: the producer died of SIGABRT"
    )
    no_egl = attempt("renderer egl: no driver serves", exit=3, frames=0)
    cpu = attempt("encoder nvenc", renderer="cpu")
    assert gpu_report.verdict(bare() | {"producer": [no_egl, cpu]}) == (
        "renderer: cpu works (nvenc), renderer: egl does not: renderer egl: no driver serves"
    )
    assert gpu_report.verdict(bare() | {"producer": [no_egl, dead]}) == (
        "no stream can be made here: the producer died of SIGABRT"
    )


def row(facts: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The cells of one row, besides its name."""
    (found,) = (cells[1:] for cells in gpu_report.rows(facts) if cells[0] == name)
    return found[0].strip(), found[1]


def test_the_table_tells_all_that_was_found() -> None:
    facts = gpu()
    assert row(facts, "driver") == ("", "NVIDIA 570.86.15, libcuda.so.1 found, CUDA 12.8, CUDA devices: 1")
    assert row(facts, "installed") == ("", "Python 3.11.7, PyAV 18.1.0 (FFmpeg 8.1.2)")
    assert row(facts, "not installed") == ("", "CuPy (make up CUDA=1 installs it)")
    assert row(facts, "EGL device 0") == ("", "CUDA device 0, chosen by device_idx")
    assert row(facts, "EGL device 1") == ("", "software")
    assert row(facts, "CUDA device") == ("", "0: NVIDIA H200, 150.0 GiB, compute 9.0")
    assert row(facts, "map NV12 into CUDA") == ("0.10", "the same bytes as glReadPixels")
    assert row(facts, "pack NV12 (shader)") == ("2.00", "at most 1 of 255 from what the CPU makes of it")
    assert row(facts, "encoder nvenc-cuda") == ("2.50", "60 of 60 pictures decoded again, luma equal")
    assert row(facts, "encoder x264") == ("2.50", "60 of 60 pictures decoded again, luma 45.0 dB")
    assert row(facts, "producer egl, auto") == ("", "encoder nvenc-cuda, 60 of 60 pictures in 1 s at 1280x720")


def test_a_reason_is_said_in_full_once() -> None:
    facts = bare()
    assert row(facts, "CUDA device")[1] == NO_DRIVER
    assert row(facts, "encoder vpf")[1] == row(facts, "CV-CUDA")[1] == "as above (CUDA device)"
    said = "encoder x264 (nvenc-cuda, vpf, nvenc: as above (CUDA device)), 60 of 60 pictures in 1 s at 1280x720"
    assert row(facts, "producer egl, auto")[1] == said
    assert sum(NO_DRIVER in result for _, _, result in gpu_report.rows(facts)) == 1


def test_what_is_wrong_stands_out() -> None:
    facts = gpu()
    facts["cuda"]["equal"]["nv12"] = False
    facts["draw"]["differs_by"] = 9
    facts["encoders"]["vpf"] = encoded() | {"decoded": 7, "pictures": 10, "held": 3}
    facts["nodes"]["nodes"]["/dev/dri/renderD128"] = "no permission: add yourself to group 104"
    assert row(facts, "map NV12 into CUDA")[1] == "OTHER BYTES than glReadPixels"
    assert row(facts, "pack NV12 (shader)")[1] == "at most 9 of 255 from what the CPU makes of it (EXPECTED: 2)"
    assert row(facts, "encoder vpf")[1].endswith("7 of 10 pictures decoded again, luma 45.0 dB, holds 3 back")
    assert "/dev/dri/renderD128 (no permission: add yourself to group 104)" in row(facts, "device nodes")[1]


PROBES = ("machine", "nodes", "driver", "egl", "match", "draw", "cuda", "cvcuda", "engines", "nvdec")


@pytest.mark.parametrize("broken", [*PROBES, "all"])
def test_a_probe_that_told_nothing_leaves_the_rest_of_the_table(broken: str) -> None:
    facts = copy.deepcopy(gpu())
    ends = {"error": "died of SIGSEGV at starting"}
    for name in PROBES if broken == "all" else [broken]:
        facts[name] = ends
    if broken == "all":
        facts["encoders"] = dict.fromkeys(facts["encoders"], ends)
        facts["producer"] = [{"encoder": "auto", "renderer": "egl", **ends}]
    said = [
        result
        for _, _, result in gpu_report.rows(facts)
        if "died of SIGSEGV at starting" in result or "as above" in result
    ]
    assert len(said) >= (len(PROBES) if broken == "all" else 1)
    assert gpu_report.verdict(facts)


def test_a_drivers_page_of_words_is_one_line() -> None:
    facts = bare()
    facts["cvcuda"] = {"error": "a line\nanother " + "word " * 500}
    result = row(facts, "CV-CUDA")[1]
    assert result.startswith("a line another word") and len(result) == gpu_report.WIDEST


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (-6, b"", "died of SIGABRT"),
        (-40, b"", "died of signal 40"),
        (1, b"Traceback\nRuntimeError: no\n", "RuntimeError: no"),
        (7, b"", "exit 7"),
    ],
)
def test_how_a_process_ended_is_said_in_words(code: int, said: bytes, words: str) -> None:
    assert gpu_report.how_ended(code, said) == words


def checked(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, dict[str, Any]], device_idx: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """The facts of a check whose probes give these answers, and what was asked."""
    asked = []

    def ask(name: str, *options: str) -> dict[str, Any]:
        words = [name, *options[: options.index("--device-idx")]]
        asked.append(" ".join(word for word in words if not word.startswith("--")))
        return answers.get(asked[-1], answers.get(name, {}))

    monkeypatch.setattr(gpu_check, "ask", ask)
    return gpu_check.Check(device_idx, 60).facts, asked


def test_a_driver_that_gives_no_answer_is_not_asked_again_but_by_the_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {"error": "no answer within 8 s from cuInit"}
    answers = {"driver": silent, "egl": {"renderer": "llvmpipe"}, "stream x264 egl": attempt("encoder x264")}
    facts, asked = checked(monkeypatch, answers)
    assert asked == [
        *("machine", "nodes", "driver", "egl", "draw"),
        *("encode x264 egl", "stream auto egl", "stream x264 egl"),
    ]
    assert facts["encoders"]["nvenc-cuda"] == {"error": "not asked: the driver gives no answer"}


def test_without_a_device_that_was_named_nothing_else_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    _, asked = checked(monkeypatch, {"egl": {"error": "device_idx=1: ..."}}, device_idx=1)
    assert [one for one in asked if one.startswith("stream")] == ["stream auto egl"]


def test_where_nothing_draws_the_cpus_pictures_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"egl": {"error": "no EGL"}, "stream x264 cpu": attempt("encoder x264")}
    facts, asked = checked(monkeypatch, answers)
    assert asked[4:] == [
        *("encode nvenc cpu", "encode x264 cpu", "engines 0", "nvdec 0"),
        *("stream auto egl", "stream auto cpu", "stream x264 cpu"),
    ]
    assert facts["match"] == {"error": "not asked: nothing draws"}


@pytest.mark.parametrize("options", [["--device-idx", "-1"], ["--pictures", "1"], ["--pictures", "x"], ["--what"]])
def test_a_bad_option_is_one_line_and_exit_2(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check", *options])
    assert gpu_check.main() == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1 and options[0] in told.err
