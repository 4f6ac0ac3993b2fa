"""The fake drivers under the real cuda-bindings, PyAV and PyNvVideoCodec: what is decoded is what lay in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import drivers

CLIENT_S = 60

pytestmark = pytest.mark.needs(drivers.NEEDED)


def run(name: str, log: Path, fail: str = "", **more: str) -> str:
    """What the client of this name in tests/drivers/clients.py prints. It must end well."""
    command = [sys.executable, "-m", "tests.drivers.clients", name]
    env = drivers.environ(log, fail, **more)
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=CLIENT_S, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def the_only(log: Path, name: str) -> dict[str, str]:
    (call,) = drivers.calls(log, name)
    return call.arguments


def test_device_memory_is_encoded_by_pyav_without_delay_and_comes_back(log: Path) -> None:
    stream = int(run("cuda_frames", log))
    started = the_only(log, "nvEncInitializeEncoder")
    assert {
        "width": "322",
        "height": "182",
        "fps": "30/1",
        "preset": "P1",
        "tuning": "ultra_low_latency",
        "rc": "cbr",
        "bitrate": "1000000",
        "gop": "4",
        "b_frames": "0",
        "full_range": "0",
        "matrix": "1",
    }.items() <= started.items()
    assert {int(value, 16) for value in the_only(log, "nvEncSetIOCudaStreams").values()} == {stream}
    *pictures, _, _ = drivers.calls(log, "nvEncEncodePicture")  # the last two say that it ends
    assert [call.arguments["pts"] for call in pictures] == ["0", "10", "20", "30", "40", "50"]
    assert [call.arguments["idr"] for call in pictures] == ["1", "0", "1", "0", "0", "0"]  # the third was forced
    copies = [call for call in drivers.calls(log) if call.name.startswith("cuMemcpy")]
    assert len(copies) == 6  # our uploads; the encoder reads the rest where it lies


def test_work_of_a_stream_is_done_as_late_as_the_driver_may(log: Path) -> None:
    run("waiting", log)
    run("other_stream", log)


def test_host_pictures_are_encoded_by_pyav_and_come_back(log: Path) -> None:
    run("host_frames", log)
    assert the_only(log, "nvEncReconfigureEncoder")["bitrate"] == "500000"
    pictures = drivers.calls(log, "nvEncEncodePicture")
    assert [call.arguments["idr"] for call in pictures[:6]] == ["1", "0", "0", "1", "0", "0"]
    assert not drivers.calls(log, "nvEncRegisterResource")


def test_device_memory_is_encoded_by_pynvvideocodec_three_pictures_later(log: Path) -> None:
    stream = int(run("pynvvideocodec", log))
    started = the_only(log, "nvEncInitializeEncoder")
    assert (started["bitrate"], started["gop"], started["b_frames"]) == ("1000000", "4", "0")
    assert {int(value, 16) for value in the_only(log, "nvEncSetIOCudaStreams").values()} == {stream}
    pictures = [call.arguments for call in drivers.calls(log, "nvEncEncodePicture")]
    assert [call["idr"] for call in pictures if call["end"] == "0"] == ["1", "0", "0", "0", "1", "0"]


@pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
def test_a_mapped_texture_or_buffer_holds_what_opengl_has(log: Path) -> None:
    run("texture", log)
    run("buffer", log)
    late = drivers.calls(log, "cuMemcpy2DAsync")[1]
    assert (late.result, late.why) == (400, "no such array: perhaps it is no longer mapped")
    assert late.arguments["from"] == "array"


@pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
def test_a_texture_that_is_unmapped_too_soon_is_an_illegal_access(log: Path) -> None:
    run("unmapped_too_soon", log)
    (late,) = drivers.calls(log, "late")
    assert late.why == "no such array: perhaps it is no longer mapped"


def test_what_a_driver_refuses_is_refused(log: Path) -> None:
    run("order", log, FAKE_MEMORY_MB="4")
    assert [call.result for call in drivers.calls(log, "cuMemAlloc")] == [201, 0, 2]
    assert [call.result for call in drivers.calls(log, "cuMemFree")] == [0, 1]


def test_a_fault_that_is_asked_for_begins_where_it_is_asked_for_and_stays(log: Path) -> None:
    run("faults", log, "cuMemAlloc:3:719")
    assert [(call.result, call.why) for call in drivers.calls(log, "cuMemAlloc")][1:3] == [(0, ""), (719, "FAKE_FAIL")]


def test_a_gpu_that_is_lost_encodes_no_more(log: Path) -> None:
    run("lost", log, "cuStreamSynchronize:1:719")
    pictures = [call.result for call in drivers.calls(log, "nvEncEncodePicture") if call.arguments["end"] == "0"]
    assert pictures == [0, 20]


@pytest.mark.parametrize(
    ("more", "function", "result"),
    [
        ({"FAKE_NVENC": "none"}, "nvEncOpenEncodeSessionEx", 2),
        ({"FAKE_NVENC_SESSIONS": "0"}, "nvEncOpenEncodeSessionEx", 10),
        ({"FAKE_NVENC_VERSION": "12.0"}, "NvEncodeAPIGetMaxSupportedVersion", 0),
        ({"FAKE_DEVICES": "0"}, "cuInit", 100),
        ({"FAKE_FAIL": "nvEncInitializeEncoder:1:20"}, "nvEncInitializeEncoder", 20),
    ],
)
def test_an_encoder_that_is_not_there_is_not_opened(
    log: Path, more: dict[str, str], function: str, result: int
) -> None:
    run("refused", log, **more)
    assert drivers.calls(log, function)[-1].result == result
    assert all(call.result for call in drivers.calls(log, "nvEncEncodePicture"))


@pytest.mark.long  # gcc for four libraries
def test_several_that_build_at_the_same_time_share_one_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tests import drivers; print(drivers.built())"]
    env = {**drivers.environ(), "TMPDIR": str(tmp_path)}
    builders = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {builder.communicate(timeout=CLIENT_S)[0].strip() for builder in builders}
    assert [builder.returncode for builder in builders] == [0, 0]
    assert [str(path) for path in tmp_path.iterdir()] == list(folders)
    assert len(list(Path(*folders).iterdir())) == 2
