"""python -m tests.bench.gpu_stages WIDTH HEIGHT PICTURES: what each step from drawing to NV12 takes on this GPU, the
roads to compare in turn, picture by picture. One JSON object: {name: [ms of each picture]}, and bytes over PCIe."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import av
import numpy as np

from procs.headless_agent import gl
from procs.headless_agent.convert import Packer, Shader, Swscale
from procs.headless_agent.cuda import Gpu, Memory, Texture
from procs.headless_agent.device_frame import DeviceFrame
from procs.headless_agent.options import Producer
from procs.headless_agent.pictures import EglPictures
from tests.gpu.stage import driver

HOST, DEVICE = 1, 2  # of CUmemorytype
WARM = 20  # pictures that are not counted: the first ones compile and allocate

Spent = defaultdict[str, list[float]]


class Timed(Gpu):
    """A Gpu whose calls are timed, and whose copies to and from host memory are counted in bytes."""

    def __init__(self) -> None:
        self.calls_us: Spent = defaultdict(list)
        self.bytes = 0
        super().__init__()

    def ask(self, call: str, *arguments: Any) -> Any:
        """As Gpu."""
        began = time.perf_counter_ns()
        given = super().ask(call, *arguments)
        self.calls_us[call].append((time.perf_counter_ns() - began) / 1000)
        if call == "cuMemcpy2DAsync":
            copy = arguments[0]
            if HOST in (int(copy.srcMemoryType), int(copy.dstMemoryType)):
                self.bytes += copy.WidthInBytes * copy.Height
        return given


class Reads:
    """Bytes that glReadPixels has brought to our memory."""

    def __init__(self) -> None:
        self.bytes = 0
        real = gl.Target.read

        def read(target: gl.Target, top: int, height: int, *place: int) -> None:
            self.bytes += height * target.row_bytes
            real(target, top, height, *place)

        gl.Target.read = read  # type: ignore[assignment,method-assign]


class Ground:
    """The parts of our road and of its peer, on one scene of one context."""

    def __init__(self, width: int, height: int) -> None:
        self.spent: Spent = defaultdict(list)
        self.reads = Reads()
        self.pictures = EglPictures(Producer(renderer="egl", width=width, height=height, convert="swscale"))
        self.gpu = Timed()
        self.packer = Packer(self.pictures.target)
        self.texture = Texture(self.gpu, self.packer.target)
        self.device_frame = DeviceFrame(self.gpu, self.pictures)
        self.scene = self.device_frame.scene()
        self.shader, self.swscale = Shader(self.pictures.target), Swscale(self.pictures.target)
        self.frame = av.VideoFrame(width, height, "nv12")

    def timed(self, name: str, work: Callable[[], object], end: Callable[[], object]) -> None:
        """Do one thing, until the GPU is done with it, too."""
        began = time.perf_counter()
        work()
        end()
        self.spent[name].append(1000 * (time.perf_counter() - began))

    def draw(self, number: int) -> None:
        """A picture's scene."""
        self.pictures.draw(number, time.time_ns())

    def nv12(self) -> None:
        """Render to NV12 in CUDA memory, with the overlay: what an encoder on the GPU is given."""
        self.packer.draw()
        self.texture.copy(*self.scene)
        self.device_frame.write()

    def round(self, number: int) -> None:
        """One picture by every road, each drawn anew."""
        top, wait = self.pictures.overlay.top, self.gpu.wait

        def drawn(take: Callable[..., object], *arguments: object) -> None:
            self.draw(number)
            take(*arguments)

        self.timed("nv12", partial(drawn, self.nv12), wait)
        self.timed("draw", partial(self.draw, number), finish)
        self.timed("pack", self.packer.draw, finish)
        self.timed("map_copy", partial(self.texture.copy, *self.scene), wait)
        self.timed("overlay", self.device_frame.write, wait)
        self.timed("host_shader", partial(drawn, self.shader.put, self.frame, top), finish)
        self.timed("host_swscale", partial(drawn, self.swscale.put, self.frame, top), finish)


def finish() -> None:
    """Until OpenGL has done all."""
    from OpenGL.raw.GL.VERSION import GL_1_1

    GL_1_1.glFinish()


def readback(ground: Ground, times: int) -> None:
    """The whole NV12 to host memory that is pinned, and to some that is not."""
    memory = ground.device_frame.memory
    pinned = ground.gpu.pin(memory.row_bytes, memory.rows)
    pageable = np.empty((memory.rows, memory.row_bytes), np.uint8)
    copies = {
        "readback_pinned": _to_host(memory, pinned.address),
        "readback_pageable": _to_host(memory, pageable.ctypes.data),
    }
    for _ in range(times):
        for name, copy in copies.items():
            ground.timed(name, partial(ground.gpu.ask, "cuMemcpy2DAsync", copy, ground.gpu.stream), ground.gpu.wait)


def _to_host(memory: Memory, address: int) -> Any:
    cuda = driver()
    copy = cuda.CUDA_MEMCPY2D()
    copy.srcMemoryType, copy.dstMemoryType = map(cuda.CUmemorytype, (DEVICE, HOST))
    copy.srcDevice, copy.srcPitch = memory.address, memory.pitch
    copy.dstHost, copy.dstPitch = address, memory.row_bytes
    copy.WidthInBytes, copy.Height = memory.row_bytes, memory.rows
    return copy


def bytes_over_pcie(ground: Ground) -> dict[str, float]:
    """Of one picture, by each road: asked of it once more by itself."""

    def of(work: Callable[[], object]) -> int:
        before = ground.gpu.bytes + ground.reads.bytes
        work()
        return ground.gpu.bytes + ground.reads.bytes - before

    top = ground.pictures.overlay.top
    return {
        "on_gpu": of(ground.nv12),
        "shader": of(lambda: ground.shader.put(ground.frame, top)),
        "rgba": of(lambda: ground.swscale.put(ground.frame, top)),
    }


def flow(ground: Ground, pictures: int) -> float:
    """Pictures a second when nothing is waited for but the last."""
    began = time.perf_counter()
    for number in range(pictures):
        ground.draw(number)
        ground.nv12()
    ground.gpu.wait()
    return pictures / (time.perf_counter() - began)


def main(width: int, height: int, pictures: int) -> None:
    """Measure and print."""
    ground = Ground(width, height)
    for number in range(WARM):
        ground.round(number)
    ground.spent.clear()
    ground.gpu.calls_us.clear()
    for number in range(pictures):
        ground.round(number)
    calls = {name: values for name, values in ground.gpu.calls_us.items() if "Map" in name or "Unmap" in name}
    readback(ground, pictures)
    found = {
        "gpu": ground.gpu.name,
        "renderer": ground.pictures.context.renderer,
        "ms": ground.spent,
        "calls_us": calls,
        "bytes": bytes_over_pcie(ground),
        "flow": flow(ground, pictures),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
