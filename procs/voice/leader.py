"""The leader: a child for each device that is to be called and is ours, what is said to it, and what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol

from procs import log
from procs.errors import Refused
from procs.line import Line as Wire
from procs.messages import decode, encode
from procs.messages.voice import (
    Do,
    FromChild,
    LeaseHeld,
    Line,
    Listen,
    MuteWanted,
    Outgoing,
    SayWanted,
    VoiceBeat,
    VoiceDevice,
    VoiceFigures,
    VoiceSpec,
    VoiceTold,
)
from procs.voice import shown
from procs.voice.children import Action, Children, Fork
from procs.voice.config import Device
from procs.voice.devices_file import DevicesFile, Told
from procs.voice.memory import Memory
from procs.voice.metrics import Metrics
from procs.voice.options import Voice
from procs.voice.sayings import Sayings
from procs.voice.services import Health

LOOK_S = 0.5  # at devices.json
TICK_S = 0.1


class Brood(Protocol):
    """What brood.hatch gives a leader."""

    def fork(self, child: str, spec: bytes) -> None:
        """Have a child born."""

    def kill(self, child: str) -> None:
        """Have it ended."""


class Frames(Protocol):
    """Who hands frames on to browsers."""

    def out(self, child: str, frame: Outgoing, body: bytes) -> None:
        """One for the browser of this child."""

    def has(self, child: str) -> bool:
        """Whether it is a browser's."""

    def beaten(self, child: str, beat: VoiceBeat) -> None:
        """How it does."""

    def ended(self, child: str) -> None:
        """It is dead."""


