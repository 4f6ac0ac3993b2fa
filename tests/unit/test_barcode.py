"""The barcode: its cells at odd sizes, and reading it after x264 at low bit rates, scaling and changes of range."""

from __future__ import annotations

import random
from zlib import crc32

import pytest
from av.video.frame import VideoFrame

from procs.errors import Refused
from procs.media import barcode
from procs.media.barcode import Code
from tests.unit import h264

TIME_US = 1_763_740_800_123_456
FAINT = bytes(96 + value // 4 for value in range(256))


def marked(code: bytes, width: int, height: int, noise: random.Random | None = None) -> VideoFrame:
    """A picture with the code at its bottom and grey, or noise, above."""
    top, _ = barcode.strip(width, height)
    strips = [
        row
        for row, (first, end) in zip(barcode.rows(code, width), barcode.row_edges(height), strict=True)
        for _ in range(first, end)
    ]
    above = [noise.randbytes(width).translate(FAINT) if noise else bytes((90,)) * width for _ in range(top)]
    return h264.picture(width, height, lambda y: above[y] if y < top else strips[y - top])


def read(frame: VideoFrame) -> Code:
    plane, stride = h264.luma(frame)
    return barcode.read(plane, frame.width, frame.height, stride)


def test_the_bytes_of_a_code() -> None:
    body = b"\xa5\0\0\0\x07" + TIME_US.to_bytes(7, "big")
    assert barcode.encode(7, TIME_US) == body + crc32(body).to_bytes(4, "big")
    assert barcode.decode(barcode.encode(7, TIME_US)) == Code(7, TIME_US)
    assert barcode.decode(barcode.encode(2**32 + 7, 2**56 - 1)) == Code(7, 2**56 - 1)
    for time_us in (-1, 2**56):
        with pytest.raises(Refused):
            barcode.encode(0, time_us)


def test_every_single_wrong_bit_is_refused() -> None:
    code = int.from_bytes(barcode.encode(7, TIME_US), "big")
    for bit in range(128):
        with pytest.raises(Refused):
            barcode.decode((code ^ 1 << bit).to_bytes(16, "big"))
    # A right CRC does not excuse a wrong magic.
    body = b"\xa4" + bytes(11)
    for wrong in (b"", bytes(16), bytes(17), body + crc32(body).to_bytes(4, "big")):
        with pytest.raises(Refused):
            barcode.decode(wrong)


@pytest.mark.parametrize(
    ("size", "fit"), [((128, 72), True), ((127, 72), False), ((128, 71), False), ((16385, 72), False)]
)
def test_fits(size: tuple[int, int], fit: bool) -> None:
    assert barcode.fits(*size) is fit


@pytest.mark.parametrize("size", [(128, 72), (130, 75), (641, 363), (1280, 720), (1919, 1079), (3840, 2160)])
def test_the_strip_is_the_lowest_ninth_and_its_rows_cover_it(size: tuple[int, int]) -> None:
    width, height = size
    top, lines = barcode.strip(width, height)
    assert lines == height // 9
    assert top + lines == height
    edges = barcode.row_edges(height)
    assert edges[0][0] == top
    assert edges[-1][1] == height
    assert [end for _, end in edges[:-1]] == [first for first, _ in edges[1:]]


@pytest.mark.parametrize("size", [(31, 36), (32, 35), (16385, 720), (1280, 16385), (-640, 360), (640, -360)])
def test_a_size_that_holds_no_barcode_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(Refused):
        barcode.strip(*size)


@pytest.mark.parametrize("code", [barcode.encode(0x80000001, TIME_US), bytes(16), bytes(range(16))])
@pytest.mark.parametrize("width", [130, 1280])
def test_rows_draw_the_bits_most_significant_first(code: bytes, width: int) -> None:
    bits = "".join(f"{byte:08b}" for byte in code)
    ends = [i * width // 32 for i in range(33)]
    for j, row in enumerate(barcode.rows(code, width)):
        inks = [b"\xeb" if bit == "1" else b"\x10" for bit in bits[32 * j : 32 * j + 32]]
        assert row == b"".join(ink * (ends[i + 1] - ends[i]) for i, ink in enumerate(inks))


@pytest.mark.parametrize(
    ("code", "width"), [(b"", 640), (bytes(15), 640), (bytes(17), 640), (bytes(16), 31), (bytes(16), 1 << 40)]
)
def test_rows_refuses(code: bytes, width: int) -> None:
    with pytest.raises(Refused):
        barcode.rows(code, width)


@pytest.mark.parametrize("size", [(32, 36), (96, 108), (128, 72), (130, 110), (641, 363), (1280, 720), (1919, 1079)])
def test_reads_what_was_drawn(size: tuple[int, int]) -> None:
    width, height = size
    code = barcode.encode(9, TIME_US)
    top, _ = barcode.strip(width, height)
    strips = [
        row
        for row, (first, end) in zip(barcode.rows(code, width), barcode.row_edges(height), strict=True)
        for _ in range(first, end)
    ]
    for stride in (width, width + 13):
        plane = b"\x50" * (top * stride) + b"".join([row + b"\x99" * (stride - width) for row in strips])
        assert barcode.read(memoryview(plane), width, height, stride) == Code(9, TIME_US)


def squeezed(width: int, height: int, bit_rate: int) -> tuple[list[VideoFrame], list[Code]]:
    """20 pictures after x264 and back, with noise that wants all the bits; and the codes drawn into them."""
    noise = random.Random(2)
    codes = [Code(n, TIME_US + 16_667 * n) for n in range(20)]
    frames = [marked(barcode.encode(*code), width, height, noise) for code in codes]
    units = h264.encode(frames, bit_rate, maxrate=str(bit_rate), bufsize=str(bit_rate // 10))
    return h264.decode(units), codes


@pytest.mark.parametrize(
    ("size", "bit_rate", "shown"),
    [
        ((320, 180), 400_000, (320, 180)),
        ((640, 360), 400_000, (640, 360)),
        ((640, 360), 400_000, (320, 180)),
        ((1280, 720), 1_000_000, (1280, 720)),
        ((1280, 720), 1_000_000, (640, 360)),
    ],
)
def test_survives_x264_at_a_low_bit_rate_and_half_size(
    size: tuple[int, int], bit_rate: int, shown: tuple[int, int]
) -> None:
    frames, codes = squeezed(*size, bit_rate)
    assert [read(frame.reformat(*shown)) for frame in frames] == codes


def test_a_starved_encoder_never_makes_a_wrong_code() -> None:
    """At this rate x264 leaves old cells standing: that is Refused, and what is read is what was once drawn."""
    frames, codes = squeezed(640, 360, 110_000)
    refused = 0
    for frame in frames:
        try:
            assert read(frame) in codes
        except Refused:
            refused += 1
    assert 0 < refused < len(frames)


@pytest.mark.parametrize("size", [(1920, 1080), (854, 480), (500, 300), (320, 180), (160, 112)])
def test_survives_scaling_to_any_size(size: tuple[int, int]) -> None:
    frame = marked(barcode.encode(3, TIME_US), 1280, 720)
    assert read(frame.reformat(*size)) == Code(3, TIME_US)


def test_a_strip_off_by_a_third_of_a_cell_is_read() -> None:
    """Somebody on the way cropped or padded: only the middle of a cell counts. Cells are 20 by 10 pixels here."""
    plane, stride = h264.luma(marked(barcode.encode(3, TIME_US), 640, 360))
    right, down = 6, 3
    moved = bytes(down * stride + right) + plane
    assert barcode.read(moved[: stride * 360], 640, 360, stride) == Code(3, TIME_US)


def test_survives_another_range_and_contrast() -> None:
    plane, stride = h264.luma(marked(barcode.encode(3, TIME_US), 640, 360))
    faded = plane.translate(bytes(150 + value // 8 for value in range(256)))
    assert barcode.read(faded, 640, 360, stride) == Code(3, TIME_US)


def test_a_picture_without_code_is_refused() -> None:
    for frame in h264.moving(2, 640, 360):
        with pytest.raises(Refused):
            read(frame)
    with pytest.raises(Refused):
        barcode.read(bytes(640 * 360), 640, 360, 640)


@pytest.mark.parametrize(
    ("length", "width", "height", "stride"),
    [
        (640 * 360 - 1, 640, 360, 640),
        (640 * 360, 640, 360, 639),
        (640 * 360, 640, 360, -640),
        (0, 0, 0, 0),
        (9999, 31, 36, 31),
        (9999, 32, 35, 32),
        (9, 1 << 60, 1 << 60, 1 << 60),
    ],
)
def test_sizes_that_do_not_agree_are_refused(length: int, width: int, height: int, stride: int) -> None:
    with pytest.raises(Refused):
        barcode.read(bytes(length), width, height, stride)


def test_a_view_of_other_than_bytes_is_refused() -> None:
    for view in (memoryview(bytes(640 * 360 * 4)).cast("I"), memoryview(bytes(640 * 360)).cast("B", (360, 640))):
        with pytest.raises(Refused, match="luma"):
            barcode.read(view, 640, 360, 640)
