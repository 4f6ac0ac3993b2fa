"""The CUDA device that draws our OpenGL context, by the driver's API: memory, one stream, textures.

Everything is asked of the driver in one stream, and nothing waits for it here: mapping orders what OpenGL has drawn
before the copies, and unmapping orders the copies before what OpenGL draws next.
Source: CUDA driver API, sections graphics interoperability and OpenGL interoperability.
"""

from __future__ import annotations

from typing import NamedTuple

from procs.errors import NotHere
from procs.headless_agent import gl


class Memory(NamedTuple):
    """Rows of bytes on the device (or pinned in our memory), `pitch` bytes from one to the next."""

    address: int
    pitch: int
    row_bytes: int
    rows: int


class Part(NamedTuple):
    """Rows [top, top + rows) of a texture, and where their copy begins."""

    top: int
    rows: int
    address: int
    pitch: int


class Gpu:
    """The device that draws the current OpenGL context: its primary context, made current in this thread, and a stream.

    Raises NotHere where no CUDA device draws it, or the driver is missing, too old or refuses us.
    """

    ordinal: int
    name: str
    stream: int  # CUstream

    def __init__(self) -> None:
        raise NotHere("not built yet")

    def allocate(self, row_bytes: int, rows: int) -> Memory:
        """Rows on the device, each as wide as it likes. Raises NotHere when there is no room."""
        raise NotImplementedError

    def pin(self, row_bytes: int, rows: int) -> Memory:
        """Rows in our memory, from which the device reads without a copy by the CPU."""
        raise NotImplementedError

    def upload(self, source: Memory, top: int, rows: int, target: Part) -> None:
        """Copy rows of pinned memory to the device, in the stream. They must not change until it was waited for."""
        raise NotImplementedError

    def copy(self, source: Memory, part: Part) -> None:
        """Copy rows [part.top, part.top + part.rows) of device memory within the device, in the stream."""
        raise NotImplementedError

    def wait(self) -> None:
        """Until the stream has done all. Raises GpuLost."""
        raise NotImplementedError


class Texture:
    """A target's texture as CUDA sees it. It is registered once, which is slow, and mapped for each picture."""

    def __init__(self, gpu: Gpu, target: gl.Target) -> None:
        raise NotImplementedError

    def copy(self, *parts: Part) -> None:
        """Copy rows of what OpenGL has drawn, in the stream. Raises GpuLost."""
        raise NotImplementedError
