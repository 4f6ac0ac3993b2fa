"""What has happened to devices, for the people whose they are: in the store, written once a second.

An event is durable when it is listed or told to a listener, within about a second; a hub that is killed before loses
it. Nothing waits for it, and thousands of devices that come back together are a few statements.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, exc, insert, select

from procs.errors import StoreDown
from procs.hub.metrics import Counts
from procs.hub.people.roles import OWNER, Role
from procs.hub.rates import Buckets, Rate
from procs.hub.store.models import device_events, devices
from procs.hub.times import iso
from procs.store import Store

Kind = Literal[
    "paired",
    "connected",
    "disconnected",
    "replaced",
    "refused",
    "restarted",
    "renamed",
    "shared",
    "unshared",
]
KEPT = 200  # of a device
KEPT_S = 30 * 86_400.0
MAX_WAITING = 20_000
MAX_TEXT = 300  # characters
AT_ONCE = 500  # rows in one statement
# A device may say anything of itself. PostgreSQL takes no NUL in a text, and would refuse those of others with it.
_BLANKED = dict.fromkeys((*range(0x20), 0x7F), " ")
_FOR_VIEWERS = ("connected", "disconnected", "replaced", "restarted")
# Of one kind and device: who comes and goes without end must not push out what else there was.
NOISE = Rate(1 / 60, 20)


class Event(msgspec.Struct, frozen=True):
    """One, as it is shown."""

    id: int
    at: str
    kind: Kind
    text: str


def seen_by(role: Role, event: Event) -> Event | None:
    """The event as somebody of this role may see it: from where, by whom and with whom is for owners."""
    if role == OWNER or event.kind == "restarted":
        return event
    return msgspec.structs.replace(event, text="") if event.kind in _FOR_VIEWERS else None


class _New(NamedTuple):
    device: int
    at: float
    kind: Kind
    text: str


class Events:
    """Those of all devices. `clock` is time.time. `listeners` are told a device's key and what has happened to it, when
    it is durable."""

    def __init__(self, store: Store, counts: Counts, clock: Callable[[], float] = time.time) -> None:
        self._store, self._counts, self._clock = store, counts, clock
        self._waiting: deque[_New] = deque()
        self._is_writing = False
        self._noise = Buckets(NOISE)
        self._more: dict[str, int] = {}  # what was too much of one kind and device -> how often since
        self.listeners: list[Callable[[int, Event], None]] = []

    def add(self, device_key: int, kind: Kind, text: str = "") -> None:
        """This has happened just now. Too many of a kind are summed up in the next that is kept."""
        now, what = self._clock(), f"{device_key} {kind}"
        if self._noise.take(what, now):
            self._more[what] = self._more.get(what, 0) + 1
            return
        if more := self._more.pop(what, 0):
            text = f"{text[: MAX_TEXT - 40]} (and {more} times before)"
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._counts.add("events_lost")
        self._waiting.append(_New(device_key, now, kind, text[:MAX_TEXT].translate(_BLANKED)))

    def forget(self, device_key: int) -> None:
        """A device is somebody else's, or gone: what waits to be kept is not for the next one to see."""
        self._waiting = deque(new for new in self._waiting if new.device != device_key)

    async def write(self) -> None:
        """Have the store keep what waits. Raises StoreDown; what waited waits on."""
        if self._is_writing or not self._waiting:
            return
        batch, self._waiting, self._is_writing = list(self._waiting), deque(), True
        try:
            written = await self._store.run(_append, batch)
        except (StoreDown, exc.IntegrityError):  # or another hub has deleted a device just now
            self._waiting.extendleft(reversed(batch))
            raise StoreDown("events wait for the store") from None
        finally:
            self._is_writing = False
        for device, event in written:
            for tell in self.listeners:
                tell(device, event)

    async def of(self, device_key: int, role: Role, before: int | None, limit: int) -> tuple[list[Event], bool]:
        """The newest ones of a device, newest first, before the one of this id, as this role may see them; and whether
        there are more."""
        found, more = await self._store.read(_of, device_key, role, before, limit, self._clock() - KEPT_S)
        return [seen for event in found if (seen := seen_by(role, event))], more

    async def purge(self) -> None:
        """Delete what is too old."""
        self._more.clear()
        await self._store.run(_purge, self._clock() - KEPT_S)


def _append(connection: Connection, batch: list[_New]) -> list[tuple[int, Event]]:
    keys = sorted({new.device for new in batch})
    known: set[int] = set()
    for start in range(0, len(keys), AT_ONCE):
        part = devices.c.id.in_(keys[start : start + AT_ONCE])
        known.update(connection.execute(select(devices.c.id).where(part)).scalars())
    values = [new._asdict() for new in batch if new.device in known]
    for value in values:
        value["device_id"] = value.pop("device")
    if not values:
        return []
    rows = connection.execute(insert(device_events).returning(device_events), values).all()
    _trim(connection, sorted(known))
    return [(row.device_id, _event(row)) for row in sorted(rows, key=lambda row: row.id)]


def _event(row: Row[*tuple[Any, ...]]) -> Event:
    return Event(row.id, iso(row.at), row.kind, row.text)


def _trim(connection: Connection, keys: list[int]) -> None:
    """Delete all but the newest of these devices'. The index finds where to cut, once for each device."""
    for start in range(0, len(keys), AT_ONCE):
        newest = (
            select(device_events.c.id)
            .where(device_events.c.device_id == devices.c.id)
            .order_by(device_events.c.id.desc())
            .offset(KEPT)
            .limit(1)
            .correlate(devices)
            .scalar_subquery()
        )
        cuts = select(devices.c.id, newest).where(devices.c.id.in_(keys[start : start + AT_ONCE]))
        full = [{"device": key, "cut": cut} for key, cut in connection.execute(cuts) if cut is not None]
        if full:
            is_old = (device_events.c.device_id == bindparam("device")) & (device_events.c.id <= bindparam("cut"))
            connection.execute(delete(device_events).where(is_old), full)


def _of(
    connection: Connection, device: int, role: Role, before: int | None, limit: int, since: float
) -> tuple[list[Event], bool]:
    wanted = select(device_events).where(device_events.c.device_id == device, device_events.c.at >= since)
    if role != OWNER:
        wanted = wanted.where(device_events.c.kind.in_(_FOR_VIEWERS))
    if before is not None:
        wanted = wanted.where(device_events.c.id < before)
    rows = connection.execute(wanted.order_by(device_events.c.id.desc()).limit(limit + 1)).all()
    return [_event(row) for row in rows[:limit]], len(rows) > limit


def _purge(connection: Connection, before: float) -> None:
    connection.execute(delete(device_events).where(device_events.c.at < before))
