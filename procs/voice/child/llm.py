"""The link to a language model: the OpenAI chat API, streamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from procs import log
from procs.messages.voice import Services
from procs.voice import unreached
from procs.voice.child.figures import Figures
from procs.voice.child.tasks import spawn
from procs.voice.conversation.actions import Ask

FIRST_S = 10.0
NEXT_S = 30.0
CONNECT_S = 3.0
MODELS_S = 3.0
MAX_LINE = 256 * 1024  # bytes, of a line or of a list of models
MAX_REPLY = 64 * 1024  # characters: what is longer is ended there
IN_A_ROW = 16  # lines, before others get their turn
_SHOWN = 300  # characters of what it says is wrong
_NOT_TAKEN = (400, 422)


class Asked(NamedTuple):
    """The question has left us."""

    reply: int


class Word(NamedTuple):
    """Any part of its text."""

    reply: int
    delta: str


class Done(NamedTuple):
    """That was all."""

    reply: int


class Failed(NamedTuple):
    """Nothing more comes of it."""

    reply: int
    why: str


Told = Asked | Word | Done | Failed


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None


class _Model(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class _Models(msgspec.Struct):
    data: list[_Model]


_CHUNKS = msgspec.json.Decoder(_Chunk)
_MODELS = msgspec.json.Decoder(_Models)


class _Wrong(Exception):
    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


class LanguageModel:
    """All requests; a reply has one at a time."""

    def __init__(self, services: Services, figures: Figures, tell: Callable[[Told], None]) -> None:
        self._url, self._model, self._key = services.llm, services.model, services.llm_key
        self._figures, self._tell = figures, tell
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._client: aiohttp.ClientSession | None = None  # made at the first request: most wait for long
        self._takes_metadata = True
        self.problem = ""

    @property
    def model(self) -> str:
        """Which it is; "" while that is not known."""
        return self._model

    async def look(self) -> None:
        """Get to know that, if it can be."""
        try:
            await self._named()
        except _Wrong as wrong:
            self.problem = str(wrong)

    def ask(self, asked: Ask) -> None:
        """Begin a reply."""
        self.drop(asked.reply)
        self._requests[asked.reply] = spawn(self._run(asked))

    def drop(self, reply: int) -> None:
        """Nobody wants it any more."""
        if request := self._requests.pop(reply, None):
            self._figures.add("worker_vllm_interrupt")
            request.cancel()

    async def _run(self, asked: Ask) -> None:
        told: Told = Done(asked.reply)
        self._figures.add("worker_vllm_sessions")
        try:
            with self._figures.while_active("worker_vllm_active_sessions"):
                await self._answer(asked)
            self.problem = ""
        except _Wrong as wrong:
            self.problem = str(wrong)
            log.warning("the language model has not answered", why=self.problem)
            self._figures.add("worker_vllm_hard_errors")
            told = Failed(asked.reply, self.problem)
        self._requests.pop(asked.reply, None)
        self._tell(told)

    async def _answer(self, asked: Ask) -> None:
        try:
            await self._once(asked, await self._named(), metadata=self._takes_metadata)
        except _Wrong as wrong:
            if wrong.status not in _NOT_TAKEN or not (self._takes_metadata and asked.metadata):
                raise
            self._takes_metadata = False  # some know no such field, or other things under its name
            await self._once(asked, await self._named(), metadata=False)

    async def _once(self, asked: Ask, model: str, *, metadata: bool) -> None:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": each.role, "content": each.content} for each in asked.messages],
            "stream": True,
            "temperature": asked.temperature,
        }
        if metadata and asked.metadata:
            body["metadata"] = asked.metadata
        size = sum(len(each.content.split()) for each in asked.messages)
        self._figures.add("worker_vllm_sent_words", size)
        self._figures.add("worker_vllm_request_length", size)
        answer = _Answer(self._figures)
        try:
            async with asyncio.timeout(FIRST_S) as limit:
                async with self._opened().post(
                    f"{self._url}/v1/chat/completions",
                    data=msgspec.json.encode(body),
                    headers=self._headers(),
                    trace_request_ctx=asked.reply,
                    allow_redirects=False,  # what was said is for nobody else
                ) as response:
                    await _accepted(response)
                    async for delta in _deltas(response):
                        limit.reschedule(asyncio.get_running_loop().time() + NEXT_S)
                        answer.add(delta)
                        self._tell(Word(asked.reply, delta))
                        if answer.characters > MAX_REPLY:
                            break
        except TimeoutError:
            what = f"no more words within {NEXT_S:g} s" if answer.characters else f"no word within {FIRST_S:g} s"
            raise _Wrong(what) from None
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            raise _Wrong(_words(error)) from None
        answer.end()

    async def _named(self) -> str:
        """The model's name, asked for once. Raises _Wrong."""
        if self._model:
            return self._model
        try:
            async with asyncio.timeout(MODELS_S):
                async with self._opened().get(f"{self._url}/v1/models", headers=self._headers()) as response:
                    await _accepted(response)
                    found = _MODELS.decode(await _body(response)).data
        except TimeoutError:
            raise _Wrong(f"/v1/models: no answer within {MODELS_S:g} s") from None
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, msgspec.DecodeError) as error:
            raise _Wrong(f"/v1/models: {_words(error)}"[:_SHOWN]) from None
        if len(found) != 1:
            names = ", ".join(each.id for each in found[:5])
            raise _Wrong(f"/v1/models names {len(found)} models ({names}): set KYUTAI_LLM_MODEL"[:_SHOWN])
        self._model = found[0].id
        return self._model

    def _opened(self) -> aiohttp.ClientSession:
        if self._client is None:
            timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S)
            trace = aiohttp.TraceConfig()
            trace.on_request_chunk_sent.append(self._sent)
            self._client = aiohttp.ClientSession(
                timeout=timeout, auto_decompress=True, read_bufsize=MAX_LINE, trace_configs=[trace]
            )
        return self._client

    async def _sent(
        self, _: aiohttp.ClientSession, of: SimpleNamespace, __: aiohttp.TraceRequestChunkSentParams
    ) -> None:
        """A request's body, in one piece. What lists models has none."""
        if of.trace_request_ctx is not None:
            self._tell(Asked(of.trace_request_ctx))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key or 'EMPTY'}", "Content-Type": "application/json"}


