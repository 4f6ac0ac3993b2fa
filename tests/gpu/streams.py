"""Producers of GPU-drawn streams for these tests, and what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.decoding import code_of, stamp_of
from tests.faults.test_producer import Running
from tests.gpu.stage import LONG, Stage, decoded, nv12_rows, psnr_db

SECONDS = 60 if LONG else 6
WIDTH, HEIGHT, FPS = (1280, 720, 60) if LONG else (640, 360, 30)
EGL = ("--width", str(WIDTH), "--height", str(HEIGHT), "--fps", str(FPS), "--renderer", "egl")
ON_CPU = (*EGL, "--convert", "shader", "--encoder", "x264")
END_S = 30.0  # at most, from when a producer should be done to its end

LUMA_DB, CHROMA_DB = 42.0, 42.0  # of the worst picture, at 6 Mbit/s: one that is a single picture late has 27


class Quality(NamedTuple):
    """Of the pictures of a stream: their numbers, and PSNR against what was drawn for each."""

    numbers: list[int]
    luma_db: list[float]
    chroma_db: list[float]

    @property
    def dropped(self) -> int:
        """Pictures that should have been between the first and the last."""
        return self.numbers[-1] - self.numbers[0] + 1 - len(self.numbers)

    def __str__(self) -> str:
        return (
            f"{len(self.numbers)} pictures, {self.dropped} dropped, PSNR of luma {_spread(self.luma_db)}, "
            f"of chroma {_spread(self.chroma_db)}"
        )


def _spread(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f} dB, median {sorted(values)[len(values) // 2]:.1f}"


def said(running: Running, seconds: float) -> str:
    """What a producer that makes so many seconds has said when it has ended by itself."""
    running.process.wait(seconds + END_S)
    assert running.process.stderr
    words = running.process.stderr.read().decode()
    assert running.process.returncode == 0, words
    return words


def recorded(run_dir: Path, *options: str, seconds: float = SECONDS) -> bytes:
    """The whole stream of a producer that ends by itself."""
    running = Running(run_dir, *options, "--duration", str(seconds))
    try:
        said(running, seconds)
    finally:
        stream = running.end()
    return stream


def quality(stage: Stage, stream: bytes, *, every: int = 1) -> Quality:
    """Decode a stream, draw its pictures anew by the number and time that came with them, and compare. In each the
    barcode must say what the stamp says. Of PSNR only `every` so manieth is worked out."""
    found = Quality([], [], [])
    for frame in decoded(stream):
        stamp, code = stamp_of(frame), code_of(frame)
        assert stamp and (stamp.frame, stamp.time_ns // 1000) == code
        if len(found.numbers) % every == 0:
            stage.pictures.draw(stamp.frame, stamp.time_ns)
            luma, chroma = (
                psnr_db(mine, theirs)
                for mine, theirs in zip(nv12_rows(stage.pictures.frame()), nv12_rows(frame), strict=True)
            )
            found.luma_db.append(luma)
            found.chroma_db.append(chroma)
        found.numbers.append(stamp.frame)
    return found
