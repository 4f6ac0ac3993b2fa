"""REST of suites: how the processes of a device, or of the hub's own machine, are, and to restart one of them.

A restart names the pid that it is for, so that it is safe to ask again: the hub itself does so when the device's
connection is lost on the way, which may be what was restarted.
"""

from __future__ import annotations

import asyncio
import os

import msgspec
import zmq.asyncio
from aiohttp import web
from msgspec.structs import replace

from procs import bus, proc, rpc
from procs.errors import DeadlineExceeded, LinkLost, Refused
from procs.hub.devices.presence import Control
from procs.hub.devices.suite_link import SuiteLink
from procs.hub.people.access import admin, asked_for
from procs.hub.people.roles import OWNER, Role
from procs.hub.rest import answer, body, busy, refusal
from procs.hub.state import HUB, State, now
from procs.hub.viewers.subscriptions import LEASE_S
from procs.messages.requests import Look, Reply, Restart, SuiteState
from procs.settings import run_dir
from procs.wire import envelope
from procs.wire.frames.suite import Suite, SuiteEvent, SuiteRestart, SuiteRestarted
from procs.wire.suite import told

WARDEN_S = 2.0
RESTART_S = 15.0  # all in all, with what is asked again
AWAY_STEP_S = 0.05


class Done(msgspec.Struct, frozen=True):
    """The process that was named is dead, and another one is on its way."""

    ok: bool = True


async def get_of_device(request: web.Request) -> web.Response:
    """GET /api/devices/{id}/suite: its processes, as its warden sees them."""
    hub, (device, role) = request.app[HUB], await asked_for(request)
    control = hub.presence.control(device.device_id)
    if control is None:
        raise busy("The device is offline", 5)
    is_watched = device.device_id in hub.subscriptions.suites()
    try:
        return answer(seen_by(role, await _link(control).look(LEASE_S if is_watched else 0)))
    except (LinkLost, TimeoutError):
        raise busy("The device did not answer", 2) from None
    except Refused as error:
        raise busy(str(error), 2) from None


async def post_of_device(request: web.Request) -> web.Response:
    """POST /api/devices/{id}/suite/restart: that process is killed, and started again by its own
    supervisor. 409 where the process has another pid by now."""
    hub, (device, _) = request.app[HUB], await asked_for(request, OWNER)
    asked = await body(request, SuiteRestart)
    if hub.presence.control(device.device_id) is None:
        raise busy("The device is offline", 5)
    try:
        said = await _restarted(hub, device.device_id, asked)
    except TimeoutError:
        raise busy("The device did not answer; it is safe to ask again", 2) from None
    except Refused as error:
        raise busy(str(error), 2) from None
    return _done(said)


async def _restarted(hub: State, device_id: str, asked: SuiteRestart) -> SuiteRestarted:
    """Ask, and ask again over the next connection where one is lost. Raises TimeoutError, Refused."""
    request_id = os.urandom(8).hex()
    async with asyncio.timeout(RESTART_S):
        while True:
            control = hub.presence.control(device_id)
            if control is None:
                await asyncio.sleep(AWAY_STEP_S)
                continue
            try:
                return await _link(control).restart(asked, request_id)
            except LinkLost:
                await asyncio.sleep(AWAY_STEP_S)


def _link(control: Control) -> SuiteLink:
    if control.suite is None:
        raise refusal(web.HTTPConflict, "This device has no warden that could tell")
    return control.suite


def _done(said: SuiteRestarted) -> web.Response:
    if not said.ok:
        raise refusal(web.HTTPConflict, said.reason or "The device refuses, and does not say why")
    return answer(Done())


async def get_own(request: web.Request) -> web.Response:
    """GET /api/suite: the processes of the hub's own machine. Admins."""
    session = await admin(request)
    try:
        return answer(seen_by(session.role, await own(WARDEN_S)))
    except DeadlineExceeded:
        raise _no_warden() from None


async def post_own(request: web.Request) -> web.Response:
    """POST /api/suite/restart: as that of a device. Admins. One that ends the hub itself is not always
    answered; asked again, it is."""
    await admin(request, OWNER)
    asked = await body(request, SuiteRestart)
    if not request.app[HUB].settings.remote_restart:
        return _done(SuiteRestarted(False, "This machine takes no restarts: PLANARIA_REMOTE_RESTART is off"))
    try:
        await _ask(Restart(asked.process, asked.pid, "restarted from the page"), RESTART_S)
    except Refused as error:
        return _done(SuiteRestarted(False, str(error)))
    except DeadlineExceeded:
        raise _no_warden() from None
    return _done(SuiteRestarted(True))


def _no_warden() -> web.HTTPException:
    if proc.MARK not in os.environ:
        return refusal(web.HTTPConflict, "This hub is not part of a suite with a warden that could tell")
    return busy("The warden of this machine does not answer", 2)


async def own(within_s: float) -> Suite:
    """How the suite of this machine is. Raises DeadlineExceeded."""
    try:
        state = (await _ask(Look(), within_s)).body
    except Refused as error:
        state = SuiteState([], [f"the warden says: {error}"])
    if not isinstance(state, SuiteState):
        state = SuiteState([], ["the warden says nothing of the suite"])
    return told(state, envelope.timestamp())


def seen_by(role: Role, suite: Suite) -> Suite:
    """As much of it as this role may see: where the peers of a tunnel are is for owners."""
    if role == OWNER or not suite.tunnel:
        return suite
    return replace(suite, tunnel=[replace(its, remote="", why=_placeless(its.why)) for its in suite.tunnel])


def _placeless(text: str) -> str:
    """Without words that could be an address, of IPv4 or IPv6; a time of day is no loss."""
    return " ".join("…" if word.count(".") >= 3 or word.count(":") >= 2 else word for word in text.split(" "))


async def _ask(command: Look | Restart, within_s: float) -> Reply:
    return await rpc.ask(zmq.asyncio.Context.instance(), run_dir(), bus.WARDEN_STATE, command, within_s=within_s)


async def took(hub: State, control: Control, frame: envelope.Envelope) -> None:
    """suite, of a device. Raises Refused."""
    _said(control).came(envelope.parse(frame, Suite))
    hub.subscriptions.suite_came()


async def answered(_: State, control: Control, frame: envelope.Envelope) -> None:
    """suite_restarted, of a device. One that comes late is worth nothing: it was asked again. Raises Refused."""
    _said(control).restarted(frame.request_id, envelope.parse(frame, SuiteRestarted))


async def ended(hub: State, control: Control, frame: envelope.Envelope) -> None:
    """suite_event, of a device: kept among its events. Raises Refused."""
    _said(control)
    event = envelope.parse(frame, SuiteEvent)
    if hub.rates.suite_events.take(str(control.key), now()):
        raise Refused("too many suite_event")
    took_ms = "" if event.took_ms is None else f", back after {event.took_ms:.0f} ms"
    hub.events.add(control.key, "restarted", f"{event.process}: {event.reason or 'it ended'}{took_ms}")


def _said(control: Control) -> SuiteLink:
    if control.suite is None:
        raise Refused("a frame of the capability suite, which is not agreed on")
    return control.suite
