"""Pieces of one memory, a step apart, kept from one time to the next."""

from __future__ import annotations


class Views:
    """Nearly all runs of datagrams lie where the one before did, and so does what they open to: a good part of the time
    that a short decryption takes is to make memoryviews anew."""

    def __init__(self) -> None:
        self._memory, self._where = memoryview(b""), (0, 0, 0)
        self._views: list[memoryview] = []

    def at(self, memory: memoryview, start: int, step: int, size: int, count: int) -> list[memoryview]:
        """So many of this size, from there on."""
        if memory is not self._memory or self._where != (start, step, size):
            self._memory, self._where, self._views = memory, (start, step, size), []
        if len(self._views) < count:
            self._views = [memory[each : each + size] for each in range(start, start + count * step, step)]
        return self._views[:count]
