"""Talk, line by line, in a terminal or through pipes: with one peer (connect), or with all who come (listen)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import readline
import sys
import termios
import threading
from collections import deque
from pathlib import Path

from procs.agent.channel import Channel
from procs.agent.core import AgentCore
from procs.agent.session import PeerSession
from procs.agent.words import plain
from procs.errors import LinkLost, Refused
from scripts.peer import measure
from scripts.peer.ends import Lines, Stdin
from scripts.peer.joining import about, on_channels, say

MAX_WAITING = 1000  # lines typed while there is no connection
FLUSH_S = 10.0
HISTORY = 1000
_CLEAR = "\r\033[K"


class Prompt:
    """Somebody types at a terminal, with readline's keys and a history; what comes meanwhile stands above."""

    def __init__(self, name: str, history: Path) -> None:
        self._prompt, self._history = f"{name}> ", history
        self._loop = asyncio.get_running_loop()
        self._typed: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_asking = False
        with contextlib.suppress(OSError):
            history.touch(0o600)  # nobody else reads what was said
            readline.read_history_file(history)
        self._terminal = termios.tcgetattr(0)
        readline.set_history_length(HISTORY)
        threading.Thread(target=self._ask, name="prompt", daemon=True).start()

    async def read(self) -> str | None:
        """The next line, None at the end (Ctrl-D)."""
        return await self._typed.get()

    def show(self, text: str) -> None:
        """Put a line above what is being typed."""
        if self._is_asking:
            sys.stdout.write(f"{_CLEAR}{text}\n{self._prompt}{readline.get_line_buffer()}")
        else:
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Leave the terminal as it was: the line that is being typed is ended by nobody."""
        if self._is_asking:
            sys.stdout.write("\n")
            sys.stdout.flush()
        termios.tcsetattr(0, termios.TCSANOW, self._terminal)

    def _ask(self) -> None:
        line: str | None = ""
        while line is not None:
            self._is_asking = True
            try:
                line = input(self._prompt)
            except (EOFError, OSError):
                line = None
            self._is_asking = False
            with contextlib.suppress(OSError):
                if line:
                    readline.append_history_file(1, self._history)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._typed.put_nowait, line)


class Piped:
    """The same without a terminal: lines in, lines out."""

    def __init__(self) -> None:
        self._lines = Lines(Stdin())

    async def read(self) -> str | None:
        """The next line, None at the end."""
        return await self._lines.read()

    def show(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def close(self) -> None:
        """There is nothing to be left as it was."""


class Room:
    """Everybody who is talked to."""

    def __init__(self, arguments: argparse.Namespace, screen: Prompt | Piped) -> None:
        self._arguments, self._screen = arguments, screen
        self._sessions: dict[str, PeerSession] = {}
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self.left = asyncio.Event()  # the last of them

    def enter(self, session: PeerSession) -> None:
        """Talk to this one, too."""
        channel = session.main
        self._sessions[session.peer] = session
        session.on_state = self._changed
        channel.on("message", lambda text: self._heard(session.peer, text))
        channel.on("open", lambda: self._opened(session))
        if channel.readyState == "open":
            self._opened(session)

    def say(self, text: str) -> None:
        """To everybody who is there; to the first who comes, if nobody is."""
        there = [each.main for each in self._sessions.values() if each.main.readyState == "open"]
        if not there:
            if not self._waiting and isinstance(self._screen, Prompt):
                self._screen.show("* nobody is here; who comes next is told")
            self._waiting.append(text)
        for channel in there:
            self._send(channel, text)

    def _send(self, channel: Channel, text: str) -> None:
        try:
            channel.send(text)
        except LinkLost:
            self._waiting.append(text)
        except Refused as reason:
            say(self._arguments, "refused", str(reason))

    def close(self) -> None:
        """What happens from now on is our own doing, and not told."""
        for session in self._sessions.values():
            session.on_state = lambda _: None

    async def flushed(self) -> None:
        """Until all that was said is there. Raises LinkLost."""
        for session in self._sessions.values():
            if session.state != "closed":
                await session.main.opened(FLUSH_S)
                await session.main.flushed(FLUSH_S)

    def _opened(self, session: PeerSession) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        for text in waiting:
            self._send(session.main, text)

    def _heard(self, peer: str, data: str | bytes) -> None:
        text = data if isinstance(data, str) else data.decode(errors="replace")
        if self._arguments.json:
            self._screen.show(json.dumps({"from": peer, "text": text}, ensure_ascii=False))
        else:
            for line in text.split("\n"):
                self._screen.show(f"{plain(peer)}: {plain(line)}")

    def _changed(self, session: PeerSession) -> None:
        if session.state == "connected":
            text, fields = about(session)
            self._tell("connected", text, fields)
        elif session.state in ("waiting", "closed"):
            event, why = ("lost", "left")[session.state == "closed"], plain(session.why)
            self._tell(event, f"{plain(session.peer)}: {why}", {"peer": session.peer, "why": why})
        if session.state == "closed":
            self._sessions.pop(session.peer, None)
            if not self._sessions:
                self.left.set()

    def _tell(self, event: str, text: str, fields: dict[str, object]) -> None:
        if isinstance(self._screen, Prompt) and not self._arguments.json:
            self._screen.show(f"* {text}")
        else:
            say(self._arguments, event, text, **fields)


def screen_of(name: str, history: Path) -> Prompt | Piped:
    """Where to type and to read."""
    return Prompt(name, history) if os.isatty(0) and os.isatty(1) else Piped()


async def connect(arguments: argparse.Namespace, session: PeerSession, screen: Prompt | Piped) -> None:
    """Talk with one, until nothing more is typed or it has left. Raises LinkLost for what could not be said."""
    room = Room(arguments, screen)
    room.enter(session)
    typing = asyncio.create_task(_type(room, screen))
    leaving = asyncio.create_task(room.left.wait())
    try:
        await asyncio.wait((typing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if typing.done() and typing.result():
            await room.flushed()
        elif not leaving.done() and not isinstance(screen, Prompt):
            await leaving  # nothing was to be said, but perhaps to be heard
    finally:
        for each in (typing, leaving):
            each.cancel()
        room.close()
        screen.close()


async def listen(core: AgentCore, arguments: argparse.Namespace, screen: Prompt | Piped) -> None:
    """Talk with all who come, until killed, or nothing more is typed at a terminal."""
    room = Room(arguments, screen)

    def begun(session: PeerSession) -> None:
        on_channels(session, measure.ANSWERS)
        room.enter(session)

    core.on_session = begun
    try:
        await _type(room, screen)
        if not isinstance(screen, Prompt):
            await asyncio.Event().wait()
        with contextlib.suppress(LinkLost):
            await room.flushed()
    finally:
        room.close()
        screen.close()


async def _type(room: Room, screen: Prompt | Piped) -> int:
    """How many lines there were."""
    count = 0
    while (text := await screen.read()) is not None:
        if text.strip():
            room.say(text)
            count += 1
    return count
