"""ws_link.work over real sockets: both ways, a worker that comes back under its name, and nobody there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from procs import bus
from procs.errors import Refused
from procs.messages import MAX_BODY_BYTES, encode
from procs.messages.work import Job, JobDone, Ready, TicketGrant, TicketWanted, decode_from_worker, decode_to_worker

JOB = Job(rid="r1", method="GET", path="/api/streams?x=1", headers=[("Accept", "*/*")], deadline_ms=5)
READY = Ready(worker="0", pid=os.getpid(), capacity=8)


async def sent(sock: zmq.asyncio.Socket, message: Ready | JobDone | TicketWanted, body: bytes = b"") -> None:
    """Send as soon as somebody is there."""
    for _ in range(500):
        if bus.send_work(sock, message, body):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody there within 5 s")


def test_a_job_and_its_answer_travel_with_their_bodies(run_dir: Path) -> None:
    async def scenario() -> None:
        context = zmq.asyncio.Context()
        link, worker = bus.work_binder(context, run_dir), bus.work_connector(context, run_dir, "0")
        await sent(worker, READY)
        name, data, body = await bus.receive_work(link)
        assert (name, decode_from_worker(data), body) == ("0", READY, b"")
        large = os.urandom(MAX_BODY_BYTES)
        assert bus.send_work(link, JOB, large, worker="0")
        name, data, body = await bus.receive_work(worker)
        assert (name, decode_to_worker(data), body) == ("", JOB, large)
        done = JobDone(rid="r1", status=200, headers=[("Set-Cookie", "a"), ("Set-Cookie", "b")])
        await sent(worker, done, large)
        _, data, body = await bus.receive_work(link)
        assert (decode_from_worker(data), body) == (done, large)
        context.destroy()

    asyncio.run(scenario())


def test_a_worker_that_is_back_takes_its_name_over(run_dir: Path) -> None:
    async def scenario() -> None:
        context = zmq.asyncio.Context()
        link = bus.work_binder(context, run_dir)
        frozen = bus.work_connector(context, run_dir, "0")
        await sent(frozen, READY)
        await bus.receive_work(link)
        back = bus.work_connector(context, run_dir, "0")
        await sent(back, READY)
        await bus.receive_work(link)
        assert bus.send_work(link, JOB, worker="0")
        _, data, _ = await asyncio.wait_for(bus.receive_work(back), 5)
        assert decode_to_worker(data) == JOB
        context.destroy()

    asyncio.run(scenario())


def test_nobody_there_is_known_at_once(run_dir: Path) -> None:
    async def scenario() -> None:
        context = zmq.asyncio.Context()
        link, worker = bus.work_binder(context, run_dir), bus.work_connector(context, run_dir / "elsewhere", "1")
        assert not bus.send_work(link, JOB, worker="0")
        assert not bus.send_work(worker, READY)
        context.destroy()

    asyncio.run(scenario())


def test_frames_that_are_no_message_are_left_out(run_dir: Path) -> None:
    async def scenario() -> None:
        context = zmq.asyncio.Context()
        link, worker = bus.work_binder(context, run_dir), bus.work_connector(context, run_dir, "0")
        await sent(worker, READY)
        await bus.receive_work(link)
        for frames in ([b"one"], [b"1", b"2", b"3"]):
            await worker.send_multipart(frames)
        await sent(worker, TicketWanted(id=3))
        _, data, _ = await asyncio.wait_for(bus.receive_work(link), 5)
        assert decode_from_worker(data) == TicketWanted(id=3)
        context.destroy()

    asyncio.run(scenario())


def test_what_the_other_side_may_not_say_is_refused(run_dir: Path) -> None:
    grant = TicketGrant(id=1, url="ws://127.0.0.1:1/ws/data", ticket="t", device_id="d")
    with pytest.raises(Refused, match="endpoint"):
        decode_from_worker(encode(grant))
    with pytest.raises(Refused, match="endpoint"):
        decode_to_worker(encode(READY))

    async def scenario() -> None:
        context = zmq.asyncio.Context()
        link = bus.work_binder(context, run_dir)
        with pytest.raises(Refused, match="over the limit"):
            bus.send_work(link, JOB, bytes(MAX_BODY_BYTES + 1), worker="0")
        context.destroy()

    asyncio.run(scenario())
