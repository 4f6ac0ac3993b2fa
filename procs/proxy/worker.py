"""Serves requests: judges them, asks the upstream, and hands the answer on while it comes.

A stream that the hub resets ends the task that serves it, and with it the connection to the upstream, at once.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from procs import log
from procs.errors import LinkLost, Refused, StreamReset, UpstreamFailed
from procs.proxy import go2rtc, headers, known, outlet, policy, websocket
from procs.proxy.live import Mjpeg, Splitter
from procs.proxy.mp4 import Mp4
from procs.proxy.policy import Allowed, Denied, Upstream
from procs.proxy.upstream import Answer, Body, Pool, Request
from procs.streams.stream import Stream
from procs.wire import fields
from procs.wire.mux1 import Code, Head

if TYPE_CHECKING:
    from procs.proxy.dialer import Dialer

KNOWN_TARGETS, SHORT_TARGET = 1024, 256
IDLE_LIMIT_S = 15.0  # of an answer that has an end
STALLED_VIEWER_S = 300.0  # for so long nobody has to keep an answer ready
REST_LIMIT_S = 10.0  # for what comes of a request after its answer
MAX_FILTERED = 8_000_000  # bytes of an answer that is changed on its way
TEXT = ("Content-Type", "text/plain; charset=utf-8")


class Worker:
    """All that one proxy serves. `refused` counts what was not, by status or code."""

    def __init__(self, upstreams: Sequence[Upstream], *, verbose: bool = False) -> None:
        self._upstreams, self._verbose = upstreams, verbose
        # The same few targets come again and again; long ones, which would take memory, are judged each time.
        self._decide_short = functools.lru_cache(KNOWN_TARGETS)(functools.partial(policy.decide, upstreams))
        self._loop = asyncio.get_running_loop()
        self._pools = {each.name: Pool(each) for each in upstreams}
        self._streams = {each.name: known.Streams(each) for each in upstreams if each.knows_streams}
        self._dialer: Dialer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.served = 0
        self.refused: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tasks)

    def accept(self, stream: Stream) -> None:
        """Serve a stream that the hub has opened."""
        task = self._loop.create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        stream.on_failure = functools.partial(_cancel, task)

    async def _serve(self, stream: Stream) -> None:
        opening = stream.opening
        deadline = self._loop.time() + opening.timeout_ms / 1000
        try:
            judged = await self.judge(
                opening.method, opening.path, opening.headers, deadline, is_websocket=opening.kind == "ws"
            )
            if isinstance(judged, Denied):
                self.refuse(judged, opening.method, opening.path)
                _answer_with(stream, judged.status, judged.reason)
            elif opening.kind == "ws":
                await websocket.serve(await self.dialer(), stream, *judged, deadline)
            else:
                await self._serve_http(stream, *judged, deadline)
            if not stream.is_over:
                await _read_to_end(stream)
        except UpstreamFailed as failure:
            self._say_failed(stream, failure)
        except (StreamReset, LinkLost):
            return
        except TimeoutError:  # of _read_to_end
            stream.on_failure = None
            stream.reset(Code.CANCEL, "answered; the rest of the request is not wanted")
        except Exception as error:  # a fault of ours must not cost the other viewers their streams
            log.error(f"unforeseen {type(error).__name__}: {error}", trace=True, path=opening.path)
            stream.on_failure = None
            stream.reset(Code.UPSTREAM_ERROR, "unforeseen fault of the proxy")

    async def judge(
        self, method: str, target: str, pairs: Iterable[tuple[str, str]], deadline: float, *, is_websocket: bool = False
    ) -> tuple[Allowed, fields.Pairs] | Denied:
        """What may pass of a request: the decision and its header fields. Raises UpstreamFailed when go2rtc can't be
        asked whether it has the stream."""
        try:
            kept = fields.request_fields(pairs)
        except Refused as reason:
            return Denied(400, str(reason))
        is_short = len(target) <= SHORT_TARGET and len(method) <= SHORT_TARGET
        decide = self._decide_short if is_short else functools.partial(policy.decide, self._upstreams)
        judged = decide(method, target, websocket=is_websocket)
        if isinstance(judged, Denied):
            return judged
        if judged.streams and not await self._streams[judged.upstream.name].are_known(judged.streams, deadline):
            return Denied(404, "no such stream")
        if (headers.body_length(method, kept) or 0) > judged.max_body:
            return Denied(413, "the body is too large")
        return judged, kept

    async def close(self) -> None:
        """End what is being served, and every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in self._pools.values():
            pool.close()
        for streams in self._streams.values():
            streams.close()
        if self._dialer is not None:
            await self._dialer.close()

    async def dialer(self) -> Dialer:
        """What opens WebSockets; to be asked for early, since the first time takes a while."""
        if self._dialer is None:
            kind = await asyncio.to_thread(websocket.dialer_class)
            self._dialer = self._dialer or kind()
        return self._dialer

    def refuse(self, denied: Denied, method: str, target: str) -> None:
        """Count and log what is not served."""
        self.refused[str(denied.status)] += 1
        # One event, whatever was wrong, so that nobody can flood the log by being wrong in many ways.
        log.warning("refused", reason=denied.reason, status=denied.status, method=method[:16], target=target[:200])

    async def ask(self, allowed: Allowed, pairs: fields.Pairs, body: Body | None, deadline: float) -> Answer:
        """Send an allowed request to its upstream. Raises UpstreamFailed."""
        onward = headers.onward(allowed.upstream, pairs)
        if allowed.rule.answer in ("streams", "about"):  # read here: whole, as it is, and as it is now
            onward = [each for each in onward if each[0].lower() in ("host", "authorization", "user-agent")]
        request = Request(
            allowed.method, allowed.target, onward, body, allowed.is_idempotent, deadline, allowed.is_endless
        )
        self.served += 1
        return await self._pools[allowed.upstream.name].ask(request, allowed.first_byte_s)

    async def _serve_http(self, stream: Stream, allowed: Allowed, pairs: fields.Pairs, deadline: float) -> None:
        body = _body_of(stream, allowed, pairs)
        async with await self.ask(allowed, pairs, body, deadline) as answer:
            if self._verbose:
                log.info(f"{allowed.method} {allowed.target}", status=answer.status, upstream=allowed.upstream.name)
            if allowed.rule.answer in ("streams", "about"):
                head, data = await filtered(allowed, answer)
                stream.send_head(head)
                stream.finish(data)
                return
            stream.send_head(head_of(allowed, answer))
            splitter = _splitter(allowed, answer)
            if splitter is not None:
                await outlet.show(stream, splitter, answer)
            else:
                await _pump(stream, answer, None if allowed.is_endless else IDLE_LIMIT_S)

    def _say_failed(self, stream: Stream, failure: UpstreamFailed) -> None:
        self.refused[Code(failure.code).name] += 1
        opening = stream.opening
        log.warning("failed", reason=failure.reason, method=opening.method, target=opening.path[:200])
        stream.on_failure = None
        if failure.status in (400, 413) and not stream.has_sent_head:
            _answer_with(stream, failure.status, failure.reason)
        else:
            stream.reset(failure.code, failure.reason)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def head_of(allowed: Allowed, answer: Answer) -> Head:
    """The head of an answer as the hub gets it. Raises UpstreamFailed for one that must not be sent."""
    try:
        kept = headers.back(allowed.upstream, allowed.target, answer.headers)
    except Refused as reason:
        code = Code.UPSTREAM_ERROR if allowed.is_idempotent else Code.UNKNOWN
        raise UpstreamFailed(code, f"the answer's headers: {reason}") from None
    if answer.length is not None:
        kept.append(("Content-Length", str(answer.length)))
    return Head(answer.status, kept, endless=allowed.is_endless and answer.status == 200)


