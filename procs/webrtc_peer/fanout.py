"""Which child of the leader gets which unit of a stream. Pure: whoever calls it sends, and says what did not go.

Promises: a child that joins gets a keyframe first; one that was behind gets nothing until the next keyframe, so nothing
ever queues up for it; what is kept of a stream is bounded.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from procs.messages.watch import Unit

BYTES_MAX = 8 << 20  # of one cached GOP
UNITS_MAX = 240  # what an encoder is sent in one go when it joins must fit its queue on the bus (QUEUE)
QUEUE = 512  # messages: the high-water mark that the leader's socket needs
STALE_UNITS = 15  # behind so many pictures a new keyframe is sooner shown than all of them are decoded
KEYFRAME_WAIT_S = 0.15
SQUEEZED_US = 1000
AGAIN_EVERY_S, AGAIN_UNITS, AGAIN_BYTES = 2.0, 60, 500_000
AGAIN_APART_US = 100  # all of them before the next picture is due

Piece = tuple[Unit, bytes]


class Joined(NamedTuple):
    """What to send to a child that joins, and whether to ask the source for a keyframe."""

    pieces: list[Piece]
    ask_keyframe: bool


class _Child:
    __slots__ = ("again_at", "behind", "stream", "waits_until")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.again_at = float("-inf")
        self.behind = True  # pictures only from the next keyframe on
        self.waits_until: float | None = None  # for a keyframe that was asked for, before it gets the cache


class _Stream:
    __slots__ = ("cache", "children", "size")

    def __init__(self) -> None:
        self.cache: list[Piece] = []  # pictures since the last keyframe
        self.size = 0
        self.children: set[str] = set()


class Fanout:
    """All streams and all children. `skipped` counts the times a child fell behind."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._children: dict[str, _Child] = {}
        self.skipped = 0

    def join(self, child: str, stream: str, now: float, *, can_ask: bool = False) -> Joined:
        """A child wants units from now on. `can_ask`: the source makes keyframes when asked. Joining twice gives
        nothing the second time."""
        if child in self._children:
            return Joined([], False)
        mine = self._children[child] = _Child(stream)
        of = self._streams.setdefault(stream, _Stream())
        of.children.add(child)
        if can_ask and (not of.cache or len(of.cache) > STALE_UNITS):
            mine.waits_until = now + KEYFRAME_WAIT_S
            return Joined([], True)
        return Joined(self._begin(mine), False)

    def again(self, child: str, now: float) -> list[Piece]:
        """What to send to a child whose viewer lost the picture, when the source makes no keyframe on demand: the cache
        once more, at times behind the newest. Nothing when it was done just now, or is more than a bad path takes."""
        mine = self._children.get(child)
        of = self._streams[mine.stream] if mine else None
        if mine is None or of is None or mine.behind or len(of.cache) > AGAIN_UNITS or of.size > AGAIN_BYTES:
            return []
        if now - mine.again_at < AGAIN_EVERY_S or not of.cache:
            return []
        mine.again_at = now
        newest = of.cache[-1][0].time_us
        return [
            (msgspec.structs.replace(unit, time_us=newest + AGAIN_APART_US * at), data)
            for at, (unit, data) in enumerate(of.cache, start=1)
        ]

    def leave(self, child: str) -> None:
        """A child has gone; one that never came is no error."""
        mine = self._children.pop(child, None)
        if mine:
            self._streams[mine.stream].children.discard(child)

    def forget(self, stream: str) -> None:
        """Nothing is pulled of this stream any more: what comes later has nothing to do with what was."""
        if stream in self._streams:
            self._streams[stream].cache, self._streams[stream].size = [], 0
            if not self._streams[stream].children:
                del self._streams[stream]

    def push(self, stream: str, unit: Unit, data: bytes) -> list[str]:
        """The children to send this unit to."""
        of = self._streams.setdefault(stream, _Stream())
        if unit.kind == "video":
            self._keep(of, unit, data)
        to = []
        for child in of.children:
            mine = self._children[child]
            if unit.kind == "video" and unit.is_keyframe:
                mine.behind, mine.waits_until = False, None
            if not mine.behind or (unit.kind == "audio" and mine.waits_until is None):
                to.append(child)
        return to

    def missed(self, child: str) -> None:
        """A unit could not be sent to this child: its queue is full."""
        mine = self._children.get(child)
        if mine and not mine.behind:
            mine.behind = True
            self.skipped += 1

    def due(self, now: float) -> list[tuple[str, list[Piece]]]:
        """The children whose keyframe did not come in time, and the cache for each; to be asked every few tens of ms
        while `waiting`."""
        found = []
        for child, mine in self._children.items():
            if mine.waits_until is not None and mine.waits_until <= now:
                mine.waits_until = None
                found.append((child, self._begin(mine)))
        return found

    @property
    def waiting(self) -> bool:
        """Whether `due` may have something soon."""
        return any(mine.waits_until is not None for mine in self._children.values())

    def children(self, stream: str) -> set[str]:
        """Those of one stream."""
        return set(self._streams[stream].children) if stream in self._streams else set()

    def _begin(self, mine: _Child) -> list[Piece]:
        cache = self._streams[mine.stream].cache
        mine.behind = not cache
        if not cache:
            return []
        # A millisecond apart, up to the time of the newest: a browser shows the last of them and goes on from there.
        newest = cache[-1][0].time_us
        first = max(0, newest - SQUEEZED_US * (len(cache) - 1))
        step = (newest - first) // max(1, len(cache) - 1)
        return [
            (msgspec.structs.replace(unit, time_us=newest - step * (len(cache) - 1 - at)), data)
            for at, (unit, data) in enumerate(cache)
        ]

    @staticmethod
    def _keep(of: _Stream, unit: Unit, data: bytes) -> None:
        if unit.is_keyframe:
            of.cache, of.size = [], 0
        elif not of.cache:
            return
        of.cache.append((unit, data))
        of.size += len(data)
        if of.size > BYTES_MAX or len(of.cache) > UNITS_MAX:
            of.cache, of.size = [], 0  # a tail without its keyframe is of no use to anyone
