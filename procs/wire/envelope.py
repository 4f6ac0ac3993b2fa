"""The envelope around every text frame between device, hub and viewer, as published: {"type", "request_id"?, "ts",
"payload"}. Pure.

`decode` takes a frame apart without looking into its payload, `parse` makes a payload of its kind, `encode` makes a
frame. Unknown types and unknown fields are no errors: peers are newer or older than we are. Everything else that is
not as written here and in procs/wire/frames is Refused, and every payload, list and string has a limit.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import msgspec

from procs.errors import Refused
from procs.wire.nesting import MAX_DEPTH, is_deep
from procs.wire.scalars import Time, Type

P = TypeVar("P", bound="Payload")
MAX_BYTES = 2 * 1024 * 1024  # of one frame
_SMALL = 64 * 1024
_SHOWN = 300  # characters of a reason


class Payload(msgspec.Struct, frozen=True):
    """What a frame of some type carries."""

    max_bytes: ClassVar[int] = _SMALL  # of its JSON


class SecretPayload(Payload, frozen=True):
    """A payload that must not be readable in a traceback."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Envelope(NamedTuple):
    """One frame, its payload still as JSON. `ts` is what the sender wrote, "" if nothing."""

    type: str
    payload: msgspec.Raw
    request_id: str | None
    ts: str


class _Frame(msgspec.Struct, frozen=True):
    type: Type
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    request_id: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    ts: Time = ""


_FRAMES = msgspec.json.Decoder(_Frame)
_ENCODER = msgspec.json.Encoder()
_DECODERS: dict[type[Payload], msgspec.json.Decoder[Any]] = {}


def decode(text: str | bytes, *, limit: int = MAX_BYTES) -> Envelope:
    """One frame. Raises Refused for anything but an object with a type and an object as payload, within the limits."""
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > limit:
            raise Refused(f"frame of {len(data)} bytes is over the limit of {limit}")
        frame = _FRAMES.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(f"not a frame: {error}"[:_SHOWN]) from None
    if not bytes(memoryview(frame.payload)[:1]) == b"{":
        raise Refused(f"{frame.type}: the payload is no object")
    if is_deep(data):
        raise Refused(f"{frame.type}: nested deeper than {MAX_DEPTH}")
    return Envelope(frame.type, frame.payload, frame.request_id, frame.ts)


def parse(envelope: Envelope, kind: type[P]) -> P:
    """The payload as one of its kind. Raises Refused, naming the field."""
    size = len(memoryview(envelope.payload))
    if size > kind.max_bytes:
        raise Refused(f"{envelope.type}: payload of {size} bytes is over the limit of {kind.max_bytes}")
    decoder = _DECODERS.get(kind) or _DECODERS.setdefault(kind, msgspec.json.Decoder(kind))
    try:
        payload: P = decoder.decode(envelope.payload)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(f"{envelope.type}: {error}"[:_SHOWN]) from None
    return payload


def encode(
    kind: str, payload: Payload | dict[str, Any], request_id: str | None = None, *, with_request_id: bool = False
) -> str:
    """One frame of the type `kind`, stamped now. A request_id of None is left out, or null by `with_request_id`.

    Raises Refused for a payload that the other side would refuse for its size, or that is no JSON.
    """
    frame: dict[str, Any] = {"type": kind}
    if request_id is not None or with_request_id:
        frame["request_id"] = request_id
    try:
        body = _ENCODER.encode(payload)
        limit = payload.max_bytes if isinstance(payload, Payload) else MAX_BYTES - _SMALL
        if len(body) > limit:
            raise Refused(f"{kind}: payload of {len(body)} bytes is over the limit of {limit}")
        text = _ENCODER.encode(frame | {"ts": timestamp(), "payload": msgspec.Raw(body)}).decode()
    except (ValueError, RecursionError) as error:
        raise Refused(f"{kind}: not to be written as JSON: {error}"[:_SHOWN]) from None
    if len(text) > MAX_BYTES:  # characters: the envelope around the payload is ASCII
        raise Refused(f"{kind}: frame of {len(text)} characters is over the limit of {MAX_BYTES}")
    return text


def payload(of: Payload) -> bytes:
    """A payload alone, as JSON. Raises Refused when it is too large."""
    body = _ENCODER.encode(of)
    if len(body) > of.max_bytes:
        raise Refused(f"payload of {len(body)} bytes is over the limit of {of.max_bytes}")
    return body


def of_payload(kind: str, body: bytes) -> Envelope:
    """A payload alone, to be parsed."""
    return Envelope(kind, msgspec.Raw(body), None, "")


def timestamp() -> str:
    """Now, as the published systems write it: UTC in ISO 8601, with microseconds and without a zone."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
