"""REST of the voice backend on the hub's own machine: how its devices are, what is said there, and to do something.

Its devices are none of the hub's: they are nobody's to share, and for admins alone.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, NoReturn, TypeVar

import msgspec
import zmq.asyncio
from aiohttp import web
from msgspec.structs import replace

from procs import bus, proc, rpc
from procs.errors import DeadlineExceeded, Refused
from procs.hub import answers
from procs.hub.devices import suite
from procs.hub.people.access import admin
from procs.hub.people.roles import OWNER
from procs.hub.rest import NAME, answer, body, busy, query, refusal
from procs.hub.times import iso
from procs.messages.requests import Describe
from procs.messages.voice import DeviceName, Do, Line, Listen, Role, VoiceBeat, VoiceDevice, VoiceState, VoiceTold
from procs.settings import run_dir
from procs.wire.frames.suite import Process

T = TypeVar("T")
What = Literal["mute", "unmute", "reconnect", "enable", "disable", "forget"]
PROCESS = "voice"  # as the warden has it
ASK_S = 4.0  # a machine that is busy answers late
LOOK_S = 1.0
DO_S = 5.0
MAX_DEVICES = 2000
_NO_DEVICE = "No such voice device"


class DeviceShown(msgspec.Struct):
    """A device of the voice backend. Times are UTC; what only a conversation knows is empty while there is none."""

    name: str
    host: str
    port: int
    voice: str
    instructions_type: str  # such as smalltalk; "" where it is not told
    language: str  # en, fr, en/fr, fr/en; "": that of its instructions, the usual
    is_enabled: bool
    state: Literal["disabled", "elsewhere", "connecting", "connected", "waiting", "over"]
    problem: str
    since: str | None
    turn: str
    is_muted: bool
    echo: str
    microphone: str  # "ok", or what is wrong; "" of a device that does not say
    speaker: str
    protocol: str
    services: dict[str, str]  # stt, tts, llm, as this conversation finds them
    lines: int


class _Instructions(msgspec.Struct):
    """Of a device's instructions what is told: in full they are long, and asked for each second."""

    type: str = ""
    language: str | None = None


class Shown(msgspec.Struct):
    """How the voice backend is. `services`: stt, tts, llm, and what is wrong with each."""

    is_configured: bool
    problems: list[str]
    services: dict[str, str]
    devices: list[DeviceShown]


class LineShown(msgspec.Struct):
    """One turn of a conversation; a later one of the same number replaces it. The time is UTC."""

    number: int
    role: Role
    text: str
    is_final: bool
    at: str | None


class Told(msgspec.Struct):
    """Lines that are new or changed, and by what to ask for the next; where that is less than what was asked by, the
    numbers have begun anew."""

    lines: list[LineShown]
    next: int


class Wanted(msgspec.Struct):
    """Since when; 0 for the newest lines."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


class Say(msgspec.Struct, forbid_unknown_fields=True):
    """What a device is to say: one line."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=1000, pattern=NAME)]


async def get_state(request: web.Request) -> web.Response:
    """GET /api/voice: the voice backend of the hub's own machine, and its devices. 404 where none is to run."""
    await admin(request)
    return answer(_shown(await _state()))


async def get_lines(request: web.Request) -> web.Response:
    """GET /api/voice/{name}/lines: what was said at a voice device, answered at once."""
    await admin(request)
    after = query(request, Wanted).after
    name = _name(request)
    try:
        told = _expected(await _ask(Listen(name, after), ASK_S), VoiceTold)
    except Refused as error:
        await _refuse(name, error)
    return answer(Told([_line(each) for each in told.lines], told.next))


async def post_say(request: web.Request) -> web.Response:
    """POST /api/voice/{name}/say: a voice device says this when nobody speaks. To ask again is to have it said
    again."""
    await admin(request, OWNER)
    text = (await body(request, Say)).text
    return await _done(Do(_name(request), "say", text))


async def post_what(request: web.Request) -> web.Response:
    """POST /api/voice/{name}/{what}: a voice device hears nothing more, or again; is connected to anew; is used or
    not; what was said there is forgotten."""
    await admin(request, OWNER)
    what = msgspec.convert(request.match_info["what"], What)
    return await _done(Do(_name(request), what))


