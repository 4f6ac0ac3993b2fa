"""What a process is asked over the bus, and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from procs.messages.limits import Bits, Count, Id, Instance, ProcessName, Reason
from procs.messages.voice import Do, Listen, VoiceState, VoiceTold
from procs.messages.warden import TunnelState, WatchSession


class Keyframe(msgspec.Struct, frozen=True, tag="keyframe"):
    """To a producer: make the next picture a keyframe. Idempotent."""


class Bitrate(msgspec.Struct, frozen=True, tag="bitrate"):
    """To a producer: encode at this many bits per second from the next picture on. Idempotent."""

    bits_per_s: Bits


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """To a producer, to ws_link, audio_io or voice: say what you are and how you are doing. Idempotent."""

    after: Annotated[str, msgspec.Meta(max_length=64)] = ""  # of voice: its devices behind this name


class Look(msgspec.Struct, frozen=True, tag="look"):
    """To the warden: say how the suite is. Idempotent."""


class Pair(msgspec.Struct, frozen=True, tag="pair"):
    """scripts/pair.py to ws_link: get a code of the hub by which a user can claim this device."""


class Restart(msgspec.Struct, frozen=True, tag="restart"):
    """To the warden: kill this process, which its own supervisor starts again. Idempotent, since it names the pid."""

    process: ProcessName
    pid: Annotated[int, msgspec.Meta(gt=0)]
    why: Reason  # for the journal


Command = Keyframe | Bitrate | Describe | Look | Pair | Restart | Listen | Do


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
    renderer: Reason = ""  # what draws; "": it is too old to say
    refusals: Reason = ""  # why none of the encoders that are preferred is used


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


class AudioState(msgspec.Struct, frozen=True, tag="audio_state"):
    """audio_io's answer to Describe. What is of a backend is of the one that holds the device now, if one does."""

    listens: str
    tls: bool
    needs_token: bool
    backend: str  # its address; "": none is there
    protocol: str  # the subprotocol that is spoken with it
    for_s: float  # that it is there
    microphone: Reason  # "ok", "opening" at the start, or what is wrong and what to do
    speaker: Reason
    echo: str
    muted: bool
    awake: bool
    wake: str  # the word that wakes it, if one does
    connections: Count  # backends that have held it since it started
    turned_away: dict[str, int]  # those that have not, by reason
    refused: dict[str, int]  # events and packets, by reason
    sent: Count = 0  # packets of the microphone
    received: Count = 0  # packets for the speaker
    dropped: Count = 0  # packets that were not sent, since it does not read
    figures: dict[str, int] = {}  # of the sound itself (procs/audio_io/sound.py)


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
    body: Description | SuiteState | LinkState | AudioState | VoiceState | VoiceTold | PairingCode | None = None
