"""When to make which picture: an absolute clock and a counted drop policy. Pure: the caller brings the time."""

from __future__ import annotations


class Schedule:
    """Picture i is due at start + i / fps, whatever happened before it.

    After a stall the pictures that were missed are dropped and counted; they are never made in a burst.
    """

    def __init__(self, fps: int, start_ns: int) -> None:
        self._fps, self._start_ns = fps, start_ns
        self.index = 0  # of the next picture
        self.dropped = 0

    def due_ns(self) -> int:
        """When the next picture is due, on the caller's clock."""
        return self._start_ns + self.index * 1_000_000_000 // self._fps

    def take(self, now_ns: int) -> int:
        """The index of the picture to make now. Skips those whose successor is already due."""
        current = (now_ns - self._start_ns) * self._fps // 1_000_000_000
        missed = max(0, current - self.index)
        self.dropped += missed
        taken = self.index + missed
        self.index = taken + 1
        return taken
