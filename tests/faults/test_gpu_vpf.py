"""The road through CV-CUDA and PyNvVideoCodec, on fake drivers: what it refuses, obeys, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from procs import bus, rpc
from procs.headless_agent.options import NO_NVENC, NO_SESSION
from procs.messages.requests import Bitrate
from procs.settings import ROOT
from tests import drivers
from tests.decoding import frames_of
from tests.rig import AGENT, until
from tests.vpf_rig import VPF, environ, on_drivers, run

REFUSALS = [
    ({"FAKE_CVCUDA": "601"}, r"cvcuda gives other colours than we expect: \(42, 240, 109\) for RGB \(0, 0, 255\)"),
    ({"FAKE_CVCUDA": "limited"}, r"cvcuda gives other colours than we expect: \(30, 128, 128\) for RGB \(0, 0, 0\)"),
    ({"FAKE_CVCUDA": "bgr"}, r"cvcuda gives other colours than we expect: \(64, 102, 240\) for RGB \(0, 0, 255\)"),
    ({"FAKE_CVCUDA": "broken"}, "cvcuda does not load: libcuda.so.1"),
    ({"fail": "advcvtcolor_into:2:1"}, "cvcuda: NVCV_ERROR_INVALID_ARGUMENT: FAKE_FAIL"),
    ({"FAKE_NVENC": "none"}, re.escape(NO_NVENC)),
    ({"FAKE_NVENC_SESSIONS": "0"}, NO_SESSION),
    ({"FAKE_NVENC_VERSION": "12.0"}, "PyNvVideoCodec does not load: Driver version is too old"),
    ({"fail": "cuStreamGetCtx:2:400"}, "PyNvVideoCodec does not open: cudastream .*"),  # the one that would go on
    ({"fail": "nvEncInitializeEncoder:1:8"}, "PyNvVideoCodec does not open: error 8 of nvEncInitializeEncoder"),
    ({"fail": "nvEncEncodePicture:1:8"}, "PyNvVideoCodec does not encode: error 8 of nvEncEncodePicture"),
    ({"FAKE_MEMORY_MB": "1"}, ".*OUT_OF_MEMORY"),
]

ENDS = [
    ("nvEncEncodePicture:20:8", 7, "PyNvVideoCodec does not encode: error 8 of nvEncEncodePicture"),
    ("advcvtcolor_into:20:1", 7, "cvcuda: NVCV_ERROR_INVALID_ARGUMENT: FAKE_FAIL"),
    ("cuGraphicsMapResources:20:719", 16, "CUDA: CUDA_ERROR_LAUNCH_FAILED at cuGraphicsMapResources"),
    ("cuMemcpy2DAsync:120:700", 16, "CUDA: CUDA_ERROR_ILLEGAL_ADDRESS (at|in) .*"),
    ("nvEncEncodePicture:20:20,cuStreamSynchronize:2:719", 16, "CUDA: CUDA_ERROR_LAUNCH_FAILED at cuStreamSynchronize"),
    ("advcvtcolor_into:20:1,cuStreamSynchronize:2:719", 16, "CUDA: CUDA_ERROR_LAUNCH_FAILED at cuStreamSynchronize"),
]


TAKEN = [
    ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease"),
    ("cuCtxCreate", "cuCtxDestroy"),
    ("nvEncOpenEncodeSessionEx", "nvEncDestroyEncoder"),
]


@on_drivers
@pytest.mark.parametrize(("asked", "reason"), REFUSALS)
def test_what_can_not_serve_says_why_in_one_line(tmp_path: Path, asked: dict[str, str], reason: str) -> None:
    code, stream, errors = run(tmp_path, **asked)
    assert (code, stream) == (3, b""), errors
    assert errors.count("\n") == 1 and len(errors) < 512, "go2rtc keeps no more"
    assert re.search(rf'"event": "encoder vpf: {reason}', errors), errors
    calls = drivers.calls(tmp_path / "calls")
    assert not [call for call in calls if call.why and not call.why.startswith("FAKE_")], "given back in its order"
    called = Counter(call.name for call in calls if not call.result)
    for taken, given in TAKEN:
        assert called[taken] == called[given], "all is given back, also what PyNvVideoCodec has left"


@on_drivers
@pytest.mark.parametrize(("fail", "code", "reason"), ENDS)
def test_what_fails_later_ends_the_process(tmp_path: Path, fail: str, code: int, reason: str) -> None:
    ended, stream, errors = run(tmp_path, fail=fail)
    assert ended == code, errors
    assert re.search(rf'"event": "{reason}"', errors), errors
    assert frames_of(stream), "what was written before is whole"


@on_drivers
def test_it_obeys_while_it_runs(tmp_path: Path) -> None:
    """A rate and a keyframe, each from the next picture on."""
    log, out = tmp_path / "calls", tmp_path / "stream"
    options = [*AGENT, *VPF, "--gop", "1000", "--instance-id", "told"]
    with out.open("wb") as stdout:
        process = subprocess.Popen(options, cwd=ROOT, env=environ(tmp_path), stdout=stdout, stderr=subprocess.PIPE)

    def idr() -> list[int]:
        encoded = [call for call in drivers.calls(log, "nvEncEncodePicture") if call.arguments["end"] == "0"]
        return [at for at, call in enumerate(encoded) if call.arguments["idr"] == "1"]

    try:
        until(lambda: len(drivers.calls(log, "nvEncEncodePicture")) > 10, 30)
        assert idr() == [0, 1], "the first of each encoder"
        process.send_signal(signal.SIGUSR1)
        until(lambda: len(idr()) == 3, 10)
        with rpc.Requester(tmp_path, bus.control_of("told")) as requester:
            requester.ask(Bitrate(900_000), within_s=10)
        until(lambda: drivers.calls(log, "nvEncReconfigureEncoder"), 10)
        encoded = len(drivers.calls(log, "nvEncEncodePicture"))
        until(lambda: len(drivers.calls(log, "nvEncEncodePicture")) > encoded + 10, 10)
    finally:
        process.kill()
        process.communicate(timeout=10)
    (call,) = drivers.calls(log, "nvEncReconfigureEncoder")
    told = {"bitrate": "900000", "maxbitrate": "900000", "vbv": "90000"}
    assert told.items() <= call.arguments.items()
    keyframes = [at for at, frame in enumerate(frames_of(out.read_bytes())) if frame.key_frame]
    assert keyframes == idr()
