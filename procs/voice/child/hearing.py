"""Whether anything comes of a device's microphone."""

from __future__ import annotations

import time

from procs import log
from procs.wire.realtime import State

SILENT_S = 5.0  # without a packet; a device that hears nothing, or is asleep, sends silence
NO_SOUND = "the device sends no sound"
_MOST = 500  # characters, as Reason has it
_WELL = ("", "ok", "opening")  # of a part of a device; opening: it is no fault yet


def missing(state: State | None) -> str:
    """What a device of ours says that it lacks, or ""."""
    parts = (("microphone", state.microphone), ("speaker", state.speaker)) if state else ()
    return "; ".join(f"its {part}: {how}" for part, how in parts if how not in _WELL)[:_MOST]


class Hearing:
    """Of one device, in all its connections."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._at: float | None = None  # when something came, or might have begun to
        self._is_told = False

    def heard(self) -> None:
        """There is a connection, or a packet."""
        self._at = time.monotonic()

    def over(self) -> None:
        """There is no connection."""
        self._at = None

    def problem(self, *, muted: bool, microphone: str) -> str:
        """What is wrong in words, or ""; looked at each second. Nothing is expected of a microphone that is muted, or
        of which the device says itself that it is not there."""
        if self._at is not None and (muted or microphone not in ("", "ok")):
            self.heard()
        is_silent = self._at is not None and time.monotonic() - self._at >= SILENT_S
        if is_silent and not self._is_told:
            log.warning(NO_SOUND, device=self._device)
        self._is_told = is_silent
        return NO_SOUND if is_silent else ""
