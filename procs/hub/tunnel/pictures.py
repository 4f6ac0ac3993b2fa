"""The last picture of each stream that somebody looks at: fetched no oftener than it may be, however many look."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from procs.errors import PlanariaError

AT_ONCE = 8  # fetches in the whole hub,
AT_ONCE_DEVICE = 2  # of one device
SLOW_S = 2.0  # after which a fetch holds no place in the hub any more: cameras that hang must not keep others' away,
AT_ONCE_SLOW = 64  # but only so many
MAX_KEPT = 4096
MAX_BYTES = 64 * 1024 * 1024  # of all pictures
AGAIN_S = 2.0  # after a device that was not there,
FAILED_S = 30.0  # after any other failure: a stream that gives nothing holds a place for long each time
BUSY_S = 1.0


class NoPicture(PlanariaError):
    """There is none; `status` says it in HTTP. `wait_s`: when it makes sense to ask again."""

    def __init__(self, status: int, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.status, self.wait_s = status, wait_s


class Source(NamedTuple):
    """A stream of a device; `owner` is in it since nobody is to see what the device showed when it was another's."""

    device_id: str
    key: int
    owner: int | None
    stream: str


class Picture(NamedTuple):
    """A JPEG, and when it was fetched."""

    body: bytes
    etag: str
    at: float


class _Kept:
    __slots__ = ("failure", "fetching", "picture", "tried_at")

    def __init__(self) -> None:
        self.picture: Picture | None = None
        self.failure: NoPicture | None = None
        self.tried_at = float("-inf")
        self.fetching: asyncio.Task[None] | None = None


class Pictures:
    """All of them. `fetch` gets one from a device; it has a deadline of its own, and raises NoPicture."""

    def __init__(
        self, fetch: Callable[[Source], Awaitable[bytes]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch, self._clock = fetch, clock
        self._kept: OrderedDict[Source, _Kept] = OrderedDict()  # who was not asked for longest first
        self._bytes = 0
        self._under_way: Counter[str] = Counter()  # by device
        self._begun: dict[Source, float] = {}  # of all that are under way

    async def of(self, source: Source, every_s: float) -> Picture:
        """One that is at most `every_s` old, or the last one where there is no place for a fetch. Raises NoPicture."""
        kept = self._kept.setdefault(source, _Kept())
        self._kept.move_to_end(source)
        if kept.fetching is None and self._clock() >= kept.tried_at + self._pause_s(kept, every_s):
            self._begin(source, kept)
        if kept.fetching:
            await asyncio.shield(kept.fetching)  # others may wait for it, too
        self._shrink()
        if kept.failure:
            raise NoPicture(
                kept.failure.status,
                str(kept.failure),
                max(BUSY_S, kept.tried_at + self._pause_s(kept, every_s) - self._clock()),
            )
        if kept.picture is None:
            raise NoPicture(503, "Too many pictures are being fetched; try again", BUSY_S)
        return kept.picture

    def _pause_s(self, kept: _Kept, every_s: float) -> float:
        if kept.failure is None:
            return every_s
        return AGAIN_S if kept.failure.status == 503 else max(every_s, FAILED_S)

    def _begin(self, source: Source, kept: _Kept) -> None:
        now = self._clock()
        places = sum(now - begun < SLOW_S for begun in self._begun.values())
        if places >= AT_ONCE or len(self._begun) >= AT_ONCE_SLOW:
            return
        if self._under_way[source.device_id] >= AT_ONCE_DEVICE:
            return
        self._under_way[source.device_id] += 1
        kept.tried_at = self._begun[source] = now
        kept.fetching = asyncio.get_running_loop().create_task(self._renew(source, kept))

    async def _renew(self, source: Source, kept: _Kept) -> None:
        try:
            body = await self._fetch(source)
        except NoPicture as failure:
            kept.failure = failure
        else:
            kept.failure = None
            self._bytes += len(body) - (len(kept.picture.body) if kept.picture else 0)
            kept.picture = Picture(body, hashlib.sha256(body).hexdigest()[:32], self._clock())
        finally:
            kept.fetching = None
            del self._begun[source]
            self._under_way[source.device_id] -= 1
            if not self._under_way[source.device_id]:
                del self._under_way[source.device_id]

    def _shrink(self) -> None:
        while self._bytes > MAX_BYTES or len(self._kept) > MAX_KEPT:
            idle = (source for source, kept in self._kept.items() if kept.fetching is None)
            if (oldest := next(idle, None)) is None:
                return
            gone = self._kept.pop(oldest).picture
            self._bytes -= len(gone.body) if gone else 0
