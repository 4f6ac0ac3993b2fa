"""Which stream is shown to who asks for none."""

from __future__ import annotations

from procs.webrtc_peer.go2rtc import preferred


def test_the_one_called_camera_else_the_first() -> None:
    assert preferred(["omega-0", "camera", "omega-1"]) == "camera"
    assert preferred(["omega-1", "omega-0"]) == "omega-1"
