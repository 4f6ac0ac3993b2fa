"""The process: work and tickets over the bus, streams over its own connection to the hub, all for one Worker."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import Protocol

import uvloop
import zmq.asyncio

from procs import bus, log
from procs.backoff import delays
from procs.errors import LinkLost, Refused
from procs.messages.work import Job, JobDone, Ready, TicketGrant, TicketRefused, TicketWanted, decode_to_worker
from procs.proxy import jobs, link
from procs.proxy.options import Proxy
from procs.proxy.worker import Worker

READY_EVERY_S = 1.0
ASK_AGAIN_S = 2.0  # for a ticket: ws_link may have died with the question
ASK_LIMIT_S = 12.0  # ws_link itself waits 10 s for the hub
PREPARE_AFTER_S = 1.0
STEADY_S = 3.0  # a connection that lasted for so long was a good one


class Alive(Protocol):
    """What life.run gives a process."""

    run_dir: Path

    def beat(self) -> None:
        """The main loop turns."""

    def serving(self) -> None:
        """The work is there to be had."""


def serve(settings: Proxy, alive: Alive) -> None:
    """Be a proxy, for ever."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings, alive))


async def _run(settings: Proxy, alive: Alive) -> None:
    async with asyncio.TaskGroup() as group:
        shell = Shell(settings, alive.run_dir)
        alive.serving()
        for work in (
            _beat(alive),
            shell.announce(),
            shell.take_work(group),
            shell.stay_connected(),
            shell.make_ready(),
        ):
            group.create_task(work)
        await asyncio.Event().wait()


async def _beat(alive: Alive) -> None:
    while True:
        alive.beat()
        await asyncio.sleep(1.0)


class Shell:
    """The two connections of a proxy."""

    def __init__(self, settings: Proxy, run_dir: Path) -> None:
        self._instance, self._ca = str(settings.instance), settings.ca
        self._worker = Worker(settings.upstreams, verbose=settings.verbose)
        self._bus = bus.work_connector(zmq.asyncio.Context.instance(), run_dir, self._instance)
        self._jobs: set[str] = set()
        # Ids of one asker never repeat, also not after its restart.
        self._ids = itertools.count(int.from_bytes(os.urandom(6), "big") << 8)
        self._asked: dict[int, asyncio.Future[TicketGrant]] = {}

    async def make_ready(self) -> None:
        """Import what the first request for a WebSocket would have to wait for, once the rest serves."""
        await asyncio.sleep(PREPARE_AFTER_S)
        await self._worker.dialer()

    # Towards ws_link

    async def announce(self) -> None:
        """Say that we are there, at once and each second."""
        while True:
            bus.send_work(self._bus, Ready(self._instance, os.getpid(), jobs.CAPACITY))
            await asyncio.sleep(READY_EVERY_S)

    async def take_work(self, group: asyncio.TaskGroup) -> None:
        """Hear ws_link, for ever."""
        while True:
            _, data, body = await bus.receive_work(self._bus)
            try:
                message = decode_to_worker(data)
            except Refused as reason:
                log.warning("malformed bus message", reason=str(reason))
                continue
            if not isinstance(message, Job):
                self._answered(message)
            elif len(self._jobs) >= jobs.CAPACITY:  # ws_link knows how many we take
                bus.send_work(self._bus, JobDone(message.rid, 503))
            elif message.rid not in self._jobs:  # else it has been handed to us twice
                self._jobs.add(message.rid)
                group.create_task(self._do(message, body))

    async def _do(self, job: Job, body: bytes) -> None:
        try:
            done, data = await jobs.do(self._worker, job, body)
            bus.send_work(self._bus, done, data)
        except Refused as reason:
            log.warning("an answer that ws_link would not take", reason=str(reason), path=job.path[:200])
            bus.send_work(self._bus, JobDone(job.rid, 500))
        except Exception as error:  # a fault of ours must not cost the viewers their streams
            log.error(f"unforeseen {type(error).__name__}: {error}", trace=True, path=job.path[:200])
            bus.send_work(self._bus, JobDone(job.rid, 500))
        finally:
            self._jobs.discard(job.rid)

    def _answered(self, message: TicketGrant | TicketRefused) -> None:
        asked = self._asked.pop(message.id, None)
        if asked is None or asked.done():
            return
        if isinstance(message, TicketGrant):
            asked.set_result(message)
        else:
            asked.set_exception(LinkLost(f"no ticket: {message.reason}"))

    async def _ticket(self) -> TicketGrant:
        """Ask ws_link for a ticket until it answers. Raises LinkLost."""
        answer: asyncio.Future[TicketGrant] = asyncio.get_running_loop().create_future()
        ids = []
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                while True:
                    ids.append(next(self._ids))
                    self._asked[ids[-1]] = answer
                    bus.send_work(self._bus, TicketWanted(ids[-1]))
                    done, _ = await asyncio.wait((answer,), timeout=ASK_AGAIN_S)
                    if done:
                        return answer.result()
        except TimeoutError:
            raise LinkLost("no ticket: ws_link does not answer") from None
        finally:
            for number in ids:
                self._asked.pop(number, None)

    # Towards the hub

    async def stay_connected(self) -> None:
        """Have a data connection, again and again."""
        loop = asyncio.get_running_loop()
        waits = delays()
        while True:
            try:
                ticket = await self._ticket()
                began = loop.time()
                reason = await link.serve(ticket, self._worker.accept, self._ca)
                if loop.time() - began >= STEADY_S:
                    waits = delays()
            except LinkLost as lost:
                reason = str(lost)
            wait_s = next(waits)
            log.warning("no data connection", reason=reason, again_in_s=round(wait_s, 3))
            await asyncio.sleep(wait_s)
