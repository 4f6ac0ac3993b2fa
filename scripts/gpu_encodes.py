"""Encoders, decoders and the producer itself, each really at work: probes of `gpu_check`."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import math
import operator
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import av
import av.logging

from procs.errors import EncoderFailed, GpuLost, NoFirstFrame, NotHere
from procs.headless_agent.encoder import AccessUnit, open_encoder
from procs.headless_agent.options import ON_GPU, Producer
from procs.headless_agent.pictures import Pictures, open_pictures
from procs.settings import ROOT
from scripts.gpu_report import how_ended
from scripts.gpu_stages import ENOUGH_S, HEIGHT, WARM_UP, WIDTH

KEPT = 4  # pictures whose luma is compared, every so many rows of them: all would take longer than encoding them
ROWS = 4
LEAST = 10  # pictures, however slow the machine
PRODUCER_LIMIT_S = 7.0  # it gives up by itself where no picture comes
FPS = 60
UNSUPPORTED = "returned error 2"  # NV_ENC_ERR_UNSUPPORTED_DEVICE


def settings(asked: argparse.Namespace, encoder: str, renderer: str) -> Producer:
    """What a producer would be told."""
    return Producer(
        instance_id="gpu-check",
        width=WIDTH,
        height=HEIGHT,
        fps=FPS,
        renderer=renderer,
        encoder=encoder,
        device_idx=asked.device_idx,
        convert="shader" if encoder in ON_GPU else "auto",  # who takes pictures on the GPU has them from the shader
    )


class Encoded:
    """Pictures, their units, and of some pictures what went in."""

    def __init__(self, chosen: Producer, pictures: Pictures, count: int) -> None:
        encoder = open_encoder(chosen, pictures)
        self.units: list[AccessUnit] = []
        self.put_in: dict[int, bytes] = {}
        self.spent_s: list[float] = []
        until = time.monotonic() + ENOUGH_S
        for index in range(count):
            if index >= LEAST and time.monotonic() > until:
                break
            started = time.perf_counter()
            pictures.draw(index, time.time_ns())
            self.units += encoder.encode(pictures, index, keyframe=False)
            self.spent_s.append(time.perf_counter() - started)
            if index % max(1, count // KEPT) == 0:
                self.put_in[index] = luma(pictures.frame())

    def facts(self) -> dict[str, Any]:
        """Figures: the first pictures open things and are not counted."""
        pictures = len(self.spent_s)
        ms = 1000 * median(self.spent_s[min(WARM_UP, pictures - 1) :])
        return {"pictures": pictures, "ms": round(ms, 2), "held": pictures - len(self.units)}


def encode(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One encoder: as many units as pictures, but for those that it holds back, and what a decoder makes of them."""
    chosen = settings(asked, asked.encoder, asked.renderer)
    yield {"doing": "drawing"}
    pictures = open_pictures(chosen)
    yield {"doing": "encoding"}
    try:
        done = Encoded(chosen, pictures, asked.pictures)
    except (NotHere, EncoderFailed, GpuLost) as error:
        yield {"error": str(error).removeprefix(f"encoder {asked.encoder}: ")}
        return
    yield {**done.facts(), "doing": "decoding"}
    frames = decoded(done.units)
    yield {"decoded": len(frames), "psnr_db": psnr_db(done.put_in, frames), "doing": "ending"}


def decoded(
    units: Sequence[AccessUnit], codec: str = "h264", options: dict[str, str] | None = None
) -> list[av.VideoFrame]:
    """Units by a decoder of libav's. Raises av.FFmpegError."""
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options = options or {}
    frames: list[av.VideoFrame] = []
    for unit in units:
        frames += decoder.decode(av.Packet(unit.data))
    return [*frames, *decoder.decode(None)]


def luma(frame: av.VideoFrame) -> bytes:
    """Every so many rows of a picture's luma, without padding."""
    plane = frame.planes[0]
    view = memoryview(plane)
    return b"".join(view[y * plane.line_size :][: frame.width] for y in range(0, frame.height, ROWS))


