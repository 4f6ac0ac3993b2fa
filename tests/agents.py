"""Agents and a signalling server in one process, for tests of what agents do with each other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from procs.agent.core import AgentCore
from procs.agent.identity import FIRST_USE, Identity, Trust
from procs.agent.keyring import folder_in
from procs.agent.settings import AgentSettings
from procs.agent.signaling import SignalingClient
from tests import rig


class Server:
    """The least signalling server there can be: it hands each frame to the agent of that name. `drop(frame)` says
    which do not arrive."""

    def __init__(self) -> None:
        self.port = rig.free_port()
        self.agents: dict[str, web.WebSocketResponse] = {}
        self.seen: list[dict[str, Any]] = []
        self.change: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda frame: frame
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"ws://127.0.0.1:{self.port}/ws/signal"

    async def start(self) -> None:
        """Be there."""
        await self.serve(socket.create_server(("127.0.0.1", self.port)))

    async def serve(self, listener: socket.socket) -> None:
        """Be there, where somebody may be waiting already."""
        app = web.Application()
        app.router.add_get("/ws/signal", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """Be gone; all connections are."""
        for ws in list(self.agents.values()):
            await ws.close()
        if self._runner:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        name = ""
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            frame: dict[str, Any] | None = message.json()
            assert frame is not None
            self.seen.append(frame)
            if frame["type"] == "register":
                name = frame["id"]
                self.agents[name] = ws
            elif frame["type"] == "ping":
                await ws.send_json({"type": "pong"})
            elif frame := self.change(frame):
                other = self.agents.get(frame["to"])
                if other is None or other.closed:
                    error = {"type": "error", "error": "peer not connected", "to": name, "from": frame["to"]}
                    await ws.send_json(error)
                else:
                    await other.send_json(frame)
        if self.agents.get(name) is ws:
            del self.agents[name]
        return ws


def settings(name: str, server: Server, **more: Any) -> AgentSettings:
    """Of an agent of that name."""
    return AgentSettings(agent_id=name, signaling_url=server.url, **more)


def identity_of(name: str, home: Path, trust: Trust = FIRST_USE) -> Identity:
    """The one that this agent has kept below `home`."""
    folder = home / name
    folder.mkdir(exist_ok=True)
    return Identity(name, folder_in(folder), trust)


@contextlib.asynccontextmanager
async def meeting(home: Path, *names: str, **more: Any) -> AsyncIterator[tuple[Server, list[AgentCore]]]:
    """A server and agents of these names at it, each with its own key below `home`."""
    server = Server()
    await server.start()
    made: list[AgentCore] = []
    try:
        for name in names:
            own = settings(name, server)
            core = AgentCore(own, SignalingClient(own), identity_of(name, home), **more)
            made.append(core)
            await core.start(5)
        yield server, made
    finally:
        for core in made:
            await core.stop()
        await server.stop()


async def until(check: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(within_s):
        while not check():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)
