"""Captures behind a real go2rtc: pictures arrive, viewers stay over a writer's death, and no kill leaves an orphan."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from procs import proc
from procs.settings import ROOT
from tests import rig
from tests.decoding import frames_of
from tests.faults.test_capture import are_gone, capture, family, ffmpeg, is_alive
from tests.rig import until
from tests.viewers import RtspViewer


def wrapper(name: str, *arguments: str) -> str:
    """A go2rtc source that starts one of our wrappers."""
    return f"exec:{ROOT}/scripts/{name} {shlex.join(arguments)}"


@pytest.fixture
def playing(tmp_path: Path) -> Iterator[rig.Go2rtc]:
    """go2rtc with a stream of each wrapper; `camera` is fed through a FIFO."""
    sources = {
        "transport": wrapper("go2rtc_exec_mpegts.sh", *ffmpeg("mpegts", sound=True)),
        "bare": wrapper("go2rtc_exec_mpegts.sh", "--", *ffmpeg("h264")),
        "raw": wrapper("go2rtc_exec_raw.sh", *ffmpeg("mpegts")),
        "camera": wrapper("go2rtc_exec_fifo.sh", str(tmp_path / "camera")),
    }
    with rig.go2rtc({"workers": 0}, sources=sources) as running:
        yield running


@contextlib.contextmanager
def watching(playing: rig.Go2rtc, stream: str) -> Iterator[RtspViewer]:
    """A viewer that has seen some pictures."""
    viewer = RtspViewer(playing.rtsp, stream)
    viewer.start()
    until(lambda: len(viewer.arrivals) > 20 or viewer.ended, 20)
    assert not viewer.ended, viewer.ended
    yield viewer
    viewer.leave()


def below(playing: rig.Go2rtc) -> set[int]:
    """All that go2rtc has started, and what that has started."""
    return proc.descendants(playing.process.pid)


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("stream", ["transport", "bare", "raw"])
def test_each_wrapper_plays(playing: rig.Go2rtc, stream: str) -> None:
    frames = frames_of(playing.stream(stream), 20, rtsp_transport="tcp")
    assert len(frames) == 20 and frames[0].width == 320
    until(lambda: not below(playing))  # nobody watches, so nothing runs


@pytest.mark.needs("ffmpeg")
def test_a_viewer_of_a_fifo_stays_over_every_death_of_its_writer(
    playing: rig.Go2rtc, tmp_path: Path, run_dir: Path
) -> None:
    feed = ["--fifo", str(tmp_path / "camera"), "--", *ffmpeg()]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(capture(run_dir, *feed))
        viewer = stack.enter_context(watching(playing, "camera"))
        (reading,) = below(playing)
        for writer in (first, *(stack.enter_context(capture(run_dir, *feed)) for _ in range(2))):
            seen = len(viewer.arrivals)
            until(lambda n=seen: len(viewer.arrivals) > n + 20)  # type: ignore[misc]
            writer.kill()
        assert not viewer.ended
        assert below(playing) == {reading}, "the same reader all the time"
    steps = [(later.rtp_time - earlier.rtp_time) % 2**32 for earlier, later in pairwise(viewer.arrivals)]
    assert max(steps) < 90_000 * 10, "time never ran back"


@pytest.mark.needs("ffmpeg")
def test_a_viewer_of_a_command_stays_over_the_death_of_its_capture(playing: rig.Go2rtc) -> None:
    with watching(playing, "bare") as viewer:
        pids = below(playing)
        (running,) = rig.children(playing.process.pid)
        seen = len(viewer.arrivals)
        os.kill(running, signal.SIGKILL)
        until(lambda: are_gone(pids))
        until(lambda: len(viewer.arrivals) > seen + 20)
        assert not viewer.ended


@pytest.mark.needs("ffmpeg")
def test_a_kill_of_go2rtc_leaves_nothing(playing: rig.Go2rtc, tmp_path: Path, run_dir: Path) -> None:
    feed = ["--fifo", str(tmp_path / "camera"), "--", *ffmpeg()]
    with capture(run_dir, *feed) as writer, watching(playing, "transport"), watching(playing, "camera"):
        pids = below(playing)
        assert len(pids) == 4, "capture, guard, ffmpeg; reader"
        playing.process.send_signal(signal.SIGKILL)
        until(lambda: are_gone(pids))
        assert is_alive(writer.pid) and len(family(writer.pid)) == 3, "a writer is not go2rtc's"
