"""The test picture, drawn straight into NV12. Pure: bytes in, bytes out.

The picture is made of horizontal bands, each of one row repeated, so that a frame costs a few copies:

    instance id           text
    FRAME 00000123        text, changes every frame
    12:34:56.789Z         text, the moment of capture
    coloured bars         hue by instance; a square sweeps across them
    barcode               frame number and capture time for machines (media/barcode.py)
"""

from __future__ import annotations

import colorsys
import time
import zlib
from collections.abc import Sequence

from procs.headless_agent.font import GLYPH_HEIGHT, GLYPH_WIDTH, rows_of
from procs.media import barcode

BLACK, WHITE = 16, 235  # limited range
NEUTRAL = 128
BARS = 8
SWEEP_S = 4.0


class Canvas:
    """One NV12 picture in somebody's memory: a luma plane and a plane of interleaved half-size chroma."""

    def __init__(
        self, luma: memoryview, luma_stride: int, chroma: memoryview, chroma_stride: int, width: int, height: int
    ) -> None:
        self._luma, self._luma_stride = luma, luma_stride
        self._chroma, self._chroma_stride = chroma, chroma_stride
        self.width, self.height = width, height

    def luma_band(self, top: int, bottom: int, row: bytes) -> None:
        """Fill luma rows [top, bottom) with one row of `width` bytes."""
        stride = self._luma_stride
        self._luma[top * stride : bottom * stride] = row.ljust(stride, b"\0") * (bottom - top)

    def chroma_band(self, top: int, bottom: int, row: bytes) -> None:
        """Fill chroma rows for luma rows [top, bottom), both even, with one row of `width` bytes (UVUV...)."""
        stride = self._chroma_stride
        self._chroma[top // 2 * stride : bottom // 2 * stride] = row.ljust(stride, b"\0") * (bottom // 2 - top // 2)

    def blacken(self) -> None:
        """Fill all of it with black."""
        self.luma_band(0, self.height, bytes([BLACK]) * self.width)
        self.chroma_band(0, self.height, bytes([NEUTRAL]) * self.width)


def yuv709(red: float, green: float, blue: float) -> tuple[int, int, int]:
    """RGB in 0..1 as 8-bit BT.709 limited range (ITU-R BT.709-6, item 3)."""
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return round(16 + 219 * luma), round(128 + 224 * (blue - luma) / 1.8556), round(128 + 224 * (red - luma) / 1.5748)


def palette(instance: str) -> list[tuple[int, int, int]]:
    """BARS colours (Y, U, V) that tell one instance from another."""
    offset = zlib.crc32(instance.encode()) / 2**32
    return [yuv709(*colorsys.hsv_to_rgb((offset + i / 16) % 1.0, 0.75, 0.35 + 0.08 * i)) for i in range(BARS)]


def _bars(colours: Sequence[tuple[int, int, int]], width: int) -> tuple[bytearray, bytearray]:
    """One luma row and one chroma row, each of `width` bytes."""
    luma, chroma = bytearray(), bytearray()
    for i, (y, u, v) in enumerate(colours):
        cells = (i + 1) * (width // 2) // BARS - i * (width // 2) // BARS
        luma += bytes([y]) * (2 * cells)
        chroma += bytes([u, v]) * cells
    return luma, chroma


class Overlay:
    """What stands in every picture, whoever draws the rest: name, frame number, time, barcode."""

    def __init__(self, instance: str, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._has_code = barcode.fits(width, height)
        self._scale = max(1, min(height // 144, width // (26 * GLYPH_WIDTH)))
        has_text = self._has_code and width >= 26 * GLYPH_WIDTH
        self._line_height = (GLYPH_HEIGHT + 3) * self._scale // 2 * 2 if has_text else 0
        self._instance = instance
        self.top = 3 * self._line_height
        self.bottom = barcode.strip(width, height)[0] // 2 * 2 if self._has_code else height
        """Rows [top, bottom), both even, are free for pictures; the rest is to be black."""

    def draw_title(self, canvas: Canvas) -> None:
        """The part that never changes."""
        self._text(canvas, 0, self._instance)

    def draw(self, canvas: Canvas, frame: int, time_ns: int) -> None:
        """Frame number `frame`, captured at `time_ns` since the Unix epoch."""
        stamp, ms = time.gmtime(time_ns // 1_000_000_000), time_ns // 1_000_000 % 1000
        self._text(canvas, 1, f"FRAME {frame:08d}")
        self._text(canvas, 2, f"{stamp[3]:02d}:{stamp[4]:02d}:{stamp[5]:02d}.{ms:03d}Z")
        if self._has_code:
            rows = barcode.rows(barcode.encode(frame, time_ns // 1000), self.width)
            for (top, bottom), row in zip(barcode.row_edges(self.height), rows, strict=True):
                canvas.luma_band(top, bottom, row)

    def _text(self, canvas: Canvas, line: int, text: str) -> None:
        if not self._line_height:
            return
        top = line * self._line_height + self._scale
        visible = f" {text.upper()}"[: self.width // (GLYPH_WIDTH * self._scale)]
        for i, row in enumerate(rows_of(visible, self._scale)):
            padded = row.ljust(self.width, bytes([BLACK]))
            canvas.luma_band(top + i * self._scale, top + (i + 1) * self._scale, padded)


class Pattern:
    """Draws frame after frame into the same canvas; only what changes is drawn again."""

    def __init__(self, canvas: Canvas, instance: str, fps: int) -> None:
        self._canvas, self._fps = canvas, fps
        self._overlay = Overlay(instance, canvas.width, canvas.height)
        self._top, self._bottom = self._overlay.top, self._overlay.bottom
        self._luma_row, self._chroma_row = _bars(palette(instance), canvas.width)
        canvas.blacken()
        canvas.luma_band(self._top, self._bottom, bytes(self._luma_row))
        canvas.chroma_band(self._top, self._bottom, bytes(self._chroma_row))
        self._overlay.draw_title(canvas)

    def draw(self, frame: int, time_ns: int) -> None:
        """Make the canvas show frame number `frame`, captured at `time_ns` since the Unix epoch."""
        self._overlay.draw(self._canvas, frame, time_ns)
        self._square(frame)

    def _square(self, frame: int) -> None:
        """A light square that goes from left to right and back in SWEEP_S, in the middle of the bars."""
        room = self._bottom - self._top
        side = max(2, min(room // 3, self._canvas.width // 4) // 2 * 2)
        top = self._top + (room - side) // 4 * 2
        phase = frame % (period := max(2, round(SWEEP_S * self._fps))) / period
        left = int((self._canvas.width - side) * (1 - abs(2 * phase - 1))) // 2 * 2
        luma, chroma = self._luma_row.copy(), self._chroma_row.copy()
        luma[left : left + side] = bytes([WHITE]) * side
        chroma[left : left + side] = bytes([NEUTRAL]) * side
        self._canvas.luma_band(top, top + side, bytes(luma))
        self._canvas.chroma_band(top, top + side, bytes(chroma))
