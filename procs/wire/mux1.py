"""mux1: many streams over one connection that keeps messages apart (WebSocket, binary). One message is one frame:

     0      1      2             4                              8
     +------+------+-------------+------------------------------+------------
     | 0xA1 | type | flags  (BE) | stream id              (BE)  | payload
     +------+------+-------------+------------------------------+------------

    0x01 OPEN    JSON of Open       the opener chooses the id: odd for the hub, even for the device, always rising
    0x02 HEAD    JSON of Head       exactly once, before any DATA of the answering side
    0x03 DATA    bytes              flags FIN, MORE, TEXT, KEY, DROPPED_BEFORE; at most max_frame bytes
    0x04 CREDIT  u32                so many more bytes of DATA may be sent on this stream (id 0: on all together)
    0x05 RESET   u16 code, text     the stream is over, in both directions
    0x06 PING    u64                answered by 0x07 PONG with the same payload; both have id 0

Only DATA costs credit, of its stream and of the session: as many bytes as it has, and at least MIN_COST, so that tiny
frames can't fill a receiver's memory; an empty one with FIN is free. A stream starts with init_credit; a receiver whose
reader keeps pace lets it grow. All windows together never exceed session_credit, so a stream that stalls can't stop
another.
Source: the frame layout proposed for this project in its notes on go2rtc behind tunnels, section 3.4.
"""

from __future__ import annotations

import enum
import struct
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec

from procs.errors import Refused

T = TypeVar("T")
SUBPROTOCOL = "planaria.mux1"  # of the WebSocket
MAGIC = 0xA1
HEADER = struct.Struct(">BBHI")
MAX_WINDOW = 2 * 1024 * 1024  # of one stream: 40 MB/s at a round trip of 50 ms
# A window grows if its half was handed on within this time: it then holds up to twice as much of the flow, and that is
# what a live viewer who falls behind still gets of what is old.
GROW_WITHIN_S = 0.2
MIN_COST = 128  # about what a queued frame takes of a receiver's memory beside its bytes
MAX_OPENING = 64 * 1024  # bytes of an OPEN or a HEAD
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")


class Type(enum.IntEnum):
    """What a frame is."""

    OPEN = 1
    HEAD = 2
    DATA = 3
    CREDIT = 4
    RESET = 5
    PING = 6
    PONG = 7


FIN, MORE, TEXT, KEY, DROPPED_BEFORE = 1, 2, 4, 8, 16


class Code(enum.IntEnum):
    """Why a stream was reset."""

    CANCEL = 1
    REFUSED = 2
    UPSTREAM_ERROR = 3
    TIMEOUT = 4
    FLOW = 5
    PROTOCOL = 6
    TOO_MANY = 7
    SLOW_VIEWER = 8
    NOT_SENT = 16  # the request has certainly not reached the upstream: it may be sent again, whatever its method
    UNKNOWN = 17  # it was sent, and its answer is lost: what it was to do may be done


_Field = Annotated[str, msgspec.Meta(max_length=32 * 1024)]
Pairs = list[tuple[_Field, _Field]]


class Open(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request: what the opener of a stream wants. `path` is the whole target, with its query."""

    kind: Literal["http", "ws"]
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=16 * 1024)]
    headers: Pairs = []
    rid: Annotated[str, msgspec.Meta(max_length=64)] = ""
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=3_600_000)] = 30_000
    prio: Annotated[int, msgspec.Meta(ge=0, le=3)] = 1
    mode: Literal["bulk", "live"] = "bulk"


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The beginning of an answer."""

    status: Annotated[int, msgspec.Meta(ge=100, le=599)]
    headers: Pairs = []
    endless: bool = False  # a body that goes on for as long as somebody reads it
    subprotocol: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class MuxLimits(msgspec.Struct, frozen=True):
    """What one side takes, as it says in hello and hello_ack."""

    max_frame: Annotated[int, msgspec.Meta(ge=1024, le=1024 * 1024)] = 64 * 1024
    init_credit: Annotated[int, msgspec.Meta(ge=1024, le=MAX_WINDOW)] = 128 * 1024
    session_credit: Annotated[int, msgspec.Meta(ge=64 * 1024, le=2**30)] = 16 * 1024 * 1024
    max_streams: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64


class Frame(NamedTuple):
    """One message, taken apart."""

    type: int
    flags: int
    sid: int
    payload: memoryview


_ENCODER = msgspec.json.Encoder()
_OPEN = msgspec.json.Decoder(Open)
_HEAD = msgspec.json.Decoder(Head)


def unpack(message: bytes | memoryview) -> Frame:
    """Take a message apart. Raises Refused for what is no frame."""
    if len(message) < 8 or message[0] != MAGIC:
        raise Refused("no mux1 frame")
    _, kind, flags, sid = HEADER.unpack_from(message)
    if not 1 <= kind <= 7:
        raise Refused(f"frame of unknown type {kind}")
    return Frame(kind, flags, sid, memoryview(message)[8:])


def opening(sid: int, request: Open) -> bytes:
    """An OPEN frame. Raises Refused for one that the other side would not take."""
    return _described(Type.OPEN, sid, request)


def head(sid: int, answer: Head) -> bytes:
    """A HEAD frame. Raises Refused for one that the other side would not take."""
    return _described(Type.HEAD, sid, answer)


def _described(kind: int, sid: int, what: Open | Head) -> bytes:
    try:
        text = _ENCODER.encode(what)
    except UnicodeEncodeError as error:
        raise Refused(f"{type(what).__name__}: {error}"[:200]) from None
    if len(text) > MAX_OPENING:
        raise Refused(f"{type(what).__name__} of {len(text)} bytes is over the limit of {MAX_OPENING}")
    return HEADER.pack(MAGIC, kind, 0, sid) + text


def data(sid: int, payload: bytes | memoryview, flags: int = 0) -> bytes:
    """A DATA frame."""
    return b"".join((HEADER.pack(MAGIC, Type.DATA, flags, sid), payload))


def credit(sid: int, more: int) -> bytes:
    """A CREDIT frame: so many bytes more."""
    return HEADER.pack(MAGIC, Type.CREDIT, 0, sid) + _U32.pack(more)


def reset(sid: int, code: int, reason: str = "") -> bytes:
    """A RESET frame; the reason is cut to 200 bytes."""
    return HEADER.pack(MAGIC, Type.RESET, 0, sid) + _U16.pack(code) + reason.encode(errors="replace")[:200]


def ping(token: bytes) -> bytes:
    """A PING frame; the token is 8 bytes."""
    return HEADER.pack(MAGIC, Type.PING, 0, 0) + token


def pong(token: bytes | memoryview) -> bytes:
    """The answer to a PING."""
    return b"".join((HEADER.pack(MAGIC, Type.PONG, 0, 0), token))


def read_open(payload: memoryview) -> Open:
    """What an OPEN says. Raises Refused."""
    return _read(_OPEN, payload)


def read_head(payload: memoryview) -> Head:
    """What a HEAD says. Raises Refused."""
    return _read(_HEAD, payload)


def _read(decoder: msgspec.json.Decoder[T], payload: memoryview) -> T:
    if len(payload) > MAX_OPENING:
        raise Refused(f"OPEN or HEAD of {len(payload)} bytes is over the limit of {MAX_OPENING}")
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"OPEN or HEAD: {error}"[:200]) from None


