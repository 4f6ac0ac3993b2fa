"""Watch sessions through processes of a device: ws_link, webrtc_peer and its children, and what becomes of a session
when one of them dies. The hub shares no code with us, and the viewer is aiortc."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.json_hub import JsonHub
from tests.linked import linked
from tests.peered import heard, peered, pictures, watch
from tests.rig import go2rtc

ID = ("--device-id", "pi-cam-001")
STREAM = {"workers": 1, "producer": {"width": "320", "height": "180", "fps": "30"}}


def test_a_real_stream_is_seen_by_a_viewer(run_dir: Path) -> None:
    with (
        go2rtc(STREAM, run_dir=run_dir) as served,
        JsonHub() as hub,
        linked(run_dir, hub.backend, *ID),
        peered(run_dir, served),
    ):
        hub.connected()
        watch(hub, "s1")
        assert asyncio.run(pictures(hub, "s1", 30)) == 30
        hub.send("watch_ended", {"session_id": "s1", "reason": "user_ended"})
        watch(hub, "s2", "nowhere")
        ended = heard(hub, "watch_ended", "s2")
        assert ended["reason"] == "error" and "nowhere" in ended["why"]
