"""Streams of real producers: drawn and converted on the GPU, encoded by x264 or NVENC, decoded and compared."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import numpy as np
import pytest

from procs.errors import EncoderFailed, NotHere
from procs.headless_agent.encoder import open_encoder
from tests.faults.test_producer import Running, run
from tests.gpu.stage import LONG, Stage, decoded, nv12_rows
from tests.gpu.streams import CHROMA_DB, EGL, FPS, HEIGHT, LUMA_DB, ON_CPU, SECONDS, WIDTH, quality, recorded, said

NVENC = ("nvenc-cuda", "vpf", "nvenc")
REFUSED_S = 5.0
RATE = 400_000  # at which the scene asks for more
WINDOW = 36  # pictures whose bytes are counted


@pytest.mark.timeout(400)
def test_a_stream_shows_what_was_drawn(run_dir: Path) -> None:
    stage = Stage(WIDTH, HEIGHT, fps=FPS)
    found = quality(stage, recorded(run_dir, *ON_CPU), every=4 if LONG else 1)
    print(f"x264 of {WIDTH}x{HEIGHT}, {FPS} pictures a second: {found}")
    assert min(found.luma_db) > LUMA_DB and min(found.chroma_db) > CHROMA_DB
    assert found.numbers == sorted(set(found.numbers)) and found.numbers[-1] >= SECONDS * FPS - 1
    if not stage.pictures.context.is_software:  # which draws as fast as the processors let it
        assert found.dropped <= 0.01 * SECONDS * FPS


def test_nvdec_decodes_the_same_pictures(run_dir: Path) -> None:
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError:
        pytest.skip("not verified here: libnvcuvid.so.1 is missing")
    stream = recorded(run_dir, *ON_CPU, seconds=2)
    compared = 0
    for mine, theirs in zip(decoded(stream), decoded(stream, "h264_cuvid"), strict=True):
        for one, other in zip(nv12_rows(mine), nv12_rows(theirs), strict=True):
            assert np.array_equal(one, other), compared
        compared += 1
    assert compared > 10


def refusal(run_dir: Path, encoder: str) -> str:
    """Why an encoder of NVENC's is not to be had here, as a producer of its own says it; '' if it encodes."""
    began = time.monotonic()
    code, stream, events = run(run_dir, *EGL, "--encoder", encoder, "--duration", "0.5")
    if code == 0:
        return ""
    assert (code, stream, len(events)) == (3, b"", 1)
    assert time.monotonic() - began < REFUSED_S
    reason = events[0].removeprefix(f"encoder {encoder}: ")
    assert events[0] != reason != ""
    return reason


@pytest.fixture(scope="module")
def reasons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of each, why it is refused here, or ''."""
    (run_dir := tmp_path_factory.mktemp("run")).chmod(0o700)
    return {encoder: refusal(run_dir, encoder) for encoder in NVENC}


@pytest.mark.parametrize("encoder", NVENC)
def test_nvenc_is_refused_in_one_line_or_encodes(run_dir: Path, reasons: dict[str, str], encoder: str) -> None:
    if reason := reasons[encoder]:
        print(f"{encoder}: {reason}")
        return
    found = quality(Stage(WIDTH, HEIGHT, fps=FPS), recorded(run_dir, *EGL, "--encoder", encoder, seconds=2))
    print(f"{encoder}: {found}")
    assert min(found.luma_db) > LUMA_DB and min(found.chroma_db) > CHROMA_DB and len(found.numbers) > 5


def test_auto_takes_the_best_that_encodes_and_says_why(run_dir: Path, reasons: dict[str, str]) -> None:
    best = next((encoder for encoder in NVENC if not reasons[encoder]), "x264")
    running = Running(run_dir, *EGL, "--duration", "3")
    words = said(running, 3)
    print(words)
    first = words.splitlines()[0]
    assert f"encoder {best}" in first and len(first) < 512, "go2rtc keeps no more"
    for encoder, reason in reasons.items():
        if best == "x264":  # to who has named one, it says in the end what to name
            assert encoder in first and reason.partition("; use ")[0].split(": ")[-1].split('"')[0] in first
    if best == "x264":
        assert "colour conversion by " in words, "neither way was found the faster"
    found = quality(Stage(WIDTH, HEIGHT, fps=FPS), running.end())
    assert min(found.luma_db) > LUMA_DB


def sizes_of(encoder: str, stage: Stage, pictures: int, keyframe_at: int) -> list[list[tuple[int, bool]]]:
    """(bytes, whether it is a keyframe) of the units that each picture's call gave; the second half at a quarter of
    the rate. Skips where it can't be had."""
    chosen = stage.chosen.but(encoder=encoder, gop=1200, bitrate=RATE)
    opened = open_encoder(chosen, stage.pictures)
    given = []
    for index in range(pictures):
        stage.pictures.draw(index, time.time_ns())
        if index == pictures // 2:
            opened.set_bitrate(RATE // 4)
        try:
            units = opened.encode(stage.pictures, index, keyframe=index == keyframe_at)
        except (NotHere, EncoderFailed) as error:
            pytest.skip(f"not verified here: {error}")
        given.append([(len(unit.data), unit.is_keyframe) for unit in units])
    return given


@pytest.mark.parametrize("encoder", [*NVENC, "x264"])
def test_an_encoder_holds_no_more_than_it_must_and_obeys(encoder: str) -> None:
    """Pictures held back, keyframes when they are asked for, and a lower rate when that is. Other keyframes are only
    where the rate changes, which libav's NVENC starts with one, and where vpf goes on with another encoder."""
    pictures, half, held = 160, 80, 3 if encoder == "vpf" else 0
    given = sizes_of(encoder, Stage(640, 360), pictures, keyframe_at=30)
    so_far = [sum(map(len, given[: index + 1])) for index in range(pictures)]
    assert (so_far[0], so_far[29], so_far[-1]) == (1, 30 - held, pictures - held)
    units = [unit for each in given for unit in each]
    also = {"vpf": {1}, "x264": set[int]()}.get(encoder, {half})
    keyframes = {index for index, (_, is_keyframe) in enumerate(units) if is_keyframe}
    assert {0, 30} <= keyframes <= {0, 30} | also
    before, after = (sum(size for size, _ in units[start : start + WINDOW]) for start in (40, half + 30))
    print(f"{encoder}: {before} bytes, then {after} at a quarter of the rate")
    if before > 2 * WINDOW * RATE / 60 / 8:
        pytest.skip("not verified here: this encoder keeps to no rate")
    assert after < 0.6 * before


def test_streams_side_by_side(run_dir: Path) -> None:
    """Processes on one GPU, each with its own pictures at its own size."""
    sizes = {"omega-0": (640, 360), "omega-1": (322, 242)} | (
        {"omega-2": (1280, 720), "omega-3": (640, 360)} if LONG else {}
    )
    seconds = 3
    started = {
        name: Running(
            run_dir,
            *("--width", str(width), "--height", str(height), *ON_CPU[4:], "--duration", str(seconds)),
            instance=name,
        )
        for name, (width, height) in sizes.items()
    }
    for name, running in started.items():
        print(f"{name}: {said(running, seconds)}")
    for name, (width, height) in sizes.items():
        stage = Stage(width, height, fps=FPS, instance=name)
        found = quality(stage, started[name].end())
        print(f"{name}: {found}")
        assert min(found.luma_db) > LUMA_DB and min(found.chroma_db) > CHROMA_DB and len(found.numbers) > 5
