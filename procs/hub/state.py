"""What every handler of the hub stands on, in one place."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from procs.errors import LinkLost, StoreDown
from procs.hub.devices.events import Events
from procs.hub.devices.presence import Presence
from procs.hub.devices.registry import Registry
from procs.hub.devices.tickets import Tickets
from procs.hub.metrics import Counts
from procs.hub.options import Hub
from procs.hub.people.accounts import Accounts, Session
from procs.hub.rates import Rates
from procs.hub.signalling.rooms import Rooms
from procs.hub.tunnel.views import Views
from procs.hub.viewers.peer import Viewer, Watcher
from procs.hub.viewers.subscriptions import Subscriptions
from procs.hub.viewers.watch_store import WatchStore
from procs.hub.viewers.watches import Watches
from procs.store import Store


class State:
    """The hub: what it was told, what it knows, what it holds."""

    def __init__(self, settings: Hub, store: Store) -> None:
        self.settings, self.store = settings, store
        self.accounts = Accounts(store, settings.token_ttl_s)
        self.registry = Registry(store)
        self.rates = Rates()
        self.counts = Counts()
        self.events = Events(store, self.counts)
        self.presence = Presence()
        self.tickets: Tickets[str] = Tickets()  # of devices' workers, by instance
        self.entries: Tickets[Session] = Tickets()  # of people, to devices' own pages
        self.views = Views()
        self.watches: Watches[Watcher] = Watches()
        self.kept_watches = WatchStore(store)
        self.viewers: set[Viewer] = set()
        self.subscriptions = Subscriptions()
        self.rooms = Rooms()
        self.registry.listeners.append(self.subscriptions.access_changed)
        self.events.listeners.append(self.subscriptions.happened)
        self.seen: set[int] = set()  # keys of devices that have left or come since the store was told
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside, which nobody waits for; it must have a deadline of its own."""
        self.keep(asyncio.get_running_loop().create_task(_quietly(work)))

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold on to a task until it is done: asyncio itself does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(LinkLost, StoreDown):
        await work


HUB = web.AppKey("hub", State)


def now() -> float:
    """The clock of rates, tickets and leases."""
    return time.monotonic()
