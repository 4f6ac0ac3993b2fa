"""What viewers have subscribed to, and what has changed since they were told. What is sent of it: live.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from procs.hub.devices.events import Event
from procs.hub.people.roles import Role
from procs.wire.frames.suite import Suite
from procs.wire.suite import Teller

if TYPE_CHECKING:
    from procs.hub.viewers.peer import Viewer

OWN = ""  # the hub's own machine
LEASE_S = 20.0  # for which a device goes on telling of its suite
MAX_EVENTS = 5000  # that wait to be told; the page can list what it misses


class Heard(NamedTuple):
    """A device whose events a viewer is told, as far as this role may see them."""

    device_id: str
    role: Role


class Looked(NamedTuple):
    """A suite that a viewer is told of, as far as this role may see it."""

    teller: Teller
    role: Role


class Page:
    """What one viewer wants and may have, and what it was told."""

    def __init__(self, *, wants_devices: bool) -> None:
        self.wants_devices = wants_devices
        self.suites: dict[str, Looked] = {}  # by device id
        self.events: dict[int, Heard] = {}  # by key of the device
        self.known: dict[str, int] = {}  # device id -> a hash of what was told of it
        self.turn = asyncio.Lock()  # what is told of devices goes out in the order in which it was looked up


class Subscriptions:
    """All pages, and marks of what has changed."""

    def __init__(self) -> None:
        self.pages: dict[Viewer, Page] = {}
        self._changed: set[str] = set()
        self._is_access_changed = False
        self.own: Suite | None = None  # how the hub's own machine is, while somebody looks
        self._events: list[tuple[int, Event]] = []
        self._news = asyncio.Event()

    def changed(self, device_id: str) -> None:
        """A device came, went, or has other streams."""
        if self.pages:
            self._changed.add(device_id)
            self._news.set()

    def access_changed(self, _: str = "") -> None:
        """Some device is called otherwise, or is somebody else's to see."""
        if self.pages:
            self._is_access_changed = True
            self._news.set()

    def suite_came(self) -> None:
        """Some device may have said how its suite is."""
        if self.pages:
            self._news.set()

    def happened(self, device_key: int, event: Event) -> None:
        """An event was kept."""
        if self.pages and len(self._events) < MAX_EVENTS:
            self._events.append((device_key, event))
            self._news.set()

    def suites(self) -> set[str]:
        """The suites that somebody looks at."""
        return {device_id for page in self.pages.values() for device_id in page.suites}

    async def news(self) -> None:
        """Wait for any of these."""
        await self._news.wait()
        self._news.clear()

    def taken(self) -> tuple[set[str], bool, list[tuple[int, Event]]]:
        """Devices that have changed, whether access has, and events, since the last call."""
        marks = self._changed, self._is_access_changed, self._events
        self._changed, self._is_access_changed, self._events = set(), False, []
        return marks

    def again(self, changed: Iterable[str]) -> None:
        """These could not be told."""
        self._changed.update(changed)
        self.access_changed()
