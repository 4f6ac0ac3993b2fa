"""Watch sessions: between ws_link, webrtc_peer, and its children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from procs.messages import decoder
from procs.messages.limits import (
    Bits,
    Count,
    EncoderName,
    Id,
    Name,
    PayloadType,
    Reason,
    SessionId,
    StreamName,
    Text,
    Word,
)
from procs.messages.requests import Bitrate, Keyframe


class SessionsReady(msgspec.Struct, frozen=True, tag="sessions_ready"):
    """webrtc_peer to ws_link, at once after its start and each second: these sessions it has."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    sessions: Annotated[list[SessionId], msgspec.Meta(max_length=64)]


class Signal(msgspec.Struct, frozen=True, tag="signal"):
    """A frame of a session on its way between hub, webrtc_peer and child; its payload, JSON, travels beside it.

    Between ws_link and webrtc_peer it is sent again until SignalTaken comes, so a reader may see an id twice; ids of
    one sender never repeat otherwise. Between leader and child ids mean nothing.
    """

    id: Id
    kind: Literal["watch_request", "signal_offer", "signal_answer", "signal_ice", "watch_ended"]
    session_id: SessionId


class SignalTaken(msgspec.Struct, frozen=True, tag="signal_taken"):
    """To the sender of the Signal of this id: it need not be sent again. ws_link says so once the frame was written to
    the hub, webrtc_peer once it has acted on it."""

    id: Id


class Spec(msgspec.Struct, frozen=True, tag="spec"):
    """What a child of webrtc_peer is born with."""

    session_id: SessionId
    user_id: Text
    stream: StreamName
    ice_servers: list[dict[str, Any]]  # as a browser takes them, and the hub has sent them
    run_dir: str
    udp_range: tuple[int, int]  # where its sockets are bound, both ends included
    lease_s: float  # it is not to wait for an offer for longer
    # go2rtc's address, for what a viewer says, and whom to be there (user, password).
    rtsp: tuple[str, int, tuple[str, str] | None] = ("127.0.0.1", 8554, None)

    def __repr__(self) -> str:
        return f"Spec({self.session_id!r}, {self.stream!r}, ...)"  # there are credentials in ice_servers


class EncoderSpec(msgspec.Struct, frozen=True, tag="encoder_spec"):
    """What a child of webrtc_peer is born with that encodes a stream anew, for all viewers who take nothing else."""

    name: EncoderName
    stream: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    codec: Literal["vp8", "opus", "pcma", "pcmu"]
    run_dir: str


class Encoding(msgspec.Struct, frozen=True, tag="encoding"):
    """An encoder to its leader, at once after its start and each second while its loop turns."""

    encoder: EncoderName
    pid: Annotated[int, msgspec.Meta(gt=0)]
    made: Count  # units
    skipped: Count  # units that came too late to be worth it


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """A child of webrtc_peer to its leader, at once after its start and each second."""

    session_id: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    state: Literal["new", "connecting", "connected"]
    path: Literal["", "direct", "relayed"] = ""
    silent_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # since anything came from the viewer; while connected
    stats: Annotated[dict[Name, float], msgspec.Meta(max_length=64)] = {}
    takes: Annotated[list[Name], msgspec.Meta(max_length=16)] = []  # codecs that its answer named; [] before that


class Takes(msgspec.Struct, frozen=True, tag="takes"):
    """A child to its leader, at its answer: the codecs that it named, of which some are to be made. Idempotent."""

    session_id: SessionId
    codecs: Annotated[list[Name], msgspec.Meta(max_length=16)]


