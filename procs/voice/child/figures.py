"""What a child has seen, until it is told to the leader: figures by their published names, and ours. Bounded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

MOST = 1000  # that wait: a leader that takes none loses the oldest


class Figures:
    """A list that does not grow for ever."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, float]] = []
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: float = 1.0) -> None:
        """One more. Of counters and gauges, `value` is by how much."""
        if len(self._seen) == MOST:
            del self._seen[: MOST // 2]
        self._seen.append((name, value))

    def count(self, name: str) -> None:
        """One more of what comes many times a second: told as one sum."""
        self._counts[name] = self._counts.get(name, 0) + 1

    @contextlib.contextmanager
    def while_active(self, name: str) -> Iterator[None]:
        """A gauge is one more until the end of the block."""
        self.add(name)
        try:
            yield
        finally:
            self.add(name, -1.0)

    def take(self) -> list[tuple[str, float]]:
        """All since the last time."""
        seen, self._seen = [*self._seen, *self._counts.items()], []
        self._counts = {}
        return seen
