"""The link to a recogniser: there while somebody speaks and for a while after, so that those who are silent hold no
slot of it. One that breaks gives way to another, which hears again what was not settled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from procs import backoff, log
from procs.errors import Refused
from procs.messages.voice import Services
from procs.voice.child.dial import why
from procs.voice.child.figures import Figures
from procs.voice.child.instances import Instances, Missing, Names
from procs.voice.child.kept import STEP_S, Kept
from procs.wire import moshi

PATH = "/api/asr-streaming"
KEEP_S = 30.0  # after the last voice
SPEECH_S = 3.0  # after the last voice, in which all is kept for another recogniser
FLUSH_STEPS = 8  # of silence after a mark, as published
FLUSH_S = 2.5  # a mark that is not back by then is taken for answered
SERVED_S = 1.0  # a session that lived for so long was a good one
STUCK_S = 5.0  # without an answer to what was sent
SEND_S = 5.0
MOST_WORD = 500  # characters
IN_A_ROW = 16  # messages, before others get their turn
_NAMES = Names("worker_stt_misses", "worker_stt_hard_misses", "worker_stt_ping_time", "worker_stt_find_time")
_SILENCE = moshi.Audio(np.zeros(moshi.STEP, np.int16))
PAUSE = 2  # which of a step's scores says that a turn is over


class Word(NamedTuple):
    """A word, at a time of the microphone."""

    text: str
    start_s: float


class EndWord(NamedTuple):
    """Where it ends."""

    stop_s: float


class Pause(NamedTuple):
    """How probable it is that the turn is over."""

    score: float


class Flushed(NamedTuple):
    """All before this mark was dealt with."""

    mark: int


class Lost(NamedTuple):
    """The session is gone."""


Told = Word | EndWord | Pause | Flushed | Lost


class Recogniser:
    """It hears all, and is connected while it is wanted. `always`: nothing here tells when somebody speaks."""

    def __init__(self, services: Services, figures: Figures, tell: Callable[[Told], None], *, always: bool) -> None:
        self._instances = Instances(services.stt, services.speech_key, moshi.FROM_STT, _NAMES, figures)
        self._figures, self._tell, self._always = figures, tell, always
        self._kept = Kept()
        self._voice_at = self._wanted_until = float("-inf")
        self._is_voice = False
        self._mark: int | None = None  # that waits
        self._mark_step = 0  # goes after what is before this step
        self._deadline: asyncio.TimerHandle | None = None
        self._more = asyncio.Event()
        self._session: _Session | None = None
        self._failed = ""  # how the last session ended; to be let in is no answer

    @property
    def problem(self) -> str:
        """Why there is none, or why it has not dealt with what it was sent; or ""."""
        return self._instances.problem or self._failed

    @property
    def _is_wanted(self) -> bool:
        return self._always or self._is_voice or self._mark is not None or time.monotonic() < self._wanted_until

    def hear(self, pcm: moshi.Samples) -> None:
        """More of the microphone."""
        recent = self._always or self._is_voice or time.monotonic() - self._voice_at < SPEECH_S
        if self._kept.add(pcm, all_wanted=recent or self._mark is not None):
            self._more.set()

    def voice(self, active: bool) -> None:
        """Somebody's voice began, or ended, if there was one."""
        if not active and not self._is_voice:
            return
        self._is_voice, self._voice_at = active, time.monotonic()
        self._wanted_until = self._voice_at + KEEP_S
        self._more.set()

    def flush(self, mark: int) -> None:
        """Have all be dealt with that was heard so far."""
        if self._session is None and not self._is_wanted:
            self._tell(Flushed(mark))
            return
        self._mark, self._mark_step = mark, self._kept.end
        self._wanted_until = max(self._wanted_until, time.monotonic() + FLUSH_S)
        if self._deadline:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(FLUSH_S, self._late, mark)
        if self._session:
            self._session.mark_sent = False
        self._more.set()

    def _late(self, mark: int) -> None:
        if mark == self._mark:
            log.warning("the recogniser has not dealt with all in time", within_s=FLUSH_S)
            self._answered(mark)

    def _answered(self, mark: int) -> None:
        if mark == self._mark:
            self._mark = None
            self._kept.settle(self._mark_step)
            self._tell(Flushed(mark))

    async def run(self) -> None:
        """For ever."""
        pauses, said = backoff.delays(base_s=0.1, cap_s=2.0), ""
        while True:
            while not self._is_wanted:
                self._more.clear()
                await self._more.wait()
            try:
                ws = await self._instances.open(PATH)
            except Missing as missing:
                if str(missing) != said:
                    log.warning("no recogniser", why=str(missing))
                    said = str(missing)
                await asyncio.sleep(next(pauses))
                continue
            said, began = "", time.monotonic()
            with self._figures.while_active("worker_stt_active_sessions"):
                problem = await self._use(ws)
            if time.monotonic() - began > SERVED_S:
                pauses = backoff.delays(base_s=0.1, cap_s=2.0)
            if problem:
                log.warning("the recogniser's session broke", why=problem)
                self._failed = problem
                self._tell(Lost())
                await asyncio.sleep(next(pauses))

    async def _use(self, ws: ClientConnection) -> str:
        """One session, until it breaks, and why, or is wanted no more: ""."""
        self._session = its = _Session(self._kept.first)
        self._figures.add("worker_stt_sessions")
        works = [asyncio.ensure_future(each) for each in (self._send(ws, its), self._receive(ws, its))]
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            ws.transport.abort()
            self._session = None
            self._counted(its)

    def _counted(self, its: _Session) -> None:
        self._figures.add("worker_stt_session_duration", time.monotonic() - its.began)
        self._figures.add("worker_stt_audio_duration", its.sent * STEP_S)
        self._figures.add("worker_stt_num_words", its.words)

    async def _send(self, ws: ClientConnection, its: _Session) -> str:
        try:
            while self._is_wanted:
                async with asyncio.timeout(SEND_S):
                    await self._send_all(ws, its)
                self._more.clear()
                await self._more.wait()
        except TimeoutError:
            return f"it has read nothing for {SEND_S:g} s"
        except ConnectionClosed as closed:
            return why(closed)
        return ""

    async def _send_all(self, ws: ClientConnection, its: _Session) -> None:
        """What there is for it now. A mark that waits goes when it is due."""
        while its.next < self._kept.end or self._is_mark_due(its):
            if self._is_mark_due(its):
                assert self._mark is not None
                its.mark_sent = True
                await ws.send(moshi.encode(moshi.Marker(self._mark)))
                for _ in range(FLUSH_STEPS):
                    await self._send_step(ws, its, _SILENCE)
                its.silent += FLUSH_STEPS
                continue
            its.skip_to(self._kept.first)
            await self._send_step(ws, its, moshi.Audio(self._kept.at(its.next)))
            its.next += 1

    async def _send_step(self, ws: ClientConnection, its: _Session, step: moshi.Audio) -> None:
        await ws.send(moshi.encode(step))
        its.sent += 1
        self._figures.count("worker_stt_sent_frames")

    def _is_mark_due(self, its: _Session) -> bool:
        return self._mark is not None and not its.mark_sent and its.next >= self._mark_step

    async def _receive(self, ws: ClientConnection, its: _Session) -> str:
        try:
            number = 0
            while True:
                number += 1
                if number % IN_A_ROW == 0:
                    await asyncio.sleep(0)
                try:
                    async with asyncio.timeout(STUCK_S):
                        frame = await ws.recv()
                except TimeoutError:
                    if its.sent > its.received:
                        return f"it has answered nothing for {STUCK_S:g} s"
                    continue
                message = moshi.decode(frame, moshi.FROM_STT)
                if isinstance(message, moshi.Error):
                    return f"it says: {message.message[:200]}"
                self._take(message, its)
        except ConnectionClosed as closed:
            return why(closed)
        except Refused as reason:
            return f"it says what is not understood: {reason}"[:300]

    def _take(self, message: moshi.FromStt, its: _Session) -> None:
        match message:
            case moshi.Step():
                if not its.received:
                    self._figures.add("worker_stt_ttft", time.monotonic() - its.began)
                its.received += 1
                self._figures.count("worker_stt_recv_frames")
                self._failed = ""
                if len(message.prs) > PAUSE:
                    self._tell(Pause(message.prs[PAUSE]))
            case moshi.Word() if len(message.text) > MOST_WORD:
                raise Refused(f"a word of {len(message.text)} characters")
            case moshi.Word():
                its.words += 1
                self._figures.count("worker_stt_recv_words")
                self._tell(Word(message.text, its.time_of(message.start_time)))
            case moshi.EndWord():
                stop_s = its.time_of(message.stop_time)
                self._kept.settle(round(stop_s / STEP_S))
                self._tell(EndWord(stop_s))
            case moshi.Marker():
                its.heard_silent = its.silent
                self._answered(message.id)
            case _:
                pass


class _Session:
    """One connection. Its times are of the sound that it was sent, with silence in between that nobody has heard."""

    def __init__(self, first: int) -> None:
        self.next = first  # step to send
        self.mark_sent = False
        self.sent = self.received = self.words = 0  # steps
        self.silent = self.heard_silent = 0  # steps of silence that were sent; that it has dealt with
        self.began = time.monotonic()
        self._start = first

    def skip_to(self, step: int) -> None:
        """What is before it is not there any more."""
        self._start += max(0, step - self.next)
        self.next = max(self.next, step)

    def time_of(self, seconds: float) -> float:
        """A time of its, as one of the microphone."""
        return round(seconds + (self._start - self.heard_silent) * STEP_S, 3)
