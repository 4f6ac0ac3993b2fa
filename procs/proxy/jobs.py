"""Requests that came as JSON, through ws_link: whole questions and whole answers, under the same rules as streams."""

from __future__ import annotations

import asyncio
import io

from procs import bus, log
from procs.errors import UpstreamFailed
from procs.messages.work import Job, JobDone
from procs.proxy.policy import Denied
from procs.proxy.upstream import Body
from procs.proxy.worker import IDLE_LIMIT_S, TEXT, Worker, filtered, head_of
from procs.wire.mux1 import Code, Head

MAX_ANSWER = 1024 * 1024  # bytes
CAPACITY = 32  # jobs at a time


async def do(worker: Worker, job: Job, body: bytes) -> tuple[JobDone, bytes]:
    """Do one job. Whatever happens, there is an answer."""
    try:
        async with asyncio.timeout(max(0.0, (job.deadline_ms - bus.now_ms()) / 1000)):
            head, data = await _answer(worker, job, body)
    except TimeoutError:
        head, data = _said(504, "Gateway Timeout")
    except UpstreamFailed as failure:
        log.warning("failed", reason=failure.reason, method=job.method, target=job.path[:200])
        if failure.code == Code.TIMEOUT:
            head, data = _said(504, "Gateway Timeout")
        else:
            head, data = _said(failure.status if failure.status in (400, 413) else 500, failure.reason)
    return JobDone(job.rid, head.status, head.headers), data


async def _answer(worker: Worker, job: Job, body: bytes) -> tuple[Head, bytes]:
    deadline = asyncio.get_running_loop().time() + (job.deadline_ms - bus.now_ms()) / 1000
    pairs = [each for each in job.headers if each[0].lower() not in ("content-length", "transfer-encoding")]
    if body:
        pairs.append(("Content-Length", str(len(body))))
    judged = await worker.judge(job.method, job.path, pairs, deadline)
    if isinstance(judged, Denied):
        worker.refuse(judged, job.method, job.path)
        return _said(judged.status, judged.reason)
    allowed, kept = judged
    if allowed.is_endless:
        return _said(501, "this never ends; a hub that speaks mux1 can carry it")
    async with await worker.ask(allowed, kept, _body(body), deadline) as answer:
        if allowed.rule.answer in ("streams", "about"):
            return await filtered(allowed, answer)
        head = head_of(allowed, answer)
        if answer.length is not None and answer.length > MAX_ANSWER and job.method != "HEAD":
            return _said(413, f"the answer is longer than {MAX_ANSWER} bytes")
        return head, await answer.all(MAX_ANSWER, IDLE_LIMIT_S)


def _body(data: bytes) -> Body | None:
    if not data:
        return None
    source = io.BytesIO(data)

    async def read() -> bytes | None:
        return source.read(64 * 1024) or None

    return Body(len(data), len(data), read)


def _said(status: int, text: str) -> tuple[Head, bytes]:
    return Head(status, [TEXT]), text.encode()
