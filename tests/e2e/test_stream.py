"""Streams through a real go2rtc, with real players, and with producers killed under them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from procs.kinds import Address
from procs.settings import ROOT
from scripts import go2rtc_binary
from tests import rig
from tests.decoding import code_of, frames_of, seen_in
from tests.rig import until
from tests.viewers import Arrival, Mp4Viewer, MseViewer, RtspViewer, Viewer


def ask(api: Address, method: str, path: str) -> tuple[int, bytes]:
    """Status and body of a request to go2rtc."""
    with contextlib.closing(http.client.HTTPConnection(api.host, api.port, timeout=30)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def quiet(streams: rig.Go2rtc) -> bool:
    """Nobody watches, so nothing runs."""
    return not streams.producers()


@pytest.mark.needs("ffprobe")
def test_ffprobe_sees_what_was_configured(streams: rig.Go2rtc) -> None:
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-rtsp_transport", "tcp", "-show_streams", "-of", "json", streams.stream("omega-0")],
        capture_output=True,
        timeout=30,
        check=True,
    )
    (video,) = json.loads(done.stdout)["streams"]
    expected = {"codec_name": "h264", "pix_fmt": "yuv420p", "width": 640, "height": 360, "r_frame_rate": "30/1"}
    assert {key: video[key] for key in expected} == expected
    assert (video["color_space"], video["color_range"], video["profile"]) == ("bt709", "tv", "Constrained Baseline")


@pytest.mark.needs("ffmpeg")
def test_ffmpeg_records_five_seconds_and_decodes_them_without_an_error(streams: rig.Go2rtc, tmp_path: Path) -> None:
    record = [
        "-rtsp_transport",
        "tcp",
        "-i",
        streams.stream("omega-0"),
        "-t",
        "5",
        "-c",
        "copy",
        str(tmp_path / "a.mkv"),
    ]
    ffmpeg = ["ffmpeg", "-nostdin", "-v", "error"]
    subprocess.run([*ffmpeg, *record], timeout=30, check=True, capture_output=True)
    decoded = subprocess.run(
        [*ffmpeg, "-xerror", "-i", str(tmp_path / "a.mkv"), "-f", "null", "-"],
        timeout=30,
        check=True,
        capture_output=True,
    )
    assert decoded.stderr == b""
    assert 140 <= len(frames_of(str(tmp_path / "a.mkv"))) <= 155


def test_barcode_and_sei_agree_through_go2rtc(streams: rig.Go2rtc) -> None:
    seen = seen_in(streams.stream("omega-0"), 40, rtsp_transport="tcp")
    assert len(seen) == 40
    for picture in seen:
        assert picture.stamp
        assert (picture.stamp.frame, picture.stamp.time_ns // 1000) == (picture.code.frame, picture.code.time_us)


def test_ten_streams_cost_nothing_until_watched_and_three_show_three_pictures(streams: rig.Go2rtc) -> None:
    until(lambda: quiet(streams))
    status, body = ask(streams.api, "GET", "/api/streams")
    assert (status, len(json.loads(body))) == (200, 10)
    viewers = [RtspViewer(streams.rtsp, f"omega-{i}") for i in range(3)]
    for viewer in viewers:
        viewer.start()
    until(lambda: all(len(viewer.arrivals) > 10 for viewer in viewers), 20)
    assert len(streams.producers()) == 3
    pictures = [frames_of(streams.stream(f"omega-{i}"), 1, rtsp_transport="tcp")[0] for i in range(3)]
    bars = {bytes(memoryview(p.planes[1]))[: p.planes[1].line_size * 120][-p.planes[1].line_size :] for p in pictures}
    assert len(bars) == 3, "the hue of the bars tells instances apart"
    for viewer in viewers:
        viewer.leave()
    until(lambda: quiet(streams))


@pytest.mark.parametrize("out", ["mpegts", "h264"])
def test_viewers_stay_connected_across_kill_9_and_pictures_return(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    producer = {"width": 640, "height": 360, "fps": 30, "gop": 30, "bitrate": "2M", "out": out}
    with rig.go2rtc({"workers": 1, "producer": producer}) as running:
        rtsp = RtspViewer(running.rtsp, "omega-0")
        viewers: list[Viewer] = [rtsp, Mp4Viewer(running.api, "omega-0"), MseViewer(running.api, "omega-0")]
        for viewer in viewers:
            viewer.start()
        until(lambda: all(len(viewer.arrivals) > 30 for viewer in viewers), 20)
        gaps: dict[str, list[float]] = {viewer.name: [] for viewer in viewers}
        killed_at_ns = []
        for _ in range(5):
            (victim,) = running.producers("omega-0")
            killed_ns = time.monotonic_ns()
            os.kill(victim, signal.SIGKILL)
            killed_at_ns.append(killed_ns)
            for viewer in viewers:
                gaps[viewer.name].append(until(_gap_of(viewer, killed_ns), 15) or 0)
            assert victim not in running.producers("omega-0")
        assert [viewer.ended for viewer in viewers] == ["", "", ""], "nobody was cut off"
        for viewer in viewers:
            viewer.leave()
        with capsys.disabled():
            shown = ", ".join(f"{name.split()[0]} {sorted(ms)[2]:.0f} (max {max(ms):.0f})" for name, ms in gaps.items())
            print(f"\n  gap after kill -9, {out}, ms p50: {shown}")
        for earlier, later in pairwise(rtsp.arrivals):
            assert 0 < (later.rtp_time - earlier.rtp_time) % 2**32 / 90 < 2000, "RTP time goes on across a restart"
        between = [0, *killed_at_ns, time.monotonic_ns()]
        late = [least_late_ms(rtsp.arrivals, begin, end) for begin, end in pairwise(between)]
        assert max(late) - min(late) < 60, "a gap is seen as a gap"


def least_late_ms(arrivals: list[Arrival], begin_ns: int, end_ns: int) -> float:
    """By how much the picture of this time that was the least late came later, by our clock, than its RTP time says,
    the first of all counted as in time. All of them may be late where the machine is busy, but not for long."""
    first = arrivals[0]
    return min(
        (each.at_ns - first.at_ns) / 1e6 - (each.rtp_time - first.rtp_time) % 2**32 / 90
        for each in arrivals
        if begin_ns <= each.at_ns < end_ns
    )


def _gap_of(viewer: Viewer, killed_ns: int) -> Callable[[], float | None]:
    return lambda: viewer.gap_ms(killed_ns)


def test_a_producer_dies_with_go2rtc() -> None:
    with rig.go2rtc({"workers": 1}) as running:
        viewer = RtspViewer(running.rtsp, "omega-0")
        viewer.start()
        until(lambda: viewer.arrivals, 20)
        (producer,) = running.producers()
        running.process.kill()
        until(lambda: not rig.command_line(producer))


def test_a_viewer_who_joins_sees_a_picture_at_once_where_go2rtc_has_a_gop_cache() -> None:
    if not go2rtc_binary.has_gop_cache(go2rtc_binary.find_or_fetch(ROOT, os.environ, lambda text: None)):
        pytest.skip("this go2rtc has no GOP cache")
    with rig.go2rtc({"workers": 1, "producer": {"width": 320, "height": 180, "fps": 30, "gop": 900}}) as running:
        first = RtspViewer(running.rtsp, "omega-0")
        first.start()
        until(lambda: len(first.arrivals) > 40, 20)
        assert len(frames_of(running.stream("omega-0"), 60, rtsp_transport="tcp")) == 60, (
            "the next keyframe is 30 s away"
        )
        first.leave()


def test_a_snapshot_works_with_the_ffmpeg_we_ship(streams: rig.Go2rtc) -> None:
    status, jpeg = ask(streams.api, "GET", "/api/frame.jpeg?src=omega-3")
    assert (status, jpeg[:2]) == (200, b"\xff\xd8")
    (picture,) = frames_of(jpeg)
    assert (picture.width, picture.height) == (640, 360)
    assert code_of(picture).frame < 1000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/config"),
        ("POST", "/api/config"),
        ("POST", "/api/restart"),
        ("POST", "/api/exit?code=0"),
        ("GET", "/api/log"),
        ("GET", "/api/stack"),
        ("GET", "/api/exec"),
        ("POST", "/api/ffmpeg?dst=omega-0&file=/etc/hostname"),
        ("GET", "/api/ffmpeg/devices"),
        ("GET", "/api/onvif"),
        ("GET", "/api/v4l2"),
        ("GET", "/api/preload"),
    ],
)
def test_dangerous_paths_are_not_there(streams: rig.Go2rtc, method: str, path: str) -> None:
    assert ask(streams.api, method, path)[0] in (404, 405)


def test_nobody_can_make_go2rtc_run_another_program(streams: rig.Go2rtc, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for source in (f"exec:touch%20{mark}", f"echo:touch%20{mark}", f"exec:/bin/sh%20-c%20'touch%20{mark}'"):
        assert ask(streams.api, "PUT", f"/api/streams?name=evil&src={source}")[0] >= 400
        ask(streams.api, "GET", f"/api/frame.mp4?src={source}")
    assert not mark.exists()


def test_nobody_can_give_ffmpeg_arguments(streams: rig.Go2rtc, tmp_path: Path) -> None:
    written = tmp_path / "written.ts"
    query = (
        f"name=evil2&src=ffmpeg:{streams.stream('omega-0')}%23video=copy%23raw=-y%23raw=-f%23raw=mpegts%23raw={written}"
    )
    ask(streams.api, "PUT", f"/api/streams?{query}")
    ask(streams.api, "GET", "/api/frame.mp4?src=evil2")
    assert not written.exists()
    ask(streams.api, "DELETE", "/api/streams?src=evil2")


def test_mpegts_over_http(streams: rig.Go2rtc) -> None:
    with urllib.request.urlopen(f"http://{streams.api}/api/stream.ts?src=omega-0", timeout=10) as answer:
        packets = answer.read(188 * 20)
    assert len(packets) == 188 * 20 and set(packets[::188]) == {0x47}


def test_an_unknown_stream_is_refused(streams: rig.Go2rtc) -> None:
    assert ask(streams.api, "GET", "/api/stream.mp4?src=nobody")[0] == 404
    viewer = RtspViewer(streams.rtsp, "nobody")
    viewer.start()
    until(lambda: viewer.ended)
    assert "404" in viewer.ended


@pytest.mark.needs("ffmpeg")
def test_a_file_and_a_camera_can_be_served_too(streams: rig.Go2rtc, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-t", "3", "-pix_fmt", "yuv420p", str(film)]
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *source], check=True, timeout=60)
    sources = {"film": {"file": str(film)}, "door": streams.stream("omega-4")}
    with rig.go2rtc({"workers": 0, "sources": sources}) as running:
        assert frames_of(running.stream("film"), 5, rtsp_transport="tcp")[0].width == 320
        seen = seen_in(running.stream("door"), 5, rtsp_transport="tcp")
        assert len(seen) == 5


def test_options_of_one_stream_are_its_own() -> None:
    document = {
        "workers": 2,
        "producer": {"width": 320, "height": 180, "fps": 10},
        "streams": {"omega-1": {"width": 160, "height": 90}, "extra": {"fps": 20, "pattern": "testsrc2"}},
    }
    with rig.go2rtc(document) as running:
        sizes = {
            name: frames_of(running.stream(name), 1, rtsp_transport="tcp")[0].width
            for name in ("omega-0", "omega-1", "extra")
        }
    assert sizes == {"omega-0": 320, "omega-1": 160, "extra": 320}
