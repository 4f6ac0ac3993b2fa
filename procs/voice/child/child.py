"""One conversation's process: its link to a device or a browser, its links to the speech services, and a beat.

Forked from the zygote (procs/brood.py), which has imported this module. It lives until its leader ends it, a browser's
conversation is over, or a device is not to be dialled again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import faulthandler
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import uvloop

from procs import bus, line, log
from procs.errors import PlanariaError, Refused
from procs.messages import decoder
from procs.messages.voice import (
    Incoming,
    LeaseHeld,
    Line,
    MuteWanted,
    Outgoing,
    SayWanted,
    ToChild,
    VoiceBeat,
    VoiceFigures,
    VoiceSpec,
)
from procs.voice.child import news
from procs.voice.child.device import Device
from procs.voice.child.drive import Drive, instructions_of
from procs.voice.child.far_end import FarEnd, Frame, Heard, Wrong
from procs.voice.child.figures import Figures
from procs.voice.child.hearing import Hearing, missing
from procs.voice.child.lease import Lease
from procs.voice.child.llm import LanguageModel
from procs.voice.child.tasks import die_of_errors, spawn
from procs.wire import realtime as wire
from procs.wire.conversation import Instructions, News, Session

BEAT_S = 1.0
HANG_S = 5.0  # the longest that the loop may stand still
LEADER_S = 20.0
FAREWELL_S = 0.1  # for the last words to leave through ZeroMQ's own thread
MAX_EARLY = 512  # messages of the leader that came before there was anything to do with them
SOON_S = 0.05  # within which what has changed is told: a device that changes all the time must not busy the leader
ERRORS_A_SECOND = 5  # told to a browser: rubbish must not be answered by a flood
_decode = decoder(ToChild)


def live(spec: VoiceSpec) -> NoReturn:
    """Be the conversation of this spec until it is over."""
    code = 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_live(spec))
        code = 0
    except PlanariaError as error:
        log.error(str(error), device=spec.name, conversation=spec.id)
        code = error.exit_code
    except Exception as error:  # a crash is an exit, and the leader has another born
        log.error(f"unforeseen {type(error).__name__}: {error}", trace=True, conversation=spec.id)
    os._exit(code)


async def _live(spec: VoiceSpec) -> None:
    die_of_errors(asyncio.get_running_loop())
    await Child(spec).run()


class Child:
    """What one child does."""

    def __init__(self, spec: VoiceSpec) -> None:
        self._spec = spec
        self._figures = Figures()
        self._line = line.connector(Path(spec.run_dir), bus.VOICE_CHILDREN, spec.id, self._take)
        self._ready: asyncio.Future[Drive] = asyncio.get_running_loop().create_future()
        self._model = LanguageModel(spec.services, self._figures, lambda told: self._ready.result().from_llm(told))
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._far: FarEnd | None = None
        self._device: Device | None = None
        self._born_at = time.time()
        self._early = collections.deque[tuple[bytes, bytes]](maxlen=MAX_EARLY)
        self._hello: wire.Hello | None = None
        self._state: wire.State | None = None
        self._hearing = Hearing(spec.name)
        self._refused = 0
        self._errors = collections.deque[float](maxlen=ERRORS_A_SECOND)
        self._lease = Lease(spec.until)
        self._soon: asyncio.TimerHandle | None = None
        self._updates: asyncio.Queue[Session] = asyncio.Queue(4)

    async def run(self) -> None:
        """Until it is over."""
        try:
            await self._line.connected(LEADER_S)
        except TimeoutError:
            raise Refused(f"no leader at {bus.VOICE_CHILDREN} within {LEADER_S:g} s") from None
        works = [spawn(each) for each in (self._prepare(), self._beat(), self._serve(), self._update(), self._mind())]
        ends: list[asyncio.Future[Any]] = [self._over, self._line.broken]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._line.broken.done():
            self._line.broken.result()
        for work in works:
            work.cancel()
        why = self._over.result()
        log.info("conversation over", device=self._spec.name, conversation=self._spec.id, why=why)
        self.lost()
        self._say_beat()
        if not self._spec.name:
            self._say(Outgoing(close=1000), why.encode())
        await asyncio.sleep(FAREWELL_S)

    async def _prepare(self) -> None:
        """What the conversation has to know before it begins."""
        spec = self._spec
        _, headlines = await asyncio.gather(self._model.look(), self._headlines(instructions_of(spec)))
        self._ready.set_result(Drive(spec, self._model, self._figures, self, headlines))
        self._take_early()

    async def _headlines(self, instructions: Instructions | None) -> list[str] | None:
        is_news = isinstance(instructions, News)
        return await news.headlines(self._spec.services.news_key) if is_news else None

    async def _serve(self) -> None:
        """Until there is nobody to talk to any more."""
        spec = self._spec
        if not spec.name:
            await self.opened(wire.PUBLISHED)
            return
        session = Session(allow_recording=False, instructions=instructions_of(spec), voice=spec.voice or None)
        await self._lease.held()
        self._device = Device(spec, session, self)
        await self._device.run()
        self.leave(self._device.problem)

    # What the link tells

    async def opened(self, protocol: str) -> None:
        """There is a connection."""
        drive = await asyncio.shield(self._ready)
        self._far = FarEnd(ours=protocol == wire.OURS, browser=not self._spec.name, serial=random.getrandbits(32))
        self._hello = self._state = None
        self._hearing.heard()
        drive.begin(self._far)
        self._say_beat()
        self._take_early()

    def lost(self) -> None:
        """There is none any more."""
        if self._far is not None:
            self._far = None
            self._hearing.over()
            self._ready.result().lost()

    def changed(self) -> None:
        """The link's state did."""
        self._say_beat()

    def figure(self, name: str, value: float) -> None:
        """Something was seen by the link."""
        self._figures.add(name, value)

    def received(self, frame: Frame) -> None:
        """A frame of the other side."""
        if self._far is None:
            return
        drive = self._ready.result()
        for took in self._far.received(frame):
            match took:
                case Heard():
                    self._hearing.heard()
                    try:
                        drive.heard(took)
                    except Refused as reason:
                        self._refuse(str(reason))
                case Wrong():
                    self._refuse(took.why)
                case wire.Playback():
                    drive.playback(took)
                case wire.Hello():
                    self._hello = took
                case wire.State():
                    self._state = took
                    self._beat_soon()
                case wire.Error():
                    log.warning("the device says that something is wrong", why=took.error.message[:300])
                case wire.SessionUpdate():
                    with contextlib.suppress(asyncio.QueueFull):  # one that is sent so often is not worth a wait
                        self._updates.put_nowait(took.session)
                case _:
                    pass

    def _refuse(self, why: str) -> None:
        """Count it, and tell who understands it."""
        self._refused += 1
        now = time.monotonic()
        if len(self._errors) == ERRORS_A_SECOND and now - self._errors[0] < 1.0:
            return
        self._errors.append(now)
        log.warning("not taken from the other side", why=why, device=self._spec.name)
        if not self._spec.name:
            problem = wire.Problem(type="invalid_request_error", message=why)
            self.send(wire.encode(wire.Error(error=problem)))

    async def _update(self) -> None:
        """Take a browser's updates, beside reading: headlines may have to be fetched first."""
        while True:
            session = await self._updates.get()
            headlines = await self._headlines(session.instructions)
            try:
                (await asyncio.shield(self._ready)).update(session, headlines)
            except Refused as reason:
                self._refuse(str(reason))

    # What the conversation wants

    def send(self, frame: Frame, *, sound: bool = False, sent: Callable[[], None] | None = None) -> bool:
        """To the other side; returns whether it may get there."""
        if self._device:
            return self._device.send(frame, sound=sound, sent=sent)
        went = self._say(Outgoing(text=isinstance(frame, str)), frame.encode() if isinstance(frame, str) else frame)
        if went and sent:
            sent()
        return went

    def keep(self, line: Line) -> None:
        """To the leader, for the store."""
        self._say(line)

    def leave(self, why: str) -> None:
        """The conversation is over. A device that is dialled again stays connected, and may begin another."""
        if (self._spec.name and self._spec.auto_reconnect) or self._over.done():
            return
        self._over.set_result(why)

    def turned(self) -> None:
        """Whose turn it is has changed, or what was said."""
        self._beat_soon()

    # The leader

    def _take_early(self) -> None:
        """What came before it could be taken."""
        while self._early and self._can_take:
            self._take("", *self._early.popleft())

    @property
    def _can_take(self) -> bool:
        return self._ready.done() and (bool(self._spec.name) or self._far is not None)

    def _take(self, _: str, message: bytes, body: bytes) -> None:
        try:
            told = _decode(message)
            if isinstance(told, LeaseHeld):
                self._lease.until = told.until
            elif not self._can_take:
                self._early.append((message, body))
            elif isinstance(told, Incoming):
                self.received(body.decode() if told.text else body)
            elif isinstance(told, SayWanted):
                self._ready.result().say(told.text)
            elif isinstance(told, MuteWanted):
                self._ready.result().mute(told.muted)
                self._say_beat()
        except (Refused, UnicodeDecodeError) as reason:
            self._refuse(str(reason)[:300])

    async def _mind(self) -> None:
        """End once the lease is over: the leader would have ended us, if it could."""
        await self._lease.over()
        log.warning("the lease of the device is over, and the leader says nothing", device=self._spec.name)
        os._exit(0)

    async def _beat(self) -> None:
        while True:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            self._say_beat()
            if seen := self._figures.take():
                self._say(VoiceFigures(seen))
            await asyncio.sleep(BEAT_S)

    def _beat_soon(self) -> None:
        if self._soon is None or self._soon.when() <= asyncio.get_running_loop().time():
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self._say_beat)

    def _say_beat(self) -> None:
        device, its, hello = self._device, self._state, self._hello
        drive = self._ready.result() if self._ready.done() and not self._ready.cancelled() else None
        state: Any = "over" if self._over.done() else "connected" if self._far else "connecting"
        muted = its.muted if its else drive.is_muted if drive else self._spec.muted
        microphone = its.microphone[:500] if its else ""
        beat = VoiceBeat(state=state, since=self._born_at, connections=int(self._far is not None))
        if device:
            silent = self._hearing.problem(muted=muted, microphone=microphone)
            beat = VoiceBeat(
                state="over" if self._over.done() else device.state,
                problem=device.problem or missing(its) or silent,
                since=device.since,
                attempts=0 if device.state == "connected" else device.attempts,
                connections=device.connections,
            )
        self._say(
            msgspec.structs.replace(
                beat,
                protocol=(wire.OURS if self._far.is_ours else wire.PUBLISHED) if self._far else "",
                turn=drive.turn if drive and self._far else "",
                muted=muted,
                echo=hello.echo if hello else "",
                microphone=microphone,
                speaker=its.speaker[:500] if its else "",
                refused=self._refused,
                said=drive.said if drive else 0,
                services=self._services(drive),
            )
        )

    def _services(self, drive: Drive | None) -> dict[str, str]:
        found = {"llm": self._model.problem}
        if drive:
            found |= {"stt": drive.recogniser.problem, "tts": drive.synthesiser.problem}
        return found

    def _say(self, message: msgspec.Struct, body: bytes = b"") -> bool:
        if self._line.say(message, body):
            return True
        log.warning("the leader takes nothing", message=type(message).__name__, conversation=self._spec.id)
        return False
