"""The process: the sockets, the zygote, the store, and one task for each of what goes on at the same time."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import msgspec
import uvloop
import zmq
import zmq.asyncio
from aiohttp import web

from procs import bus, line, log, proc, rpc
from procs import store as stores
from procs.errors import ConfigError
from procs.kinds import Address
from procs.voice import leader as leading
from procs.voice import memory as remembering
from procs.voice import rest, voices
from procs.voice.browsers import Browsers
from procs.voice.children import Children
from procs.voice.desk import Desk
from procs.voice.devices_file import DevicesFile
from procs.voice.options import Voice
from procs.voice.services import Health

BACKLOG = 256
IDLE_S = 30.0  # between two requests of one connection
BEAT_S = 0.5


class Alive(Protocol):
    """What life.run gives a process."""

    run_dir: Path

    def beat(self) -> None:
        """The main loop turns."""

    def serving(self) -> None:
        """The work is there to be had."""


class Brood(leading.Brood, Protocol):
    """What brood.hatch gives a leader."""

    def watch(
        self, ready: Callable[[], None], born: Callable[[str, int], None], ended: Callable[[str, int], None]
    ) -> Coroutine[Any, Any, Any]:
        """Tell of all children, for ever."""


def serve(settings: Voice, alive: Alive, brood: Brood) -> None:
    """Be the leader, for ever."""
    if settings.log_level == "debug":
        log.configure("voice", debug=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings, alive, brood))


async def _run(settings: Voice, alive: Alive, brood: Brood) -> None:
    run_dir = alive.run_dir
    store = stores.Store(settings.store, "PLANARIA_VOICE_STORE")
    memory = remembering.Memory(store, remembering.owner_of(run_dir))
    file = DevicesFile(settings.devices.absolute(), _default_instructions)
    leader = leading.Leader(settings, run_dir, brood, memory, file, Children(f"device-{os.getpid()}"))
    browsers = Browsers(
        settings.browsers, run_dir, settings.services, leader.metrics, f"browser-{os.getpid()}", brood.fork, brood.kill
    )
    leader.frames = browsers
    leader.wire = browsers.wire = line.binder(run_dir, bus.VOICE_CHILDREN, leader.heard)
    context = zmq.asyncio.Context.instance()
    desk = bus.binder(context, zmq.ROUTER, run_dir, bus.VOICE_STATE)
    await _open(settings, rest.application(leader, browsers))
    works = (
        brood.watch(alive.serving, leader.born, leader.ended),
        memory.hold(),
        memory.write(),
        leader.look(),
        leader.tick(),
        leader.health.work(),
        rpc.respond(desk, Desk(leader, browsers).answer),
        _beat(alive),
        _say_what_is_down(leader.health),
    )
    doing = [leader.wire.broken, *(asyncio.ensure_future(work) for work in works)]
    done, _ = await asyncio.wait(doing, return_when="FIRST_COMPLETED")
    for task in done:
        task.result()


async def _beat(alive: Alive) -> None:
    while True:
        alive.beat()
        await asyncio.sleep(BEAT_S)


async def _say_what_is_down(health: Health) -> None:
    """Once, at a start by hand: nobody else would say that nobody can be served. A suite starts all at the same time,
    and `make status` tells."""
    if proc.MARK not in os.environ:
        for name, why in (await health.look()).items():
            if why:
                log.warning(f"{name} is down, so nobody can be served: {why}", told_by=f"KYUTAI_{name.upper()}_URL")
    await asyncio.Event().wait()  # for ever


def _default_instructions(voice: str) -> str:
    """What a voice does if devices.json does not say. Raises Refused for one that nobody knows."""
    its = voices.find(voice).instructions
    return msgspec.json.encode(its).decode() if its else ""


async def _open(settings: Voice, app: web.Application) -> None:
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,  # whoever leaves frees what works for them, at once
        keepalive_timeout=IDLE_S,
        shutdown_timeout=0,
    )
    await runner.setup()
    await web.SockSite(runner, _listener(settings.listens), backlog=BACKLOG).start()
    log.info("serving", address=str(settings.listens), key=bool(settings.key))


def _listener(wanted: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    try:
        return socket.create_server(wanted, family=family, backlog=BACKLOG)
    except OSError as error:
        said = "somebody else listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigError(f"HOST, PORT={wanted}: cannot be listened on: {said}") from None
