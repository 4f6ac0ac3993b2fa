"""Every message of the bus: a frozen struct, its limits, who sends it to whom. Validated when decoded.

Here is how they are written and read; the messages stand in the modules beside, by who talks to whom.

Encoding: msgpack maps tagged with "type". Unknown fields are ignored, so that old and new versions can talk;
an unknown type, a missing field or a value outside its limits is Refused with the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from procs.errors import Refused

M = TypeVar("M")
MAX_BYTES = 64 * 1024  # of one encoded message; raw bodies travel beside it in frames of their own
MAX_BODY_BYTES = 2 * 1024 * 1024  # of one such body
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """One message as bytes. Raises Refused when it is larger than a reader would take."""
    data = _ENCODER.encode(message)
    if len(data) > MAX_BYTES:
        raise Refused(f"{type(message).__name__} of {len(data)} bytes is over the limit of {MAX_BYTES}")
    return data


@functools.cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)  # to make one costs ten times what it then takes to decode a message


def decode(data: bytes, kind: type[M]) -> M:
    """One message of the given kind. Raises Refused with the reason for anything else."""
    if len(data) > MAX_BYTES:
        raise Refused(f"message of {len(data)} bytes is over the limit of {MAX_BYTES}")
    try:
        return cast(M, _decoder(cast(Any, kind)).decode(data))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(f"not a {getattr(kind, '__name__', 'message of this endpoint')}: {error}"[:500]) from None


def decoder(kinds: Any) -> Callable[[bytes], Any]:
    """What reads one of several kinds, a union. It raises Refused, as decode does."""
    return functools.partial(decode, kind=kinds)
