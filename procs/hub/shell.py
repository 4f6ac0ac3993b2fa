"""The process: takes its listening socket, brings the store up to date, serves, and sweeps once a second."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import socket
import ssl
import stat
import sys
import time
from pathlib import Path
from typing import Protocol

import uvloop
from aiohttp import web

from procs import log
from procs.errors import ConfigError, StoreDown
from procs.hub import first_start, malformed
from procs.hub.app import runner
from procs.hub.devices import device_ws
from procs.hub.options import Hub, refuse_open_air, tls
from procs.hub.signalling import signal_ws
from procs.hub.state import State, now
from procs.hub.viewers import live, viewer_ws, watching
from procs.kinds import Address
from procs.settings import run_dir
from procs.store import Store

BACKLOG = 4096  # a whole fleet may come back at once
SWEEP_S = 1.0
SEEN_S = 5.0  # between two writes of who was seen
PURGE_S = 600.0
MIN_FILES = 1024
SWITCH_S = 0.0005  # for which a thread may go on while another waits for the interpreter
# Python looks at every object there is whenever their number has grown by a quarter: with 5,000 devices that stopped
# the loop for 0.3 to 1.5 s each time, again and again while they came, and found next to nothing. So only young objects
# are looked at, and all of them once in a while.
YOUNG = (5_000, 5, 1_000_000)
ALL_OBJECTS_S = 3600.0


class Alive(Protocol):
    """What the process says of itself (procs/life.py)."""

    def beat(self) -> None:
        """The loop turns."""

    def serving(self) -> None:
        """The first request can come."""


def serve(settings: Hub, alive: Alive) -> None:
    """Be the hub until killed."""
    _raise_file_limit()
    listener = _listener(settings.listen)
    refuse_open_air(settings, _address(listener))
    context = tls(settings)
    directory = run_dir()
    # Signalling alone keeps nothing: that store is never opened.
    store = Store(f"sqlite:///{os.devnull}" if settings.only else settings.store_url(directory))
    uvloop.run(_serve(State(settings, store), directory, listener, context, alive))


async def _prepared(hub: State, directory: Path, alive: Alive) -> None:
    """As first_start.prepare, for as long as it takes the database to be there; it may wait for another hub, too."""
    while True:
        preparing = asyncio.ensure_future(asyncio.to_thread(first_start.prepare, hub.store, hub.settings, directory))
        while not preparing.done():
            alive.beat()
            await asyncio.wait([preparing], timeout=SWEEP_S)
        try:
            return preparing.result()
        except StoreDown as error:
            log.warning(f"{error}; trying again")
            await asyncio.sleep(SWEEP_S)


async def _serve(
    hub: State, directory: Path, listener: socket.socket, context: ssl.SSLContext | None, alive: Alive
) -> None:
    if not hub.settings.only:
        await _prepared(hub, directory, alive)
        await watching.restore(hub)
    malformed.quieten(hub.counts)
    running = runner(hub)
    await running.setup()
    await web.SockSite(running, listener, ssl_context=context, backlog=BACKLOG).start()
    log.info("serving", address=str(_address(listener)), tls=context is not None, compat=hub.settings.compat)
    alive.serving()
    _keep_calm()
    await (_sweep_agents(hub, alive) if hub.settings.only else _sweep(hub, alive))


async def _sweep_agents(hub: State, alive: Alive) -> None:
    """What is to be done once a second where there is signalling alone."""
    while True:
        alive.beat()
        signal_ws.sweep(hub, now(), time.time())
        await asyncio.sleep(SWEEP_S)


async def _sweep(hub: State, alive: Alive) -> None:
    """What is to be done once a second, or now and then."""
    seen_at = purged_at = collected_at = now()
    telling = asyncio.get_running_loop().create_task(live.tell(hub))
    while not telling.done():
        alive.beat()
        time_now = now()
        device_ws.sweep(hub, time_now)
        viewer_ws.sweep(hub, time_now, time.time())
        watching.sweep(hub, time_now)
        signal_ws.sweep(hub, time_now, time.time())
        hub.presence.sweep()
        hub.tickets.expire(time_now)
        hub.spawn(hub.events.write())
        if time_now - seen_at >= SEEN_S:
            seen_at = time_now
            hub.spawn(_write_seen(hub))
        if time_now - purged_at >= PURGE_S:
            purged_at = time_now
            hub.spawn(_purge(hub))
        if time_now - collected_at >= ALL_OBJECTS_S:
            collected_at = time_now
            gc.collect()
        live.sweep(hub, time_now)
        await asyncio.sleep(SWEEP_S)
    telling.result()  # raises what was not foreseen


async def _write_seen(hub: State) -> None:
    keys = hub.seen | {control.key for control in hub.presence.controls()}
    hub.seen.clear()
    if keys:
        await hub.registry.seen(keys)
    await hub.accounts.write_used()


async def _purge(hub: State) -> None:
    await hub.accounts.purge()
    await hub.registry.purge()
    await hub.events.purge()
    await hub.kept_watches.purge()


def _listener(wanted: Address) -> socket.socket:
    """The socket that supervisord holds for us, as our stdin, so that nobody is refused while we are away; else one of
    our own. Raises ConfigError."""
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        inherited = socket.socket(fileno=os.dup(0))
        if inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            inherited.setblocking(False)
            return inherited
        inherited.close()
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    try:
        return socket.create_server(wanted, family=family, backlog=BACKLOG)
    except OSError as error:
        said = "somebody else listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigError(f"PLANARIA_HUB={wanted}: cannot be listened on: {said}") from None


def _address(listener: socket.socket) -> Address:
    host, port = listener.getsockname()[:2]
    return Address(host, port)


def _keep_calm() -> None:
    """Have nothing beside the loop hold it up for long: the garbage collector looks at few objects at a time, and a
    thread of the store gives way soon."""
    gc.freeze()  # what was imported stays
    gc.set_threshold(*YOUNG)
    sys.setswitchinterval(SWITCH_S)


def _raise_file_limit() -> None:
    """Every connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < MIN_FILES:
        log.warning("few open files are allowed: few devices can connect", limit=hard)