async def filtered(allowed: Allowed, answer: Answer) -> tuple[Head, bytes]:
    """An answer of go2rtc's with what viewers must not see taken out. Raises UpstreamFailed."""
    data = await answer.all(MAX_FILTERED, IDLE_LIMIT_S)
    if answer.status != 200:  # its text may name a source
        return Head(answer.status, [TEXT, ("Content-Length", "0")]), b""
    try:
        seen = go2rtc.shown(allowed.rule.answer, data, one=bool(allowed.streams))
    except Refused as reason:
        raise UpstreamFailed(Code.UPSTREAM_ERROR, str(reason)) from None
    kind, length = ("Content-Type", "application/json"), ("Content-Length", str(len(seen)))
    return Head(200, [kind, length, ("Cache-Control", "no-cache")]), seen


def _body_of(stream: Stream, allowed: Allowed, pairs: fields.Pairs) -> Body | None:
    length = headers.body_length(allowed.method, pairs)
    if length == 0:
        return None

    async def read() -> memoryview | None:
        chunk = await stream.read()
        return None if chunk is None else chunk.data

    return Body(length, allowed.max_body, read)


async def _read_to_end(stream: Stream) -> None:
    """Take what is still to come of a request that has been answered. Raises TimeoutError if that is endless."""
    async with asyncio.timeout(REST_LIMIT_S):
        while await stream.read():
            pass


async def _pump(stream: Stream, answer: Answer, idle_s: float | None) -> None:
    """Hand the body on as it comes, as fast as the viewer takes it."""
    while data := await answer.read(idle_s):
        if answer.is_whole and not answer.waiting:
            stream.finish(data)
            return
        try:
            async with asyncio.timeout(STALLED_VIEWER_S):
                await stream.write(data)
        except TimeoutError:
            raise UpstreamFailed(Code.SLOW_VIEWER, "the viewer takes nothing") from None
    stream.finish()


def _splitter(allowed: Allowed, answer: Answer) -> Splitter | None:
    if not allowed.is_live or answer.status != 200:
        return None
    kind = next((value for name, value in answer.headers if name.lower() == "content-type"), "").lower()
    if kind.startswith("multipart/x-mixed-replace"):
        return Mjpeg()
    return Mp4() if kind.startswith("video/mp4") else None


def _answer_with(stream: Stream, status: int, text: str) -> None:
    data = f"{text}\n".encode()
    stream.send_head(Head(status, [TEXT, ("Content-Length", str(len(data)))]))
    stream.finish(data)
