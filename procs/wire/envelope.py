"""The text frames between device, hub and viewer, as published: {"type", "request_id"?, "ts", "payload"}. Pure.

`decode` takes a frame apart without looking into its payload, `parse` makes a payload of its kind, `encode` makes a
frame. Unknown types and unknown fields are no errors: peers are newer or older than we are. Everything else that is
not as written here is Refused, and every payload, list and string has a limit.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import msgspec

from procs.errors import Refused
from procs.wire.mux1 import MuxLimits as MuxLimits

P = TypeVar("P", bound="Payload")
MAX_BYTES = 2 * 1024 * 1024  # of one frame
MAX_DEPTH = 32  # of braces and brackets in each other
MAX_BODY = 1024 * 1024  # of a proxied body, before base64
_SMALL = 64 * 1024
_SHOWN = 300  # characters of a reason
_NEITHER = bytes(set(range(256)) - set(b'{}[]"'))  # brackets nor quotes

# What can't be seen, or changes how its surroundings are read: controls, separators, bidirectional marks, surrogates.
_UNSEEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    r"\ufeff\ufff9-\ufffb"
)
_ID = rf"[^/{_UNSEEN}]*\Z"
_NO_DOTS = r"(?!\.{1,2}\Z)"  # an id is a segment of a path; those two would mean another path

Type = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+\Z")]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=rf"^{_NO_DOTS}{_ID}")]
AnyId = Annotated[str, msgspec.Meta(max_length=128, pattern=rf"^{_ID}")]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Time = Annotated[str, msgspec.Meta(max_length=64)]
Secret = Annotated[str, msgspec.Meta(max_length=1024)]
Instance = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[0-9A-Za-z_-]*\Z")]
Nonce = Annotated[str, msgspec.Meta(min_length=32, max_length=128, pattern=r"^[0-9A-Za-z_-]+\Z")]
NoNonce = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^(?:[0-9A-Za-z_-]{32,})?\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Caps = Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=64)]
# A path of the hub's own origin: nothing in it can name another host.
OriginPath = Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^/(?!/)[A-Za-z0-9._~%?=&/-]*\Z")]
StreamName = Annotated[str, msgspec.Meta(max_length=200, pattern=rf"^[^{_UNSEEN}]*\Z")]  # as go2rtc names them; or ""
ProcessName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]  # as a page can read it
Number = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Sdp = Annotated[str, msgspec.Meta(max_length=256 * 1024)]
Target = Annotated[str, msgspec.Meta(max_length=16 * 1024)]
Headers = Annotated[
    dict[
        Annotated[str, msgspec.Meta(max_length=256)],
        Annotated[str, msgspec.Meta(max_length=16 * 1024)],
    ],
    msgspec.Meta(max_length=100),
]


class Payload(msgspec.Struct, frozen=True):
    """What a frame of some type carries."""

    max_bytes: ClassVar[int] = _SMALL  # of its JSON


class _Secret(Payload, frozen=True):
    """A payload that must not be readable in a traceback."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Hello(_Secret, frozen=True, omit_defaults=True):
    """hello, device to hub: the first frame. `nonce` goes with the capability "challenge"."""

    device_id: Id
    agent_version: Text = ""
    go2rtc_http: Text = ""
    device_secret: Secret | None = None
    caps: Caps = []
    mux: MuxLimits | None = None
    instance: Instance = ""
    nonce: NoNonce = ""


class HelloAck(Payload, frozen=True, omit_defaults=True):
    """hello_ack, hub to device: it is taken. The later fields only to a device that says hello with caps."""

    device_id: Id
    server_time: Time
    agent_version: Text | None = None
    caps: Caps = []
    mux: MuxLimits | None = None
    signature: Digest | None = None
    data_path: OriginPath | None = None


class Challenge(Payload, frozen=True):
    """challenge, hub to device: prove that you have the secret, over this nonce."""

    nonce: Nonce


class ChallengeResp(Payload, frozen=True):
    """challenge_resp, device to hub."""

    proof: Digest


class Heartbeat(Payload, frozen=True):
    """heartbeat, device or viewer to hub, every 15 s."""


class HeartbeatAck(Payload, frozen=True):
    """heartbeat_ack, the hub's answer."""


class Capabilities(Payload, frozen=True):
    """capabilities, device to hub: what go2rtc answers to GET /api/streams."""

    max_bytes: ClassVar[int] = 1024 * 1024

    device_id: Id
    streams: dict[str, Any]


class DevicePresence(Payload, frozen=True):
    """device_presence: whether a device is there."""

    device_id: AnyId = ""
    is_online: bool = True
    last_seen: Time | None = None


class ProxyHttp(Payload, frozen=True):
    """proxy_http, hub to device: make this request."""

    max_bytes: ClassVar[int] = MAX_BYTES

    rid: Id
    method: Annotated[str, msgspec.Meta(max_length=32, pattern=r"^[A-Za-z]+\Z")] = "GET"
    path: Target = "/"  # with its query
    headers: Headers = {}
    body_b64: str | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=86_400_000)] = 30_000


