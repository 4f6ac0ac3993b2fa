"""agent.core. As published, an agent in chat mode sends what is typed, line by line, and shows what comes where nobody
else takes it."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

from procs.agent import core
from procs.agent.channel import Channel
from procs.agent.session import PeerSession
from procs.errors import LinkLost

__all__ = ["AgentCore", "PeerSession"]


class AgentCore(core.AgentCore):
    """The published one."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._typed_all = asyncio.Event()
        if self.settings.mode == "chat":
            self.on_channel = self._talk

    async def start(self, within_s: float | None = 0.0) -> None:
        """As core.AgentCore's; in chat mode what is typed goes to everybody there is, from now on."""
        await super().start(within_s)
        if self.settings.mode == "chat":
            threading.Thread(target=self._read, args=[asyncio.get_running_loop()], daemon=True).start()

    async def wait_for_shutdown(self) -> None:
        """Wait until it is stopped, or nothing more will be typed."""
        ends = [asyncio.ensure_future(each) for each in (super().wait_for_shutdown(), self._typed_all.wait())]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in ends:
            each.cancel()
        done.pop().result()

    def _talk(self, peer: str, channel: Channel) -> None:
        transport = self._sessions[peer].transport
        if not transport.is_taken:
            transport.on_value(lambda text: print(f"< {text}", flush=True))

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own, since a file or a terminal can't be waited for in the loop."""
        for line in sys.stdin:
            asyncio.run_coroutine_threadsafe(self._say(line.rstrip("\n")), loop).result()
        asyncio.run_coroutine_threadsafe(self._flush(), loop)

    async def _say(self, line: str) -> None:
        while not any(session.is_connected() for session in self._sessions.values()):  # noqa: ASYNC110 - whoever comes
            await asyncio.sleep(0.1)
        for session in self._sessions.values():
            try:
                await session.opened(5)
                await session.transport.send_text(line)
            except LinkLost as error:
                print(f"not sent to {session.peer}: {error}", file=sys.stderr)

    async def _flush(self) -> None:
        for session in self._sessions.values():
            if session.main.readyState == "open":
                await session.main.flushed(5)
        self._typed_all.set()
