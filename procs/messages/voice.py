"""What the voice backend's leader and its children say to each other, and what others ask the leader.

At voice.children a child, whose identity is the id of its conversation, says `VoiceBeat`, `Line`, `VoiceFigures` and,
where a browser is at the other side, `Outgoing` with a frame in the body; it is told `SayWanted`, `MuteWanted`,
`LeaseHeld`, `Incoming`. At voice.state anybody of this machine asks `Describe`, `Listen`, `Do`
(procs/messages/requests.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from procs.messages.limits import Count, Reason

ConversationId = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]  # an identity on the bus
DeviceName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Words = Annotated[str, msgspec.Meta(max_length=16_000)]
MAX_SAY = 2000  # characters: two minutes
Announcement = Annotated[str, msgspec.Meta(max_length=MAX_SAY)]
Url = Annotated[str, msgspec.Meta(max_length=2000)]
Role = Literal["user", "assistant"]
DeviceState = Literal["disabled", "elsewhere", "connecting", "connected", "waiting", "over"]


class Services(msgspec.Struct, frozen=True):
    """Where a conversation hears, speaks and thinks. Several of a kind are tried in turn."""

    stt: list[Url]  # ws:// or wss://, scheme, host and port
    tts: list[Url]
    llm: Url  # http:// or https://, without /v1
    model: str = ""  # "": the only one that is there
    speech_key: str = ""  # kyutai-api-key of the first two
    llm_key: str = ""  # Bearer of the third
    news_key: str = ""  # of newsapi.org


class Line(msgspec.Struct, frozen=True, tag="line"):
    """One turn of a conversation, as it stands now: a later one of the same number replaces it."""

    number: Count
    role: Role
    text: Words  # of the assistant's: what was heard of it
    final: bool = False
    at: float = 0.0  # Unix time of its beginning


class VoiceSpec(msgspec.Struct, frozen=True, tag="voice_spec"):
    """What a child is to be: the leader to the zygote, once."""

    id: ConversationId
    run_dir: str
    services: Services
    instructions: str  # JSON, as procs/wire/conversation.py has Instructions; "": a browser is going to say
    voice: str = ""  # a name of voices.yaml, or of a voice of the synthesiser
    name: Annotated[str, msgspec.Meta(max_length=64)] = (
        ""  # of the device; "": a browser, whose frames the leader hands on
    )
    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    token: str = ""
    tls: bool = False
    ca: str = ""  # a file with the certificates that are trusted beside the machine's; "": none
    auto_reconnect: bool = True
    reconnect_delay: float = 5.0  # seconds, the first and least of the pauses
    failures: Count = 0  # attempts in a row that failed before this child was born
    since: float = 0.0  # Unix time since when the device is not connected; 0: from now on
    muted: bool = False
    history: list[Line] = []
    until: float | None = None  # as LeaseHeld has it; None: nobody else may call


class VoiceBeat(msgspec.Struct, frozen=True, tag="voice_beat"):
    """How a child does: each second, and at each change."""

    state: Literal["connecting", "connected", "waiting", "over"]  # waiting: for the next attempt; over: no more of them
    problem: Reason = ""  # what is wrong, in words: why it is not connected, or nothing is heard of it; "": nothing
    since: float = 0.0  # Unix time since when it is connected, or since when it is not, however often it was tried
    attempts: Count = 0  # that failed in a row
    protocol: str = ""
    turn: Literal["", "waiting_for_user", "user_speaking", "bot_speaking"] = ""
    muted: bool = False
    echo: str = ""  # these three, of a device of ours
    microphone: Reason = ""
    speaker: Reason = ""
    connections: Count = 0  # that this child has had
    refused: Count = 0  # messages that were not taken
    said: Count = 0  # of what this child was told to say: begun with, or not to be said any more
    services: dict[str, Reason] = {}  # stt, tts, llm -> what is wrong; "" if it answered last


class VoiceFigures(msgspec.Struct, frozen=True, tag="voice_figures"):
    """What happened since the last one: (name, value) each, names as procs/voice/metrics.py has them."""

    seen: list[tuple[str, float]]


class Outgoing(msgspec.Struct, frozen=True, tag="outgoing"):
    """A frame for the browser; `close`: it is the last, whose body is the reason."""

    text: bool = True
    close: Count = 0  # the WebSocket's code


class SayWanted(msgspec.Struct, frozen=True, tag="say_wanted"):
    """Say this now, when nobody speaks; `idempotent` it is not."""

    text: Announcement


class MuteWanted(msgspec.Struct, frozen=True, tag="mute_wanted"):
    """Hear nothing more, or again: a device of ours is told, of others what is heard is dropped."""

    muted: bool


class LeaseHeld(msgspec.Struct, frozen=True, tag="lease_held"):
    """The device is this backend's to call until then, in seconds of CLOCK_BOOTTIME. Whoever hears no more of that ends
    by itself: the leader may stand still, and another backend call."""

    until: float


class Incoming(msgspec.Struct, frozen=True, tag="incoming"):
    """A frame of the browser, in the body."""

    text: bool = True


FromChild = VoiceBeat | Line | VoiceFigures | Outgoing
ToChild = SayWanted | MuteWanted | LeaseHeld | Incoming


class VoiceDevice(msgspec.Struct, frozen=True):
    """One device as the leader knows it."""

    name: str
    host: str
    port: int
    voice: str
    instructions: str  # JSON
    enabled: bool
    auto_reconnect: bool
    reconnect_delay: float
    state: DeviceState
    problem: Reason = ""
    beat: VoiceBeat | None = None
    lines: Count = 0  # of its conversation so far


class VoiceState(msgspec.Struct, frozen=True, tag="voice_state"):
    """The leader's answer to Describe: as many devices as go into a message, by name; where there are `more`, they are
    asked for `after` the last of these."""

    configured: bool  # there is a devices.json
    devices: list[VoiceDevice]
    problems: list[Reason]  # of devices.json, one line each
    services: dict[str, Reason]  # stt, tts, llm -> what is wrong; "": it is up
    browsers: Count = 0
    owner: str = ""  # by which the leases of this backend are held
    more: bool = False


class VoiceTold(msgspec.Struct, frozen=True, tag="voice_told"):
    """The answer to Listen: the lines that are new or changed, and by what to ask for the next."""

    lines: list[Line]
    next: Count


class Listen(msgspec.Struct, frozen=True, tag="voice_listen"):
    """What was said at a device since `after` (0: the last fifty lines); answered at once. Idempotent."""

    name: DeviceName
    after: Count = 0


class Do(msgspec.Struct, frozen=True, tag="voice_do"):
    """Do this to a device; answered when it is begun. All but `say` are idempotent."""

    name: DeviceName
    what: Literal["say", "mute", "unmute", "reconnect", "enable", "disable", "forget"]
    text: Announcement = ""
