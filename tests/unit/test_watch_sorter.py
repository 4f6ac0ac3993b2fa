"""A clock that never jumps back, and units that begin with a keyframe after each reconnect."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from procs.messages.watch import Unit
from procs.webrtc_peer.rtsp import Track, described
from procs.webrtc_peer.sorter import JUMP_US, Sorter, Timeline
from tests.unit.test_depacketizer import IDR, PPS, SLICE, SPS

VIDEO = Track("video", "h264", 90_000, 96, "rtsp://x/0", (SPS, PPS), "42c020")
SOUND = Track("audio", "opus", 48_000, 97, "rtsp://x/1")


def rtp(payload: bytes, kind: int = 96, number: int = 0, time: int = 0) -> bytes:
    return (
        bytes((0x80, 0x80 | kind))
        + number.to_bytes(2, "big")
        + (time & 0xFFFFFFFF).to_bytes(4, "big")
        + bytes(4)
        + payload
    )


def test_times_follow_rtp_to_the_microsecond_through_its_wrap() -> None:
    line = Timeline()
    line.begin(90_000)
    start = line.time_us(2**32 - 3000, 50_000_000)
    assert start == 50_000_000
    assert line.time_us(0, 50_031_000) == start + 33_333
    assert line.time_us(3000, 50_071_000) == start + 66_666


def test_a_source_that_counts_anew_goes_on_at_the_clock() -> None:
    line = Timeline()
    line.begin(90_000)
    line.time_us(1000, 50_000_000)
    assert line.time_us(3_000_000_000, 50_040_000) == 50_040_000
    line.begin(90_000)
    assert line.time_us(5, 50_010_000) == 50_041_000  # not back, though the clock is


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2_000_000), st.booleans()), min_size=1))
def test_times_grow_and_stay_with_the_clock(steps: list[tuple[int, int, bool]]) -> None:
    line, now, last = Timeline(), 10_000_000, 0
    line.begin(90_000)
    for ticks, passed, anew in steps:
        now += passed
        if anew:
            line.begin(90_000)
        found = line.time_us(ticks, now)
        assert found >= last and abs(found - max(now, last)) <= JUMP_US + 1000 * len(steps)
        last = found


def test_after_a_reconnect_nothing_comes_before_a_keyframe() -> None:
    got: list[tuple[str, Unit]] = []
    sorter = Sorter("cam", lambda stream, unit, data: got.append((stream, unit)), lambda: 7_000_000)
    first: list[bool] = []
    for _ in range(2):
        sorter.begin([VIDEO, SOUND], lambda: first.append(True))
        sorter.take(rtp(SLICE, number=0))
        sorter.take(rtp(b"sound", 97))
        for at, part in enumerate((IDR[:900], SLICE), start=1):
            sorter.take(rtp(part, number=at, time=at * 3000))
    assert [unit.kind for _, unit in got] == ["audio", "video", "video"] * 2
    assert [unit.number for _, unit in got if unit.kind == "video"] == [1, 2, 3, 4]
    assert [unit.is_keyframe for _, unit in got if unit.kind == "video"] == [True, False] * 2
    assert sorter.pictures == 4 and len(first) == 2


def test_what_is_no_rtp_is_counted() -> None:
    sorter = Sorter("cam", lambda stream, unit, data: None)
    sorter.begin([VIDEO], lambda: None)
    sorter.take(b"nonsense")
    sorter.take(rtp(b"of another kind", 13))
    assert sorter.refused == 1 and sorter.pictures == 0


def test_a_description_is_read() -> None:
    sdp = (
        "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        "a=fmtp:96 packetization-mode=1;profile-level-id=42C020;sprop-parameter-sets=Z0LAIA==,aM48gA==\r\n"
        "a=control:trackID=0\r\nm=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=control:rtsp://y/1\r\n"
        "m=video 0 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\na=control:second\r\n"
    )
    video, audio = described(sdp, "rtsp://x/cam")
    assert video == Track("video", "h264", 90_000, 96, "rtsp://x/cam/trackID=0", (SPS, PPS), "42c020")
    assert audio == Track("audio", "pcma", 8_000, 8, "rtsp://y/1")