class Rtp(msgspec.Struct, frozen=True):
    """How one kind of a session's media is to be made into SRTP packets, and for whom."""

    kind: Literal["video", "audio"]
    codec: Literal["h264", "vp8", "opus", "pcma", "pcmu"]
    clock: Annotated[int, msgspec.Meta(gt=0)]
    payload_type: PayloadType
    source: Word
    again_type: PayloadType | None  # RTX, RFC 4588; None where a viewer gets the very packet again
    again_source: Word
    extension: Annotated[bytes, msgspec.Meta(max_length=256)]  # of each header
    time_at: int  # where in it stands the time of sending (abs-send-time); -1 if nowhere
    profile: int  # as libsrtp names it
    key: Annotated[bytes, msgspec.Meta(max_length=64)]  # and its salt
    to: tuple[str, int] | None  # where the socket beside it sends to; None where its other end knows

    def __repr__(self) -> str:
        return f"Rtp({self.kind!r}, {self.codec!r}, {self.to!r}, ...)"  # there is a key in it


class Way(msgspec.Struct, frozen=True, tag="way"):
    """A child to its leader, with a socket for each of `media` beside it: there the leader is to send what the stream
    has, the cached GOP first. Idempotent; said again until Sent comes, and whenever the way has become another."""

    session_id: SessionId
    media: Annotated[list[Rtp], msgspec.Meta(min_length=1, max_length=2)]


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """The leader to a child, at its Way and after each Beat: what it has sent, of one kind."""

    kind: Literal["video", "audio"]
    units: Count
    dropped: Count
    packets: Count
    octets: Count
    again: Count  # packets that were sent once more
    ntp_time: Count  # when the last unit was sent, and what its RTP time is
    rtp_time: Word


class PacketsWanted(msgspec.Struct, frozen=True, tag="packets_wanted"):
    """A child to its leader: its viewer has not got these packets (NACK)."""

    session_id: SessionId
    kind: Literal["video", "audio"]
    numbers: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]], msgspec.Meta(max_length=4096)]
    round_trip_s: float | None


class KeyframeWanted(msgspec.Struct, frozen=True, tag="keyframe_wanted"):
    """A child to its leader: its viewer lost the picture (PLI, FIR). Idempotent."""

    session_id: SessionId


class RateWanted(msgspec.Struct, frozen=True, tag="rate_wanted"):
    """A child to its leader: this is what its viewer can take, all in all. The last one counts."""

    session_id: SessionId
    bits_per_s: Bits


class Unit(msgspec.Struct, frozen=True, tag="unit"):
    """The leader to an encoder, or an encoder to its leader: a picture or a piece of sound, which travels beside it: an
    Annex-B access unit with its parameter sets before each keyframe, a frame of AAC with its ADTS header, or a frame as
    RTP carries it.

    `number` counts those of one kind of a stream; after a gap in it comes a keyframe.
    """

    kind: Literal["video", "audio"]
    codec: Literal["h264", "vp8", "opus", "pcma", "pcmu", "aac"]
    number: Count
    time_us: Count  # when it is to be seen, on a clock of the stream that never jumps back
    is_keyframe: bool = False


class Source(msgspec.Struct, frozen=True, tag="source"):
    """The leader to a child, at once after its first Beat and at each change: how the stream that it shows is."""

    state: Literal["starting", "live", "dry"]
    codecs: Annotated[list[Name], msgspec.Meta(max_length=16)] = []  # as Unit has them; [] while unknown
    why: Reason = ""  # it is dry
    hears: Literal["", "pcma", "pcmu"] = ""  # how one can speak to it


FromPeer = SessionsReady | Signal | SignalTaken
ToPeer = Signal | SignalTaken
FromSession = Beat | Signal | Takes | PacketsWanted | KeyframeWanted | RateWanted
FromChild = FromSession | Unit | Encoding
ToChild = Signal | Source | Sent
ToEncoder = Unit | Keyframe | Bitrate

decode_from_peer: Callable[[bytes], FromPeer] = decoder(FromPeer)
decode_to_peer: Callable[[bytes], ToPeer] = decoder(ToPeer)
decode_from_child: Callable[[bytes], FromChild] = decoder(FromChild)
decode_to_child: Callable[[bytes], ToChild] = decoder(ToChild)
decode_way: Callable[[bytes], Way] = decoder(Way)
decode_to_encoder: Callable[[bytes], ToEncoder] = decoder(ToEncoder)
