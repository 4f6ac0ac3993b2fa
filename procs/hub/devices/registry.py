"""The devices that the hub knows: whose they are, what checks their secret, when they were last seen. In the store, and
what was looked up for two seconds in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, exc, insert, or_, select, update

from procs.hub.people.roles import OWNER, Role
from procs.hub.store.models import device_events, devices, shares, users
from procs.store import Store

CACHED_S = 2.0
MAX_CACHED = 20_000
AT_ONCE = 500  # ids in one statement
UNSEEN_S = 86_400.0  # a device that nobody owns and that never came is forgotten after a day,
GONE_S = 30 * 86_400.0  # one that nobody owns and that came after a month


class Device(NamedTuple):
    """A row of the store. `key` is ours, `device_id` the device's own."""

    key: int
    device_id: str
    name: str
    type: str
    verifier: str | None
    owner: int | None
    last_seen: float | None


class Listed(NamedTuple):
    """A device as one user sees it."""

    device: Device
    role: Role
    owner: str  # the name of whose it is, "" for nobody's


class Registry:
    """Every device. `clock` is time.time. `listeners` are told the id of a device that was changed by this process:
    what it is called, whose it is, who may see it, whether it is there at all."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._cached: dict[str, tuple[Device, float]] = {}
        self._ids: dict[int, str] = {}  # by key
        self._changes = self._access_changes = 0
        self._roles: dict[tuple[int, int], tuple[Role | None, float]] = {}  # (device's key, user) -> role, until
        self.listeners: list[Callable[[str], None]] = []
        self._asked: dict[str, asyncio.Future[Device | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def find(self, device_id: str) -> Device | None:
        """The device of this id; at most CACHED_S old, and what this process changes is seen at once. Raises StoreDown.

        Whoever asks while the store is busy with a look-up shares the next one: a fleet that comes back together costs
        few statements.
        """
        device, until = self._cached.get(device_id, (None, 0.0))
        if device and self._clock() < until:
            return device
        if device_id not in self._asked:
            self._asked[device_id] = asyncio.get_running_loop().create_future()
            self._asked[device_id].add_done_callback(_seen_to)
        found = self._asked[device_id]
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(found)  # others may wait for it, too

    async def of_key(self, key: int) -> Device | None:
        """As find, by our own key."""
        device = await self.find(self._ids[key]) if key in self._ids else None
        if device and device.key == key:
            return device
        device_id = await self._store.read(_id_of, key)  # not known here, or forgotten: the key may be another's by now
        if device_id is None:
            return None
        if len(self._ids) >= MAX_CACHED:
            self._ids.clear()
        self._ids[key] = device_id
        device = await self.find(device_id)
        return device if device and device.key == key else None

    async def _ask(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            changes = self._changes
            try:
                found = await self._store.read(_by_ids, list(asked))
            except Exception as error:  # it is those who asked that have to know
                for waiting in asked.values():
                    waiting.set_exception(error)
                continue
            if changes == self._changes:  # else it may be old already
                self._keep(found)
            for device_id, waiting in asked.items():
                waiting.set_result(found.get(device_id))
        self._asking = None

    def _keep(self, found: dict[str, Device]) -> None:
        if len(self._cached) + len(found) > MAX_CACHED:
            self._cached.clear()
        until = self._clock() + CACHED_S
        self._cached.update((device_id, (device, until)) for device_id, device in found.items())

    def changed(self, device_id: str) -> None:
        """What is remembered of it is not true any more."""
        self._changes += 1
        self._cached.pop(device_id, None)
        for tell in self.listeners:
            tell(device_id)

    def access_changed(self, device_id: str) -> None:
        """Whose it is, or with whom it is shared, is another now."""
        self._access_changes += 1
        self._roles.clear()
        self.changed(device_id)

    async def role(self, device: Device, user: int) -> Role | None:
        """What the device is to a user, None for nothing. At most CACHED_S old, and what this process takes away is
        gone at once. Raises StoreDown."""
        if device.owner == user:
            return OWNER
        role, until = self._roles.get((device.key, user), (None, 0.0))
        if self._clock() < until:
            return role
        changes = -1
        while changes != self._access_changes:  # else it may have been taken away while we asked
            changes = self._access_changes
            role = await self._store.read(_shared, device.key, user)
        if len(self._roles) >= MAX_CACHED:
            self._roles.clear()
        self._roles[device.key, user] = role, self._clock() + CACHED_S
        return role

    async def register(self, device_id: str, name: str, kind: str, verifier: str | None) -> None:
        """Make a device known. A known one stays as it is, but for one that nobody owns and that has no verifier."""
        try:
            await self._store.run(add_device, device_id, name, kind, verifier, self._clock())
        finally:
            self.changed(device_id)

    async def keep_verifier(self, device_id: str, verifier: str) -> bool:
        """Keep what checks the secret of a device that had none; False if it has one by now."""
        kept = await self._store.run(_keep_verifier, device_id, verifier)
        self.changed(device_id)
        return kept

    async def of_user(self, user: int, only: Collection[str] | None = None) -> list[Listed]:
        """All that is a user's own or shared with them, by name; or `only` those of these ids, at most AT_ONCE."""
        return await self._store.read(_of_user, user, only)

    async def rename(self, device: Device, name: str) -> None:
        """Call it otherwise."""
        await self._store.run(_rename, device.key, name)
        self.changed(device.device_id)

    async def delete(self, device: Device) -> None:
        """Forget it: whatever has its id registers anew."""
        await self._store.run(_delete, device.key)
        self.access_changed(device.device_id)

    async def seen(self, keys: Iterable[int]) -> None:
        """These were here just now."""
        await self._store.run(_seen, list(keys), self._clock())

    async def purge(self) -> None:
        """Forget devices that nobody owns and that stay away."""
        await self._store.run(_purge, self._clock())


