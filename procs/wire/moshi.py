"""What a voice backend and its speech services say to each other over a WebSocket, as published: binary frames, each a
msgpack map with a `type`. Sound is a list of floats in [-1, 1), 24 kHz mono, in steps of 1,920 (80 ms). Pure.

`decode` reads what one of four sides sends, `encode` writes a message. Unknown fields are no errors; everything else
that is not as written here is Refused, and all has a limit. In a message of ours sound is an array of int16: the list,
5 bytes a sample, is written and read by numpy as a whole and not number by number. We write single floats; doubles and
whole numbers are read too, more slowly where they are mixed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar, Union

import msgspec
import numpy as np
from numpy.typing import NDArray

from procs.errors import Refused
from procs.wire.scalars import Count

M = TypeVar("M", covariant=True)
Samples = NDArray[np.int16]
RATE = 24_000
STEP = 1920  # samples: services think and answer in such steps
MAX_SAMPLES = 10 * RATE  # in one message
MAX_BYTES = MAX_SAMPLES * 9 + 1024  # of one message: doubles take 9 each
MAX_TEXT = 64 * 1024  # characters
NO_CHANNELS = "no free channels"  # the error of a service that has no room now: another instance may
_FULL = 32768.0  # of int16, is 1.0
_SINGLE, _DOUBLE = 0xCA, 0xCB
_SHOWN = 300  # characters of a reason

Text_ = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Finite = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]  # JSON, in which these go on, has no others
Floats = Annotated[list[float], msgspec.Meta(max_length=MAX_SAMPLES)]


@dataclass(frozen=True, eq=False)
class Audio:
    """To speech recognition, or from a synthesiser: the next samples."""

    pcm: Samples


class OggOpus(msgspec.Struct, frozen=True, tag="OggOpus"):
    """The same as the next bytes of an Ogg-Opus stream."""

    data: Annotated[bytes, msgspec.Meta(max_length=256 * 1024)]


class Init(msgspec.Struct, frozen=True, tag="Init"):
    """To speech recognition: begin. It begins without, too."""


class Marker(msgspec.Struct, frozen=True, tag="Marker"):
    """To speech recognition, and back when all sound before it has been dealt with; more sound must follow for that."""

    id: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Ready(msgspec.Struct, frozen=True, tag="Ready"):
    """From a service: there is room, go on."""


class Word(msgspec.Struct, frozen=True, tag="Word"):
    """From speech recognition. Times are seconds of sound since the start."""

    text: Text_
    start_time: Finite


class EndWord(msgspec.Struct, frozen=True, tag="EndWord"):
    """From speech recognition: where the last word ends."""

    stop_time: Finite


class Step(msgspec.Struct, frozen=True, tag="Step"):
    """From speech recognition, for every step: how probable a pause of at least 0.5, 1, 2 and 3 s is."""

    step_idx: Count
    prs: Annotated[list[Finite], msgspec.Meta(max_length=16)]
    buffered_pcm: Count = 0


class Error(msgspec.Struct, frozen=True, tag="Error"):
    """From a service, which then closes."""

    message: Text_


class Text(msgspec.Struct, frozen=True, tag="Text"):
    """To a synthesiser: whole words."""

    text: Text_


class Voice(msgspec.Struct, frozen=True, tag="Voice"):
    """To a synthesiser, first of all: a voice by its embedding."""

    embeddings: Floats
    shape: Annotated[list[Count], msgspec.Meta(max_length=8)]


class Eos(msgspec.Struct, frozen=True, tag="Eos"):
    """To a synthesiser: that was all; it ends with the last word."""


class TimedText(msgspec.Struct, frozen=True, tag="Text"):
    """From a synthesiser: when in its sound a word is spoken, in seconds."""

    text: Text_
    start_s: Finite
    stop_s: Finite


class _Pcm(msgspec.Struct, frozen=True, tag="Audio"):
    pcm: msgspec.Raw


ToStt = Audio | OggOpus | Marker | Init
FromStt = Ready | Word | EndWord | Step | Marker | Error
ToTts = Text | Voice | Eos
FromTts = Ready | TimedText | Audio | OggOpus | Error
Message = ToStt | FromStt | ToTts | FromTts


class Side(Generic[M]):
    """Who sends, and by that which messages are known."""

    def __init__(self, kinds: Any) -> None:
        on_wire: Any = Union[tuple(_Pcm if kind is Audio else kind for kind in kinds.__args__)]  # noqa: UP007
        self.decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(on_wire)


TO_STT: Final[Side[ToStt]] = Side(ToStt)
FROM_STT: Final[Side[FromStt]] = Side(FromStt)
TO_TTS: Final[Side[ToTts]] = Side(ToTts)
FROM_TTS: Final[Side[FromTts]] = Side(FromTts)
_ENCODER = msgspec.msgpack.Encoder()
_LISTS = msgspec.msgpack.Decoder(list[float])


def decode(data: bytes | str, side: Side[M]) -> M:
    """One message. To a synthesiser a text frame is words and one zero is the end, as published. Raises Refused."""
    if len(data) > MAX_BYTES:
        raise Refused(f"message of {len(data)} bytes is over the limit of {MAX_BYTES}")
    packed = _packed(data) if side is TO_TTS else data
    if isinstance(packed, str):
        raise Refused("a text frame, where only binary ones are spoken")
    try:
        message: Any = side.decoder.decode(packed)
        return Audio(_samples(bytes(message.pcm))) if isinstance(message, _Pcm) else message  # type: ignore[return-value]
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(f"not a message: {error}"[:_SHOWN]) from None


def encode(message: Message) -> bytes:
    """One message as a binary frame. Raises Refused for what the other side would refuse for its size."""
    try:
        data = _ENCODER.encode(_Pcm(msgspec.Raw(_list(message.pcm))) if isinstance(message, Audio) else message)
    except (ValueError, OverflowError) as error:
        raise Refused(f"not to be written: {error}"[:_SHOWN]) from None
    if len(data) > MAX_BYTES:
        raise Refused(f"message of {len(data)} bytes is over the limit of {MAX_BYTES}")
    return data


def as_floats(pcm: Samples) -> NDArray[np.float32]:
    """Samples as the published programs hold them."""
    return pcm.astype(np.float32) / np.float32(_FULL)


def as_samples(floats: NDArray[Any]) -> Samples:
    """The nearest samples of ours; what is too loud is clipped. Raises Refused for what is no number."""
    if not np.isfinite(floats).all():
        raise Refused("Audio: a sample that is no number")
    loud = np.rint(np.clip(floats, -1.0, 1.0) * floats.dtype.type(_FULL))
    pcm: Samples = np.minimum(loud, _FULL - 1).astype(np.int16)
    return pcm


def _packed(data: bytes | str) -> bytes:
    if isinstance(data, str):
        return encode(Text(data[: MAX_TEXT + 1]))
    return encode(Eos()) if data == b"\0" else data


_SINGLES, _DOUBLES = np.dtype([("type", "u1"), ("value", ">f4")]), np.dtype([("type", "u1"), ("value", ">f8")])


def _list(pcm: Samples) -> bytes:
    """A msgpack list of single floats."""
    if len(pcm) > MAX_SAMPLES:
        raise Refused(f"{len(pcm)} samples are over the limit of {MAX_SAMPLES}")
    numbers = np.empty(len(pcm), _SINGLES)
    numbers["type"], numbers["value"] = _SINGLE, as_floats(pcm)
    return struct.pack(">BI", 0xDD, len(pcm)) + numbers.tobytes()


def _samples(packed: bytes) -> Samples:
    """What a msgpack list of numbers holds."""
    count, start = _head(packed)
    if count > MAX_SAMPLES:
        raise Refused(f"Audio: {count} samples are over the limit of {MAX_SAMPLES}")
    for kind, layout in ((_SINGLE, _SINGLES), (_DOUBLE, _DOUBLES)):
        if len(packed) - start == count * layout.itemsize:
            numbers = np.frombuffer(packed, layout, count, start)
            if (numbers["type"] == kind).all():
                return as_samples(numbers["value"].astype(layout["value"].newbyteorder("=")))
    return as_samples(np.array(_LISTS.decode(packed), np.float64))


def _head(packed: bytes) -> tuple[int, int]:
    """How many a list holds, and where its first stands."""
    if packed[0] & 0xF0 == 0x90:
        return packed[0] & 0x0F, 1
    if packed[0] in (0xDC, 0xDD):
        size = 2 if packed[0] == 0xDC else 4
        return int.from_bytes(packed[1 : 1 + size], "big"), 1 + size
    raise Refused("Audio: pcm is no list")