class Leader:
    """One a process. What it can't do it refuses in words (Refused); KeyError: there is no such device."""

    def __init__(
        self, settings: Voice, run_dir: Path, brood: Brood, memory: Memory, file: DevicesFile, children: Children
    ) -> None:
        self.settings, self.run_dir, self.memory, self.file = settings, run_dir, memory, file
        self._brood, self._children = brood, children
        self.metrics = Metrics()
        self.health = Health(settings.services, self._checked)
        self.wire: Wire  # to the children; whoever runs us sets these two
        self.frames: Frames
        self._editing = asyncio.Lock()
        self._sayings = Sayings()
        self._muted: dict[str, bool] = {}  # child -> what it was told last
        self._until: dict[str, float] = {}  # child -> until when it may live, as it was told last

    # What is to be

    async def look(self) -> NoReturn:
        """Follow devices.json, for ever."""
        while True:
            self.reread()
            await asyncio.sleep(LOOK_S)

    def reread(self) -> None:
        """See whether devices.json says something else now."""
        before = self.file.told
        if self.file.look():
            self._reread(before, self.file.told)
        self.memory.want(frozenset(name for name, its in self.file.told.devices.items() if its.enabled))

    def _reread(self, before: Told, told: Told) -> None:
        for problem in told.problems:
            if problem not in before.problems:
                log.error(problem)
        if not told.unread:
            on = sum(device.enabled for device in told.devices.values())
            what = f"{self.file.path} is read" if told.configured else f"idle: not configured: no {self.file.path}"
            log.info(what, devices=len(told.devices), enabled=on)
        for name in before.devices.keys() - told.devices.keys():
            self.metrics.figures.forget(name)
        for name in before.devices:
            if not (name in told.devices and told.devices[name].enabled):
                self._sayings.forget(name, self._children.child_of(name))

    async def tick(self) -> NoReturn:
        """Have everything as it should be, for ever."""
        while True:
            self.act()
            await asyncio.sleep(TICK_S)

    def act(self) -> None:
        """The same, now."""
        devices = self.file.told.devices
        wanted = {name: its for name, its in devices.items() if its.enabled and self.memory.may_call(name)}
        self._do(self._children.tick(wanted, time.monotonic()))
        for name in wanted:
            self._tell_until(self._children.child_of(name), name)
        self.metrics.figures.set("planaria_voice_leases", len(self.memory.devices))
        self.metrics.figures.set("planaria_voice_store_up", not self.memory.problem)
        self.metrics.figures.set("planaria_voice_lines_unwritten", self.memory.unwritten)

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Fork):
                self.metrics.figures.add("planaria_voice_born_total", of=action.device.name)
                self._muted[action.child] = self.memory.devices[action.device.name].muted
                self._until[action.child] = self.memory.leases.until(action.device.name)
                self._brood.fork(action.child, encode(self._spec(action)))
            else:
                if action.why:
                    log.info("a conversation's process is ended", child=action.child, why=action.why)
                self._brood.kill(action.child)

    def _spec(self, fork: Fork) -> VoiceSpec:
        its, known = fork.device, self.memory.devices[fork.device.name]
        return VoiceSpec(
            id=fork.child,
            run_dir=str(self.run_dir),
            services=self.settings.services,
            instructions=its.instructions,
            voice=its.voice,
            name=its.name,
            host=its.host,
            port=its.port,
            token=its.token,
            tls=its.tls,
            ca=its.ca,
            auto_reconnect=its.auto_reconnect,
            reconnect_delay=its.reconnect_delay,
            failures=fork.failures,
            since=fork.since,
            muted=known.muted,
            history=known.transcript.to_be_born_with(),
            until=self.memory.leases.until(its.name),
        )

    # What children say

    def heard(self, child: str, data: bytes, body: bytes) -> None:
        """A message of a child."""
        try:
            message: FromChild = decode(data, FromChild)  # type: ignore[arg-type]
        except Refused as reason:
            log.warning("malformed bus message", reason=str(reason), child=child)
            return
        device = self._children.device_of(child)
        is_browser = not device and self.frames.has(child)
        if not device and not is_browser:
            return  # of one that is dead
        if isinstance(message, VoiceBeat):
            self._beaten(child, device, message)
        elif isinstance(message, VoiceFigures):
            self.metrics.seen(child, device, message.seen)
        elif isinstance(message, Outgoing) and is_browser:
            self.frames.out(child, message, body)
        elif isinstance(message, Line) and device:
            self.memory.add(device, message)

    def _beaten(self, child: str, device: str, beat: VoiceBeat) -> None:
        self.metrics.beaten(child, device, beat, time.time())
        if not device:
            self.frames.beaten(child, beat)
            return
        self._children.beaten(child, beat, time.monotonic())
        self._sayings.begun(device, child, beat.said)
        if beat.state == "connected":
            self._tell_muted(child, device)
            self._tell_sayings(child, device)

    def _tell_muted(self, child: str, device: str) -> None:
        """Whether its microphone is muted, where it has not heard of it yet."""
        known = self.memory.devices.get(device)
        if known and self._muted.get(child) != known.muted and self.wire.say(MuteWanted(known.muted), to=child):
            self._muted[child] = known.muted

    def _tell_sayings(self, child: str, device: str) -> None:
        """What it is to say, and was not told yet. What it does not take now it is told with its next beat."""
        for text in self._sayings.untold(device, child):
            if not self.wire.say(SayWanted(text), to=child):
                return
            self._sayings.told(child)

    def _tell_until(self, child: str, device: str) -> None:
        """Until when it may live, where it has not heard of it yet."""
        until = self.memory.leases.until(device)
        if self._until.get(child, until) != until and self.wire.say(LeaseHeld(until), to=child):
            self._until[child] = until

    def born(self, child: str, pid: int) -> None:
        """It is there."""
        log.debug("born", child=child, pid=pid, device=self._children.device_of(child))

    def ended(self, child: str, status: int) -> None:
        """It is dead."""
        device = self._children.ended(child, status, time.monotonic())
        self.metrics.ended(child, device, time.time())
        if device and device not in self.file.told.devices:
            self.metrics.figures.forget(device)
        self._muted.pop(child, None)
        if self._sayings.died(device, child):
            log.warning("not said: conversations died that were to begin with it", device=device)
        self._until.pop(child, None)
        if status not in (0, -9):
            self.metrics.figures.add("worker_hard_errors_total")
            how = f"exit {status}" if status >= 0 else f"signal {-status}"
            log.error("a conversation's process has failed", device=device or "(a browser)", how=how)
        if device:
            self.act()
        else:
            self.frames.ended(child)

    def _checked(self, is_well: bool) -> None:
        self.metrics.figures.observe("worker_health_ok", is_well)

    # What others ask

    def devices(self) -> list[VoiceDevice]:
        """All, in the order of devices.json."""
        return [self._seen(its) for its in self.file.told.devices.values()]

    def device(self, name: str) -> VoiceDevice:
        """One."""
        return self._seen(self.file.told.devices[name])

    def _seen(self, its: Device) -> VoiceDevice:
        beat = self._children.beat_of(its.name)
        known = self.memory.devices.get(its.name)
        shows = partial(shown.device, its, lines=len(known.transcript) if known else 0)
        if not its.enabled:
            return shows("disabled")
        if beat and self.memory.may_call(its.name):
            return shows(beat.state, shown.problem(beat), beat=beat)
        if self.memory.leases.is_elsewhere(its.name):
            return shows("elsewhere", "another backend has it")
        if self._children.child_of(its.name):
            return shows("connecting")
        return shows("waiting", self.memory.problem or "it is about to be called")

    async def told(self, asked: Listen) -> VoiceTold:
        """What was said there, also at a device that was removed since. Raises StoreDown for one that is not ours, if
        the store does not tell."""
        known = self.memory.devices.get(asked.name)
        transcript = known.transcript if known else await self.memory.seen(asked.name)
        if not transcript and asked.name not in self.file.told.devices:
            raise KeyError(asked.name)
        return transcript.told(asked.after if known else 0)

    async def do(self, wanted: Do) -> None:
        """Do it, or begin to."""
        if wanted.what == "forget":
            await self.forget(wanted.name)
            return
        its = self.file.told.devices[wanted.name]
        if wanted.what in ("enable", "disable"):
            await self.edit(lambda: self.file.change(its.name, {"enabled": wanted.what == "enable"}))
            return
        if not its.enabled:
            raise Refused(f"{its.name} is disabled")
        if not self.memory.may_call(its.name):
            raise Refused(self.device(its.name).problem)
        if wanted.what == "reconnect":
            if child := self._children.child_of(its.name):
                self._sayings.ended(child)
            self._do(self._children.reconnect(its.name, time.monotonic()))
            self.metrics.figures.add("worker_force_disconnects_total")
        elif wanted.what == "say":
            self._say(its.name, wanted.text)
        else:
            await self.memory.mute(its.name, wanted.what == "mute")
            beat = self._children.beat_of(its.name)
            if beat and beat.state == "connected":  # another hears of it as soon as it is
                self._tell_muted(self._children.child_of(its.name), its.name)

    def _say(self, device: str, text: str) -> None:
        beat = self._children.beat_of(device)
        if not text.strip():
            raise Refused("text: there is nothing to say")
        if beat is None or beat.state != "connected":
            raise Refused(f"{device} is not connected{': ' + beat.problem if beat and beat.problem else ''}")
        self._sayings.add(device, text)
        self._tell_sayings(self._children.child_of(device), device)

    async def forget(self, name: str) -> None:
        """All that was said there; the conversation begins anew. Raises StoreDown."""
        its = self.file.told.devices.get(name)
        if its is None:
            await self.told(Listen(name))  # who was removed may have left lines
            if await self.memory.is_elsewhere(name):
                raise Refused("another backend has it")
        elif its.enabled and not self.memory.may_call(name):
            raise Refused(self.device(name).problem)
        await self.memory.forget(name)
        self._sayings.forget(name, self._children.child_of(name))
        self._do(self._children.reconnect(name, time.monotonic()))

    async def edit(self, change: Callable[[], None]) -> None:
        """Have devices.json changed, by one of DevicesFile's, one after the other; it counts at once."""
        async with self._editing:
            await asyncio.to_thread(change)
            self.reread()
        self.act()