def _device(row: Row[*tuple[Any, ...]]) -> Device:
    return Device(row.id, row.device_id, row.device_name, row.device_type, row.verifier, row.owner_id, row.last_seen)


def _seen_to(waiting: asyncio.Future[Device | None]) -> None:
    """Nobody may be waiting any more, and its error is no news to asyncio."""
    if not waiting.cancelled():
        waiting.exception()


def _id_of(connection: Connection, key: int) -> str | None:
    return connection.execute(select(devices.c.device_id).where(devices.c.id == key)).scalar()


def _by_ids(connection: Connection, device_ids: list[str]) -> dict[str, Device]:
    found: dict[str, Device] = {}
    for start in range(0, len(device_ids), AT_ONCE):
        part = devices.c.device_id.in_(device_ids[start : start + AT_ONCE])
        found.update((row.device_id, _device(row)) for row in connection.execute(select(devices).where(part)))
    return found


def by_id(connection: Connection, device_id: str) -> Device | None:
    """Work for the store: one device."""
    row = connection.execute(select(devices).where(devices.c.device_id == device_id)).first()
    return _device(row) if row else None


def add_device(
    connection: Connection, device_id: str, name: str, kind: str, verifier: str | None, now: float
) -> Device:
    """Work for the store: make a device known, as Registry.register says."""
    known = by_id(connection, device_id)
    if known is None:
        values = {"device_id": device_id, "device_name": name, "device_type": kind}
        try:
            with connection.begin_nested():
                connection.execute(insert(devices).values(values | {"verifier": verifier, "created_at": now}))
        except exc.IntegrityError:  # by another hub of this store, since we looked
            pass
    elif verifier and known.verifier is None and known.owner is None:
        connection.execute(update(devices).where(devices.c.id == known.key).values(verifier=verifier))
    added = by_id(connection, device_id)
    assert added is not None
    return added


def _keep_verifier(connection: Connection, device_id: str, verifier: str) -> bool:
    has_none = (devices.c.device_id == device_id) & devices.c.verifier.is_(None)
    return connection.execute(update(devices).where(has_none).values(verifier=verifier)).rowcount == 1


def _shared(connection: Connection, key: int, user: int) -> Role | None:
    is_meant = (shares.c.device_id == key) & (shares.c.user_id == user)
    role: Role | None = connection.execute(select(shares.c.role).where(is_meant)).scalar()
    return role


def _of_user(connection: Connection, user: int, only: Collection[str] | None) -> list[Listed]:
    shared = select(shares.c.device_id).where(shares.c.user_id == user)
    wanted = (
        select(devices, users.c.username, shares.c.role)
        .outerjoin(users, users.c.id == devices.c.owner_id)
        .outerjoin(shares, (shares.c.device_id == devices.c.id) & (shares.c.user_id == user))
        .where(or_(devices.c.owner_id == user, devices.c.id.in_(shared)))
        .order_by(devices.c.device_name, devices.c.id)
    )
    if only is not None:
        wanted = wanted.where(devices.c.device_id.in_(only))
    return [
        Listed(_device(row), OWNER if row.owner_id == user else row.role, row.username or "")
        for row in connection.execute(wanted)
    ]


def _rename(connection: Connection, key: int, name: str) -> None:
    connection.execute(update(devices).where(devices.c.id == key).values(device_name=name))


def _delete(connection: Connection, key: int) -> None:
    connection.execute(delete(devices).where(devices.c.id == key))


def _seen(connection: Connection, keys: list[int], now: float) -> None:
    for start in range(0, len(keys), AT_ONCE):
        part = devices.c.id.in_(keys[start : start + AT_ONCE])
        connection.execute(update(devices).where(part).values(last_seen=now))


def _purge(connection: Connection, now: float) -> None:
    never = devices.c.last_seen.is_(None) & (devices.c.created_at < now - UNSEEN_S)
    gone = devices.c.last_seen < now - GONE_S
    connection.execute(delete(devices).where(devices.c.owner_id.is_(None), or_(never, gone)))


def leave_nothing(connection: Connection, key: int) -> None:
    """Work for the store: a device is no longer its owner's. Neither are their guests, and what they could see of it
    is not for the next one."""
    connection.execute(delete(shares).where(shares.c.device_id == key))
    connection.execute(delete(device_events).where(device_events.c.device_id == key))
