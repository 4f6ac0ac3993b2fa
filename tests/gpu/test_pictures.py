"""What CUDA maps is what OpenGL has drawn, and the NV12 that is made of it is that of the CPU."""

from __future__ import annotations

import time

import numpy as np
import pytest

from procs.errors import NotHere
from tests.gpu.stage import LONG, Bytes, Stage, fetched, furthest, nv12_of, nv12_rows

SIZES = [(16, 16), (322, 242), (640, 360), (1280, 720), (1922, 1082), (3840, 2160)]
FRAMES = 300 if LONG else 30


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_is_mapped_is_what_was_drawn(width: int, height: int) -> None:
    """Byte for byte, in every one of many pictures that follow each other without a pause."""
    from procs.headless_agent.cuda import Part, Texture

    stage = Stage(width, height)
    target = stage.pictures.target
    texture = Texture(stage.gpu, target)
    memory = stage.gpu.allocate(4 * width, target.height)
    seen = set()
    for number in range(FRAMES if width < 2000 else 5):
        stage.pictures.draw(number, 0)
        texture.copy(Part(0, target.height, memory.address, memory.pitch))
        mapped = fetched(stage.gpu, memory)
        assert np.array_equal(mapped, stage.read_back()), number
        seen.add(mapped.tobytes())
    assert len(seen) > 1, "nothing moves"


def test_a_part_of_it_is_those_rows() -> None:
    from procs.headless_agent.cuda import Part, Texture

    stage = Stage(322, 242)
    noise = stage.scatter(1)
    rows, top, count = noise.shape[0], 11, 20
    memory = stage.gpu.allocate(4 * 322, rows)
    copy = Texture(stage.gpu, stage.pictures.target).copy
    copy(Part(0, rows, memory.address, memory.pitch))
    copy(Part(top, count, memory.address + 3 * memory.pitch, memory.pitch))
    expected = noise.reshape(rows, -1).copy()
    expected[3 : 3 + count] = expected[top : top + count]
    assert np.array_equal(fetched(stage.gpu, memory), expected)


def packed(stage: Stage) -> tuple[Bytes, Bytes]:
    """Luma and chroma rows of the scene, packed by the shader and mapped by CUDA."""
    from procs.headless_agent.convert import Packer
    from procs.headless_agent.cuda import Part, Texture

    packer = Packer(stage.pictures.target)
    memory = stage.gpu.allocate(packer.target.width, packer.target.height)
    texture = Texture(stage.gpu, packer.target)
    packer.draw()
    texture.copy(Part(0, packer.target.height, memory.address, memory.pitch))
    rows = fetched(stage.gpu, memory)
    luma_rows = stage.pictures.target.height
    return rows[:luma_rows], rows[luma_rows:]


@pytest.mark.parametrize(("width", "height"), SIZES[:5])
def test_nv12_of_noise_is_that_of_the_formula(width: int, height: int) -> None:
    stage = Stage(width, height)
    noise = stage.scatter(width)
    for mine, reference in zip(packed(stage), nv12_of(noise), strict=True):
        assert furthest(mine, reference) <= 2


@pytest.mark.parametrize(("width", "height"), SIZES[1:4])
def test_nv12_of_the_scene_is_that_of_swscale(width: int, height: int) -> None:
    import av

    from procs.headless_agent.convert import Swscale

    stage = Stage(width, height)
    target = stage.pictures.target
    reference = av.VideoFrame(width, target.height, "nv12")
    swscale = Swscale(target)
    for number in (0, 40, 333):
        stage.pictures.draw(number, 0)
        swscale.put(reference, 0)
        for mine, theirs in zip(packed(stage), nv12_rows(reference), strict=True):
            assert furthest(mine, theirs) <= 2


@pytest.mark.parametrize(("width", "height"), SIZES[:4])
def test_a_frame_on_the_device_is_that_of_the_host(width: int, height: int) -> None:
    """With name, number, time and barcode, which the CPU writes around the scene."""
    from procs.headless_agent.convert import Packer
    from procs.headless_agent.cuda import Texture
    from procs.headless_agent.device_frame import DeviceFrame

    stage = Stage(width, height)
    packer, frame = Packer(stage.pictures.target), DeviceFrame(stage.gpu, stage.pictures)
    texture = Texture(stage.gpu, packer.target)
    for number in range(FRAMES):
        stage.pictures.draw(number, time.time_ns())
        packer.draw()
        texture.copy(*frame.scene())
        frame.write()
        rows = fetched(stage.gpu, frame.memory)
        host = nv12_rows(stage.pictures.frame())
        for mine, theirs in zip((rows[:height], rows[height:]), host, strict=True):
            assert np.array_equal(mine, theirs), number


def test_the_devices_of_cuda_come_first_in_their_order() -> None:
    ordinals, index = [], 0
    while True:
        try:
            ordinals.append(Stage(64, 64, device_idx=index).gpu.ordinal)
        except NotHere:
            break
        index += 1
    print(f"EGL devices that CUDA draws: {ordinals}")
    if len(ordinals) > 1 and len(set(ordinals)) == 1:
        pytest.skip("one CUDA device draws every EGL device here")
    assert ordinals == list(range(len(ordinals)))


@pytest.mark.parametrize(("width", "height"), SIZES[:4])
def test_cv_cuda_makes_the_nv12_of_the_formula(width: int, height: int) -> None:
    """Colours are rounded twice on that road: in the texture that moves them to the limited range, and by CV-CUDA."""
    pytest.importorskip("cvcuda", reason="not verified here: cvcuda is not installed", exc_type=ImportError)
    from procs.headless_agent.cvcuda_nv12 import Nv12, check

    stage = Stage(width, height)
    check(stage.gpu)
    noise = stage.scatter(height)
    rows = fetched(stage.gpu, Nv12(stage.gpu, stage.pictures.target).convert())
    luma_rows = stage.pictures.target.height
    for mine, reference in zip((rows[:luma_rows], rows[luma_rows:]), nv12_of(noise), strict=True):
        print(f"{width}x{height}: {furthest(mine, reference)} steps away at most")
        assert furthest(mine, reference) <= 3
