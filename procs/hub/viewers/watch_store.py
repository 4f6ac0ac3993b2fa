"""What lasts of watch sessions: whose they are, and until when. A hub that was killed finds here what goes on between
viewers and devices meanwhile, so that it can be resumed, or ended where it should be.

Nobody waits for these writes: a session that ends with this process within some milliseconds of its begin is not found
again, and its viewer begins another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, exc, insert, select, update

from procs.errors import StoreDown
from procs.hub.devices.registry import AT_ONCE
from procs.hub.store.models import devices, watches
from procs.hub.viewers.watches import Watch
from procs.store import Store

LEASE_S = 120.0  # a session that no hub renews for so long is over
RENEW_S = LEASE_S / 4  # a store that is away for a moment costs nobody their session
KEPT_S = 3600.0  # what is over is forgotten


class Ended(NamedTuple):
    """How one has ended."""

    at: float
    reason: str


class WatchStore:
    """Writes down what begins and ends, some of it at a time. `clock` is time.time."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._begun: dict[str, dict[str, Any]] = {}
        self._ended: dict[str, Ended] = {}
        self._renewed_at = clock()
        self._lock = asyncio.Lock()

    def begin(self, watch: Watch[Any], device_key: int) -> None:
        """It is to be kept; by the next `write`."""
        now = self._clock()
        self._begun[watch.session_id] = {
            "session_id": watch.session_id,
            "user_id": watch.user_id,
            "device_id": device_key,
            "instance": watch.instance,
            "kind": watch.kind,
            "stream": watch.stream,
            "login": watch.login,
            "begun_at": now,
            "lease_until": now + LEASE_S,
        }

    def end(self, watch: Watch[Any], reason: str) -> None:
        """It is over; by the next `write`. One that nobody had time to write down need not be."""
        if self._begun.pop(watch.session_id, None) is None:
            self._ended[watch.session_id] = Ended(self._clock(), reason[:64])

    async def write(self) -> None:
        """Have the store keep what waits, one call after the other. Raises StoreDown; what waited waits on."""
        if not (self._begun or self._ended):
            return
        async with self._lock:
            begun, self._begun = self._begun, {}
            ended, self._ended = self._ended, {}
            try:
                await self._store.run(_write, list(begun.values()), ended)
            except StoreDown:
                self._begun, self._ended = begun | self._begun, ended | self._ended
                raise

    async def renew(self, all_: Iterable[Watch[Any]]) -> None:
        """These go on; it does something now and then. Raises StoreDown."""
        now = self._clock()
        if now - self._renewed_at < RENEW_S:
            return
        self._renewed_at = now
        await self._store.run(_renew, [watch.session_id for watch in all_], now + LEASE_S)

    async def going_on(self) -> list[Watch[Any]]:
        """What this process finds when it begins; `begun_at` counts from now, back. Raises StoreDown."""
        now = self._clock()
        return [
            Watch(
                None,
                row.user_id,
                row.name,
                row.instance,
                row.begun_at - now,
                row.kind,
                row.stream,
                row.login,
                row.session_id,
            )
            for row in await self._store.read(_going_on, now)
        ]

    async def purge(self) -> None:
        """Forget what has been over for long."""
        await self._store.run(_purge, self._clock() - KEPT_S)


def _write(connection: Connection, begun: list[dict[str, Any]], ended: dict[str, Ended]) -> None:
    for row in begun:
        try:
            with connection.begin_nested():
                connection.execute(insert(watches).values(row))
        except exc.IntegrityError:  # its user or device was deleted just now; or it was written, and we were not told
            continue
    for session_id, how in ended.items():
        of_it = watches.c.session_id == session_id
        connection.execute(update(watches).where(of_it).values(ended_at=how.at, reason=how.reason))


def _renew(connection: Connection, session_ids: list[str], until: float) -> None:
    for start in range(0, len(session_ids), AT_ONCE):
        part = watches.c.session_id.in_(session_ids[start : start + AT_ONCE])
        connection.execute(update(watches).where(part).values(lease_until=until))


def _going_on(connection: Connection, now: float) -> list[Any]:
    wanted = (
        select(watches, devices.c.device_id.label("name"))
        .join(devices, devices.c.id == watches.c.device_id)
        .where(watches.c.ended_at.is_(None), watches.c.lease_until > now)
        .order_by(watches.c.begun_at)
    )
    return list(connection.execute(wanted).all())


def _purge(connection: Connection, before: float) -> None:
    connection.execute(delete(watches).where(watches.c.lease_until < before))
