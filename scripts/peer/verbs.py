"""The verbs of scripts/cli.py that are about other agents: connect, listen, send-file, receive, ping, bench, peers."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from procs.agent import pipe
from procs.agent.caps import Caps
from procs.agent.channel import Channel
from procs.agent.core import AgentCore
from procs.agent.keyring import folder_in
from procs.agent.session import PeerSession
from procs.errors import LinkLost
from procs.settings import run_dir
from scripts.peer import chat, measure, moving, piping, tunneling
from scripts.peer.ends import Stdin, Stdout
from scripts.peer.joining import (
    connected,
    joined,
    on_channels,
    or_replaced,
    refuse_other,
    run,
    say,
)


def connect(arguments: argparse.Namespace) -> None:
    """Call a peer, and talk or pipe. Ends when standard input does; what was sent has arrived then."""
    if arguments.mode == "tun":
        run(arguments, tunneling.run(arguments, tunneling.claimed(arguments)))
    else:
        run(arguments, _connect(arguments))


async def _connect(arguments: argparse.Namespace) -> None:
    async with joined(arguments, Caps(does=arguments.mode), arguments.mode) as core:
        await or_replaced(core, _connect_by(core, arguments))


async def _connect_by(core: AgentCore, arguments: argparse.Namespace) -> None:
    session = await connected(core, arguments)
    refuse_other(session, arguments.mode)
    if arguments.mode == "chat":
        await chat.connect(arguments, session, chat.screen_of(core.settings.agent_id, _history()))
        return
    is_json, stdin, stdout = arguments.mode == "json", Stdin(), Stdout()
    if session.caps.does:
        await piping.Piping(session.channel(pipe.LABEL), stdin, stdout, is_json=is_json).run()
    else:
        await piping.published(session, stdin, stdout, is_json=is_json)


def listen(arguments: argparse.Namespace) -> None:
    """Wait for peers that call: talk with all of them, or pipe with the first until both sides have ended."""
    if arguments.mode == "tun":
        run(arguments, tunneling.run(arguments, tunneling.claimed(arguments)))
    else:
        run(arguments, _listen(arguments))


async def _listen(arguments: argparse.Namespace) -> None:
    async with joined(arguments, Caps(does=arguments.mode), arguments.mode) as core:
        say(arguments, "listening", f"listening as {core.settings.agent_id}", id=core.settings.agent_id)
        if arguments.mode == "chat":
            work = chat.listen(core, arguments, chat.screen_of(core.settings.agent_id, _history()))
        else:
            work = _pipe_with_first(core, arguments)
        await or_replaced(core, work)


async def _pipe_with_first(core: AgentCore, arguments: argparse.Namespace) -> None:
    first: asyncio.Future[tuple[PeerSession, Channel]] = asyncio.get_running_loop().create_future()

    closing: list[asyncio.Future[None]] = []

    def came(session: PeerSession, channel: Channel) -> None:
        if not first.done():
            first.set_result((session, channel))
        elif first.result()[0] is not session:
            closing.append(asyncio.ensure_future(session.close("somebody else is served")))

    def begun(session: PeerSession) -> None:
        on_channels(session, {**measure.ANSWERS, pipe.LABEL: lambda channel: came(session, channel)})
        session.main.on("open", lambda: None if session.caps.does else came(session, session.main))

    core.on_session = begun
    session, channel = await first
    say(arguments, "connected", f"connected to {session.peer}", peer=session.peer)
    is_json, stdin, stdout = arguments.mode == "json", Stdin(), Stdout()
    if channel is session.main:
        await piping.published(session, stdin, stdout, is_json=is_json)
    else:
        await piping.Piping(channel, stdin, stdout, is_json=is_json).run()


def send_file(arguments: argparse.Namespace) -> None:
    """Send a file to a peer that receives."""
    run(arguments, moving.send_file(arguments))


def receive(arguments: argparse.Namespace) -> None:
    """Take files that peers send."""
    run(arguments, moving.receive(arguments, moving.folder_of(arguments)))


def ping(arguments: argparse.Namespace) -> None:
    """How far away a peer that listens is, each second."""
    run(arguments, _measure(arguments, measure.ping))


def bench(arguments: argparse.Namespace) -> None:
    """How much goes through to a peer that listens, and back."""
    run(arguments, _measure(arguments, measure.bench))


async def _measure(arguments: argparse.Namespace, how: Callable[[argparse.Namespace, PeerSession], Any]) -> None:
    async with joined(arguments, Caps()) as core:
        session = await connected(core, arguments)
        if not session.signed:
            raise LinkLost(f"{session.peer!r} is a published agent, which does not answer this")
        await or_replaced(core, how(arguments, session))


def _history() -> Path:
    return folder_in(run_dir()) / "chat-history"
