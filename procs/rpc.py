"""Requests over the bus (procs/bus.py) and their replies: each has a deadline, and an idempotent one survives a restart
of whoever is asked.

Never REQ/REP: a server that dies between the two leaves the client waiting for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, cast

import zmq

from procs import bus
from procs.errors import DeadlineExceeded, Refused
from procs.messages import decode, encode
from procs.messages.requests import Command, Reply, Request

if TYPE_CHECKING:
    import asyncio

    import zmq.asyncio

RESEND_S = 0.25  # an unanswered idempotent request goes out again this often
MAX_BESIDE = 16  # requests of one asynchronous responder at a time


class Responder:
    """Answers requests at one endpoint. `refused` counts messages that were not taken, `expired` those too late."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], run_dir: Path, endpoint: str) -> None:
        self._sock = bus.binder(context, zmq.ROUTER, run_dir, endpoint)
        self.refused = 0
        self.expired = 0

    def wait_with(self, poller: zmq.Poller) -> None:
        """Have a poller of the caller's wake up for requests, too; `serve` is then called in each turn, without a
        wait."""
        poller.register(self._sock, zmq.POLLIN)

    def serve(self, handle: Callable[[Command], Reply | None], wait_s: float) -> bool:
        """Wait for one request and answer it with what `handle` gives (None: plain ok; Refused: its reason).

        Returns False if none came within wait_s.
        """
        if not self._sock.poll(int(wait_s * 1000)):
            return False
        frames = self._sock.recv_multipart()
        try:
            request = _request(frames)
        except Refused as reason:
            self.refused += 1
            self._answer(frames[0], Reply(id=0, ok=False, reason=str(reason)))
            return True
        if request.deadline_ms < bus.now_ms():
            self.expired += 1  # whoever asked has given up: a stale command must not act
            return True
        try:
            reply = handle(request.body) or Reply(id=request.id, ok=True)
        except Refused as reason:
            self.refused += 1
            reply = Reply(id=request.id, ok=False, reason=str(reason))
        self._answer(frames[0], Reply(id=request.id, ok=reply.ok, reason=reply.reason, body=reply.body))
        return True

    def _answer(self, to: bytes, reply: Reply) -> None:
        with contextlib.suppress(zmq.Again):  # the asker's queue is full or it is gone; its deadline tells it
            self._sock.send_multipart([to, _whole(reply)], flags=zmq.DONTWAIT)


def _request(frames: Sequence[bytes]) -> Request:
    if len(frames) != 2:
        raise Refused(f"a request is one frame, not {len(frames) - 1}")
    return decode(frames[1], Request)


def _whole(reply: Reply) -> bytes:
    try:
        return encode(reply)
    except Refused as reason:  # too long: whoever asked is to hear of it, and the next one is to be answered
        return encode(Reply(id=reply.id, ok=False, reason=str(reason)))


async def respond(sock: zmq.asyncio.Socket, handle: Callable[[Command], Awaitable[Reply | None]]) -> NoReturn:
    """As Responder, at a bound ROUTER in an asyncio loop: requests are handled beside each other, MAX_BESIDE at most;
    others are left unanswered, for their askers to send again."""
    import asyncio  # here: a producer, which has no event loop, need not pay for it

    async def answer(to: bytes, request: Request) -> None:
        try:
            reply = await handle(request.body) or Reply(id=request.id, ok=True)
        except Refused as reason:
            reply = Reply(id=request.id, ok=False, reason=str(reason))
        data = _whole(Reply(id=request.id, ok=reply.ok, reason=reply.reason, body=reply.body))
        bus.send_now(sock, [to, data])

    async with asyncio.TaskGroup() as group:
        beside: set[asyncio.Task[None]] = set()
        while True:
            frames = await sock.recv_multipart()
            try:
                request = _request(frames)
            except Refused as reason:
                bus.send_now(sock, [frames[0], _whole(Reply(id=0, ok=False, reason=str(reason)))])
                continue
            if request.deadline_ms >= bus.now_ms() and len(beside) < MAX_BESIDE:
                task = group.create_task(answer(frames[0], request))
                beside.add(task)
                task.add_done_callback(beside.discard)


class Requester:
    """Asks one endpoint. Usable as a context manager; not shared between threads."""

    def __init__(self, run_dir: Path, endpoint: str, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self._endpoint = endpoint
        self._sock = bus.connector(context or zmq.Context.instance(), zmq.DEALER, run_dir, endpoint)
        # Ids of one asker never repeat, also not after its restart: a late reply can't be taken for another's.
        self._ids = itertools.count(int.from_bytes(os.urandom(6), "big") << 8)

    def __enter__(self) -> Requester:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def ask(self, body: Command, *, within_s: float = 2.0, idempotent: bool = True) -> Reply:
        """Send a command and return its reply. An idempotent one is sent again while the other side restarts.

        Raises DeadlineExceeded, and Refused when the other side did not take it.
        """
        deadline = bus.now_ms() + int(within_s * 1000)
        request = Request(id=next(self._ids), deadline_ms=deadline, idempotent=idempotent, body=body)
        data, sent = encode(request), False
        while (left := deadline - bus.now_ms()) > 0:
            if not sent or idempotent:
                sent = self._send(data, left) or sent
            reply = self._reply_to(request.id, min(left, int(RESEND_S * 1000)))
            if reply and not reply.ok:
                raise Refused(f"{self._endpoint}: {reply.reason}")
            if reply:
                return reply
        what = "no answer" if sent else "nobody there"
        raise DeadlineExceeded(f"{self._endpoint}: {what} within {within_s:g} s", retry=idempotent or not sent)

    def _send(self, data: bytes, left_ms: int) -> bool:
        if not self._sock.poll(min(left_ms, int(RESEND_S * 1000)), zmq.POLLOUT):
            return False
        try:
            self._sock.send(data, flags=zmq.DONTWAIT)
        except zmq.Again:  # the peer died between poll and send
            return False
        return True

    def _reply_to(self, request_id: int, wait_ms: int) -> Reply | None:
        until = bus.now_ms() + wait_ms
        while (left := until - bus.now_ms()) >= 0:
            if not self._sock.poll(left):
                return None
            reply = decode(self._sock.recv(), Reply)
            if reply.id in (request_id, 0):  # 0: refused before its id could be read
                return reply
        return None


async def ask(
    context: zmq.asyncio.Context,
    run_dir: Path,
    endpoint: str,
    body: Command,
    *,
    within_s: float = 2.0,
    idempotent: bool = True,
) -> Reply:
    """As Requester.ask in an asyncio loop. Raises DeadlineExceeded, Refused."""
    deadline = bus.now_ms() + int(within_s * 1000)
    request_id = int.from_bytes(os.urandom(7), "big")
    data, sent = encode(Request(id=request_id, deadline_ms=deadline, idempotent=idempotent, body=body)), False
    sock = bus.connector(context, zmq.DEALER, run_dir, endpoint)
    poll = cast("Callable[[int, int], Awaitable[int]]", sock.poll)  # its stub is that of Poller.poll
    try:
        while (left_ms := deadline - bus.now_ms()) > 0:
            wait_ms = min(left_ms, int(RESEND_S * 1000))
            if (idempotent or not sent) and await poll(wait_ms, zmq.POLLOUT):
                sent = bus.send_now(sock, [data]) or sent
            if await poll(wait_ms, zmq.POLLIN):
                reply = decode(await sock.recv(), Reply)
                if not reply.ok:
                    raise Refused(reply.reason)
                return reply
    finally:
        sock.close()
    raise DeadlineExceeded(f"{endpoint}: no answer within {within_s:g} s", retry=idempotent or not sent)
