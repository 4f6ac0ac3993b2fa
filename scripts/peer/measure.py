"""How far away a peer is, and how much goes through: ping and bench, and the side that answers them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from procs.agent.channel import Channel
from procs.agent.session import PeerSession
from procs.errors import LinkLost, Refused

PING, BENCH = "planaria-ping", "planaria-bench"
UNRELIABLE = {"ordered": False, "maxRetransmits": 0}
REPLY_S = 5.0
MAX_ECHO = 1024
MAX_S = 30.0  # that anybody may have us send
CHUNK = bytes(64 * 1024)


def echo(channel: Channel) -> None:
    """Answer pings."""

    def back(data: str | bytes) -> None:
        with contextlib.suppress(LinkLost):
            if len(data) <= MAX_ECHO:
                channel.send(data)

    channel.on("message", back)


async def ping(arguments: argparse.Namespace, session: PeerSession) -> None:
    """Once a second, until killed or the count is reached. Raises LinkLost when nothing came back."""
    channel = session.channel(PING, **UNRELIABLE)
    came: dict[int, asyncio.Future[float]] = {}

    def back(data: str | bytes) -> None:
        waiting = came.pop(int(data), None) if data.isdigit() else None
        if waiting and not waiting.done():
            waiting.set_result(time.perf_counter())

    channel.on("message", back)
    took: list[float] = []
    number = 0
    try:
        while not arguments.count or number < arguments.count:
            await asyncio.sleep(arguments.interval if number else 0)
            number += 1
            ms = await _once(channel, number, came)
            if ms is not None:
                took.append(ms)
            _show(arguments, session, number, ms)
    finally:
        _sum_up(arguments, session.peer, number, took)
    if not took:
        raise LinkLost(f"{session.peer!r} does not answer")


async def _once(channel: Channel, number: int, came: dict[int, asyncio.Future[float]]) -> float | None:
    waiting = came[number] = asyncio.get_running_loop().create_future()
    try:
        await channel.opened(REPLY_S)
        began = time.perf_counter()
        channel.send(str(number))
        async with asyncio.timeout(REPLY_S):
            ended: float = await waiting
            return (ended - began) * 1000
    except (LinkLost, TimeoutError):
        return None


def _show(arguments: argparse.Namespace, session: PeerSession, number: int, ms: float | None) -> None:
    path = session.path
    kind, remote = (path.kind, path.remote) if path else ("", "")
    if arguments.json:
        shown = None if ms is None else round(ms, 3)
        print(
            json.dumps({"peer": session.peer, "seq": number, "ms": shown, "path": kind, "remote": remote}), flush=True
        )
    elif ms is None:
        print(f"no answer from {session.peer}: seq={number}", flush=True)
    else:
        print(f"pong from {session.peer} ({kind}, {remote}): seq={number} time={ms:.2f} ms", flush=True)


def _sum_up(arguments: argparse.Namespace, peer: str, sent: int, took: list[float]) -> None:
    if not arguments.json and sent:
        times = f"; {min(took):.2f} / {statistics.median(took):.2f} / {max(took):.2f} ms" if took else ""
        print(
            f"{peer}: {sent} sent, {len(took)} came back{times} (least / median / most)"
            if took
            else f"{peer}: {sent} sent, none came back"
        )


class Take(msgspec.Struct, frozen=True, tag="take"):
    """What comes now is to be counted."""


class Give(msgspec.Struct, frozen=True, tag="give"):
    """Send for so long."""

    seconds: float


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """That was all."""


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """So much came, in so long."""

    size: int
    seconds: float


Said = Take | Give | Stop | Counted
_DECODER: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)


class Counter:
    """One end of a bench: counts what comes, and sends when it is asked to."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._size, self._began = 0, 0.0
        self._task: asyncio.Task[None] | None = None
        self.answers: asyncio.Queue[Counted] = asyncio.Queue()
        channel.on("message", self._take)

    def _take(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            self._began = self._began or time.perf_counter()
            self._size += len(data)
            return
        with contextlib.suppress(msgspec.DecodeError, LinkLost):
            said = _DECODER.decode(data)
            if isinstance(said, Take):
                self._size, self._began = 0, 0.0
            elif isinstance(said, Stop):
                self._stopped()
            elif isinstance(said, Counted):
                self.answers.put_nowait(said)
            elif self._task is None or self._task.done():
                self._task = asyncio.create_task(self._give(min(said.seconds, MAX_S)))

    def _stopped(self) -> None:
        counted = Counted(self._size, time.perf_counter() - self._began if self._began else 0.0)
        self.say(counted)
        self.answers.put_nowait(counted)

    async def _give(self, seconds: float) -> None:
        with contextlib.suppress(LinkLost):
            await self.give(seconds)

    async def give(self, seconds: float) -> None:
        """Send for so long. Raises LinkLost."""
        self.say(Take())
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            self._channel.send(CHUNK)
            await self._channel.room()
        self.say(Stop())

    def say(self, what: Said) -> None:
        """Raises LinkLost."""
        self._channel.send(msgspec.json.encode(what).decode())


async def bench(arguments: argparse.Namespace, session: PeerSession) -> None:
    """There, then back. Raises LinkLost."""
    channel = session.channel(BENCH)
    counter = Counter(channel)
    await channel.opened(REPLY_S)
    found: dict[str, object] = {"peer": session.peer, "path": session.path.kind if session.path else ""}
    async for name, counted in _both_ways(counter, arguments.seconds, session.peer):
        mbit_s = counted.size * 8 / max(counted.seconds, 1e-6) / 1e6
        found[f"{name}_mbit_s"] = round(mbit_s, 2)
        if not arguments.json:
            print(f"{name}: {mbit_s:.1f} Mbit/s ({counted.size / 1e6:.1f} MB in {counted.seconds:.1f} s)", flush=True)
    if arguments.json:
        print(json.dumps(found), flush=True)


async def _both_ways(counter: Counter, seconds: float, peer: str) -> AsyncIterator[tuple[str, Counted]]:
    try:
        async with asyncio.timeout(2 * seconds + 2 * REPLY_S):
            await counter.give(seconds)
            yield "there", await counter.answers.get()
            counter.say(Give(seconds))
            yield "back", await counter.answers.get()
    except TimeoutError:
        raise Refused(f"{peer!r} does not take part") from None


ANSWERS: dict[str, Callable[[Channel], object]] = {PING: echo, BENCH: Counter}
