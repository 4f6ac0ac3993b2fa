"""The process: the server that backends call, the one that holds the device, and what is heard."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import NoReturn

import msgspec
import uvloop
import zmq
import zmq.asyncio
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from procs import bus, log, rpc
from procs.audio_io import makers, options
from procs.audio_io.door import Alive
from procs.audio_io.hold import Hold
from procs.audio_io.link import CLOSE_S, Link
from procs.audio_io.options import Audio
from procs.audio_io.sound import Sound
from procs.audio_io.token import Token
from procs.errors import Refused
from procs.messages.requests import AudioState, Command, Describe, Reply
from procs.messages.warden import Sounding
from procs.wire import realtime as wire

BEAT_S = 1.0
OPEN_S = 5.0  # from a connection to the end of its handshake
MAX_CALLS = 8  # connections that are the holder's or wait to hear that they are not
MAX_QUEUE = 4  # frames that were read and not taken yet
BUSY = "another backend holds this device"


def serve(chosen: Audio, asked: Token, listening: socket.socket, alive: Alive) -> None:
    """Lend ears and mouth, for ever."""
    shell = Shell(chosen, asked, alive, makers.make(_wanted(chosen)))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(shell.run(listening))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # whose text and exit code say what is wrong


def _wanted(chosen: Audio) -> makers.Wanted:
    return makers.Wanted(**{name: getattr(chosen, name) for name in makers.Wanted.__struct_fields__})


class Shell:
    """One a process."""

    def __init__(self, chosen: Audio, asked: Token, alive: Alive, sound: Sound) -> None:
        self._chosen, self._asked, self._alive, self._sound = chosen, asked, alive, sound
        self._hold = Hold()
        self._link: Link | None = None  # the holder's
        self._is_held = asyncio.Event()
        self._calls = 0
        self._connections = self._responses = 0
        self._turned_away = collections.Counter[str]()
        self._refused = collections.Counter[str]()  # of all before the holder

    async def run(self, listening: socket.socket) -> NoReturn:
        """All of it. Raises what ends us."""
        self._sound.volume(self._chosen.volume)
        self._sound.start(asyncio.get_running_loop())
        context = zmq.asyncio.Context.instance()
        warden = bus.connector(context, zmq.PUSH, self._alive.run_dir, bus.WARDEN_HEARTBEAT)
        state = bus.binder(context, zmq.ROUTER, self._alive.run_dir, bus.AUDIO_IO_STATE)
        async with self._server(listening), asyncio.TaskGroup() as group:
            self._alive.serving()
            log.info("a backend can call", at=str(self._chosen.listens), tls=bool(self._chosen.cert))
            group.create_task(rpc.respond(state, self._answer))
            group.create_task(self._hear())
            while True:
                self._alive.beat()
                bus.send_one(warden, self._figures())
                await asyncio.sleep(BEAT_S)

    def _server(self, listening: socket.socket) -> contextlib.AbstractAsyncContextManager[Server]:
        quiet = logging.getLogger("planaria.websockets")
        quiet.setLevel(logging.CRITICAL)  # it says whatever goes wrong with a stack, and strangers could fill the disk
        return serve_websockets(
            self._call,
            sock=listening,
            ssl=options.tls(self._chosen),
            ssl_handshake_timeout=OPEN_S if self._chosen.cert else None,  # `open_timeout` begins after it
            select_subprotocol=_subprotocol,
            process_request=self._let_in,
            compression=None,
            server_header=None,
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            ping_interval=None,
            max_size=wire.MAX_BYTES,
            max_queue=MAX_QUEUE,
            logger=quiet,
        )

    def _let_in(self, connection: ServerConnection, request: Request) -> Response | None:
        """Why a request is not to become a connection; None: it may."""
        shown = request.headers.get("Authorization")
        if not self._asked.lets_in(shown):
            why = "no token" if shown is None else "wrong token"
            return self._refuse(connection, why, http.HTTPStatus.UNAUTHORIZED, "a token is needed\n")
        if not self._asked.text and "Origin" in request.headers:  # any page in a browser here might listen
            return self._refuse(connection, "page", http.HTTPStatus.FORBIDDEN, "pages need a token\n")
        if self._calls >= MAX_CALLS:
            return self._refuse(connection, "too many", http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    def _refuse(self, connection: ServerConnection, kind: str, status: http.HTTPStatus, text: str) -> Response:
        self._turned_away[kind] += 1
        log.warning("turned a connection away", why=kind, peer=str((connection.remote_address or "?")[0]))
        return connection.respond(status, text)

    async def _call(self, ws: ServerConnection) -> None:
        """A backend, until it is gone."""
        link = Link(ws, self._sound, self._chosen.called)
        self._calls += 1
        try:
            if await self._hold.take(link):
                await self._held(link)
            else:
                self._turned_away["busy"] += 1
                log.warning("turned a connection away", why=BUSY, peer=link.peer)
                await link.turn_away("busy", BUSY)
        except Exception as error:  # of ours, by which one backend must not end us again and again
            log.error(f"unforeseen {type(error).__name__}: {error}", trace=True, peer=link.peer)
        finally:
            self._calls -= 1
            self._hold.give_up(link)
            ws.transport.abort()

    async def _held(self, link: Link) -> None:
        self._link = link
        self._is_held.set()
        self._connections += 1
        log.info("a backend holds the device", peer=link.peer, protocol=link.protocol)
        try:
            why = await link.run(self._responses)
            log.info("its connection is over", peer=link.peer, why=why, for_s=round(time.monotonic() - link.since))
        finally:
            self._responses = link.session.responses
            self._refused += link.session.refused
            if self._link is link:
                self._link = None
                self._is_held.clear()

    async def _hear(self) -> NoReturn:
        """What is heard while nobody holds the device is forgotten by the sound itself."""
        while True:
            await self._is_held.wait()
            heard = await self._sound.hear()
            if self._link:
                self._link.hear(heard)
                self._link.look()

    async def _answer(self, command: Command) -> Reply | None:
        if not isinstance(command, Describe):
            raise Refused(f"no {type(command).__name__} here")
        return Reply(id=0, ok=True, body=self._state())

    def _figures(self) -> Sounding:
        link = self._link
        return Sounding(
            os.getpid(),
            is_held=link is not None,
            connections=self._connections,
            turned_away=dict(self._turned_away),
            refused=dict(self._refused + link.session.refused if link else self._refused),
            figures=msgspec.to_builtins(self._sound.state.figures),
        )

    def _state(self) -> AudioState:
        link, state, told = self._link, self._sound.state, self._figures()
        return AudioState(
            listens=str(self._chosen.listens),
            tls=bool(self._chosen.cert),
            needs_token=bool(self._asked.text),
            backend=link.peer if link else "",
            protocol=link.protocol if link else "",
            for_s=time.monotonic() - link.since if link else 0.0,
            microphone=state.microphone,
            speaker=state.speaker,
            echo=state.echo,
            muted=state.muted,
            awake=state.awake,
            wake=state.wake,
            connections=told.connections,
            turned_away=told.turned_away,
            refused=told.refused,
            sent=link.sent if link else 0,
            received=link.received if link else 0,
            dropped=link.dropped if link else 0,
            figures=told.figures,
        )


def _subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The best of those that a backend offers. One that offers none is spoken to as published."""
    name = wire.chosen(offered)
    return Subprotocol(name) if name else None