async def _done(wanted: Do) -> web.Response:
    try:
        await _ask(wanted, DO_S)
    except Refused as error:
        await _refuse(wanted.name, error)
    return answer(answers.Said("Begun"))


def _name(request: web.Request) -> str:
    try:
        return msgspec.convert(request.match_info["name"], DeviceName)
    except msgspec.ValidationError:
        raise refusal(web.HTTPNotFound, _NO_DEVICE) from None


async def _state() -> VoiceState:
    """With all devices that it has. Raises HTTPException."""
    devices: list[VoiceDevice] = []
    try:
        while True:
            state = _expected(await _ask(Describe(devices[-1].name if devices else ""), ASK_S), VoiceState)
            devices += state.devices
            if not (state.more and state.devices) or len(devices) >= MAX_DEVICES:
                return replace(state, devices=devices)
    except Refused as error:
        raise busy(f"The voice backend says: {error}", 2) from None


async def _refuse(name: str, why: Refused) -> NoReturn:
    """Raise what its refusal is: 404 where it has no such device."""
    if all(each.name != name for each in (await _state()).devices):
        raise refusal(web.HTTPNotFound, _NO_DEVICE) from None
    raise refusal(web.HTTPConflict, str(why) or "The voice backend refuses, and does not say why") from None


async def _ask(command: Describe | Listen | Do, within_s: float) -> object:
    """What the backend answers. Raises Refused, HTTPException where nobody answers."""
    is_safe = not (isinstance(command, Do) and command.what == "say")
    context = zmq.asyncio.Context.instance()
    if not bus.path(run_dir(), bus.VOICE_STATE).exists():  # nobody has ever been there, and none need be waited for
        raise await _absent()
    try:
        return (await rpc.ask(context, run_dir(), bus.VOICE_STATE, command, within_s=within_s, idempotent=is_safe)).body
    except DeadlineExceeded as error:
        if not error.retry:
            raise busy("The voice backend did not answer; listen whether it says it before you try again", 2) from None
        raise await _absent() from None


def _expected(said: object, kind: type[T]) -> T:
    """Raises Refused."""
    if not isinstance(said, kind):
        raise Refused("it answers something else than was asked")
    return said


async def _absent() -> web.HTTPException:
    """Why nobody answers: none is to run here, or one is down."""
    process = await _process()
    if process is None and bus.path(run_dir(), bus.VOICE_STATE).exists():
        return busy("The voice backend of this machine does not answer", 2)
    if process is None or process.state == "STOPPED":  # as it is where its role is off
        return refusal(web.HTTPNotFound, "No voice backend runs on this machine")
    why = f"; it ended last by {process.last_end}" if process.last_end else ""
    return busy(f"The voice backend of this machine does not answer{why}", 2)


async def _process() -> Process | None:
    """Its process, where a warden knows of one."""
    if proc.MARK not in os.environ:
        return None
    try:
        processes = (await suite.own(LOOK_S)).processes
    except DeadlineExceeded:
        return None
    return next((each for each in processes if each.name == PROCESS), None)


def _shown(state: VoiceState) -> Shown:
    return Shown(state.configured, state.problems, state.services, [_device(each) for each in state.devices])


def _device(each: VoiceDevice) -> DeviceShown:
    beat, told = each.beat or VoiceBeat("over"), _instructions(each.instructions)
    return DeviceShown(
        name=each.name,
        host=each.host,
        port=each.port,
        voice=each.voice,
        instructions_type=told.type,
        language=told.language or "",
        is_enabled=each.enabled,
        state=each.state,
        problem=each.problem or beat.problem,
        since=_time(beat.since),
        turn=beat.turn,
        is_muted=beat.muted,
        echo=beat.echo,
        microphone=beat.microphone,
        speaker=beat.speaker,
        protocol=beat.protocol,
        services=beat.services,
        lines=each.lines,
    )


def _instructions(text: str) -> _Instructions:
    """Nothing of a backend that says something else than was agreed."""
    try:
        return msgspec.json.decode(text or "{}", type=_Instructions)
    except msgspec.DecodeError:
        return _Instructions()


def _line(each: Line) -> LineShown:
    return LineShown(each.number, each.role, each.text, each.final, _time(each.at))


def _time(seconds: float) -> str | None:
    """None of 0, which is no time, and of what no calendar has."""
    try:
        return iso(seconds or None)
    except (ValueError, OverflowError, OSError):
        return None
