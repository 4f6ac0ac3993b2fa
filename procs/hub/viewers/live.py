"""What viewers are told without asking: their devices, suites, events, as far as they have subscribed to them.

Whatever happens within EVERY_S is one frame for each device. While nothing changes, nothing is sent, and while nobody
looks at a suite, its device is not asked.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Set

import msgspec

from procs.errors import DeadlineExceeded, LinkLost, Refused, StoreDown
from procs.hub.devices import devices, suite
from procs.hub.devices.events import Event, seen_by
from procs.hub.devices.registry import AT_ONCE, Device
from procs.hub.people.access import is_id
from procs.hub.people.roles import VIEWER, Role, lesser
from procs.hub.state import State, now
from procs.hub.viewers.peer import Viewer
from procs.hub.viewers.subscriptions import LEASE_S, OWN, Heard, Looked, Page
from procs.wire import envelope
from procs.wire.envelope import Envelope
from procs.wire.frames.suite import Suite
from procs.wire.frames.viewer import DeviceChanged, DeviceGone, Devices, Subscribe, ViewerEvent, ViewerSuite
from procs.wire.suite import Teller

EVERY_S = 1.0
TOGETHER_S = 0.05  # what comes with the first news goes out with it
RENEW_S = LEASE_S / 2
FIRST_BYTES = envelope.MAX_BYTES // 2  # of the devices in one frame
OWN_S = 0.9  # for our own warden to say how it is


async def subscribe(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """subscribe, of a viewer: in place of what it had subscribed to before. Raises Refused, StoreDown, LinkLost."""
    wanted = envelope.parse(frame, Subscribe)
    hub.subscriptions.pages[viewer] = page = Page(wants_devices=wanted.devices)
    for device_id in sorted({*wanted.suite, *wanted.events}):
        device, role = await _allowed(hub, viewer, device_id)
        if not device and not (device_id == OWN and viewer.session.user.is_admin):
            await _gone(viewer, page, device_id)
            continue
        if device_id in wanted.suite:  # only now: what stands there is told, and its device is asked
            page.suites[device_id] = Looked(Teller(), role if device else viewer.session.role)
        if device and device_id in wanted.events:
            page.events[device.key] = Heard(device_id, role)
    if page.wants_devices:
        await _list(hub, viewer, page, is_first=True)
    sweep(hub, now())
    await _tell_suites(hub, viewer, page)


async def _allowed(hub: State, viewer: Viewer, device_id: str) -> tuple[Device | None, Role]:
    """The device, if the viewer may see it, and as what. Raises StoreDown."""
    device = await hub.registry.find(device_id) if is_id(device_id) else None
    role = await hub.registry.role(device, viewer.session.user.id) if device else None
    return (device, lesser(role, viewer.session.role)) if role else (None, VIEWER)


async def _gone(viewer: Viewer, page: Page, device_id: str) -> None:
    page.suites.pop(device_id, None)
    page.events = {key: each for key, each in page.events.items() if each.device_id != device_id}
    await viewer.peer.send("device_gone", DeviceGone(device_id))


async def tell(hub: State) -> None:
    """Tell everybody what has changed, for ever."""
    while True:
        await hub.subscriptions.news()
        await asyncio.sleep(TOGETHER_S)
        began = time.monotonic()
        changed, is_access_changed, events = hub.subscriptions.taken()
        for viewer, page in list(hub.subscriptions.pages.items()):
            try:
                if is_access_changed:
                    await _check(hub, viewer, page)
                if page.wants_devices and is_access_changed:
                    await _list(hub, viewer, page)
                elif page.wants_devices and (seen := changed & page.known.keys()):
                    await _list(hub, viewer, page, seen if len(seen) <= AT_ONCE else None)
                for key, event in events:
                    await _tell_event(viewer, page.events.get(key), event)
                await _tell_suites(hub, viewer, page)
            except LinkLost:
                continue
            except StoreDown:
                hub.subscriptions.again(changed)
            except Refused as error:  # what a device says must not end what tells everybody else
                viewer.peer.refuse("frame to a viewer", error=str(error))
        await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))


async def _tell_event(viewer: Viewer, heard: Heard | None, event: Event) -> None:
    if heard and (seen := seen_by(heard.role, event)):
        await viewer.peer.send("event", ViewerEvent(heard.device_id, seen))


async def _check(hub: State, viewer: Viewer, page: Page) -> None:
    """End what the viewer has lost."""
    for device_id in {*page.suites, *(heard.device_id for heard in page.events.values())} - {OWN}:
        device, role = await _allowed(hub, viewer, device_id)
        if device and device.key in page.events:
            page.events[device.key] = Heard(device_id, role)
        if device and device_id in page.suites and page.suites[device_id].role != role:
            page.suites[device_id] = Looked(Teller(), role)  # told anew: it may be less
        if not device:
            await _gone(viewer, page, device_id)
            page.known.pop(device_id, None)


async def _list(
    hub: State, viewer: Viewer, page: Page, only: Set[str] | None = None, *, is_first: bool = False
) -> None:
    """Tell of what is other than what was told: of all devices that the viewer may see, or `only` of these."""
    async with page.turn:
        session = viewer.session
        listed = await hub.registry.of_user(session.user.id, only)
        rows = {each.device.device_id: devices.shown(hub, each, session.role) for each in listed}
        before, hashes = page.known, {device_id: _hash(row) for device_id, row in rows.items()}
        gone = (before.keys() if only is None else only) - rows.keys()
        page.known = {device_id: known for device_id, known in before.items() if device_id not in gone} | hashes
        if is_first:
            return await _tell_all(viewer, list(rows.values()))
        for device_id in gone:
            await _gone(viewer, page, device_id)
        for device_id, row in rows.items():
            if before.get(device_id) != hashes[device_id]:
                await viewer.peer.send("device_changed", DeviceChanged(row))


async def _tell_all(viewer: Viewer, rows: list[devices.Shown]) -> None:
    """As many as go into one frame, and each of the rest in one of its own."""
    sizes = itertools.accumulate(len(msgspec.json.encode(row)) for row in rows)
    many = sum(size <= FIRST_BYTES for size in sizes)
    await viewer.peer.send("devices", Devices(rows[:many]))
    for row in rows[many:]:
        await viewer.peer.send("device_changed", DeviceChanged(row))


def _hash(row: devices.Shown) -> int:
    """When a device that is here was last heard says nothing new."""
    return hash(msgspec.json.encode(msgspec.structs.replace(row, last_seen=None) if row.is_online else row))


async def _tell_suites(hub: State, viewer: Viewer, page: Page) -> None:
    for device_id, (teller, role) in list(page.suites.items()):
        last = _last(hub, device_id)
        if last and teller.is_due(last, now()):
            its = suite.seen_by(role, last)
            frame = ViewerSuite(device_id, its.at, its.processes, its.troubles, its.tunnel, its.watching)
            await viewer.peer.send("suite", frame)


def _last(hub: State, device_id: str) -> Suite | None:
    if device_id == OWN:
        return hub.subscriptions.own
    control = hub.presence.control(device_id)
    return control.suite.last if control and control.suite else None


def sweep(hub: State, time_now: float) -> None:
    """Renew leases of suites that are looked at. Once a second, and when there is a new one."""
    wanted = hub.subscriptions.suites()
    if OWN in wanted:
        hub.spawn(_look_at_own(hub))
    else:
        hub.subscriptions.own = None
    for device_id in wanted - {OWN}:
        control = hub.presence.control(device_id)
        if control and control.suite and time_now - control.suite.leased_at >= RENEW_S:
            if time_now - control.suite.leased_at >= LEASE_S:
                control.suite.last = None  # it may be old
            control.suite.leased_at = time_now
            hub.spawn(control.suite.watch(LEASE_S))
    if wanted:
        hub.subscriptions.suite_came()  # what came too soon after another is told now


async def _look_at_own(hub: State) -> None:
    try:
        hub.subscriptions.own = await suite.own(OWN_S)
    except DeadlineExceeded:
        hub.subscriptions.own = Suite(envelope.timestamp(), [], ["the warden of this machine does not answer"])
