"""Requests of the hub that travel as JSON: which proxy has which, and what becomes of them when one dies. Pure.

Every request that is taken is answered exactly once: by the proxy that has it, or by us in its place.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import OrderedDict
from typing import NamedTuple

from procs.messages.work import Job, JobDone, Ready
from procs.wire.frames.device import MAX_BODY, ProxyHttp

MAX_JOBS = 64
MAX_TIMEOUT_MS = 120_000
WORKER_SILENT_S = 3.0
MAX_TRIES = 3  # a request that kills three proxies is not given to a fourth
ANSWERED_KEPT = 1024
IDEMPOTENT = ("GET", "HEAD", "OPTIONS")
# They never end, and here an answer travels whole.
_ENDLESS = re.compile(r"/+api/(?:ws|stream\.(?:mp4|mjpeg|ascii|ts|flv|aac|y4m))")


class Hand(NamedTuple):
    """Give a job to a worker."""

    worker: str
    job: Job
    body: bytes


class Answer(NamedTuple):
    """Answer the hub. `why` names what was refused, for counting; "" for a proxy's own answer."""

    rid: str
    status: int
    headers: dict[str, str]
    body: bytes
    why: str = ""


Action = Hand | Answer


def refusal(rid: str, status: int, text: str, why: str = "") -> Answer:
    """An answer of our own."""
    return Answer(rid, status, {"Content-Type": "text/plain; charset=utf-8"} if text else {}, text.encode(), why)


class _Worker:
    __slots__ = ("capacity", "pid", "rids", "seen_at")

    def __init__(self, pid: int) -> None:
        self.pid, self.capacity, self.seen_at = pid, 0, 0.0
        self.rids: set[str] = set()


class _Task:
    __slots__ = ("body", "job", "nobody_since", "tries", "worker")

    def __init__(self, job: Job, body: bytes, now: float) -> None:
        self.job, self.body = job, body
        self.worker = ""  # "" while it waits for one
        self.tries = 0
        self.nobody_since = now


