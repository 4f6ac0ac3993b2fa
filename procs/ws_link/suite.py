"""This device's suite, for its hub: how it is while the hub wants to know, restarts, and what went down and is back.

What is known comes from the warden, over the bus, and from its journal. While nobody looks, nothing is asked of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import zmq.asyncio

from procs import bus, journal, rpc
from procs.errors import DeadlineExceeded, Refused
from procs.messages.requests import Look, Reply, Restart, SuiteState
from procs.wire import envelope
from procs.wire.frames import suite as frames
from procs.wire.frames.suite import SuiteRestart, SuiteRestarted
from procs.wire.suite import Teller, told
from procs.ws_link.ends import Ends
from procs.ws_link.uplink import Uplink

LOOK_S = 0.5  # between two looks while somebody watches
LOOK_LIMIT_S = 2.0
RESTART_LIMIT_S = 8.0  # it takes a warden that was killed itself some time to be back
FOLLOW_S = 1.0
MAX_RESTARTS = 8  # at a time
TOLD = "ws_link.told"  # up to where the journal was told of; worth nothing but an event or two


class Suite:
    """One for the life of the process."""

    def __init__(self, context: zmq.asyncio.Context, run_dir: Path, uplink: Uplink, *, may_restart: bool) -> None:
        self._context, self._run_dir, self._uplink = context, run_dir, uplink
        self._may_restart = may_restart
        self._until = 0.0
        self._teller = Teller()
        self._asked = asyncio.Event()
        self._restarting: set[asyncio.Task[None]] = set()
        self._is_known = False  # to the hub at the other end: it wants to hear of it

    def connected(self, *, is_known: bool) -> None:
        """A new connection: whoever watched over the one before has to say so again."""
        self._until, self._is_known = 0.0, is_known

    def watch(self, for_s: float) -> None:
        """Tell how it is, now and for so long."""
        self._until = time.monotonic() + for_s
        self._teller = Teller()
        self._asked.set()

    async def tell(self) -> None:
        """Tell whoever watches, for ever."""
        while True:
            is_watched = time.monotonic() < self._until and self._uplink.is_connected
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if is_watched else None):
                    await self._asked.wait()
            self._asked.clear()
            suite = await self._look()
            if self._teller.is_due(suite, time.monotonic()):
                self._send("suite", suite)

    async def _look(self) -> frames.Suite:
        try:
            body = (await self._ask(Look(), LOOK_LIMIT_S)).body
            state = body if isinstance(body, SuiteState) else SuiteState([], ["the warden says nothing of the suite"])
        except (DeadlineExceeded, Refused) as error:
            state = SuiteState([], [f"the warden does not answer: {error}"])
        return told(state, envelope.timestamp())

    async def _ask(self, command: Look | Restart, within_s: float) -> Reply:
        return await rpc.ask(self._context, self._run_dir, bus.WARDEN_STATE, command, within_s=within_s)

    def restart(self, asked: SuiteRestart, request_id: str) -> None:
        """Have a process killed, and answer."""
        if not self._may_restart:
            self._answer(request_id, "this device takes no restarts: PLANARIA_REMOTE_RESTART is off")
        elif len(self._restarting) >= MAX_RESTARTS:
            self._answer(request_id, "too many restarts at a time")
        else:
            task = asyncio.get_running_loop().create_task(self._restart(asked, request_id))
            self._restarting.add(task)
            task.add_done_callback(self._restarting.discard)

    async def _restart(self, asked: SuiteRestart, request_id: str) -> None:
        try:
            await self._ask(Restart(asked.process, asked.pid, "restarted from the page"), RESTART_LIMIT_S)
            self._answer(request_id, "")
        except (DeadlineExceeded, Refused) as error:
            self._answer(request_id, str(error))

    def _answer(self, request_id: str, why_not: str) -> None:
        self._send("suite_restarted", SuiteRestarted(not why_not, why_not[:500]), request_id)

    def _send(self, kind: str, payload: envelope.Payload, request_id: str | None = None) -> None:
        with contextlib.suppress(Refused):  # of hundreds of processes: whoever asks is told in time that none came
            self._uplink.send(envelope.encode(kind, payload, request_id))

    async def follow(self) -> None:
        """Tell of what went down and is back, for ever. What is on its way when the connection breaks may be lost."""
        path = self._run_dir / TOLD
        position = path.read_text() if path.exists() else ""
        follower = journal.Follower(self._run_dir, position)
        if not position:  # killed before it has told anything, the next one begins where this one did
            position = follower.position
            _write(path, position)
        ends = Ends(follower.past())
        while True:
            for line in follower.more():
                ends.take(line)
            if self._is_known and self._uplink.is_connected:
                for event in ends.due(time.monotonic()):
                    self._send("suite_event", event)
                if ends.all_told() and follower.position != position:
                    position = follower.position
                    _write(path, position)
            await asyncio.sleep(FOLLOW_S)


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        new = path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, path)
