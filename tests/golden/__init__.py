"""The transcripts beside this file, frame by frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

PLACE = Path(__file__).parent


class Said(NamedTuple):
    """One frame of a transcript: who sent it, on whose WebSocket. A close has no "type"."""

    channel: str  # "device", "viewer", "signal" or "realtime"
    sender: str  # the same, or "hub"; in "signal" an agent's id, or "server"; in "realtime" "backend" or "device"
    frame: dict[str, Any]

    @property
    def is_close(self) -> bool:
        """Whether this is the end of the WebSocket instead of a frame."""
        return "close" in self.frame


def transcript(channel: str) -> list[Said]:
    """All of one file, in order."""
    lines = (PLACE / f"{channel}.jsonl").read_text().splitlines()
    return [Said(channel, line["from"], line["frame"]) for line in map(json.loads, lines)]