class Jobs:
    """All requests that are under way. Times are seconds of CLOCK_MONOTONIC."""

    def __init__(self, nobody_s: float = 10.0) -> None:
        self._nobody_s = nobody_s  # a job waits so long for a proxy that is being started again
        self._workers: dict[str, _Worker] = {}
        self._tasks: dict[str, _Task] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()  # by us, so that a late JobDone is known as one

    @property
    def workers(self) -> int:
        """How many proxies are there."""
        return len(self._workers)

    def take(self, asked: ProxyHttp, now: float) -> list[Action]:
        """A request of the hub."""
        if asked.rid in self._tasks:
            return []  # it was sent twice, and will be answered
        checked = _checked(asked, now)
        if isinstance(checked, Answer):
            return [checked]
        if len(self._tasks) >= MAX_JOBS:
            return [refusal(asked.rid, 503, "Too many requests at a time", "too many jobs")]
        self._tasks[asked.rid] = _Task(*checked, now)
        return self._assign(now)

    def ready(self, message: Ready, now: float) -> list[Action]:
        """A proxy says that it is there."""
        known = self._workers.get(message.worker)
        actions = self._gone(message.worker, now) if known and known.pid != message.pid else []
        worker = self._workers.setdefault(message.worker, _Worker(message.pid))
        worker.capacity, worker.seen_at = message.capacity, now
        return actions + self._assign(now)

    def done(self, name: str, message: JobDone, body: bytes, now: float) -> list[Action]:
        """A proxy's answer. One that we know nothing of was asked for by the ws_link before this one: it is handed on,
        as the hub may still wait for it."""
        if message.rid in self._answered:
            return []
        task = self._tasks.get(message.rid)
        if task and task.worker != name:
            return []  # it was taken for dead, and another one is at it
        if task:
            self._drop(message.rid)
        self._remember(message.rid)
        if len(body) > MAX_BODY:
            answer = refusal(
                message.rid, 413, "The answer is too large for a device without data connections", "large answer"
            )
        else:
            answer = Answer(message.rid, message.status, _headers(message.headers), body)
        return [answer, *self._assign(now)]

    def gone(self, name: str, now: float) -> list[Action]:
        """A proxy is no longer there."""
        return self._gone(name, now) + self._assign(now)

    def tick(self, now: float) -> list[Action]:
        """What has become late."""
        actions: list[Action] = []
        for name in [name for name, worker in self._workers.items() if now - worker.seen_at > WORKER_SILENT_S]:
            actions += self._gone(name, now)
        for rid, task in list(self._tasks.items()):
            if now * 1000 >= task.job.deadline_ms:
                actions.append(self._give_up(rid, 504, "Gateway Timeout", "timeout"))
            elif not task.worker and not self._workers and now - task.nobody_since > self._nobody_s:
                actions.append(self._give_up(rid, 503, "Nothing takes requests on the device", "no worker"))
        return actions + self._assign(now)

    def _assign(self, now: float) -> list[Action]:
        """Hand what waits to whoever has most room."""
        actions: list[Action] = []
        for rid, task in self._tasks.items():
            if task.worker:
                continue
            name, worker = max(
                self._workers.items(), key=lambda each: each[1].capacity - len(each[1].rids), default=("", None)
            )
            if not worker or worker.capacity <= len(worker.rids):
                break
            task.worker, task.tries = name, task.tries + 1
            worker.rids.add(rid)
            actions.append(Hand(name, task.job, task.body))
        return actions

    def _gone(self, name: str, now: float) -> list[Action]:
        worker = self._workers.pop(name, None)
        actions: list[Action] = []
        for rid in worker.rids if worker else ():
            task = self._tasks[rid]
            task.worker, task.nobody_since = "", now
            if task.job.method not in IDEMPOTENT:
                actions.append(self._give_up(rid, 502, "What took the request died; it may have been made", "lost job"))
            elif task.tries >= MAX_TRIES:
                actions.append(self._give_up(rid, 502, "What took the request died each time", "lost job"))
        return actions

    def _give_up(self, rid: str, status: int, text: str, why: str) -> Answer:
        self._drop(rid)
        self._remember(rid)
        return refusal(rid, status, text, why)

    def _drop(self, rid: str) -> None:
        worker = self._workers.get(self._tasks.pop(rid).worker)
        if worker:
            worker.rids.discard(rid)

    def _remember(self, rid: str) -> None:
        self._answered[rid] = None
        while len(self._answered) > ANSWERED_KEPT:
            self._answered.popitem(last=False)


def _checked(asked: ProxyHttp, now: float) -> tuple[Job, bytes] | Answer:
    """The job, or why there is none. What may be asked for at all, the proxy's policy says."""
    if not asked.path or len(asked.path) > 8192:
        return refusal(asked.rid, 414, "URI Too Long", "path length")
    if _ENDLESS.fullmatch(asked.path.partition("?")[0]):
        return refusal(asked.rid, 501, "It never ends: that takes a hub with data connections", "endless")
    if len(asked.body_b64 or "") > MAX_BODY * 4 // 3 + 4:
        return refusal(asked.rid, 413, "The body is too large", "large body")
    try:
        body = base64.b64decode(asked.body_b64 or "", validate=True)
    except (binascii.Error, ValueError):
        return refusal(asked.rid, 400, "body_b64 is no base64", "body encoding")
    if len(body) > MAX_BODY:
        return refusal(asked.rid, 413, "The body is too large", "large body")
    if sum(len(name.encode()) + len(value.encode()) for name, value in asked.headers.items()) > 32 * 1024:
        return refusal(asked.rid, 431, "The headers are too large", "large headers")
    deadline_ms = int(now * 1000) + min(asked.timeout_ms, MAX_TIMEOUT_MS)
    return Job(asked.rid, asked.method.upper(), asked.path, list(asked.headers.items()), deadline_ms), body


def _headers(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """As JSON has them: one value a name. Those that come twice are joined as RFC 9110 (5.3) allows, but for
    Set-Cookie, whose first stays."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in pairs:
        known = found.get(name.lower())
        if not known:
            found[name.lower()] = name, value
        elif name.lower() != "set-cookie":
            found[name.lower()] = known[0], f"{known[1]}, {value}"
    return dict(found.values())
