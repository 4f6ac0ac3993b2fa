"""EGL, and the stages between drawing and encoding, one after the other and timed: probes of `gpu_check`."""

from __future__ import annotations

import argparse
import ctypes
import glob
import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from procs.errors import NotHere
from procs.headless_agent import egl as our_egl

WIDTH, HEIGHT = 1280, 720
RGBA_ROW, NV12_ROWS = 4 * WIDTH, HEIGHT * 3 // 2
WARM_UP = 3  # pictures that are not timed: the first compile shaders
COMPARED = 20  # of so many pictures, one
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
ENOUGH_S = 1.5  # a slow machine gets fewer pictures, so that nobody waits for the table
VENDORS = ("/etc/glvnd/egl_vendor.d/*.json", "/usr/share/glvnd/egl_vendor.d/*.json")  # glvnd's own order

Facts = Iterator[dict[str, Any]]


def egl(asked: argparse.Namespace) -> Facts:
    """EGL's vendors, its devices in the order in which device_idx counts them, and the context of the one asked for."""
    named = os.environ.get("__EGL_VENDOR_LIBRARY_FILENAMES", "")
    files = named.split(":") if named else [path for pattern in VENDORS for path in sorted(glob.glob(pattern))]
    yield {"vendors": {path: _library(path) for path in files}, "doing": "EGL's devices"}
    devices = our_egl.list_devices()
    yield {"devices": [{"cuda": each.cuda, "is_software": each.is_software} for each in devices]}
    yield {"doing": "a context"}
    context = our_egl.open_context(asked.device_idx)
    yield {"platform": context.platform, "renderer": context.renderer, "is_software": context.is_software}


