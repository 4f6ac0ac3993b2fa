"""The channel between two agents of ours that nobody else sees: both beat on it, so that a dead peer is noticed soon.

A beat is a JSON object {"beat": n}, and its answer {"back": n}. One that has no use for IP packets now says why in its
beats, as "away".
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import msgspec
from aiortc import RTCDataChannel

from procs.agent.words import plain

BEAT_S = 1.0
MAX_BYTES = 4096
MAX_WHY = 200


class Control:
    """Of one session, over all its connections."""

    def __init__(self) -> None:
        self._below: RTCDataChannel | None = None
        self._count = 0
        self._sent_at: dict[int, float] = {}
        self._beat_at = 0.0
        self.round_trip_ms = 0.0
        self.heard_at = float("-inf")
        self.away = self.peer_away = ""  # why we, and why the peer, can do nothing with IP packets now

    @property
    def is_bound(self) -> bool:
        """Whether there is one."""
        return self._below is not None

    def bind_channel(self, below: RTCDataChannel) -> None:
        """Beat on this one from now on."""
        self._below = below
        below.on("message", self._heard)

    def unbind(self) -> None:
        """There is none now."""
        self._below = None
        self._sent_at.clear()
        self.round_trip_ms, self.peer_away = 0.0, ""

    @property
    def is_open(self) -> bool:
        """Whether beats go out."""
        return bool(self._below and self._below.readyState == "open")

    def beat(self, now: float) -> None:
        """Say that we live, if it is time."""
        if self.is_open and now - self._beat_at >= BEAT_S:
            self._beat_at = now
            self._count += 1
            self._sent_at = {self._count: now}
            self._say({"beat": self._count} | ({"away": self.away} if self.away else {}))

    def _heard(self, data: str | bytes) -> None:
        said: Any = None
        if len(data) <= MAX_BYTES:
            with contextlib.suppress(msgspec.DecodeError, UnicodeError):
                said = msgspec.json.decode(data)
        if not isinstance(said, dict):
            return
        self.heard_at = time.monotonic()
        if isinstance(beat := said.get("beat"), int):
            self._say({"back": beat})
            self.peer_away = plain(away)[:MAX_WHY] if isinstance(away := said.get("away"), str) else ""
        back = said.get("back")
        if isinstance(back, int) and (sent_at := self._sent_at.pop(back, 0.0)):
            self.round_trip_ms = (time.monotonic() - sent_at) * 1000

    def _say(self, what: dict[str, int | str]) -> None:
        if self.is_open and self._below:
            self._below.send(msgspec.json.encode(what).decode())