class _Answer:
    """What is measured of one."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._began = time.monotonic()
        self._words = 0
        self.characters = 0

    def add(self, delta: str) -> None:
        """More of it."""
        if not self.characters:
            self._figures.add("worker_vllm_ttft", time.monotonic() - self._began)
        self.characters += len(delta)
        self._words += delta.count(" ") + (self._words == 0)

    def end(self) -> None:
        """That was all."""
        self._figures.add("worker_vllm_recv_words", self._words)
        self._figures.add("worker_vllm_reply_length", self._words)
        self._figures.add("worker_vllm_gen_duration", time.monotonic() - self._began)


async def _accepted(response: aiohttp.ClientResponse) -> None:
    """Raises _Wrong, with what it says."""
    if response.status == 200:
        return
    said = " ".join((await response.content.read(_SHOWN)).decode(errors="replace").split())
    raise _Wrong(f"HTTP {response.status}{said and f': {said}'}"[:_SHOWN], response.status)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """All of it. Raises _Wrong."""
    data = b""
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > MAX_LINE:
            raise _Wrong(f"an answer of more than {MAX_LINE} bytes")
    return data


async def _deltas(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The text of a stream of server-sent events; what else is in it, such as thoughts, is left out. Raises _Wrong."""
    is_finished, count = False, 0
    async for line in response.content:
        count += 1
        if count % IN_A_ROW == 0:  # lines come from a buffer, and nothing else, no deadline either, would get its turn
            await asyncio.sleep(0)
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            chunk = _CHUNKS.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _Wrong(f"it says what is not understood: {error}"[:_SHOWN]) from None
        if chunk.error:
            raise _Wrong(f"it says: {chunk.error}"[:_SHOWN])
        for choice in chunk.choices[:1]:
            is_finished = is_finished or bool(choice.finish_reason)
            if choice.delta.content:
                yield choice.delta.content
    if not is_finished:
        raise _Wrong("its answer broke off")


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {unreached.why(error.os_error)}"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "the connection broke"
    if isinstance(error, HttpProcessingError):
        return "a line that is too long"
    return (str(error) or type(error).__name__)[:_SHOWN]
