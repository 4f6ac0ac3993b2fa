"""What every verb between agents begins with: settings, the signalling server, the peer."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from procs import log
from procs.agent.caps import Caps
from procs.agent.channel import Channel
from procs.agent.core import AgentCore
from procs.agent.lane.way import Way
from procs.agent.session import PeerSession
from procs.agent.settings import AgentSettings, load_settings
from procs.agent.signaling import SignalingClient
from procs.errors import ConfigError, LinkLost, Refused
from procs.wire.signal import NOT_CONNECTED
from scripts.peer.parser import FLAGS

SERVER_S = 15.0
WAITING_S = 1.5  # before that is said


def chosen(arguments: argparse.Namespace, mode: str = "chat") -> AgentSettings:
    """Settings with what the command line says. Raises ConfigError."""
    flags = {field: getattr(arguments, flag) for flag, (field, _) in FLAGS.items() if getattr(arguments, flag)}
    if arguments.allow_unsigned:
        flags["allow_unsigned"] = "1"
    settings = load_settings(flags=flags | {"mode": mode})
    if getattr(arguments, "peer", None) == settings.agent_id:
        raise ConfigError(f"PEER={arguments.peer!r} (command line): that is you (--id, AGENT_ID)")
    return settings


def run(arguments: argparse.Namespace, work: Coroutine[Any, Any, None]) -> None:
    """Do it, in an event loop."""
    log.configure("agent", style="json" if arguments.json else "text")
    logging.getLogger("planaria").setLevel(logging.INFO if arguments.verbose else logging.WARNING)
    uvloop.run(work)


def say(arguments: argparse.Namespace, event: str, text: str, **fields: object) -> None:
    """Something that has happened, on stderr: for people, or with --json for programs."""
    line = json.dumps({"event": event, **fields}, ensure_ascii=False) if arguments.json else f"* {text}"
    print(line, file=sys.stderr, flush=True)


@asynccontextmanager
async def joined(
    arguments: argparse.Namespace, can: Caps, mode: str = "chat", way: Way | None = None
) -> AsyncIterator[AgentCore]:
    """An agent at its signalling server, whose sessions may share a UDP port. Raises ConfigError, and LinkLost when the
    server is not there, or somebody else takes our name."""
    settings = chosen(arguments, mode)
    core = AgentCore(settings, SignalingClient(settings), can=can, way=way)
    try:
        await core.start(SERVER_S)
        yield core
    finally:
        await core.stop()


async def or_replaced(core: AgentCore, work: Coroutine[Any, Any, None]) -> None:
    """Do it, unless somebody registers under our name meanwhile. Raises LinkLost then."""
    works = [asyncio.ensure_future(each) for each in (work, core.wait_for_shutdown())]
    try:
        await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        for each in works:
            if each.done():
                each.result()
    finally:
        for each in works:
            each.cancel()
        await asyncio.gather(*works, return_exceptions=True)


async def connected(core: AgentCore, arguments: argparse.Namespace) -> PeerSession:
    """The session with the peer of the command line, once there is a connection. Raises LinkLost."""
    session = await core.connect_to(arguments.peer)
    waiting = asyncio.create_task(_say_waiting(arguments, session))
    try:
        await session.opened(arguments.within)
    except LinkLost as error:
        if session.why != NOT_CONNECTED:
            raise
        how = "it has to listen or receive at the same server, with a token of the same room (SIGNALING_TOKEN)"
        raise LinkLost(f"{error}; {how}") from None
    finally:
        waiting.cancel()
    text, fields = about(session)
    say(arguments, "connected", text, **fields)
    return session


async def _say_waiting(arguments: argparse.Namespace, session: PeerSession) -> None:
    """To who sits before a terminal."""
    await asyncio.sleep(WAITING_S)
    if sys.stderr.isatty() and not arguments.json:
        why = f": {session.why}" if session.why else ""
        say(arguments, "waiting", f"waiting for {session.peer}, up to {arguments.within:g} s{why}")


def about(session: PeerSession) -> tuple[str, dict[str, object]]:
    """That there is a connection, and which way it takes: in words, and for programs."""
    path = session.path
    kind, remote = (path.kind, path.remote) if path else ("", "")
    unsigned = "" if session.signed else "; it has not proven who it is"
    text = f"connected to {session.peer} ({kind}, {remote}{unsigned})"
    return text, {"peer": session.peer, "path": kind, "remote": remote, "signed": session.signed}


def refuse_other(session: PeerSession, wanted: str) -> None:
    """Raise Refused for a command line that is there for something else."""
    if session.caps.does not in ("", wanted):
        raise Refused(f"{session.peer!r} is there for {session.caps.does!r}, not for {wanted!r}")


def on_channels(session: PeerSession, takers: dict[str, Callable[[Channel], object]]) -> None:
    """Have each channel that the peer opens taken by its label."""

    def opened(channel: Channel) -> None:
        if taker := takers.get(channel.label):
            taker(channel)

    session.on_channel = opened
