"""Every message of the bus: a frozen struct, its limits, who sends it to whom. Validated when decoded.

Encoding: msgpack maps tagged with "type". Unknown fields are ignored, so that old and new versions can talk;
an unknown type, a missing field or a value outside its limits is Refused with the reason.
"""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec

from procs.errors import Refused

M = TypeVar("M")
MAX_BYTES = 64 * 1024  # of one encoded message; raw bodies travel beside it in frames of their own
MAX_BODY_BYTES = 2 * 1024 * 1024  # of one such body

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Instance = Annotated[str, msgspec.Meta(max_length=64)]
ProcessName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # as the warden has it
Reason = Annotated[str, msgspec.Meta(max_length=500)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Bits = Annotated[int, msgspec.Meta(ge=10_000, le=200_000_000)]


Text = Annotated[str, msgspec.Meta(max_length=2000)]
Rid = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_SESSION_ID = r"^[!-~]{1,128}\Z"  # it is an identity on the bus, too
SessionId = Annotated[str, msgspec.Meta(pattern=_SESSION_ID)]
EncoderName = Annotated[str, msgspec.Meta(pattern=r"^encoder \d{1,18}\Z")]  # on the bus; a session can't have it
Method = Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
Target = Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]
Status = Annotated[int, msgspec.Meta(ge=100, le=599)]
Headers = Annotated[list[tuple[str, str]], msgspec.Meta(max_length=256)]  # in order; a name may come twice


StreamName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Figure = Annotated[float, msgspec.Meta(ge=0)]
Where = Annotated[str, msgspec.Meta(max_length=100)]  # an address and a port


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
    """To a producer, or to ws_link: say what you are and how you are doing. Idempotent."""


class Look(msgspec.Struct, frozen=True, tag="look"):
    """To the warden: say how the suite is. Idempotent."""


class Pair(msgspec.Struct, frozen=True, tag="pair"):
    """scripts/pair.py to ws_link: get a code of the hub by which a user can claim this device."""


class Restart(msgspec.Struct, frozen=True, tag="restart"):
    """To the warden: kill this process, which its own supervisor starts again. Idempotent, since it names the pid."""

    process: ProcessName
    pid: Annotated[int, msgspec.Meta(gt=0)]
    why: Reason  # for the journal


Command = Keyframe | Bitrate | Describe | Look | Pair | Restart


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


class Recoveries(msgspec.Struct, frozen=True):
    """How long a process took to serve again, over all the times that the journal still knows of."""

    counts: list[Count]  # one for each of SuiteState.bounds_s, and those above the last
    p50_ms: float  # of the last thousand at most
    worst_ms: float


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
    restarts: Count = 0  # that the journal still knows of
    last_end_at: str = ""  # when that was, as in our logs
    recoveries: Recoveries | None = None  # None: it has never had to


class WatchSession(msgspec.Struct, frozen=True):
    """How one watch session does, by its child's last Beat."""

    session_id: SessionId
    stream: StreamName
    state: Literal["new", "connecting", "connected"]
    path: Literal["", "direct", "relayed"]
    for_s: float  # since it was asked for
    bits_per_s: Figure  # of pictures, in the last second
    asked_bits_per_s: Figure  # what its viewer can take; 0: whatever comes
    loss: Figure  # fraction of packets, as the viewer has reported last
    round_trip_ms: Figure | None  # None: not known yet
    packets: Figure
    packets_lost: float  # a viewer may count below zero (RFC 3550)
    packets_again: Figure  # sent once more, since the viewer missed them
    dropped: Figure  # pictures left out until the next keyframe, since the viewer was too slow


class WatchTotals(msgspec.Struct, frozen=True):
    """What was sent of one stream to all its viewers since webrtc_peer started."""

    stream: StreamName
    sessions: Count = 0  # that have had a packet
    packets: Figure = 0.0
    octets: Figure = 0.0
    packets_lost: Figure = 0.0
    packets_again: Figure = 0.0
    dropped: Figure = 0.0


