"""What viewers want of those of our producers that make what they watch: keyframes, and a rate that they can take."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import NamedTuple

import zmq.asyncio

from procs import bus, log, rpc
from procs.errors import BusError
from procs.messages.requests import Bitrate, Command, Describe, Description, Keyframe

KEYFRAME_EVERY_S = 0.5  # of one stream, whoever asks
AGAIN_S = 5.0  # a lowered rate is said again: its producer may have been started anew
ASK_LIMIT_S = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # of a producer; viewers may ask for any stream
STEP = 0.1  # a smaller change is not worth a command


class _Rate(NamedTuple):
    """What was said to a producer."""

    bits_per_s: int
    at: float


class Wishes:
    """Of all streams. What is not ours can't be asked for anything."""

    def __init__(self, context: zmq.asyncio.Context, run_dir: Path) -> None:
        self._context, self._run_dir = context, run_dir
        self._keyframe_at: dict[str, float] = {}
        self._own: dict[str, int] = {}  # the rate that a producer was started with
        self._wanted: dict[str, dict[str, int]] = {}  # stream -> session -> bits per second
        self._said: dict[str, _Rate] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def can_ask(self, stream: str) -> bool:
        """Whether a producer of ours makes it, or did."""
        return bool(_NAME.fullmatch(stream)) and (self._run_dir / "bus" / bus.control_of(stream)).exists()

    def keyframe(self, stream: str) -> None:
        """A viewer of it needs one now."""
        now = time.monotonic()
        if self.can_ask(stream) and now - self._keyframe_at.get(stream, -KEYFRAME_EVERY_S) >= KEYFRAME_EVERY_S:
            self._keyframe_at[stream] = now
            self._begin(stream, Keyframe())

    def rate(self, stream: str, session_id: str, bits_per_s: int) -> None:
        """A viewer of it can take so much."""
        self._wanted.setdefault(stream, {})[session_id] = bits_per_s

    def left(self, stream: str, session_id: str) -> None:
        """A viewer has gone."""
        self._wanted.get(stream, {}).pop(session_id, None)

    async def keep_rates(self) -> None:
        """Hold producers to what the slowest of their viewers can take, for ever."""
        while True:
            await asyncio.sleep(1.0)
            for stream in [stream for stream in self._wanted if self.can_ask(stream)]:
                await self._hold(stream)

    async def _hold(self, stream: str) -> None:
        now, said = time.monotonic(), self._said.get(stream)
        if stream not in self._own:
            answer = await self._ask(stream, Describe())
            if not isinstance(answer, Description):
                return
            self._own[stream] = answer.bitrate
        own, wanted = self._own[stream], self._wanted[stream]
        rate = min([own, *wanted.values()])
        before = said.bits_per_s if said else own
        if abs(rate - before) > STEP * before or (rate < own and said and now - said.at > AGAIN_S):
            self._said[stream] = _Rate(rate, now)
            await self._ask(stream, Bitrate(rate))
        if not wanted and rate == own:
            for known in (self._wanted, self._own, self._said):
                known.pop(stream, None)

    def _begin(self, stream: str, command: Command) -> None:
        async def ask() -> None:
            await self._ask(stream, command)

        task = asyncio.create_task(ask())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, stream: str, command: Command) -> object:
        try:
            endpoint = bus.control_of(stream)
            return (await rpc.ask(self._context, self._run_dir, endpoint, command, within_s=ASK_LIMIT_S)).body
        except BusError as error:
            log.debug("a producer was not to be asked", stream=stream, what=type(command).__name__, why=str(error))
            return None
