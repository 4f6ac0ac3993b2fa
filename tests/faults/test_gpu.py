"""The whole way on a GPU, nvenc-cuda, on driver libraries of our own (tests/drivers): real OpenGL, cuda-bindings and
PyAV, so that a stream decodes to exactly the picture that was drawn. Speed and NVENC's own doing can't be seen here."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import pytest

from procs.errors import NotHere
from procs.headless_agent import cuda
from procs.headless_agent.options import Producer
from procs.headless_agent.pictures import EglPictures
from procs.messages.requests import Bitrate, Keyframe
from procs.settings import ROOT
from tests import drivers, rig
from tests.decoding import frames_of, seen_in, stamp_of
from tests.faults.test_producer import SMALL, producer, run
from tests.rig import until
from tests.viewers import RtspViewer

pytestmark = [
    pytest.mark.needs(drivers.NEEDED, "libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0"),
    pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="cuda-bindings is missing: make up CUDA=1"),
]
CUDA = (*SMALL, "--encoder", "nvenc-cuda")
OUTPUT = ("nvEncLockBitstream", "nvEncUnlockBitstream", "nvEncUnmapInputResource")
AUTO = (*SMALL, "--renderer", "egl", "--duration", "0.5")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the drivers write what they were asked."""
    return tmp_path / "calls"