class ProxyHttpResp(Payload, frozen=True):
    """proxy_http_resp, device to hub: the answer to the request of the same rid."""

    max_bytes: ClassVar[int] = MAX_BYTES

    rid: Id
    status: Annotated[int, msgspec.Meta(ge=100, le=599)]
    headers: Headers = {}
    body_b64: str = ""


class SessionDescription(msgspec.Struct, frozen=True):
    """An offer or an answer, as browsers write it."""

    type: Annotated[str, msgspec.Meta(pattern=r"^(?:offer|answer|pranswer|rollback)\Z")]
    sdp: Sdp


class Candidate(msgspec.Struct, frozen=True, rename="camel"):
    """One ICE candidate, as browsers write it."""

    candidate: Annotated[str, msgspec.Meta(max_length=2048)]
    sdp_mid: Text | None = None
    sdp_m_line_index: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    username_fragment: Text | msgspec.UnsetType | None = msgspec.UNSET


class IceServer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One STUN or TURN server, as browsers take it."""

    urls: Text | Annotated[list[Text], msgspec.Meta(max_length=32)]
    username: Text | None = None
    credential: Secret | None = None
    credential_type: Text | None = None

    def __repr__(self) -> str:
        return f"IceServer(urls={self.urls!r}, ...)"


IceServers = Annotated[list[IceServer], msgspec.Meta(max_length=32)]


class SignalOffer(Payload, frozen=True):
    """signal_offer, viewer to hub to device."""

    max_bytes: ClassVar[int] = 512 * 1024

    session_id: Id
    sdp: SessionDescription


class SignalAnswer(Payload, frozen=True):
    """signal_answer, device to hub to viewer."""

    max_bytes: ClassVar[int] = 512 * 1024

    session_id: Id
    sdp: SessionDescription


class SignalIce(Payload, frozen=True):
    """signal_ice, both ways. None: there are no more candidates."""

    session_id: Id
    candidate: Candidate | None


class WatchRequest(Payload, frozen=True, omit_defaults=True):
    """watch_request, hub to device: somebody wants to watch. `stream` is ours: which one; "" is for it to choose."""

    session_id: Id
    user_id: Id
    ice_servers: IceServers
    stream: StreamName = ""


class WatchEnded(Payload, frozen=True, omit_defaults=True):
    """watch_ended, hub to device and viewer. viewer_disconnected, user_ended, timeout, error, device_disconnected.
    `why` is ours: the same in words."""

    session_id: Id
    reason: Text
    why: Text = ""


class DataTicketRequest(Payload, frozen=True):
    """data_ticket, device to hub, with a request_id: let a data connection in."""


class DataTicket(_Secret, frozen=True):
    """data_ticket, the hub's answer. The ticket is good once."""

    ticket: Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._~+/=-]+\Z")]
    expires_in_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    path: OriginPath


class PairingRequest(Payload, frozen=True):
    """pairing_request, device to hub, with a request_id: make a code for the people beside me."""


class PairingCode(_Secret, frozen=True):
    """pairing_code, the hub's answer."""

    code: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}\Z")]
    expires_at: Time
    ttl: Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class Paired(_Secret, frozen=True):
    """paired, hub to device: a user has claimed it with this code, which is good no more."""

    code: Text = ""


class Recovery(msgspec.Struct, frozen=True, omit_defaults=True):
    """How long a process took to serve again each time: a histogram, and of the times themselves median and worst."""

    bounds_s: Annotated[list[Number], msgspec.Meta(max_length=64)] = []
    counts: Annotated[list[Count], msgspec.Meta(max_length=65)] = []  # the last: of those above the last bound
    p50_ms: Number | None = None
    worst_ms: Number | None = None


class Process(msgspec.Struct, frozen=True):
    """One process of a suite, as its warden sees it."""

    name: ProcessName
    pid: Count  # 0: it does not run
    state: Word  # SERVING, HANGING, or supervisord's: RUNNING, STARTING, BACKOFF, STOPPED, ...
    age_s: Number
    restarts_hour: Count
    restarts: Count  # that are known of
    last_end: Text  # why it ended last; "" if it has not
    last_end_at: Time
    memory: Count  # bytes (RSS)
    failures: Count  # starts in a row that failed
    wait_s: Number  # until it is started again
    recovery: Recovery = Recovery()


