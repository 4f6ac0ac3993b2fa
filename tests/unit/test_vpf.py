"""The road through CV-CUDA and PyNvVideoCodec, on fake drivers: its colours, its stream and its tags."""

from __future__ import annotations

import ctypes
import random
from itertools import pairwise, product
from typing import Any

import av
import numpy as np
import pytest

from procs.headless_agent import cvcuda_nv12, egl, libav
from procs.headless_agent.cuda import Memory
from procs.headless_agent.dlpack import Exporter
from procs.headless_agent.options import Producer
from procs.headless_agent.pictures import EglPictures, PatternPictures
from tests import drivers
from tests.decoding import code_of, frames_of, stamp_of
from tests.vpf_rig import FPS, HEIGHT, WIDTH, on_drivers, run

Streamed = tuple[list[av.VideoFrame], list[drivers.Call]]


@pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
def test_colours_are_moved_so_that_the_full_range_of_them_is_the_limited_one_of_what_was_drawn() -> None:
    """By the formulas of BT.709 (ITU-R BT.709-6, item 3), for all corners and colours at random."""
    from procs.headless_agent import gl
    from procs.headless_agent.convert import Pass

    egl.open_context(0)
    chance = random.Random(12)
    colours = [*product((0, 255), repeat=3), *([chance.randrange(256) for _ in range(3)] for _ in range(300))]
    source = cvcuda_nv12.patches([[part / 255 for part in colour] for colour in colours])
    moved = gl.Target(source.width, source.height, internal=gl.RGBA8, pixels=gl.RGBA)
    Pass(source, moved, cvcuda_nv12.SPREAD).draw()
    found = np.zeros((source.height, source.width, 4), np.uint8)
    moved.read(0, source.height, found.ctypes.data, source.width * 4)
    rgb = found[source.height // 2, cvcuda_nv12.PATCH // 2 :: cvcuda_nv12.PATCH, :3].astype(float)
    assert (rgb.min(), rgb.max()) == (11, 240), "so that nothing is clipped"

    def full(of: Any) -> Any:
        luma = of @ (0.2126, 0.7152, 0.0722)
        return np.stack([luma, (of[:, 2] - luma) / 1.8556, (of[:, 0] - luma) / 1.5748], -1)

    wanted = full(np.array(colours, float)) * (219 / 255, 224 / 255, 224 / 255) + (16, 0, 0)
    assert np.abs(full(rgb) - wanted).max() < 0.6, "which is what rounding to 8 bits costs"


def test_a_tensor_for_each_picture_takes_no_memory() -> None:
    """PyNvVideoCodec never lets go of what a capsule shows: it only looks into it."""
    exporter = Exporter(Memory(4096, 512, 322, 363), 0)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    assert len({pointer(exporter.__dlpack__(), b"dltensor") for _ in range(9)}) == 1


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Streamed:
    """What a producer's stream decodes to, and what the drivers were asked."""
    run_dir = tmp_path_factory.mktemp("v")
    options = ["--duration", "3", "--bitrate", "2M", "--gop", "15", "--nvenc-tune", "ull"]
    code, stream, errors = run(run_dir, *options, FAKE_NVENC_SESSIONS="1")
    assert code == 0, errors
    assert errors.count("\n") == 1 and '"encoder vpf"' in errors
    assert stream[0] == 0x47 and len(stream) % 188 == 0, "nothing else may be written to stdout"
    return frames_of(stream), drivers.calls(run_dir / "calls")


@on_drivers
def test_every_picture_is_the_one_that_the_host_path_makes(
    streamed: Streamed,
) -> None:
    frames, calls = streamed
    assert len(frames) > 40
    host = EglPictures(Producer(renderer="egl", width=WIDTH, height=HEIGHT, fps=FPS, convert="shader"))
    top, bottom = host.overlay.top, host.overlay.bottom
    assert all((one.pts or 0) < (other.pts or 0) for one, other in pairwise(frames))
    for frame in frames:
        stamp = stamp_of(frame)
        assert stamp and code_of(frame) == (stamp.frame, stamp.time_ns // 1000)
        host.draw(stamp.frame, stamp.time_ns)
        wanted = host.frame().to_ndarray().astype(int)
        differences = abs(frame.reformat(format="nv12").to_ndarray().astype(int) - wanted)
        assert differences[:top].max() == differences[bottom:HEIGHT].max() == 0, "what the CPU has drawn"
        assert differences.max() <= 2
        assert (frame.time or 0) - (frames[0].time or 0) == pytest.approx(stamp.frame / FPS)
    encoded = [call for call in calls if call.name == "nvEncEncodePicture" and call.arguments["end"] == "0"]
    assert len(frames) == len(encoded) - 3, "the last three never come"


@on_drivers
def test_no_picture_comes_to_our_memory_and_nothing_waits(
    streamed: Streamed,
) -> None:
    _, calls = streamed
    ends = [at for at, call in enumerate(calls) if call.arguments.get("end") == "1"]
    served = calls[ends[0] :]
    assert not [call for call in served if "Synchronize" in call.name or call.arguments.get("to") == "host"]
    uploads = {call.arguments["height"] for call in served if call.arguments.get("from") == "host"}
    assert uploads == {"30", "26"}, "of the overlay only"
    streams = {call.arguments[key] for call in served for key in ("stream", "input") if key in call.arguments}
    assert len(streams) == 1, "and all is in our stream, so that nothing has to"
    assert len([call for call in served if call.name == "advcvtcolor_into"]) > 40


@on_drivers
def test_the_encoder_gets_our_options_and_the_stream_our_tags(
    streamed: Streamed,
) -> None:
    frames, calls = streamed
    told = {"fps": "30/1", "preset": "P1", "tuning": "ultra_low_latency", "rc": "cbr", "gop": "15", "b_frames": "0"}
    told |= {"bitrate": "2000000", "maxbitrate": "2000000", "vbv": "200000"}
    for call in (opened := [call for call in calls if call.name == "nvEncInitializeEncoder"]):
        assert told.items() <= call.arguments.items()
    assert len(opened) == 2, "one proves itself, another goes on"

    chosen = Producer(width=WIDTH, height=HEIGHT, fps=FPS)
    pictures = PatternPictures(chosen)
    pictures.draw(0, 0)
    (unit,) = libav.X264(chosen, "nv12").encode(pictures, 0, keyframe=True)
    (other,) = frames_of(unit.data)

    def tags(frame: av.VideoFrame) -> tuple[int, ...]:
        return frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc

    assert {tags(frame) for frame in frames} == {tags(other)} == {(1, 1, 1, 1)}
    periods = [at for at, frame in enumerate(frames) if frame.key_frame]
    assert periods[:4] == [0, 1, 16, 31]
