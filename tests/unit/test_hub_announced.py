"""What the hub keeps of a device's capabilities, whatever stands in them."""

from __future__ import annotations

from typing import Any

import pytest

from procs.hub.devices.announced import MAX_NAME, MAX_STREAMS, Stream, streams

RUNS = {"url": "exec:...", "format_name": "mpegts", "medias": ["video, recvonly, H264"]}
PICTURE = {"format_name": "keyframe"}


@pytest.mark.parametrize(
    ("listed", "is_running", "watchers"),
    [
        ({"producers": [{"url": "exec:..."}], "consumers": None}, False, 0),
        ({"producers": [{"url": "exec:..."}, RUNS], "consumers": [{}, {"format_name": "mp4"}]}, True, 2),
        ({"producers": [], "consumers": []}, False, 0),
        ({"producers": [RUNS], "consumers": []}, True, 0),
        ({"producers": [RUNS], "consumers": [PICTURE]}, False, 0),
        ({"producers": [RUNS], "consumers": [PICTURE, {"format_name": "mp4"}]}, True, 1),
        ({"producers": [RUNS | {"url": ":..."}], "consumers": [PICTURE]}, True, 0),
        (None, False, 0),
        ("nonsense", False, 0),
        ({"producers": {"format_name": 1}, "consumers": 7}, False, 0),
        ({"producers": ["format_name"], "consumers": ["one"]}, False, 0),
    ],
)
def test_what_is_kept_of_a_stream(listed: Any, is_running: bool, watchers: int) -> None:
    assert streams({"door": listed}) == (Stream("door", is_running, watchers),)


def test_no_device_fills_the_memory() -> None:
    kept = streams({"x" * 10_000 + str(number): RUNS for number in range(MAX_STREAMS + 1)})
    assert len(kept) == MAX_STREAMS and {len(each.name) for each in kept} == {MAX_NAME}
