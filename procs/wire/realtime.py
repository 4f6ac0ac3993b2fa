"""What a voice backend and a device (or a browser) say to each other over a WebSocket, as published: JSON events with a
`type`, sound inside them as base64 of Ogg-Opus, 24 kHz mono. Pure.

`decode` reads what one of three sides sends, `encode` writes an event. Unknown fields are no errors. An unknown type is
refused as UnknownType and everything else that is not as written here as Refused: the caller counts it, the link lives.
Every string, list and message has a limit. In an event of ours, sound is bytes: base64 is made and read here.

What is named `planaria.` is ours, and so are binary frames. They are used once both have said so: a backend offers the
WebSocket subprotocols OFFERED, of which a device takes one by `chosen`. Under OURS text frames are the same events and
those of ours, and sound goes in binary frames instead (procs/wire/audio_frame.py).
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterable
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from procs.errors import Refused
from procs.wire.conversation import Outputs, Response, Session, Text
from procs.wire.nesting import MAX_DEPTH, is_deep
from procs.wire.scalars import Count, Number, Word

E = TypeVar("E", bound="Event")
PUBLISHED = "realtime"
OURS = "planaria.realtime.v1"
OFFERED = (OURS, PUBLISHED)  # by a backend, the better one first
VERSION = 1  # of what is ours, in a hello
RATE = 24_000  # samples a second of all sound, and ticks of a timestamp
MAX_BYTES = 1024 * 1024  # of one message
MAX_AUDIO = 192 * 1024  # bytes of sound in one event: 256 KiB of base64
_SHOWN = 300  # characters of a reason
_LETTERS = string.ascii_letters + string.digits

Id = Annotated[str, msgspec.Meta(max_length=512)]
Audio = Annotated[bytes, msgspec.Meta(max_length=MAX_AUDIO)]


class UnknownType(Refused):
    """An event of a type that this side does not send, as far as we know."""


def _made_id() -> str:
    return "event_" + "".join(random.choices(_LETTERS, k=21))


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an error says. In use as `type`: invalid_request_error, warning, and fatal, which is followed by a close."""

    type: Word
    message: Text
    code: Word | None = None
    param: Text | None = None
    details: Any = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What all events have. An `event_id` that is missing is made."""

    event_id: Id = msgspec.field(default_factory=_made_id)


class SessionUpdate(Event, frozen=True, tag="session.update"):
    """A browser to a backend, or a backend to a device."""

    session: Session


class SessionUpdated(Event, frozen=True, tag="session.updated"):
    """The answer to session.update: the same session."""

    session: Session


class Append(Event, frozen=True, tag="input_audio_buffer.append"):
    """The microphone: the next bytes of one Ogg-Opus stream."""

    audio: Audio


class AppendAnonymized(Event, frozen=True, tag="unmute.input_audio_buffer.append_anonymized"):
    """Stands for an append in a recording."""

    number_of_samples: Count


class Error(Event, frozen=True, tag="error"):
    """Something is wrong; the link lives, unless it is fatal."""

    error: Problem


class ResponseCreated(Event, frozen=True, tag="response.created"):
    """The bot begins to say something."""

    response: Response


class TextReady(Event, frozen=True, tag="unmute.response.text.delta.ready"):
    """A word as the language model says it, before it is spoken."""

    delta: Text


class TextDelta(Event, frozen=True, tag="response.text.delta"):
    """A word as it is spoken."""

    delta: Text


class TextDone(Event, frozen=True, tag="response.text.done"):
    """All that is going to be spoken; usually said before the end of the sound."""

    text: Text


class AudioReady(Event, frozen=True, tag="unmute.response.audio.delta.ready"):
    """Stands for sound in a recording."""

    number_of_samples: Count


class AudioDelta(Event, frozen=True, tag="response.audio.delta"):
    """The speaker: the next bytes of one Ogg-Opus stream."""

    delta: Audio


class AudioDone(Event, frozen=True, tag="response.audio.done"):
    """No more sound of this response."""


class Transcription(Event, frozen=True, tag="conversation.item.input_audio_transcription.delta"):
    """A word of the user's. The first of a connection is empty."""

    delta: Text
    start_time: Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)] = 0.0


class SpeechStarted(Event, frozen=True, tag="input_audio_buffer.speech_started"):
    """The first word of the user's turn was recognised."""


class SpeechStopped(Event, frozen=True, tag="input_audio_buffer.speech_stopped"):
    """The user is taken to have ended."""


class Interrupted(Event, frozen=True, tag="unmute.interrupted_by_vad"):
    """The user has begun to speak while the bot spoke: nothing more of it is to be heard."""