def read_credit(payload: memoryview) -> int:
    """How much a CREDIT grants. Raises Refused."""
    if len(payload) != 4 or not (more := _U32.unpack(payload)[0]):
        raise Refused("CREDIT must be four bytes and not zero")
    return int(more)


def read_reset(payload: memoryview) -> tuple[int, str]:
    """(code, reason) of a RESET. Raises Refused."""
    if not 2 <= len(payload) <= 1024:
        raise Refused("RESET must be a code and a short text")
    return int(_U16.unpack_from(payload)[0]), bytes(payload[2:]).decode(errors="replace")


def cost(size: int, flags: int = 0) -> int:
    """The credit that a DATA frame of so many bytes takes."""
    return 0 if not size and flags & FIN else max(size, MIN_COST)


class Window:
    """What the other side may still send on one stream, seen by the receiver."""

    __slots__ = ("granted_at", "left", "owed", "size", "unread")

    def __init__(self, size: int) -> None:
        self.size = size  # how much may be underway and unread together
        self.left = size  # that may still be sent
        self.unread = 0  # received, and not yet handed on
        self.owed = 0  # handed on, and not yet granted anew
        self.granted_at = 0.0  # when that was last done


class Receiving:
    """The receiver's side of all credit of one connection."""

    def __init__(self, ours: MuxLimits) -> None:
        self._init, self._session = ours.init_credit, ours.session_credit
        self.left = ours.session_credit
        self._owed = 0
        # What is never granted because it is owed (a quarter), and every stream's first credit, are set aside.
        self._growth = max(0, ours.session_credit * 3 // 4 - ours.init_credit * ours.max_streams)

    def window(self) -> Window:
        """Of a new stream."""
        return Window(self._init)

    def take(self, window: Window | None, size: int) -> bool:
        """Count DATA that has come (of a stream that is over: None). False if the stream had no credit for it; raises
        Refused if the session had none."""
        if size > self.left:
            raise Refused("more DATA than the session has credit for")
        self.left -= size
        if window is None:
            self._owed += size
            return True
        if size > window.left:
            self._owed += size
            return False
        window.left -= size
        window.unread += size
        return True

    def read(self, window: Window, size: int, now: float = 0.0) -> int:
        """Bytes were handed on to whoever wants them, at a time in seconds; returns the credit to grant to this stream
        now, or 0."""
        window.unread -= size
        window.owed += size
        self._owed += size
        if 2 * window.owed < window.size:
            return 0
        is_quick, window.granted_at = now - window.granted_at < GROW_WITHIN_S, now
        # Nothing waits here, so it is the window that bounds the flow, if there is much of it.
        if is_quick and not window.unread and (more := min(window.size, MAX_WINDOW - window.size, self._growth)) > 0:
            self._growth -= more
            window.size += more
            window.owed += more
        grant, window.owed = window.owed, 0
        window.left += grant
        return grant

    def forget(self, window: Window) -> None:
        """A stream is over; what was not read of it never will be."""
        self._growth += window.size - self._init
        self._owed += window.unread
        window.unread = 0

    def session_grant(self) -> int:
        """The credit to grant to the session now, or 0."""
        if 4 * self._owed < self._session:
            return 0
        grant, self._owed = self._owed, 0
        self.left += grant
        return grant
