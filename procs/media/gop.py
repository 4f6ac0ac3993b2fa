"""What a viewer who joins a running stream must be sent first: every access unit since the last keyframe.

Promises: what it gives begins with a keyframe or is empty, and never holds more than its two bounds.
"""

from __future__ import annotations

from procs.errors import Refused

TYPE_CHECKING = False  # spares the start-up path the import of typing
if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES_MAX = 8 << 20  # 2 s at 32 Mbit/s
UNITS_MAX = 600  # 10 s at 60 fps


class GopCache:
    """The units since the last keyframe, bounded. `overflows` counts the times a bound emptied it."""

    __slots__ = ("_bytes_max", "_units", "_units_max", "overflows", "size_bytes")

    def __init__(self, bytes_max: int = BYTES_MAX, units_max: int = UNITS_MAX) -> None:
        """Refused when a bound is below 1."""
        if bytes_max < 1 or units_max < 1:
            raise Refused("the bounds of a GOP cache are at least 1")
        self._bytes_max = bytes_max
        self._units_max = units_max
        self._units: list[bytes] = []
        self.size_bytes = 0
        self.overflows = 0

    def push(self, unit: bytes, keyframe: bool) -> None:
        """Take the next access unit. Units between an overflow (or the start) and the next keyframe are not kept."""
        if keyframe:
            self._empty()
        elif not self._units:
            return
        self._units.append(unit)
        self.size_bytes += len(unit)
        if self.size_bytes > self._bytes_max or len(self._units) > self._units_max:
            # A tail without its keyframe is of no use to anyone, so nothing at all is kept.
            self._empty()
            self.overflows += 1

    def units(self) -> tuple[bytes, ...]:
        """The units, oldest first: a snapshot that later pushes do not change."""
        return tuple(self._units)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.units())

    def __len__(self) -> int:
        return len(self._units)

    def _empty(self) -> None:
        self._units.clear()
        self.size_bytes = 0