class AdditionalOutputs(Event, frozen=True, tag="unmute.additional_outputs"):
    """At most once a second, and after each reply."""

    args: Outputs


class Hello(Event, frozen=True, tag="planaria.hello"):
    """The first thing a device says."""

    name: Word
    echo: Literal["cancelled", "half-duplex", "none"]
    muted: bool = False
    wake: Word = ""  # the word it waits for before it lets the microphone be heard
    output_ms: Number = 0.0  # from what is handed to the speaker until it is heard
    version: Count = VERSION


class Playback(Event, frozen=True, tag="planaria.playback"):
    """How far a response has been heard: at each change, and every 200 ms while it plays."""

    response: Count  # how many response.created there were
    state: Literal["playing", "paused", "flushed", "done"]
    heard_ms: Number  # of this response, and has left the speaker
    buffered_ms: Number


class State(Event, frozen=True, tag="planaria.state"):
    """How a device does, at each change. What is neither "ok" nor "opening" says in words what is wrong and what
    to do."""

    muted: bool
    awake: bool
    microphone: Text
    speaker: Text


class Pause(Event, frozen=True, tag="planaria.pause"):
    """Stop playing, and keep what is left."""


class Resume(Event, frozen=True, tag="planaria.resume"):
    """Go on where `pause` stopped."""


class Flush(Event, frozen=True, tag="planaria.flush"):
    """Stop playing, and forget what is left."""


class Mute(Event, frozen=True, tag="planaria.mute"):
    """Silence the microphone, or no more."""

    muted: bool


class Volume(Event, frozen=True, tag="planaria.volume"):
    """How loud the speaker is."""

    percent: Annotated[int, msgspec.Meta(ge=0, le=100)]


FromBrowser = SessionUpdate | Append | AppendAnonymized
FromDevice = Append | Error | Hello | Playback | State
_Talk = ResponseCreated | TextReady | TextDelta | TextDone | AudioReady | AudioDelta | AudioDone | Interrupted
_Heard = Transcription | SpeechStarted | SpeechStopped
_Orders = Pause | Resume | Flush | Mute | Volume
FromBackend = SessionUpdate | SessionUpdated | Error | _Talk | _Heard | AdditionalOutputs | _Orders


class Side(Generic[E]):
    """Who sends, and by that which events are known."""

    def __init__(self, kinds: Any) -> None:
        self.types = frozenset(str(kind.__struct_config__.tag) for kind in kinds.__args__)
        self.decoder: msgspec.json.Decoder[E] = msgspec.json.Decoder(kinds)


FROM_BROWSER: Side[FromBrowser] = Side(FromBrowser)
FROM_DEVICE: Side[FromDevice] = Side(FromDevice)
FROM_BACKEND: Side[FromBackend] = Side(FromBackend)


class _Kind(msgspec.Struct, frozen=True):
    type: str


_KINDS = msgspec.json.Decoder(_Kind)
_ENCODER = msgspec.json.Encoder()


def decode(text: str | bytes, sender: Side[E]) -> E:
    """One event of `sender`'s. Raises Refused, naming the field; UnknownType where that is all that is wrong."""
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > MAX_BYTES:
            raise Refused(f"message of {len(data)} bytes is over the limit of {MAX_BYTES}")
        event = sender.decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise _refused(data if isinstance(error, msgspec.DecodeError) else b"", error, sender.types) from None
    if is_deep(data):
        raise Refused(f"nested deeper than {MAX_DEPTH}")
    return event


def _refused(data: bytes, error: Exception, known: frozenset[str]) -> Refused:
    try:
        kind = _KINDS.decode(data).type
    except (msgspec.DecodeError, RecursionError):
        return Refused(f"not an event: {error}"[:_SHOWN])
    return Refused(f"{kind}: {error}"[:_SHOWN]) if kind in known else UnknownType(f"unknown type {kind[:64]!r}")


def encode(event: Event) -> str:
    """One event as text. Raises Refused for one that the other side would refuse for its size, or that is no JSON."""
    try:
        data = _ENCODER.encode(event)
        text = data.decode()
    except (ValueError, RecursionError) as error:
        raise Refused(f"not to be written as JSON: {error}"[:_SHOWN]) from None
    if len(data) > MAX_BYTES:
        raise Refused(f"message of {len(data)} bytes is over the limit of {MAX_BYTES}")
    return text


def chosen(offered: Iterable[str]) -> str | None:
    """Which of the subprotocols that a backend offers a device takes; None: it speaks none of them."""
    theirs = set(offered)
    return next((name for name in OFFERED if name in theirs), None)
