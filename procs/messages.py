"""Every message of the bus: a frozen struct, its limits, who sends it to whom. Validated when decoded.

Encoding: msgpack maps tagged with "type". Unknown fields are ignored, so that old and new versions can talk;
an unknown type, a missing field or a value outside its limits is Refused with the reason.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from procs.errors import Refused

M = TypeVar("M")
MAX_BYTES = 64 * 1024  # of one encoded message; raw bodies travel beside it in frames of their own

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Instance = Annotated[str, msgspec.Meta(max_length=64)]
Reason = Annotated[str, msgspec.Meta(max_length=500)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Bits = Annotated[int, msgspec.Meta(ge=10_000, le=200_000_000)]


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Any process to the warden, once a second while its main loop turns."""

    program: Name
    instance: Instance
    pid: Annotated[int, msgspec.Meta(gt=0)]
    serving: bool
    dropped: Count = 0  # pictures that it has left out so far


class Keyframe(msgspec.Struct, frozen=True, tag="keyframe"):
    """To a producer: make the next picture a keyframe. Idempotent."""


class Bitrate(msgspec.Struct, frozen=True, tag="bitrate"):
    """To a producer: encode at this many bits per second from the next picture on. Idempotent."""

    bits_per_s: Bits


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """To a producer: say what you are and how you are doing. Idempotent."""


class Look(msgspec.Struct, frozen=True, tag="look"):
    """To the warden: say how the suite is. Idempotent."""


Command = Keyframe | Bitrate | Describe | Look


class Description(msgspec.Struct, frozen=True, tag="description"):
    """A producer's answer to Describe."""

    instance: Instance
    pid: int
    width: int
    height: int
    fps: int
    bitrate: int
    encoder: str
    frames: Count
    dropped: Count


class ProcessState(msgspec.Struct, frozen=True, tag="process"):
    """One process as the warden sees it."""

    name: str
    pid: Count  # 0: it does not run
    state: str  # supervisord's word, or SERVING, or HANGING
    age_s: float
    sign_age_s: float | None  # since its last heartbeat (of go2rtc: answer); None: there was none
    restarts_hour: Count
    last_end: str  # why it ended last; "" if it has not
    memory: Count  # bytes (RSS)
    failures: Count  # starts in a row that failed
    wait_s: float  # until it is started again


class SuiteState(msgspec.Struct, frozen=True, tag="suite_state"):
    """The warden's answer to Look."""

    processes: list[ProcessState]
    troubles: list[str]  # what is wrong though every process lives: a stream that is watched and dry


class Request(msgspec.Struct, frozen=True, tag="request"):
    """The header of a command: enough for anybody to decide about retrying or dropping it.

    deadline_ms is on this machine's CLOCK_MONOTONIC, which all its processes share.
    """

    id: Id
    deadline_ms: Count
    idempotent: bool
    body: Command


class Reply(msgspec.Struct, frozen=True, tag="reply"):
    """The answer to the Request of the same id; `reason` says why when it is not ok."""

    id: Id
    ok: bool
    reason: Reason = ""
    body: Description | SuiteState | None = None


_ENCODER = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """One message as bytes. Raises Refused when it is larger than a reader would take."""
    data = _ENCODER.encode(message)
    if len(data) > MAX_BYTES:
        raise Refused(f"{type(message).__name__} of {len(data)} bytes is over the limit of {MAX_BYTES}")
    return data


def decode(data: bytes, kind: type[M]) -> M:
    """One message of the given kind. Raises Refused with the reason for anything else."""
    if len(data) > MAX_BYTES:
        raise Refused(f"message of {len(data)} bytes is over the limit of {MAX_BYTES}")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(f"not a {kind.__name__}: {error}"[:500]) from None