def _library(path: str) -> str:
    """The library that one of glvnd's files names, or what is wrong with the file."""
    try:
        return str(json.loads(Path(path).read_text())["ICD"]["library_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"unreadable: {getattr(error, 'strerror', None) or type(error).__name__}"


def match(asked: argparse.Namespace) -> Facts:
    """The CUDA device that draws our context."""
    our_egl.open_context(asked.device_idx)
    yield {"doing": "CUDA"}
    gpu = _gpu("nvenc-cuda")
    yield {"ordinal": gpu.ordinal, "name": gpu.name}
    kinds = importlib.import_module("cuda.bindings.driver").CUdevice_attribute  # it has no types
    major, minor = (gpu.ask("cuDeviceGetAttribute", kinds(number), gpu.ordinal) for number in CAPABILITY)
    yield {"capability": f"{major}.{minor}", "memory_bytes": gpu.ask("cuDeviceTotalMem", gpu.ordinal)}


def _gpu(encoder: str) -> Any:
    """The product's own. Raises NotHere where what that encoder needs is not installed."""
    from procs.headless_agent import options

    if reason := options.missing_for(encoder):
        raise NotHere(reason)
    from procs.headless_agent.cuda import Gpu

    return Gpu()


class Stages:
    """The scene at full size, what packs it, and how long each stage takes."""

    def __init__(self, device_idx: int) -> None:
        self.context = our_egl.open_context(device_idx)
        from OpenGL.raw.GL.VERSION.GL_1_0 import glFinish

        from procs.headless_agent import convert, gl, scene

        self.finish: Callable[[], None] = glFinish
        self.target = gl.Target(WIDTH, HEIGHT, internal=gl.RGBA8, pixels=gl.RGBA)
        self.packer = convert.Packer(self.target)
        self._scene = scene.Scene("gpu-check", self.target)
        self._spent_s: dict[str, list[float]] = {}

    def pictures(self, count: int) -> Iterator[int]:
        """Indices of pictures to draw, as many as are asked for, or as there is time for."""
        until = time.monotonic() + ENOUGH_S
        for index in range(WARM_UP + count):
            if index > 2 * WARM_UP and time.monotonic() > until:
                return
            yield index

    def draw(self, index: int) -> None:
        """A picture that is none of those before."""
        self._scene.draw(index / 60)

    def time(self, stage: str, do: Callable[[], object]) -> None:
        """Do something and what it leaves to the GPU."""
        started = time.perf_counter()
        do()
        self.finish()
        self._spent_s.setdefault(stage, []).append(time.perf_counter() - started)

    def ms(self) -> dict[str, float]:
        """The median of each stage."""
        return {stage: round(1000 * median(spent_s[WARM_UP:]), 3) for stage, spent_s in self._spent_s.items()}


def draw(asked: argparse.Namespace) -> Facts:
    """Drawing, packing, reading back; and the shader against the CPU's conversion."""
    yield {"doing": "drawing"}
    stages = Stages(asked.device_idx)
    rgba, nv12 = bytearray(RGBA_ROW * HEIGHT), bytearray(WIDTH * NV12_ROWS)
    cpu, worst = ByCpu(stages), 0
    for index in stages.pictures(asked.pictures):
        stages.time("render", partial(stages.draw, index))
        stages.time("read_rgba", partial(stages.target.read, 0, HEIGHT, address_of(rgba), RGBA_ROW))
        stages.time("pack", stages.packer.draw)
        stages.time("read_nv12", partial(stages.packer.target.read, 0, NV12_ROWS, address_of(nv12), WIDTH))
        if index % COMPARED == 0:
            worst = max(worst, differs_by(nv12, cpu.nv12()))
    yield {"ms": stages.ms(), "differs_by": worst}


class ByCpu:
    """What the CPU makes of what was drawn last."""

    def __init__(self, stages: Stages) -> None:
        import av

        from procs.headless_agent.convert import Swscale

        self._frame = av.VideoFrame(WIDTH, HEIGHT, "nv12")
        self._swscale = Swscale(stages.target)

    def nv12(self) -> bytes:
        """All rows of luma and chroma; at this width nothing pads them."""
        self._swscale.put(self._frame, 0)
        return b"".join(map(bytes, self._frame.planes))


def differs_by(one: bytes | bytearray, other: bytes) -> int:
    """The greatest difference between two samples of the same place."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def cuda(asked: argparse.Namespace) -> Facts:
    """Both targets as CUDA has them, mapped for each picture as an encoder does it, against what OpenGL reads back."""
    stages = Stages(asked.device_idx)
    yield {"doing": "CUDA"}
    gpu = _gpu("nvenc-cuda")
    yield {"doing": "registering textures"}
    places = {"rgba": Mapped(gpu, stages.target), "nv12": Mapped(gpu, stages.packer.target)}
    equal = dict.fromkeys(places, True)
    for index in stages.pictures(asked.pictures):
        stages.draw(index)
        stages.packer.draw()
        stages.finish()
        for kind, place in places.items():
            stages.time(f"map_{kind}", place.map)
            stages.time(f"copy_{kind}", place.to_host)
            equal[kind] &= index % COMPARED > 0 or place.host == place.read_back()
    yield {"ms": stages.ms(), "equal": equal}


def cvcuda(asked: argparse.Namespace) -> Facts:
    """The other conversion within the GPU, its colours, and the CPU's of the same picture."""
    stages = Stages(asked.device_idx)
    yield {"doing": "CUDA"}
    gpu = _gpu("vpf")
    yield {"doing": "cvcuda"}
    from procs.headless_agent import cvcuda_nv12

    nv12 = cvcuda_nv12.Nv12(gpu, stages.target)
    for index in stages.pictures(asked.pictures):
        stages.draw(index)
        stages.finish()
        stages.time("convert", lambda: (nv12.convert(), gpu.wait()))
    yield {"ms": stages.ms()}
    yield {"differs_by": differs_by(gpu.read(nv12.convert()), ByCpu(stages).nv12()), "doing": "known colours"}
    cvcuda_nv12.check(gpu)


class Mapped:
    """A target, and memory for it on the device."""

    def __init__(self, gpu: Any, target: Any) -> None:
        from procs.headless_agent.cuda import Part, Texture

        self._gpu, self._target = gpu, target
        self._memory = gpu.allocate(target.row_bytes, target.height)
        self._part = Part(0, target.height, self._memory.address, self._memory.pitch)
        self._texture = Texture(gpu, target)
        self.host = b""

    def map(self) -> None:
        """Take what OpenGL has drawn, and wait for it."""
        self._texture.copy(self._part)
        self._gpu.wait()

    def to_host(self) -> None:
        """Take that into our own memory."""
        self.host = self._gpu.read(self._memory)

    def read_back(self) -> bytes:
        """The same by OpenGL."""
        target = self._target
        read = bytearray(target.row_bytes * target.height)
        target.read(0, target.height, address_of(read), target.row_bytes)
        return bytes(read)


def address_of(memory: bytearray) -> int:
    """Of memory that is not resized while somebody else writes there."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
