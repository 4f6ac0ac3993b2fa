"""A whole picture as NV12 in CUDA memory: the scene's rows come from the GPU, those of the overlay from us."""

from __future__ import annotations

import ctypes
from itertools import cycle

from procs.headless_agent.cuda import Gpu, Memory, Part
from procs.headless_agent.pattern import Canvas
from procs.headless_agent.pictures import EglPictures


class DeviceFrame:
    """NV12: `memory` has height * 3 / 2 rows of width bytes, luma first, then U and V in turn.

    `held` is how many pictures the encoder holds back: so many more canvases take turns, since none may be drawn on
    before its upload is done, which is known when its picture comes out of the encoder.
    """

    def __init__(self, gpu: Gpu, pictures: EglPictures, held: int = 0) -> None:
        self._gpu, self._pictures = gpu, pictures
        self._overlay = overlay = pictures.overlay
        rows = overlay.height * 3 // 2
        self.memory = gpu.allocate(overlay.width, rows)
        canvases = [_Pinned(gpu.pin(overlay.width, rows), overlay.height) for _ in range(held + 1)]
        for canvas in canvases:
            pictures.prepare(canvas)
        gpu.upload(canvases[0].memory, self._part(0, rows))  # what write() draws on meanwhile it uploads again
        self._canvases = cycle(canvases)
        strips = ((0, overlay.top), (overlay.bottom, overlay.height))
        self._strips = [self._part(top, bottom - top) for top, bottom in strips if top < bottom]

    def _part(self, top: int, rows: int) -> Part:
        """Rows of a canvas, to the same rows of ours."""
        return Part(top, rows, self.memory.address + top * self.memory.pitch, self.memory.pitch)

    def scene(self, top: int = 0) -> tuple[Part, Part]:
        """Where luma and chroma of the scene belong, of a source whose luma rows begin at row `top` and whose chroma
        rows follow them."""
        rows = self._overlay.bottom - self._overlay.top
        luma = self._part(self._overlay.top, rows)
        chroma = self._part(self._overlay.height + self._overlay.top // 2, rows // 2)
        return luma._replace(top=top), chroma._replace(top=top + rows)

    def write(self) -> None:
        """Upload the overlay of the picture that was drawn last, in the stream. It is luma: its chroma never changes.
        Raises GpuLost."""
        canvas = next(self._canvases)
        self._pictures.write(canvas)
        for strip in self._strips:
            self._gpu.upload(canvas.memory, strip)


class _Pinned(Canvas):
    """A canvas in pinned memory."""

    def __init__(self, memory: Memory, height: int) -> None:
        luma_bytes, every = memory.pitch * height, memory.pitch * memory.rows
        view = memoryview((ctypes.c_ubyte * every).from_address(memory.address)).cast("B")
        super().__init__(view[:luma_bytes], memory.pitch, view[luma_bytes:], memory.pitch, memory.row_bytes, height)
        self.memory = memory
