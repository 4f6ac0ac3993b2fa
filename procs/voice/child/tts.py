"""The links to a synthesiser: a session for each reply, opened while the language model still thinks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from procs import log
from procs.errors import Refused
from procs.messages.voice import Services
from procs.voice.child.dial import why
from procs.voice.child.figures import Figures
from procs.voice.child.instances import Instances, Missing, Names
from procs.voice.child.tasks import spawn
from procs.wire import moshi

PATH = "/api/tts_streaming"
TRIES = 5
PAUSE_S, PAUSE_GROWS, PAUSE_MOST_S = 0.05, 1.5, 1.0  # between tries, as published
SILENT_S = 15.0  # without a word or sound, after it was told all
SEND_S = 10.0
MOST_S = 1200.0  # of sound: more than any reply has that is not cut
MOST_WORDS, MOST_TEXT = 8000, 64 * 1024  # that it tells of; characters in all of them
IN_A_ROW = 16  # messages, before others get their turn
_NAMES = Names("worker_tts_misses", "worker_hard_tts_misses", "worker_tts_ping_time", "worker_tts_find_time")


class Spoken(NamedTuple):
    """Its first word has left us, or there was nobody yet to tell it to."""

    reply: int
    at: float


class Word(NamedTuple):
    """When in its sound a word is spoken."""

    reply: int
    text: str
    start_s: float
    stop_s: float


class Sound(NamedTuple):
    """More of it."""

    reply: int
    pcm: moshi.Samples
    at: float  # when it came


class Done(NamedTuple):
    """That was all."""

    reply: int


class Failed(NamedTuple):
    """Nothing more comes of this session."""

    reply: int
    why: str


Told = Spoken | Word | Sound | Done | Failed


class Synthesiser:
    """All sessions; as many as there are replies that were not dropped, which are two at most."""

    def __init__(self, services: Services, figures: Figures, tell: Callable[[Told], None]) -> None:
        self._instances = Instances(services.tts, services.speech_key, moshi.FROM_TTS, _NAMES, figures)
        self._figures, self._tell = figures, tell
        self._sessions: dict[int, _Session] = {}
        self._failed = ""  # how the last session did that was given words; to be let in is no answer

    @property
    def problem(self) -> str:
        """Why there is none, or why nothing is heard of what it was given last; or ""."""
        return self._instances.problem or self._failed

    def prepare(self, reply: int, voice: str) -> None:
        """There is going to be something to say. It may be said again, as when a model is asked twice."""
        if reply in self._sessions:
            return
        self._sessions[reply] = its = _Session(reply, voice)
        its.task = spawn(self._run(its))

    def speak(self, reply: int, text: str, voice: str) -> None:
        """Whole words."""
        its = self._sessions.get(reply)
        if its is None or (not its.is_used and (its.is_broken or its.voice != voice)):
            self.drop(reply)
            self.prepare(reply, voice)
            its = self._sessions[reply]
        its.add(text)

    def end(self, reply: int) -> None:
        """No more words."""
        if its := self._sessions.get(reply):
            its.add(None)

    def drop(self, reply: int) -> None:
        """Nobody wants it any more."""
        if its := self._sessions.pop(reply, None):
            if its.is_used:
                self._figures.add("worker_tts_interrupt")
            assert its.task
            its.task.cancel()

    async def _run(self, its: _Session) -> None:
        try:
            ws = await self._open(its.voice)
            with self._figures.while_active("worker_tts_active_sessions"):
                problem = await self._hold(its, ws)
        except Missing as missing:
            problem = str(missing)
        if problem and not its.is_used:
            its.is_broken = True  # nothing was to be said yet: its first word opens another
            await its.more.wait()
        self._sessions.pop(its.reply, None)
        if problem:
            log.warning("a reply is not spoken to its end", why=problem)
            self._failed = problem
        self._tell(Failed(its.reply, problem) if problem else Done(its.reply))

    async def _open(self, voice: str) -> ClientConnection:
        """A session. Raises Missing."""
        asked = {"format": "PcmMessagePack", "voice": voice, "cfg_alpha": "1.5"}
        pause_s = PAUSE_S
        for _ in range(TRIES - 1):
            try:
                return await self._instances.open(f"{PATH}?{urlencode(asked)}")
            except Missing:
                await asyncio.sleep(pause_s)
                pause_s = min(PAUSE_MOST_S, pause_s * PAUSE_GROWS)
        return await self._instances.open(f"{PATH}?{urlencode(asked)}")

    async def _hold(self, its: _Session, ws: ClientConnection) -> str:
        """Until its last word is spoken: ""; or why it is not."""
        self._figures.add("worker_tts_sessions")
        its.opened_at = time.monotonic()
        sending, receiving = asyncio.ensure_future(self._send(its, ws)), asyncio.ensure_future(self._receive(its, ws))
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and (problem := sending.result()):
                return problem
            return await receiving  # all was said to it; what it says is still to come
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
            ws.transport.abort()
            self._counted(its)

    def _counted(self, its: _Session) -> None:
        self._figures.add("worker_tts_sent_frames", its.sent)
        self._figures.add("worker_tts_recv_frames", its.received)
        self._figures.add("worker_tts_recv_words", its.words)
        if its.samples:
            self._figures.add("worker_tts_audio_duration", its.samples / moshi.RATE)
            self._figures.add("worker_tts_gen_duration", time.monotonic() - its.asked_at)

    async def _receive(self, its: _Session, ws: ClientConnection) -> str:
        try:
            while True:
                try:
                    async with asyncio.timeout(SILENT_S):
                        frame = await ws.recv()
                    came_at = time.monotonic()
                except TimeoutError:
                    if its.is_ended:
                        return f"it has said nothing for {SILENT_S:g} s"
                    continue  # it waits for us, as we for the language model
                message = moshi.decode(frame, moshi.FROM_TTS)
                if isinstance(message, moshi.Error):
                    return f"it says: {message.message[:200]}"
                its.received += 1
                self._take(its, message, came_at)
                if its.received % IN_A_ROW == 0:
                    await asyncio.sleep(0)
        except ConnectionClosed as closed:
            return "" if its.is_ended and closed.rcvd and closed.rcvd.code in (1000, 1001) else why(closed)
        except Refused as reason:
            return f"it says what is not understood: {reason}"[:300]

    def _take(self, its: _Session, message: moshi.FromTts, came_at: float) -> None:
        if isinstance(message, moshi.TimedText):
            its.words, its.letters = its.words + 1, its.letters + len(message.text)
            if its.words > MOST_WORDS or its.letters > MOST_TEXT:
                raise Refused("words without end")
            self._tell(Word(its.reply, message.text, message.start_s, message.stop_s))
        elif isinstance(message, moshi.Audio):
            if not its.samples:
                self._figures.add("worker_tts_ttft", time.monotonic() - its.asked_at)
            self._failed = ""
            its.samples += len(message.pcm)
            if its.samples > MOST_S * moshi.RATE:
                raise Refused("sound without end")
            self._tell(Sound(its.reply, message.pcm, came_at))

    async def _send(self, its: _Session, ws: ClientConnection) -> str:
        try:
            while not its.is_ended:
                while its.texts:
                    await self._send_one(its, ws, its.texts.pop(0))
                its.more.clear()
                if not its.is_ended:
                    await its.more.wait()
        except TimeoutError:
            return f"it has read nothing for {SEND_S:g} s"
        except ConnectionClosed as closed:
            return why(closed)
        return ""

    async def _send_one(self, its: _Session, ws: ClientConnection, text: str | None) -> None:
        its.is_ended = text is None
        async with asyncio.timeout(SEND_S):
            await ws.send(moshi.encode(moshi.Eos() if text is None else moshi.Text(text)))
        if not its.sent:
            self._tell(Spoken(its.reply, its.asked_at if its.asked_at < its.opened_at else time.monotonic()))
        its.sent += 1


class _Session:
    """One reply's."""

    def __init__(self, reply: int, voice: str) -> None:
        self.reply, self.voice = reply, voice
        self.task: asyncio.Task[None] | None = None
        self.texts: list[str | None] = []  # None: the end
        self.more = asyncio.Event()
        self.is_used = self.is_ended = self.is_broken = False
        self.sent = self.received = self.words = self.letters = self.samples = 0
        self.asked_at = self.opened_at = 0.0

    def add(self, text: str | None) -> None:
        """Words, or None for the end."""
        if not self.is_used:
            self.is_used, self.asked_at = True, time.monotonic()
        self.texts.append(text)
        self.more.set()
