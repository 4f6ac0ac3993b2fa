"""Frame number and capture time as a strip of black and white cells in the picture: survives re-encoding and scaling.

Promises: whoever knows the size of a picture knows where the cells are, and a code that is read is the one that was
drawn, or Refused. Reads as long as a cell is 3 pixels wide and high. Measured with x264 ultrafast at 60 fps, also at
half size: all of 180 frames at 0.2 Mbit/s (640x360) and 0.5 (1280x720) under noise of +-32; under full-scale noise 1 %
of them is Refused at 0.4 to 1.5 Mbit/s (keyframes that the rate control starves).
Source: ours. 128 bits, most significant first, as 4 rows of 32 cells; the strip is the lowest ninth of the picture:

    magic A5, 8 bits | frame, 32 bits | capture time, 56 bits, us since the Unix epoch | CRC-32 of the 12 bytes before
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

from procs.errors import Refused

ROWS = 4
COLUMNS = 32
BLACK = 16  # of limited-range luma
WHITE = 235

WIDTH_MIN = 128  # to draw: a cell of 4 by 2 pixels; to read, one pixel a cell is tried
HEIGHT_MIN = 72
SIDE_MAX = 16384  # H.264 ends at 16384 too (level 6.2); bounds every allocation here

CODE_BYTES = ROWS * COLUMNS // 8
FRAME_WRAP = 1 << 32
_MAGIC = 0xA5
_TIME_END_US = 1 << 56
_PATCH_WIDTH = 12  # at most so many pixels of a cell are averaged
_PATCH_HEIGHT = 4
_INK = bytes.maketrans(b"01", bytes((BLACK, WHITE)))
_PAD = bytes(256 - COLUMNS)


class Code(NamedTuple):
    """`frame` counts from 0 and wraps at 2**32; `time_us` is microseconds since the Unix epoch."""

    frame: int
    time_us: int


def encode(frame: int, time_us: int) -> bytes:
    """The 16 bytes of a code; `frame` is taken modulo 2**32. Refused when `time_us` is negative or over 56 bits."""
    if not 0 <= time_us < _TIME_END_US:
        raise Refused(f"a capture time of {time_us} us does not fit the barcode")
    body = bytes((_MAGIC,)) + (frame % FRAME_WRAP).to_bytes(4, "big") + time_us.to_bytes(7, "big")
    return body + crc32(body).to_bytes(4, "big")


def decode(code: bytes) -> Code:
    """The inverse of `encode`. Refused when the length, magic or CRC is wrong."""
    if len(code) != CODE_BYTES or code[0] != _MAGIC or crc32(code[:12]) != int.from_bytes(code[12:], "big"):
        raise Refused("no barcode here, or a damaged one")
    return Code(int.from_bytes(code[1:5], "big"), int.from_bytes(code[5:12], "big"))


def fits(width: int, height: int) -> bool:
    """Whether a barcode should be drawn into a picture of this size, in pixels."""
    return WIDTH_MIN <= width <= SIDE_MAX and HEIGHT_MIN <= height <= SIDE_MAX


def strip(width: int, height: int) -> tuple[int, int]:
    """First line and number of lines of the strip; it ends with the picture. Refused below one pixel a cell."""
    if not (COLUMNS <= width <= SIDE_MAX and 9 * ROWS <= height <= SIDE_MAX):
        raise Refused(f"a picture of {width}x{height} holds no barcode")
    lines = height * 4 // 36
    return height - lines, lines


def row_edges(height: int) -> list[tuple[int, int]]:
    """Lines (first, one past the last) of each of the 4 rows of cells, at this picture height. Refused as `strip`."""
    top, lines = strip(COLUMNS, height)
    return _spans(top, lines, ROWS)


def rows(code: bytes, width: int) -> list[bytes]:
    """One luma line of `width` bytes for each of the 4 rows of cells; it is to be repeated over the row's lines.

    Refused when `code` is not 16 bytes or `width` is not 32 to 16384.
    """
    if len(code) != CODE_BYTES:
        raise Refused(f"a barcode is {CODE_BYTES} bytes, not {len(code)}")
    ruler = _ruler(width)
    inks = f"{int.from_bytes(code, 'big'):0128b}".encode().translate(_INK)
    return [ruler.translate(inks[at : at + COLUMNS] + _PAD) for at in range(0, ROWS * COLUMNS, COLUMNS)]


def read(luma: bytes | memoryview, width: int, height: int, stride: int) -> Code:
    """The code in a picture: `height` lines of `width` luma bytes, `stride` bytes apart.

    Refused when there is none, when it is damaged, or when the sizes do not agree with `luma`.
    """
    view = _checked(luma, width, height, stride)
    columns = _patches(width)
    cells: list[float] = []
    for span in row_edges(height):
        first, end = _middle(span, _PATCH_HEIGHT)
        lines = [bytes(view[at * stride : at * stride + width]) for at in range(first, end)]
        for left, right in columns:
            patch = b"".join([line[left:right] for line in lines])
            cells.append(sum(patch) / len(patch))
    # Midway between the extremes: brightness, contrast and range may all have changed on the way. The magic holds
    # both colours, so both are there.
    threshold = (min(cells) + max(cells)) / 2
    bits = "".join(["1" if cell > threshold else "0" for cell in cells])
    return decode(int(bits, 2).to_bytes(CODE_BYTES, "big"))


def _checked(luma: bytes | memoryview, width: int, height: int, stride: int) -> memoryview:
    """`luma` as a view that has every pixel of such a picture."""
    strip(width, height)
    view = memoryview(luma)
    if view.ndim != 1 or view.itemsize != 1 or stride < width or len(view) < stride * (height - 1) + width:
        raise Refused(f"not the luma bytes of a {width}x{height} picture with lines {stride} bytes apart")
    return view


def _spans(start: int, length: int, parts: int) -> list[tuple[int, int]]:
    """`length` pixels from `start` cut into `parts`: (first, one past the last) of each."""
    edges = [start + index * length // parts for index in range(parts + 1)]
    return list(pairwise(edges))


def _middle(span: tuple[int, int], most: int) -> tuple[int, int]:
    """The middle third of a span, or less of a long one: scaling and compression blur what is near an edge."""
    first, end = span
    margin = max((end - first) // 3, (end - first - most) // 2)
    return first + margin, end - margin


@lru_cache(maxsize=4)
def _ruler(width: int) -> bytes:
    """One line whose every pixel holds the number of its column of cells: `translate` then draws 32 cells at once."""
    strip(width, HEIGHT_MIN)
    return b"".join([bytes((index,)) * (end - first) for index, (first, end) in enumerate(_spans(0, width, COLUMNS))])


@lru_cache(maxsize=4)
def _patches(width: int) -> list[tuple[int, int]]:
    """The pixels of each column of cells that are read."""
    return [_middle(span, _PATCH_WIDTH) for span in _spans(0, width, COLUMNS)]
