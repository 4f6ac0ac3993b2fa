"""Files from agent to agent, with what a person sees of it: send-file and receive."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from procs.agent import file_disk, files
from procs.agent.caps import Caps
from procs.agent.channel import Channel
from procs.agent.core import AgentCore
from procs.agent.file_io import Inbox, Outbox
from procs.agent.files import Offered
from procs.agent.session import PeerSession
from procs.agent.words import plain
from procs.errors import ConfigError
from scripts.peer import measure
from scripts.peer.joining import connected, joined, on_channels, or_replaced, refuse_other, say

PROGRESS_S = 0.2


async def send_file(arguments: argparse.Namespace) -> None:
    """Send one."""
    path = Path(arguments.path)
    file_disk.FileSource(path).close()  # what can't be sent is said before anybody is called
    async with joined(arguments, Caps(does="send-file")) as core:
        await or_replaced(core, _send(core, arguments, path))


async def _send(core: AgentCore, arguments: argparse.Namespace, path: Path) -> None:
    session = await connected(core, arguments)
    refuse_other(session, "receive")
    shown = Progress(arguments, path.name)
    outbox = Outbox(session.channel(files.LABEL))
    sent = await outbox.send(path, progress=lambda each: shown(each.got, path.stat().st_size, each.resumed_at))
    shown.end()
    mb_s = (sent.size - sent.resumed_at) / max(sent.took_s, 1e-6) / 1e6
    found = {
        "name": sent.name,
        "bytes": sent.size,
        "resumed_at": sent.resumed_at,
        "sha256": sent.sha256,
        "s": sent.took_s,
    }
    if arguments.json:
        print(json.dumps(found), flush=True)
    else:
        resumed = f", {_shown(sent.resumed_at)} of it before" if sent.resumed_at else ""
        took = f"{_shown(sent.size)} in {sent.took_s:.1f} s ({mb_s:.1f} MB/s{resumed})"
        print(f"{sent.name}: {took}; sha256 {sent.sha256}")


def _shown(size: int) -> str:
    return f"{size} bytes" if size < 1e5 else f"{size / 1e6:.1f} MB"


class Progress:
    """A line on stderr that is written anew: of a terminal, and not with --json."""

    def __init__(self, arguments: argparse.Namespace, name: str) -> None:
        self._name, self._is_shown = plain(name), sys.stderr.isatty() and not arguments.json
        self._next, self._began, self._from = 0.0, time.monotonic(), -1

    def __call__(self, at: int, size: int, resumed_at: int = 0) -> None:
        now = time.monotonic()
        if not self._is_shown or now < self._next:
            return
        self._next = now + PROGRESS_S
        if self._from < 0:
            self._began, self._from = now, at
        per_s = (at - self._from) / max(now - self._began, 1e-3)
        left = f", {(size - at) / per_s:.0f} s left" if per_s else ""
        done = f"{at / max(size, 1):4.0%} {at / 1e6:.1f} of {size / 1e6:.1f} MB, {per_s / 1e6:.1f} MB/s{left}"
        print(f"\r\033[K{self._name}: {done}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing more of it."""
        if self._is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def folder_of(arguments: argparse.Namespace) -> Path:
    """Where files go, made if need be. Raises ConfigError."""
    folder = Path(arguments.into)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # what can't be written to is said before anybody sends
    except OSError as error:
        raise ConfigError(f"--into {folder} (command line): can't be written to: {error.strerror}") from None
    file_disk.forget_old(folder, time.time())
    return folder


async def receive(arguments: argparse.Namespace, folder: Path) -> None:
    """Take what comes."""
    async with joined(arguments, Caps(does="receive")) as core:
        say(arguments, "listening", f"receiving as {core.settings.agent_id} into {folder}", id=core.settings.agent_id)
        arrived = asyncio.Semaphore(0)
        core.on_session = lambda session: _take_files(arguments, session, folder, arrived)
        await or_replaced(core, _wait_for(arrived, arguments.count))
        await asyncio.sleep(0.5)  # the word of the last one is on its way


def _take_files(arguments: argparse.Namespace, session: PeerSession, folder: Path, arrived: asyncio.Semaphore) -> None:
    def came(path: Path, offered: Offered, sha256: str) -> None:
        shown.end()
        fields = {
            "path": str(path),
            "name": offered.name,
            "bytes": offered.size,
            "sha256": sha256,
            "peer": session.peer,
        }
        text = f"{plain(str(path))}: {_shown(offered.size)} from {session.peer}; sha256 {sha256}"
        print(json.dumps(fields) if arguments.json else text, flush=True)
        arrived.release()

    shown = Progress(arguments, session.peer)
    takers: dict[str, Callable[[Channel], object]] = {
        files.LABEL: lambda channel: Inbox(
            channel, session.peer, folder, came, lambda offered, at: shown(at, offered.size)
        )
    }
    on_channels(session, measure.ANSWERS | takers)


async def _wait_for(arrived: asyncio.Semaphore, count: int) -> None:
    taken = 0
    while not count or taken < count:
        await arrived.acquire()
        taken += 1
