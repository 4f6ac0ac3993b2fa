"""OpenAI's chat completions, as far as they are spoken here: a request in, an answer whole or as words out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from procs.errors import Refused

MODEL = "planaria-rules"
MAX_MESSAGES = 10_000
_MAX_SHOWN = 300


class NoModel(Refused):
    """Another model was asked for."""


class _Part(msgspec.Struct):
    type: str
    text: str = ""


class Message(msgspec.Struct):
    """One of a conversation; what is not text is passed over."""

    role: str
    content: str | list[_Part] | None = None

    @property
    def words(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return " ".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(msgspec.Struct):
    """How a stream is written."""

    include_usage: bool = False


class Request(msgspec.Struct):
    """What is asked; fields that rules can do nothing with are passed over."""

    messages: Annotated[list[Message], msgspec.Meta(max_length=MAX_MESSAGES)]
    model: str = MODEL
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    metadata: dict[str, Any] | None = None
    seed: int | None = None
    n: int | None = 1
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None

    @property
    def limit(self) -> int | None:
        """Of words: the only tokens that rules have."""
        return self.max_completion_tokens or self.max_tokens


class Answer(msgspec.Struct):
    """A reply on its way out."""

    id: str
    created: int
    tokens: list[str]  # words, each with the blank before it
    is_whole: bool
    asked_tokens: int


_REQUEST = msgspec.json.Decoder(Request)


def request(body: bytes) -> Request:
    """What a body asks. Raises Refused, NoModel."""
    try:
        asked = _REQUEST.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(str(error)[:_MAX_SHOWN]) from None
    if asked.model not in (MODEL, ""):
        raise NoModel(f"The model {asked.model[:80]!r} does not exist: there is {MODEL}")
    if asked.n not in (None, 1):
        raise Refused("n: must be 1, there is one answer")
    if not asked.messages:
        raise Refused("messages: must hold at least one")
    return asked


def answer(asked: Request, reply: str, *, name: str, now: float) -> Answer:
    """The reply, word by word, as far as it was asked for."""
    tokens = re.findall(r"\s*\S+", reply)
    kept = tokens[: asked.limit]
    counted = sum(len(message.words.split()) for message in asked.messages)
    return Answer(f"chatcmpl-{name}", int(now), kept, len(kept) == len(tokens), counted)


def whole(made: Answer) -> bytes:
    """The answer as one object."""
    message = {"role": "assistant", "content": "".join(made.tokens), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(made)}
    return msgspec.json.encode({**_head(made, "chat.completion"), "choices": [choice], "usage": _usage(made)})


def events(made: Answer, *, with_usage: bool) -> Iterator[bytes]:
    """The answer as server-sent events, one a word."""
    yield _event(_chunk(made, {"role": "assistant", "content": ""}))
    for token in made.tokens:
        yield _event(_chunk(made, {"content": token}))
    yield _event(_chunk(made, {}, _reason(made)))
    if with_usage:
        yield _event({**_head(made, "chat.completion.chunk"), "choices": [], "usage": _usage(made)})
    yield b"data: [DONE]\n\n"


def models(now: float) -> bytes:
    """The only one."""
    model = {"id": MODEL, "object": "model", "created": int(now), "owned_by": "planaria"}
    return msgspec.json.encode({"object": "list", "data": [model]})


def error(message: str, kind: str = "invalid_request_error", code: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _head(made: Answer, kind: str) -> dict[str, Any]:
    return {"id": made.id, "object": kind, "created": made.created, "model": MODEL, "system_fingerprint": None}


def _chunk(made: Answer, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {**_head(made, "chat.completion.chunk"), "choices": [choice]}


def _event(what: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(what) + b"\n\n"


def _reason(made: Answer) -> str:
    return "stop" if made.is_whole else "length"


def _usage(made: Answer) -> dict[str, int]:
    said = len(made.tokens)
    return {"prompt_tokens": made.asked_tokens, "completion_tokens": said, "total_tokens": made.asked_tokens + said}
