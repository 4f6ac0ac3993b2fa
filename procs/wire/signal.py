"""The text frames between two agents and the signalling server, as published: flat JSON objects with a type. Pure.

`decode` reads a frame, `encode` writes one. Unknown types and unknown fields are no errors: peers are newer or older
than we are. Everything else that is not as written here is Refused, and every string has a limit.

`session` and `auth` are ours: which negotiation a frame belongs to, and who signed the description in it. A published
agent sends neither and ignores both.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from procs.errors import Refused
from procs.wire.nesting import is_deep
from procs.wire.scalars import Id, Instance, Secret, Text, Type
from procs.wire.webrtc import Candidate

MAX_BYTES = 64 * 1024  # of one frame
PING_S = 30.0  # how often an agent pings
SILENCE_S = 90.0  # after which either side holds the other for dead
NOT_CONNECTED = "peer not connected"  # as published
REPLACED = "replaced"  # somebody has registered the same id in the same room
_SHOWN = 300  # characters of a reason

Sdp = Annotated[str, msgspec.Meta(max_length=MAX_BYTES)]
Session = Instance  # "" of a published agent
Key = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{43}=\Z")]  # base64 of 32 bytes: Ed25519
Signature = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{86}==\Z")]  # of 64
CapsText = Annotated[str, msgspec.Meta(max_length=8 * 1024)]


class Auth(msgspec.Struct, frozen=True):
    """Who wrote an offer or an answer, and what it can do. `caps` is JSON as text, since it is signed byte by byte."""

    key: Key
    signature: Signature
    caps: CapsText = "{}"


class Register(msgspec.Struct, frozen=True, tag="register"):
    """register, agent to server: the first frame."""

    id: Id
    token: Secret | None = None

    def __repr__(self) -> str:
        return f"Register(id={self.id!r}, ...)"


class Offer(msgspec.Struct, frozen=True, tag="offer", rename={"sender": "from"}, omit_defaults=True):
    """offer, agent to agent."""

    sender: Id
    to: Id
    sdp: Sdp
    session: Session = ""
    auth: Auth | None = None


class Answer(msgspec.Struct, frozen=True, tag="answer", rename={"sender": "from"}, omit_defaults=True):
    """answer, agent to agent. It repeats the offer's session."""

    sender: Id
    to: Id
    sdp: Sdp
    session: Session = ""
    auth: Auth | None = None


class Trickle(msgspec.Struct, frozen=True, tag="candidate", rename={"sender": "from"}, omit_defaults=True):
    """candidate, agent to agent. None: there are no more."""

    sender: Id
    to: Id
    candidate: Candidate | None
    session: Session = ""


class Bye(msgspec.Struct, frozen=True, tag="bye", rename={"sender": "from"}, omit_defaults=True):
    """bye, agent to agent: this session is over. `why` is ours."""

    sender: Id
    to: Id
    session: Session = ""
    why: Text = ""


class Error(msgspec.Struct, frozen=True, tag="error", rename={"sender": "from"}, omit_defaults=True):
    """error, server to agent. `to` is who is told; `sender` is the peer it is about, `session` which negotiation."""

    error: Text
    to: Text | None = None
    sender: Text | None = None
    session: Session = ""


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """ping, agent to server or the other way."""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """pong, the answer."""


Described = Offer | Answer
Routed = Offer | Answer | Trickle | Bye  # from one agent to another, by its id
Frame = Register | Offer | Answer | Trickle | Bye | Error | Ping | Pong

TYPES = frozenset({"register", "offer", "answer", "candidate", "bye", "error", "ping", "pong"})
ROUTED = frozenset({"offer", "answer", "candidate", "bye"})


class _Kind(msgspec.Struct, frozen=True):
    type: Type


class _Head(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    sender: Id | None = None


_KINDS = msgspec.json.Decoder(_Kind)
_HEADS = msgspec.json.Decoder(_Head)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FRAMES: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)
_ENCODER = msgspec.json.Encoder()


def kind_of(text: str | bytes) -> str:
    """The type of a frame, known or not. Raises Refused for what is no frame at all."""
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > MAX_BYTES:
            raise Refused(f"frame of {len(data)} bytes is over the limit of {MAX_BYTES}")
        return _KINDS.decode(data).type
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(f"not a frame: {error}"[:_SHOWN]) from None


def decode(text: str | bytes) -> Frame | None:
    """One frame; None for a type that is not known here. Raises Refused, naming the field."""
    kind = kind_of(text)
    if kind not in TYPES:
        return None
    try:
        return _FRAMES.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(f"{kind}: {error}"[:_SHOWN]) from None


def encode(frame: Frame) -> str:
    """One frame as text. Raises Refused for one that the other side would refuse for its size, or that is no JSON."""
    try:
        data = _ENCODER.encode(frame)
        text = data.decode()
    except ValueError as error:
        raise Refused(f"not to be written as JSON: {error}"[:_SHOWN]) from None
    if len(data) > MAX_BYTES:
        raise Refused(f"frame of {len(data)} bytes is over the limit of {MAX_BYTES}")
    return text


def relayed(text: str, sender: str) -> tuple[Routed, str]:
    """A frame from one agent to another, and as the server passes it on: from whom it really is, each field once, what
    is not known here as it came. Raises Refused, also for one that says it is somebody else's."""
    kind = kind_of(text)
    try:
        said = _HEADS.decode(text).sender
        fields = _FIELDS.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(f"{kind}: {error}"[:_SHOWN]) from None
    if said not in (None, sender):
        raise Refused(f"{kind}: from must be {sender!r}, as registered"[:_SHOWN])
    passed = _ENCODER.encode(fields | {"from": msgspec.Raw(_ENCODER.encode(sender))})
    frame = decode(passed)
    if not isinstance(frame, Routed):
        raise Refused(f"{kind}: goes to no agent")
    if is_deep(passed):
        raise Refused(f"{kind}: nested too deep")
    return frame, passed.decode()