class Watching(msgspec.Struct, frozen=True, tag="watching"):
    """webrtc_peer to the warden, each second: who watches, and how that goes."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    sessions: Annotated[list[WatchSession], msgspec.Meta(max_length=64)]
    totals: Annotated[list[WatchTotals], msgspec.Meta(max_length=64)]


class TunnelPeer(msgspec.Struct, frozen=True):
    """How the tunnel to one peer does. Packets are counted since whoever tells was started."""

    peer: SessionId
    is_up: bool  # packets go to it
    plane: Count = 0  # as PeerUp has it, and so the next three
    path: Literal["", "direct", "relayed"] = ""
    remote: Where = ""
    mtu: Count = 0
    round_trip_ms: Figure | None = None  # None: not known yet
    sent_packets: Count = 0
    sent_bytes: Count = 0
    received_packets: Count = 0
    received_bytes: Count = 0
    dropped: dict[str, int] = {}  # packets, by reason
    why: Reason = ""  # it is not up
    sent_bits_per_s: Figure | None = None  # in the last second; None: not known
    received_bits_per_s: Figure | None = None


class TunnelState(msgspec.Struct, frozen=True, tag="tunnel_state"):
    """tun_pump to the warden, each second: its interface, and how it does."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    interface: Instance  # "" while nothing is configured
    addresses: Annotated[list[Name], msgspec.Meta(max_length=16)] = []
    mtu: Count = 0
    peers: Annotated[list[TunnelPeer], msgspec.Meta(max_length=64)] = []
    dropped: dict[str, int] = {}  # packets that are of no peer, by reason


class SuiteState(msgspec.Struct, frozen=True, tag="suite_state"):
    """The warden's answer to Look."""

    processes: list[ProcessState]
    troubles: list[str]  # what is wrong though every process lives: a stream that is watched and dry
    bounds_s: list[float] = []  # of the buckets of all `recoveries`
    watching: list[WatchSession] | None = None  # None: there is no webrtc_peer that would say so
    tunnel: TunnelState | None = None  # None: there is no tun_pump


class LinkState(msgspec.Struct, frozen=True, tag="link_state"):
    """ws_link's answer to Describe."""

    device_id: str
    hub: str  # the address it connects to
    state: Literal["connected", "connecting", "refused"]
    since_s: float  # for so long
    reconnects: Count  # connections lost or failed since it started
    refused: dict[str, int]  # what was not taken, counted by reason
    mux: bool  # the hub takes data connections; else JSON only
    said: str  # what the hub or the network said last when it did not work; "" if all is well
    workers: Count = 0  # proxies that are there
    sessions: Count | None = None  # watch sessions of webrtc_peer; None while it is not there
    paired: str = ""  # the pairing code that was used last, which is worth nothing any more


class PairingCode(msgspec.Struct, frozen=True, tag="pairing_code"):
    """ws_link's answer to Pair."""

    code: str
    expires_at: str  # UTC, ISO 8601
    ttl: Count  # seconds


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
    body: Description | SuiteState | LinkState | PairingCode | None = None


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A proxy to ws_link, at once after its start and each second: it takes so many Jobs at a time."""

    worker: Name
    pid: Annotated[int, msgspec.Meta(gt=0)]
    capacity: Annotated[int, msgspec.Meta(ge=0, le=1024)]


class TicketWanted(msgspec.Struct, frozen=True, tag="ticket_wanted"):
    """A proxy to ws_link: it wants to open a data connection. An unanswered one may be sent again under a new id."""

    id: Id


class JobDone(msgspec.Struct, frozen=True, tag="job_done"):
    """A proxy to ws_link: the whole answer to the Job of this rid; its body travels beside it."""

    rid: Rid
    status: Status
    headers: Headers = []


class TicketGrant(msgspec.Struct, frozen=True, tag="ticket_grant"):
    """ws_link to a proxy: connect to this ws:// or wss:// address with this ticket, which is good for seconds, once."""

    id: Id
    url: Text
    ticket: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    device_id: Rid


class TicketRefused(msgspec.Struct, frozen=True, tag="ticket_refused"):
    """ws_link to a proxy: no data connection now, because there is no hub or it takes none. To be asked again later."""

    id: Id
    reason: Reason


class Job(msgspec.Struct, frozen=True, tag="job"):
    """ws_link to a proxy: one whole request; its body travels beside it. To be answered by JobDone before
    deadline_ms (CLOCK_MONOTONIC), after which ws_link has answered 504 itself."""

    rid: Rid
    method: Method
    path: Target  # with its query
    headers: Headers
    deadline_ms: Count


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
    wants: bool = False  # units, as UnitsWanted says it
    path: Literal["", "direct", "relayed"] = ""
    silent_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # since anything came from the viewer; while connected
    stats: Annotated[dict[Name, float], msgspec.Meta(max_length=64)] = {}
    takes: Annotated[list[Name], msgspec.Meta(max_length=16)] = []  # codecs that its answer named; [] before that


