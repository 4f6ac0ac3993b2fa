"""Pictures drawn here, what is in device memory, and references by numpy; for these tests and the bench."""

from __future__ import annotations

import ctypes
import importlib
import io
import math
import os
from collections.abc import Iterator
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt

from procs.errors import NotHere
from procs.headless_agent.cuda import Gpu, Memory
from procs.headless_agent.options import Producer, missing_for, no_nvidia_driver
from procs.headless_agent.pictures import EglPictures

LONG = bool(os.environ.get("PLANARIA_LONG"))
Bytes = npt.NDArray[np.uint8]
_TEXTURE, _RGBA, _BYTE = 0x0DE1, 0x1908, 0x1401


class Stage:
    """Pictures of one size, and the GPU that draws them."""

    def __init__(
        self, width: int, height: int, *, fps: int = 60, instance: str = "agent-0", device_idx: int = 0
    ) -> None:
        options = {"width": width, "height": height, "fps": fps, "instance_id": instance, "device_idx": device_idx}
        self.chosen = Producer(renderer="egl", convert="shader").but(**options)
        self.pictures = EglPictures(self.chosen)
        self.gpu = Gpu()

    def scatter(self, seed: int) -> Bytes:
        """Fill the scene's texture with random bytes, in place of a drawing; they are returned."""
        from OpenGL.raw.GL.VERSION import GL_1_1

        target = self.pictures.target
        noise = np.random.default_rng(seed).integers(0, 256, (target.height, target.width, 4), np.uint8)
        target.look_up()
        GL_1_1.glPixelStorei(0x0CF5, 1)  # GL_UNPACK_ALIGNMENT
        GL_1_1.glTexSubImage2D(
            _TEXTURE, 0, 0, 0, target.width, target.height, _RGBA, _BYTE, noise.ctypes.data_as(ctypes.c_void_p)
        )
        return noise

    def read_back(self) -> Bytes:
        """The scene's texture by glReadPixels: rows of RGBA bytes."""
        target = self.pictures.target
        rows = np.full((target.height, target.width * 4), 0xA5, np.uint8)
        target.read(0, target.height, rows.ctypes.data, rows.strides[0])
        return rows


def why_not() -> str:
    """Why the GPU path can't be tried on this machine; '' if it can."""
    if reason := no_nvidia_driver() or missing_for("nvenc-cuda"):
        return reason
    try:
        Stage(64, 64)
    except NotHere as error:
        return str(error)
    return ""


def driver() -> Any:
    """The CUDA driver's API in Python, which has no types."""
    return importlib.import_module("cuda.bindings.driver")


def asked(answer: tuple[Any, ...]) -> Any:
    """What a call of the CUDA driver gave; an error fails the test."""
    error, *values = answer
    assert int(error) == 0, error
    return values[0] if len(values) == 1 else values


def fetched(gpu: Gpu, memory: Memory) -> Bytes:
    """Rows of device memory, copied to the host by CUDA, without the bytes that pad them."""
    return np.frombuffer(gpu.read(memory), np.uint8).reshape(memory.rows, memory.row_bytes)


def free_mb() -> float:
    """Device memory that nobody has, in MiB, as this process's current CUDA context sees it."""
    left, _ = asked(driver().cuMemGetInfo())
    return int(left) / (1 << 20)


def nv12_of(rgba: Bytes) -> tuple[Bytes, Bytes]:
    """Luma, and U and V in turn: BT.709 of limited range, each chroma sample the mean of its four pixels."""
    colour = rgba[..., :3].astype(np.float64) / 255
    luma = 16 + 219 * colour @ (0.2126, 0.7152, 0.0722)
    height, width = luma.shape
    mean = colour.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    y = mean @ (0.2126, 0.7152, 0.0722)
    chroma = np.stack((128 + 224 * (mean[..., 2] - y) / 1.8556, 128 + 224 * (mean[..., 0] - y) / 1.5748), -1)
    return np.rint(luma).astype(np.uint8), np.rint(chroma).astype(np.uint8).reshape(height // 2, width)


def nv12_rows(frame: av.VideoFrame) -> tuple[Bytes, Bytes]:
    """Luma and chroma rows of an NV12 frame without padding, as copies."""
    luma, chroma = (
        np.frombuffer(memoryview(plane), np.uint8)[: rows * plane.line_size].reshape(rows, plane.line_size)[
            :, : frame.width
        ]
        for plane, rows in zip(frame.planes, (frame.height, frame.height // 2), strict=True)
    )
    return luma.copy(), chroma.copy()


def furthest(one: Bytes, other: Bytes) -> int:
    """The greatest difference of two pictures."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(np.int16) - other).max())


def psnr_db(one: Bytes, other: Bytes) -> float:
    """How alike two pictures are; 99 where they are the same."""
    error = float(np.square(one.astype(np.float32) - other).mean())
    return min(99.0, 10 * math.log10(255**2 / error)) if error else 99.0


def decoded(stream: bytes, codec: str = "") -> Iterator[av.VideoFrame]:
    """The pictures of a stream as NV12, one after the other; `codec`: another decoder than libavcodec's own."""
    with av.open(io.BytesIO(stream), "r", options={"err_detect": "explode"}) as container:
        video = container.streams.video[0]
        if not codec:
            for frame in container.decode(video):
                yield frame.reformat(format="nv12")
            return
        decoder = cast(av.VideoCodecContext, av.CodecContext.create(codec, "r"))
        for packet in container.demux(video):
            for frame in decoder.decode(packet if packet.size else None):
                yield frame.reformat(format="nv12")
