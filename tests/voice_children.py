"""What a child of the voice backend does in tests of its leader: it dials its device and tells how it does, and says a
line for all that it is told. It has no ears, no mouth and no model."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from procs import bus, line
from procs.messages import decode
from procs.messages.voice import (
    Incoming,
    Line,
    MuteWanted,
    Outgoing,
    SayWanted,
    ToChild,
    VoiceBeat,
    VoiceFigures,
    VoiceSpec,
)

BEAT_S = 0.2


def live(spec: bytes) -> None:
    """Be the child of this spec."""
    asyncio.run(Child(decode(spec, VoiceSpec)).run())


class Child:
    """One."""

    def __init__(self, spec: VoiceSpec) -> None:
        self._spec = spec
        self._beat = VoiceBeat("connecting", muted=spec.muted, attempts=spec.failures, since=time.time())
        self._next = 1 + max((each.number for each in spec.history), default=0)
        self._device: ClientConnection | None = None
        self._unsaid: list[str] = []  # it says nothing while it is muted

    async def run(self) -> None:
        """Until it is killed."""
        self._line = line.connector(Path(self._spec.run_dir), bus.VOICE_CHILDREN, self._spec.id, self._take)
        await self._line.connected(5)
        works = [asyncio.ensure_future(self._beats())]
        if not self._spec.name:
            self._is("connected")
        if self._spec.name:
            works.append(asyncio.ensure_future(self._dials()))
        await asyncio.wait(works, return_when=asyncio.FIRST_EXCEPTION)

    async def _beats(self) -> None:
        while True:
            self._line.say(self._beat)
            await asyncio.sleep(BEAT_S)

    async def _dials(self) -> None:
        its = self._spec
        headers = {"Authorization": f"Bearer {its.token}"} if its.token else {}
        while True:
            try:
                async with connect(
                    f"ws://{its.host}:{its.port}/realtime", additional_headers=headers, proxy=None
                ) as self._device:
                    self._is("connected", connections=self._beat.connections + 1, attempts=0, problem="")
                    self._line.say(VoiceFigures([("worker_stt_sessions", 1), ("planaria_voice_llm_seconds", 0.04)]))
                    await self._device.wait_closed()
            except OSError as error:
                self._is("waiting", attempts=self._beat.attempts + 1, problem=str(error)[:200])
            if not its.auto_reconnect:
                self._is("over")
                await asyncio.sleep(0.1)
                os._exit(0)
            await asyncio.sleep(its.reconnect_delay)

    def _is(self, state: str, **more: object) -> None:
        self._beat = msgspec.structs.replace(self._beat, state=state, since=time.time(), **more)
        self._line.say(self._beat)

    def _take(self, _: str, message: bytes, body: bytes) -> None:
        told: ToChild = decode(message, ToChild)  # type: ignore[arg-type]
        if isinstance(told, MuteWanted):
            self._beat = msgspec.structs.replace(self._beat, muted=told.muted)
            self._line.say(self._beat)
        elif isinstance(told, SayWanted):
            self._unsaid.append(told.text)
        elif isinstance(told, Incoming):
            self._answer(body)
        while self._unsaid and not self._beat.muted:
            self._said(self._unsaid.pop(0))

    def _said(self, text: str) -> None:
        if text == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if text == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if text.startswith("its model: "):
            problem = text.removeprefix("its model: ")
            self._beat = msgspec.structs.replace(self._beat, services={"stt": "", "tts": "", "llm": problem})
            self._line.say(self._beat)
        said = Line(self._next, "assistant", text, at=time.time())
        self._line.say(said)
        self._line.say(msgspec.structs.replace(said, final=True))
        self._next += 1
        self._beat = msgspec.structs.replace(self._beat, said=self._beat.said + 1)
        self._line.say(self._beat)

    def _answer(self, body: bytes) -> None:
        if body == b"close":
            self._line.say(Outgoing(close=1000), b"goodbye")
        elif body == b"crash":
            os._exit(1)
        else:
            self._line.say(Outgoing(), body)