class TunnelPeer(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a device's tunnel to one of its peers does. Nothing but the name is known of one that has never been up."""

    peer: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    is_up: bool = False  # packets go to it
    why: Text = ""  # it is not
    plane: Count = 0
    path: Word = ""  # direct, or relayed
    remote: Annotated[str, msgspec.Meta(max_length=100)] = ""  # an address and a port: for owners only
    round_trip_ms: Number | None = None  # None: not known, and so the rates
    sent_bits_per_s: Number | None = None
    received_bits_per_s: Number | None = None
    dropped: Annotated[dict[Word, Count], msgspec.Meta(max_length=16)] = {}  # packets, by reason


class WatchedStream(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the watch sessions of one of a device's streams do."""

    stream: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # only shown
    viewers: Count
    direct: Count = 0  # of them, and so
    relayed: Count = 0  # the others are still connecting
    bits_per_s: Number = 0.0  # to all of them
    loss: Number = 0.0  # fraction of packets, of the one who loses most


class SuiteWatch(Payload, frozen=True):
    """suite_watch, hub to device: send `suite` now, and for so long whenever it changes."""

    for_s: Annotated[float, msgspec.Meta(ge=0, le=60)]


class SuiteRestart(Payload, frozen=True):
    """suite_restart, hub to device, with a request_id: kill this process, which is started again. It is safe to send
    again: it names the pid."""

    process: ProcessName
    pid: Annotated[int, msgspec.Meta(gt=0, lt=2**31)]


class Suite(Payload, frozen=True):
    """suite, device to hub: how its processes are. `troubles`: what is wrong though all of them live. The rest is of
    devices that have it: the peers of their tunnel, and who watches which stream by WebRTC."""

    max_bytes: ClassVar[int] = 256 * 1024

    at: Time
    processes: Annotated[list[Process], msgspec.Meta(max_length=500)]
    troubles: Annotated[list[Text], msgspec.Meta(max_length=100)] = []
    tunnel: Annotated[list[TunnelPeer], msgspec.Meta(max_length=64)] = []
    watching: Annotated[list[WatchedStream], msgspec.Meta(max_length=64)] = []


class SuiteRestarted(Payload, frozen=True):
    """suite_restarted, device to hub, with the request_id of suite_restart: it was killed, or why not."""

    ok: bool
    reason: Text = ""


class SuiteEvent(Payload, frozen=True, omit_defaults=True):
    """suite_event, device to hub: a process had ended and serves again."""

    process: ProcessName
    pid: Count
    reason: Text
    took_ms: Number | None = None


class Error(Payload, frozen=True):
    """error, hub to anybody: the answer to a request that is not fulfilled."""

    message: Text


class ViewerHello(_Secret, frozen=True, omit_defaults=True):
    """hello, viewer to hub: the first frame. Without a token where a page's cookie came with the upgrade. `caps` is
    ours: "resume" of a viewer that comes back to its watch sessions by watch_resume."""

    token: Secret | None = None
    caps: Caps = []


class ViewerHelloAck(Payload, frozen=True, omit_defaults=True):
    """hello_ack, hub to viewer. `caps`: those of its hello that the hub has too."""

    user_id: Id
    server_time: Time
    caps: Caps = []


class ViewerWatchRequest(Payload, frozen=True):
    """watch_request, viewer to hub. `stream` is ours: which of the device's; "" is for the device to choose."""

    device_id: Id
    stream: StreamName = ""


class WatchResume(Payload, frozen=True):
    """watch_resume, viewer to hub, on a connection after the one that the session began on, by a viewer that says
    "resume". Answered by watch_ready with the same session, or by error."""

    session_id: Id


class WatchReady(Payload, frozen=True):
    """watch_ready, the hub's answer to a viewer's watch_request, or watch_resume."""

    session_id: Id
    mode: Text
    ice_servers: IceServers


Ids = Annotated[list[AnyId], msgspec.Meta(max_length=16)]


class Subscribe(Payload, frozen=True):
    """subscribe, viewer to hub: what to be told of from now on, and nothing else. "" is the hub's own machine."""

    devices: bool = False
    suite: Ids = []
    events: Ids = []


class Devices(Payload, frozen=True):
    """devices, hub to viewer: all that it may see, as GET /api/devices has them."""

    max_bytes: ClassVar[int] = MAX_BYTES

    devices: list[Any]


class DeviceChanged(Payload, frozen=True):
    """device_changed, hub to viewer: one of them is otherwise now, or new."""

    max_bytes: ClassVar[int] = MAX_BYTES

    device: Any


class DeviceGone(Payload, frozen=True):
    """device_gone, hub to viewer: it may not see this one any more."""

    device_id: AnyId


class ViewerSuite(Payload, frozen=True):
    """suite, hub to viewer. A device's may grow on its way: 1e15 becomes 1000000000000000.0."""

    max_bytes: ClassVar[int] = MAX_BYTES

    device_id: AnyId
    at: Time
    processes: list[Process]
    troubles: list[str]
    tunnel: list[TunnelPeer] = []
    watching: list[WatchedStream] = []


class ViewerEvent(Payload, frozen=True):
    """event, hub to viewer: as GET /api/devices/{id}/events has it."""

    device_id: AnyId
    event: Any


class EndWatch(Payload, frozen=True):
    """end_watch, viewer to hub."""

    session_id: Id


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


def is_deep(data: bytes) -> bool:
    """Whether brackets stand in each other more than MAX_DEPTH times, in JSON that has been read. In a few passes of C
    each: 2 MiB of brackets must not hold up everybody else."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False  # nearly every frame
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = b"".join(data.translate(None, _NEITHER).split(b'"')[::2])  # what is between quotes is text
    for _ in range(MAX_DEPTH):
        before, left = len(left), left.replace(b"{}", b"").replace(b"[]", b"")
        if len(left) in (0, before):
            break
    return bool(left)