@pytest.fixture
def faked(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of this test find the drivers."""
    for name, value in fakes(log).items():
        monkeypatch.setenv(name, value)


def fakes(log: Path, fail: str = "", **more: str) -> dict[str, str]:
    """What a child needs of its environment to find the drivers."""
    environ = drivers.environ(log, fail, **more)
    return {name: value for name, value in environ.items() if name == "LD_LIBRARY_PATH" or name.startswith("FAKE_")}


def samples(frame: av.VideoFrame) -> list[bytes]:
    """Y, U and V of a picture, NV12 or planar, without what pads their rows."""
    is_nv12 = frame.format.name == "nv12"
    widths = [frame.width, *([frame.width] if is_nv12 else 2 * [frame.width // 2])]
    rows = [
        b"".join(bytes(plane)[y * plane.line_size :][:width] for y in range(frame.height // (2 if index else 1)))
        for index, (plane, width) in enumerate(zip(frame.planes, widths, strict=True))
    ]
    return [rows[0], rows[1][::2], rows[1][1::2]] if is_nv12 else rows


@pytest.mark.parametrize(
    ("width", "height"), [(640, 360), (322, 242), (146, 50), pytest.param(1918, 1078, marks=pytest.mark.long)]
)
def test_what_is_decoded_is_what_the_shader_packed_with_the_overlay(
    run_dir: Path, log: Path, width: int, height: int
) -> None:
    """Byte for byte, against the same picture read back by OpenGL. Kills a wrong pitch, row, plane or strip."""
    size = ("--width", str(width), "--height", str(height), "--fps", "10")
    code, stream, events = run(run_dir, *size, "--encoder", "nvenc-cuda", "--duration", "0.8", **fakes(log))
    assert (code, events[0]) == (0, "encoder nvenc-cuda")
    host = EglPictures(Producer(renderer="egl", width=width, height=height, fps=10, convert="shader"))
    frames = frames_of(stream)
    assert len(frames) > 1
    for frame in frames:
        stamp = stamp_of(frame)
        assert stamp
        host.draw(stamp.frame, stamp.time_ns)
        assert samples(frame) == samples(host.frame())
        tags = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
        assert tags == (1, 1, 1, 1), "BT.709, limited"


def test_barcode_and_sei_agree_and_every_picture_comes_at_once(run_dir: Path, log: Path) -> None:
    code, stream, _ = run(run_dir, *CUDA, "--duration", "1", **fakes(log))
    seen = seen_in(stream)
    assert code == 0 and len(seen) > 5
    assert all(p.stamp and p.stamp.frame == p.code.frame for p in seen)
    assert len(seen) == len(drivers.calls(log, "nvEncEncodePicture")), "none is held back"
    assert [int(c.arguments["pts"]) for c in drivers.calls(log, "nvEncEncodePicture")] == [p.code.frame for p in seen]


def test_what_the_driver_is_asked_for_one_picture(run_dir: Path, log: Path) -> None:
    """In one stream, which waits for no other and which nobody waits for; a texture is registered once."""
    assert run(run_dir, *CUDA, "--duration", "0.5", **fakes(log))[0] == 0
    every = drivers.calls(log)
    assert [c.name for c in every].count("cuGraphicsGLRegisterImage") == 1
    encoded = [index for index, call in enumerate(every) if call.name == "nvEncEncodePicture"]
    assert len(encoded) > 2
    scene = ["cuGraphicsMapResources", "cuGraphicsSubResourceGetMappedArray", "array", "array"]
    wanted = [*scene, "cuGraphicsUnmapResources", "host", "host", "nvEncMapInputResource", "nvEncEncodePicture"]
    for before, after in pairwise(encoded):
        calls = [call for call in every[before + 1 : after + 1] if not call.name.startswith("cuCtx")]
        names = [call.arguments.get("from", call.name) for call in calls]
        assert [name for name in names if name not in OUTPUT] == wanted
    assert [call.arguments["flags"] for call in drivers.calls(log, "cuStreamCreate")] == ["1"], (
        "not in turn with others"
    )
    (stream,) = {call.arguments["stream"] for call in every if "stream" in call.arguments}
    (told,) = drivers.calls(log, "nvEncSetIOCudaStreams")
    assert (told.arguments["input"], told.arguments["output"]) == (stream, stream)
    assert not [call for call in every[encoded[0] :] if "Synchronize" in call.name]


def test_options_keyframes_and_bit_rate_reach_nvenc(run_dir: Path, log: Path, faked: None) -> None:
    with producer(run_dir, "--encoder", "nvenc-cuda") as running:
        running.wait_frames(5)
        running.ask(Keyframe())
        running.wait_frames(5)
        running.ask(Bitrate(bits_per_s=300_000))
        running.wait_frames(5)
    (opened,) = drivers.calls(log, "nvEncInitializeEncoder")
    told = ("preset", "tuning", "rc", "bitrate", "maxbitrate", "vbv", "gop", "b_frames", "full_range", "matrix")
    assert [opened.arguments[name] for name in told] == (
        ["P1", "low_latency", "cbr", "1000000", "1000000", "100000", "300", "0", "0", "1"]
    )
    forced = [c for c in drivers.calls(log, "nvEncEncodePicture") if int(c.arguments["flags"], 16) & 2]
    assert len(forced) == 1
    (again,) = drivers.calls(log, "nvEncReconfigureEncoder")
    assert again.arguments["bitrate"] == "300000"


@pytest.mark.parametrize(
    ("encoder", "mode", "rate"),
    [("nvenc-cuda", "vbr", 3_000_000), ("nvenc", "vbr", 3_000_000), ("nvenc", "cbr", 4_000_000)],
)
def test_a_rate_rises_over_what_it_was_opened_for(
    run_dir: Path, log: Path, faked: None, monkeypatch: pytest.MonkeyPatch, encoder: str, mode: str, rate: int
) -> None:
    """Libav changes neither vbr's maximum nor the buffer, so a new session does, after the old one's end."""
    monkeypatch.setenv("FAKE_NVENC_SESSIONS", "1")
    with producer(run_dir, "--encoder", encoder, "--nvenc-rc", mode) as running:
        running.wait_frames(5)
        running.ask(Bitrate(bits_per_s=rate))
        until(lambda: len(drivers.calls(log, "nvEncInitializeEncoder")) == 2, 10)
        running.wait_frames(5)
        running.ask(Bitrate(bits_per_s=2_000_000))
        until(lambda: drivers.calls(log, "nvEncReconfigureEncoder"), 10)
        running.wait_frames(5)
    rates = [
        [int(call.arguments[name]) for name in ("bitrate", "maxbitrate", "vbv")]
        for call in drivers.calls(log, "nvEncInitializeEncoder") + drivers.calls(log, "nvEncReconfigureEncoder")
    ]
    assert rates == [[1_000_000, 1_000_000, 100_000], [rate, rate, rate // 10], [2_000_000, rate, rate // 10]]


def test_auto_takes_it_and_says_so(run_dir: Path, log: Path) -> None:
    code, stream, events = run(run_dir, *AUTO, **fakes(log))
    assert (code, events[0]) == (0, "encoder nvenc-cuda") and seen_in(stream)


def test_a_second_gpu_is_drawn_and_encoded_on(run_dir: Path, log: Path) -> None:
    code, stream, _ = run(run_dir, *CUDA, "--duration", "0.5", **fakes(log, FAKE_DEVICES="2", FAKE_GL_ORDINAL="1"))
    assert code == 0 and seen_in(stream)
    assert [call.arguments["device"] for call in drivers.calls(log, "cuDevicePrimaryCtxRetain")] == ["1"]
    (ours,) = drivers.calls(log, "cuCtxSetCurrent")
    pushed = {call.arguments["context"] for call in drivers.calls(log, "cuCtxPushCurrent")}
    assert pushed == {ours.arguments["context"]}, "libav encodes where the picture lies"


def test_without_nvenc_auto_plays_and_gives_the_gpu_back(run_dir: Path, log: Path) -> None:
    """As on an H200."""
    code, stream, events = run(run_dir, *AUTO, **fakes(log, FAKE_NVENC="none"))
    assert code == 0 and seen_in(stream)
    assert events[0].startswith("encoder x264 (nvenc-cuda, ")
    assert events[0].count("this GPU has no NVENC (A100, H100 and H200 have none)") == 1
    called = [call.name for call in drivers.calls(log)]
    assert called.count("cuDevicePrimaryCtxRelease") == called.count("cuDevicePrimaryCtxRetain") >= 1


def test_without_nvencs_library_all_say_that_it_is_missing(run_dir: Path, log: Path, tmp_path: Path) -> None:
    """As in a container without the capability video. libav's last words are that the driver is too old."""
    (tmp_path / "libcuda.so.1").symlink_to(drivers.built() / "libcuda.so.1")
    code, stream, events = run(run_dir, *AUTO, **fakes(log) | {"LD_LIBRARY_PATH": str(tmp_path)})
    assert code == 0 and seen_in(stream)
    assert events[0].count("libnvidia-encode.so.1 is missing") == 1
    assert "too old" not in events[0] and "Failed to load" not in events[0]


def test_a_reason_that_libav_repeats_is_said_once(run_dir: Path, log: Path) -> None:
    code, stream, events = run(run_dir, *AUTO, **fakes(log, "nvEncInitializeEncoder:1:15"))
    assert code == 0 and seen_in(stream)
    assert events[0].count("InitializeEncoder failed: invalid version (15)") == 1
    assert "avcodec_open2" not in events[0] and "nvenc" in events[0]


def test_a_driver_that_hangs_is_no_first_frame(run_dir: Path, log: Path) -> None:
    limit = {"PLANARIA_FIRST_FRAME_LIMIT_S": "2"}
    code, stream, events = run(run_dir, *CUDA, **fakes(log, "cuInit:1:-1"), **limit)
    assert (code, stream, len(events)) == (4, b"", 1)
    assert events[0].endswith("no first picture within 2 s")


def test_auto_spares_a_driver_that_has_hung_three_times(run_dir: Path, log: Path) -> None:
    """It refuses nothing, so that only the row of failures tells of it: two of them, and one that is real."""
    (run_dir / "headless_agent-agent-0.crashes").write_text("2")
    hanging = fakes(log, "cuInit:1:-1")
    assert run(run_dir, *AUTO, PLANARIA_FIRST_FRAME_LIMIT_S="0.5", **hanging)[:2] in ((4, b""), (1, b""))
    code, stream, events = run(run_dir, *AUTO, **hanging)
    line = "encoder x264 (nvenc-cuda, vpf, nvenc: not tried, since the last 3 runs ended by themselves)"
    assert code == 0 and frames_of(stream) and line in events, events


def test_auto_tries_a_gpu_again_after_refusals(run_dir: Path, log: Path) -> None:
    """Somebody has named what is not here, and then thinks better of it."""
    (run_dir / "headless_agent-agent-0.crashes").write_text("2")
    assert run(run_dir, *AUTO, "--device-idx", "63", **fakes(log))[0] == 3
    assert "encoder nvenc-cuda" in run(run_dir, *AUTO, **fakes(log))[2]


def test_a_driver_that_hangs_with_the_interpreters_lock_is_no_first_frame_either(run_dir: Path, log: Path) -> None:
    """PyAV opens a codec with the lock held. Then the stack is all that is said, after the limit's own time."""
    told = drivers.environ(log, "nvEncOpenEncodeSessionEx:1:-1", PLANARIA_RUN_DIR=str(run_dir))
    done = subprocess.run(
        [*rig.AGENT, *CUDA],
        cwd=ROOT,
        env=told | {"PLANARIA_FIRST_FRAME_LIMIT_S": "2"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"Timeout (0:00:03)!") and b"nvenc_cuda.py" in done.stderr


REFUSED = {
    "no device": ({"FAKE_DEVICES": "0"}, "CUDA: CUDA_ERROR_NO_DEVICE at cuInit: no CUDA-capable device is detected"),
    "unknown": ({"FAKE_FAIL": "cuInit:1:999"}, "CUDA: CUDA_ERROR_UNKNOWN at cuInit: unknown error"),
    "nameless": ({"FAKE_FAIL": "cuStreamCreate:1:4242"}, "CUDA: 4242 is not a valid CUresult at cuStreamCreate"),
    "too old": (
        {"FAKE_DRIVER_VERSION": "11040"},
        "the NVIDIA driver is too old: it is for CUDA 11.4, and 12.0 or newer is needed",
    ),
    "drawn elsewhere": ({"FAKE_GL_DEVICES": "0"}, "llvmpipe draws, which is no CUDA device"),
    "another's context": ({"FAKE_FAIL": "cuGLGetDevices:1:304"}, "llvmpipe draws, which is no CUDA device"),
    "no memory": ({"FAKE_MEMORY_MB": "0"}, "CUDA: out of memory at cuMemAllocPitch"),
    "no pinned memory": ({"FAKE_FAIL": "cuMemHostAlloc:1:2"}, "CUDA: out of memory at cuMemAllocHost"),
    "first picture": (
        {"FAKE_FAIL": "cuMemcpy2DAsync:2:700"},
        "CUDA: CUDA_ERROR_ILLEGAL_ADDRESS at cuMemcpy2DAsync: an illegal memory access was encountered",
    ),
    "no NVENC": ({"FAKE_NVENC": "none"}, "this GPU has no NVENC (A100, H100 and H200 have none)"),
    "no session": (
        {"FAKE_NVENC_SESSIONS": "0"},
        "this GPU has no encoding session left, or no memory for one",
    ),
    "NVENC too old": (
        {"FAKE_NVENC_VERSION": "12.0"},
        "nvenc does not open at 320x180: The minimum required Nvidia driver for nvenc is 570.0 or newer",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_it_refuses_is_one_line_and_auto_goes_on(run_dir: Path, log: Path, why: str) -> None:
    faults, words = REFUSED[why]
    environ = fakes(log) | faults
    code, stream, events = run(run_dir, *CUDA, **environ)
    assert (code, stream, events) == (3, b"", [f"encoder nvenc-cuda: {words}"])
    code, stream, events = run(run_dir, *AUTO, **environ)
    assert code == 0 and seen_in(stream)
    assert events[0].startswith("encoder ") and events[0].count(words) == 1
    assert not re.search(r"\b0x", events[0]), "no addresses"
    assert "nvenc-cuda" not in events[0].partition(" (")[0]


def test_a_texture_is_not_left_mapped_to_the_next_encoder(run_dir: Path, log: Path) -> None:
    code, stream, _ = run(run_dir, *AUTO, **fakes(log, "cuMemcpy2DAsync:2:1"))
    assert code == 0 and seen_in(stream)
    assert [call.result for call in drivers.calls(log, "cuGraphicsUnmapResources")] == [0]


def test_a_wrong_index_names_what_there_is(run_dir: Path, log: Path) -> None:
    code, stream, events = run(run_dir, *CUDA, "--device-idx", "63", **fakes(log))
    assert (code, stream, len(events)) == (3, b"", 1)
    assert events[0].startswith("device_idx=63: this machine has EGL devices 0 (")


def test_a_node_that_we_may_not_open_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cuda, "glob", lambda _: ["/dev/null"])
    monkeypatch.setattr(os, "open", refuse)
    assert cuda._forbidden() == "no permission on /dev/null, which belongs to group root"
    monkeypatch.undo()
    monkeypatch.setattr(cuda, "glob", lambda _: ["/dev/null", "/dev/nonexistent"])
    assert cuda._forbidden() == ""


@pytest.mark.parametrize(("code", "named"), [(100, True), (304, True), (999, True), (3, False)])
def test_a_driver_without_devices_is_asked_about_their_nodes(
    monkeypatch: pytest.MonkeyPatch, code: int, named: bool
) -> None:
    class Driver:
        def cuInit(self, _flags: int) -> tuple[int]:
            return (code,)

    monkeypatch.setattr(cuda, "_open_driver", Driver)
    monkeypatch.setattr(cuda, "_forbidden", lambda: "no permission on /dev/nvidia0, which belongs to group video")
    monkeypatch.setattr(cuda.Gpu, "_words", lambda _self, call, code: f"error {code} at {call}")
    with pytest.raises(NotHere, match="^no permission" if named else f"^error {code} at cuInit"):
        cuda.Gpu()


def test_a_library_that_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    with pytest.raises(NotHere, match=r"libcuda\.so\.1 is no CUDA driver"):
        cuda._open_driver()


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("cuGraphicsMapResources:8:719", 16, "CUDA: CUDA_ERROR_LAUNCH_FAILED at cuGraphicsMapResources"),
        ("cuMemcpy2DAsync:30:700", 16, "CUDA: CUDA_ERROR_ILLEGAL_ADDRESS at cuMemcpy2DAsync"),
        ("cuGraphicsUnmapResources:8:4242", 16, "CUDA: 4242 is not a valid CUresult at cuGraphicsUnmapResources"),
        ("nvEncEncodePicture:8:20", 7, "nvenc-cuda failed at picture "),
    ],
)
def test_a_gpu_that_is_lost_ends_the_process_within_a_picture(
    run_dir: Path, log: Path, fault: str, code: int, words: str
) -> None:
    ended, stream, events = run(run_dir, *CUDA, "--duration", "30", **fakes(log, fault))
    assert (ended, events[0], len(events)) == (code, "encoder nvenc-cuda", 2)
    assert events[1].startswith(words)
    (name, number, _) = fault.split(":")
    assert seen_in(stream), "until then all was well"
    if name.startswith("cu"):
        after = [call.name for call in drivers.calls(log)]
        place = [index for index, called in enumerate(after) if called == name][int(number) - 1]
        assert "nvEncEncodePicture" not in after[place:], "nothing is encoded of what is not there"


def test_a_viewer_of_go2rtc_stays_while_the_gpu_is_lost_and_back(
    log: Path, faked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAIL", "cuGraphicsMapResources:25:719")
    small = {"width": 320, "height": 180, "fps": 30, "gop": 30, "renderer": "egl"}
    with rig.go2rtc({"workers": 1, "producer": small}) as running:
        viewer = RtspViewer(running.rtsp, "omega-0")
        viewer.start()
        lost = '"event": "CUDA: CUDA_ERROR_LAUNCH_FAILED at cuGraphicsMapResources"'
        until(lambda: running.log.read_text().count(lost) >= 2, 30)
        arrived = len(viewer.arrivals)
        until(lambda: len(viewer.arrivals) > arrived + 10, 30)
        assert len({call.pid for call in drivers.calls(log, "cuInit")}) >= 3, "each a new process"
        viewer.leave()


FIRST = """
import sys
from procs.headless_agent import encoder, options, pictures
chosen = options.Producer(renderer="egl", width=320, height=180)
source = pictures.open_pictures(chosen)
choice = encoder.open_encoder(chosen, source)
source.draw(0, 0)
choice.encode(source, 0, keyframe=True)
print(choice.name, [name for name in sys.modules if name.split(".")[0] in ("cuda", "cvcuda", "PyNvVideoCodec")])
"""


def test_without_a_driver_nothing_of_cuda_is_imported(run_dir: Path) -> None:
    if cuda_is_here():
        pytest.skip("this machine has a driver")
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "x264 []\n"


def cuda_is_here() -> bool:
    """Whether this machine has NVIDIA's driver."""
    from procs.headless_agent.options import no_nvidia_driver

    return not no_nvidia_driver()