class Takes(msgspec.Struct, frozen=True, tag="takes"):
    """A child to its leader, at its answer: the codecs that it named, of which some are to be made. Idempotent."""

    session_id: SessionId
    codecs: Annotated[list[Name], msgspec.Meta(max_length=16)]


class UnitsWanted(msgspec.Struct, frozen=True, tag="units_wanted"):
    """A child to its leader: it can send from now on, so let it have units, the cached GOP first. Idempotent."""

    session_id: SessionId


class KeyframeWanted(msgspec.Struct, frozen=True, tag="keyframe_wanted"):
    """A child to its leader: its viewer lost the picture (PLI, FIR). Idempotent."""

    session_id: SessionId


class RateWanted(msgspec.Struct, frozen=True, tag="rate_wanted"):
    """A child to its leader: this is what its viewer can take, all in all. The last one counts."""

    session_id: SessionId
    bits_per_s: Bits


class Unit(msgspec.Struct, frozen=True, tag="unit"):
    """The leader to a child, or an encoder to its leader: a picture or a piece of sound, which travels beside it: an
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


class PeerUp(msgspec.Struct, frozen=True, tag="peer_up"):
    """Who has a session for IP packets to tun_pump, at once after its start or tun_pump's and each second: packets go
    to this peer. One that is silent for 3 s is forgotten.

    `at` and `seen` are of procs/agent/conduit.py, as in PumpUp and Packets.
    """

    peer: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    mtu: Annotated[int, msgspec.Meta(ge=576, le=65535)]  # of an IP packet that it takes whole
    plane: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0  # 0: a peer that is not ours, one packet a message
    path: Literal["", "direct", "relayed"] = ""
    remote: Where = ""  # the address that it is reached at
    stats: Annotated[dict[Name, float], msgspec.Meta(max_length=64)] = {}
    at: Count = 0
    seen: Count = 0


class PeerAway(msgspec.Struct, frozen=True, tag="peer_away"):
    """Such a one to tun_pump, at each change and each second while there is no session: why that is."""

    peer: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    why: Reason


class PumpUp(msgspec.Struct, frozen=True, tag="pump_up"):
    """tun_pump to who said PeerUp, each second: the interface is there, and is like this."""

    mtu: Annotated[int, msgspec.Meta(ge=576, le=65535)]
    addresses: Annotated[list[Name], msgspec.Meta(max_length=16)] = []  # such as 10.77.0.1/24
    at: Count = 0
    seen: Count = 0


class Packets(msgspec.Struct, frozen=True, tag="packets"):
    """tun_pump to who said PeerUp, and back: IP packets, which travel beside it; none, where only `seen` is news."""

    at: Count  # bytes of bodies that its sender has sent here so far, this one's among them
    seen: Count  # the last `at` that it has heard from the other side


class TunnelSpec(msgspec.Struct, frozen=True, tag="tunnel_spec"):
    """What a child of webrtc_peer is born with that has a session with another agent, for the tunnel."""

    me: SessionId
    peer: SessionId
    run_dir: str
    udp_range: tuple[int, int]
    ice_servers: list[dict[str, Any]]
    mtu: Annotated[int, msgspec.Meta(ge=576, le=65535)]
    addresses: list[str]
    trust: str  # whose keys are taken, as procs/agent/identity.py has it
    allow_unsigned: bool
    key: str = ""  # of the peer, where the settings name it
    label: str = "mvp"  # of the main channel

    def __repr__(self) -> str:
        return f"TunnelSpec({self.me!r}, {self.peer!r}, ...)"  # there are credentials in ice_servers


class AgentFrame(msgspec.Struct, frozen=True, tag="agent_frame"):
    """A frame of signalling between two agents, which travels beside it, between webrtc_peer and the child of that
    peer."""

    peer: SessionId


class Signalling(msgspec.Struct, frozen=True, tag="signalling"):
    """webrtc_peer to such a child, at its first beat and at each change: whether frames go out."""

    is_up: bool


class TunnelBeat(msgspec.Struct, frozen=True, tag="tunnel_beat"):
    """Such a child to webrtc_peer, at once after its start, at each change and each second: how its session is."""

    peer: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    state: Literal["new", "connecting", "connected", "waiting", "closed"]
    why: Reason = ""  # it is not connected


ToWarden = Heartbeat | Watching | TunnelState
FromWorker = Ready | TicketWanted | JobDone
ToWorker = TicketGrant | TicketRefused | Job
FromPeer = SessionsReady | Signal | SignalTaken
ToPeer = Signal | SignalTaken
FromSession = Beat | Signal | Takes | UnitsWanted | KeyframeWanted | RateWanted
FromChild = FromSession | Unit | Encoding
ToChild = Signal | Unit | Source
ToPump = PeerUp | PeerAway | Packets
FromPump = PumpUp | Packets
ToEncoder = Unit | Keyframe | Bitrate
FromTunnel = TunnelBeat | AgentFrame
ToTunnel = Signalling | AgentFrame

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


def is_session_id(text: str) -> bool:
    """Whether it can be the id of a session on the bus."""
    return bool(re.match(_SESSION_ID, text))


def decode(data: bytes, kind: type[M]) -> M:
    """One message of the given kind. Raises Refused with the reason for anything else."""
    if len(data) > MAX_BYTES:
        raise Refused(f"message of {len(data)} bytes is over the limit of {MAX_BYTES}")
    try:
        return cast(M, _decoder(cast(Any, kind)).decode(data))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(f"not a {getattr(kind, '__name__', 'message of this endpoint')}: {error}"[:500]) from None


def decode_to_warden(data: bytes) -> ToWarden:
    """What anybody tells the warden, unasked. Raises Refused."""
    message: ToWarden = decode(data, ToWarden)  # type: ignore[arg-type]
    return message


def decode_from_worker(data: bytes) -> FromWorker:
    """What a proxy sends to ws_link. Raises Refused."""
    message: FromWorker = decode(data, FromWorker)  # type: ignore[arg-type]
    return message


def decode_to_worker(data: bytes) -> ToWorker:
    """What ws_link sends to a proxy. Raises Refused."""
    message: ToWorker = decode(data, ToWorker)  # type: ignore[arg-type]
    return message


def decode_from_peer(data: bytes) -> FromPeer:
    """What webrtc_peer sends to ws_link. Raises Refused."""
    message: FromPeer = decode(data, FromPeer)  # type: ignore[arg-type]
    return message


def decode_to_peer(data: bytes) -> ToPeer:
    """What ws_link sends to webrtc_peer. Raises Refused."""
    message: ToPeer = decode(data, ToPeer)  # type: ignore[arg-type]
    return message


def decode_from_child(data: bytes) -> FromChild:
    """What a child of webrtc_peer sends to its leader. Raises Refused."""
    message: FromChild = decode(data, FromChild)  # type: ignore[arg-type]
    return message


def decode_to_child(data: bytes) -> ToChild:
    """What the leader of webrtc_peer sends to a child. Raises Refused."""
    message: ToChild = decode(data, ToChild)  # type: ignore[arg-type]
    return message


def decode_to_pump(data: bytes) -> ToPump:
    """What the ends of sessions send to tun_pump. Raises Refused."""
    message: ToPump = decode(data, ToPump)  # type: ignore[arg-type]
    return message


def decode_from_pump(data: bytes) -> FromPump:
    """What tun_pump sends to the end of a session. Raises Refused."""
    message: FromPump = decode(data, FromPump)  # type: ignore[arg-type]
    return message


def decode_to_encoder(data: bytes) -> ToEncoder:
    """What the leader of webrtc_peer sends to an encoder. Raises Refused."""
    message: ToEncoder = decode(data, ToEncoder)  # type: ignore[arg-type]
    return message


def decode_from_tunnel(data: bytes) -> FromTunnel:
    """What a child of webrtc_peer that has a tunnel's session sends to its leader. Raises Refused."""
    message: FromTunnel = decode(data, FromTunnel)  # type: ignore[arg-type]
    return message


def decode_to_tunnel(data: bytes) -> ToTunnel:
    """What the leader of webrtc_peer sends to such a child. Raises Refused."""
    message: ToTunnel = decode(data, ToTunnel)  # type: ignore[arg-type]
    return message