def psnr_db(put_in: dict[int, bytes], frames: Sequence[av.VideoFrame]) -> float | None:
    """Of luma, over all pictures that were kept: None for equal ones."""
    pairs = [(data, luma(frames[index])) for index, data in put_in.items() if index < len(frames)]
    differences = [list(map(operator.sub, a, b)) for a, b in pairs if a != b]
    squares = sum(sum(map(operator.mul, row, row)) for row in differences)
    samples = sum(len(a) for a, _ in pairs)
    return round(10 * math.log10(255 * 255 * samples / squares), 1) if squares else None


def engines(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What NVIDIA's libraries tell of the GPU's encoding engines."""
    yield {"doing": "GetEncoderCaps"}
    try:
        nvc = importlib.import_module("PyNvVideoCodec")  # it has no types
    except ModuleNotFoundError:
        yield {"error": "not known without PyNvVideoCodec"}
        return
    except (ImportError, RuntimeError) as error:  # RuntimeError: without NVENC's library
        yield {"error": _without_advice(error)}
        return
    try:
        caps = nvc.GetEncoderCaps(gpuid=asked.ordinal, codec="h264")
    except Exception as error:  # its own kinds have no common base but this
        yield {"nvenc": 0} if UNSUPPORTED in str(error) else {"error": _without_advice(error)}
        return
    yield {"nvenc": int(caps["num_encoder_engines"])}


def _without_advice(error: Exception) -> str:
    """Its words are several lines, and pages of advice may follow them."""
    return " ".join(str(error).partition("===")[0].split())


def nvdec(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A stream of x264's through the GPU's decoder, and whether its luma is what libav's decoder gives."""
    chosen = settings(asked, "x264", "cpu")
    units = Encoded(chosen, open_pictures(chosen), min(asked.pictures, 30)).units
    yield {"doing": "h264_cuvid"}
    av.logging.set_level(av.logging.ERROR)  # only so does the error say more than a number
    try:
        with av.logging.Capture():
            frames = decoded(units, "h264_cuvid", {"gpu": str(asked.ordinal)})
    except (av.FFmpegError, ValueError) as error:
        logged = getattr(error, "log", None)
        yield {"error": str(logged[2]).strip() if logged else str(error)}
        return
    equal = list(map(luma, frames)) == list(map(luma, decoded(units)))
    yield {"pictures": len(units), "decoded": len(frames), "equal": equal}


def stream(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A second of the real producer: its first line, how it ended, and its pictures as a decoder sees them."""
    options = ["--encoder", asked.encoder, "--renderer", asked.renderer, "--device-idx", str(asked.device_idx)]
    options += ["--width", str(WIDTH), "--height", str(HEIGHT), "--fps", str(FPS)]
    options += ["--audio", "none", "--out", "mpegts", "--duration", "1", "--instance-id", "gpu-check"]
    yield {"wanted": FPS, "size": f"{WIDTH}x{HEIGHT}", "doing": "the producer"}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as run_dir:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "procs.headless_agent", *options],
                cwd=ROOT,
                env=os.environ | {"PLANARIA_RUN_DIR": run_dir, "PLANARIA_LOG": "json"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PRODUCER_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoFirstFrame(f"the producer came to no end within {PRODUCER_LIMIT_S:g} s") from None
    lines = [_event(line) for line in done.stderr.decode(errors="replace").splitlines()]
    yield {"line": lines[0] if lines else "", "exit": done.returncode, "frames": 0, "doing": "decoding"}
    if done.returncode < 0:
        yield {"error": f"the producer {how_ended(done.returncode, b'')}"}
    if done.stdout:
        with av.open(io.BytesIO(done.stdout), "r") as container:
            yield {"frames": sum(1 for _ in container.decode(video=0))}


def _event(line: str) -> str:
    """What a line of our log says; any other line as it is."""
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return line
