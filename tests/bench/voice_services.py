"""Our own speech services, run as they are: how fast they are, and how late they get when many speak at once."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from procs.audio_io.sound import RATE, Pcm
from procs.errors import Refused, Unhealthy
from procs.kinds import Address
from procs.wire import moshi
from tests import rig
from tests.bench import signs, wall

T = TypeVar("T")
STEP_S = moshi.STEP / RATE
LIMIT_S = 60.0  # for anything that is waited for
TAIL = 30  # steps of silence, by which every word was told
TICKS = 100  # of a second, in /proc


class Service(NamedTuple):
    """One that runs."""

    pid: int
    address: Address
    processes: int  # of which it is, while nobody is connected

    def url(self, path: str) -> str:
        """Of a WebSocket of its."""
        return f"ws://{self.address}{path}"

    def cpu_s(self) -> float:
        """That it and its children have used. Asked while nobody is connected: a child counts once it was reaped."""
        signs.wait_for(lambda: len(wall.family(self.pid)) <= self.processes, "children of a service to end")
        return cpu_s(self.pid)


@contextlib.contextmanager
def service(which: str, folder: Path, sessions: int) -> Iterator[Service]:
    """speech_stt or speech_tts."""
    address = Address("127.0.0.1", rig.free_port())
    run = folder / f"run-{which}"
    run.mkdir(mode=0o700)
    environ = rig.clean_environ(PLANARIA_RUN_DIR=str(run), PLANARIA_SPEECH_SESSIONS=str(sessions))
    command = [sys.executable, "-m", "procs.speech", which, f"--{which}", str(address)]
    log = folder / f"{which}.log"
    with wall.started(command, environ, log) as running:
        page = signs.page(address, "/api/build_info")
        began = time.monotonic()
        with _told(log):
            signs.wait_for(lambda: page.seen_s(began), f"speech_{which}")
        yield Service(running.pid, address, len(wall.family(running.pid)))


@contextlib.contextmanager
def _told(log: Path) -> Iterator[None]:
    try:
        yield
    except Unhealthy as error:
        raise Unhealthy(f"{error}; its last words: {log.read_text()[-500:]}") from None


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, and of all below it that live or were reaped."""
    return sum(_used(each) for each in wall.family(pid))


def _used(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


class Heard(NamedTuple):
    """What came of one who spoke."""

    late_ms: list[float]  # of each step: when it was answered, after its last sample was sent
    words: int
    took_s: float  # until all was dealt with
    ready_ms: float


def heard(stt: Service, turns: list[Pcm], *, paced: bool) -> list[Heard]:
    """Everybody speaks at once; `paced` as people do, else as fast as it is taken."""

    async def everybody() -> list[Heard]:
        return await asyncio.gather(*(_speak(stt, pcm, paced=paced, after_s=0.01 * n) for n, pcm in enumerate(turns)))

    return _run(everybody())


async def _speak(stt: Service, pcm: Pcm, *, paced: bool, after_s: float) -> Heard:
    await asyncio.sleep(after_s)  # not all in the same millisecond
    began = time.monotonic()
    async with asyncio.timeout(LIMIT_S + len(pcm) / RATE), _opened(stt.url("/api/asr-streaming")) as ws:
        await _ready(ws, moshi.FROM_STT)
        ready_ms = 1000 * (time.monotonic() - began)
        listening = asyncio.create_task(_listen(ws))
        began = time.monotonic()
        for step in range(len(pcm) // moshi.STEP):
            if paced:
                await asyncio.sleep(max(0.0, began + step * STEP_S - time.monotonic()))
            await ws.send(moshi.encode(moshi.Audio(pcm[step * moshi.STEP : (step + 1) * moshi.STEP])))
        await ws.send(moshi.encode(moshi.Marker(1)))
        for _ in range(TAIL):  # a marker comes back once more sound has followed
            await ws.send(moshi.encode(moshi.Audio(pcm[: moshi.STEP] * 0)))
            if (await asyncio.wait([listening], timeout=STEP_S if paced else 0.0))[0]:
                break
        answers, words = await listening
        ended = time.monotonic()
    count = len(pcm) // moshi.STEP
    late_ms = [1000 * (at - began - step * STEP_S) for step, at in answers.items() if step < count]
    return Heard(late_ms, words, ended - began, ready_ms)


async def _listen(ws: ClientConnection) -> tuple[dict[int, float], int]:
    """When each step was answered, and how many words there were, until the marker."""
    answers, words = dict[int, float](), 0
    while True:
        message = moshi.decode(await ws.recv(), moshi.FROM_STT)
        match message:
            case moshi.Step():
                answers.setdefault(message.step_idx, time.monotonic())
            case moshi.Word():
                words += 1
            case moshi.Error():
                raise Unhealthy(f"speech_stt: {message.message}")
            case moshi.Marker():
                return answers, words


class Spoken(NamedTuple):
    """What a synthesiser made of a text."""

    seconds: float  # of sound
    first_ms: float
    took_s: float


def spoken(tts: Service, text: str) -> Spoken:
    """Word by word, as a language model says it, but at once."""
    return _run(_spoken(tts, text))


async def _spoken(tts: Service, text: str) -> Spoken:
    async with asyncio.timeout(LIMIT_S), _opened(tts.url("/api/tts_streaming?format=PcmMessagePack")) as ws:
        await _ready(ws, moshi.FROM_TTS)
        began = time.monotonic()
        for word in text.split():
            await ws.send(moshi.encode(moshi.Text(word)))
        await ws.send(moshi.encode(moshi.Eos()))
        samples, first, last = 0, 0.0, began
        async for data in ws:
            message = moshi.decode(data, moshi.FROM_TTS)
            if isinstance(message, moshi.Error):
                raise Unhealthy(f"speech_tts: {message.message}")
            if isinstance(message, moshi.Audio):
                last = time.monotonic()
                first, samples = first or last, samples + len(message.pcm)
        if not samples:
            raise Unhealthy("speech_tts: it said nothing")
    return Spoken(samples / RATE, 1000 * (first - began), last - began)


def _run(work: Coroutine[object, object, T]) -> T:
    try:
        return asyncio.run(work)
    except (WebSocketException, OSError, TimeoutError) as error:
        raise Unhealthy(f"a speech service: {type(error).__name__}: {error}") from None


def _opened(url: str) -> connect:
    return connect(url, max_size=moshi.MAX_BYTES, compression=None, open_timeout=LIMIT_S, proxy=None)


async def _ready(ws: ClientConnection, side: moshi.Side[object]) -> None:
    message = moshi.decode(await ws.recv(), side)
    if not isinstance(message, moshi.Ready):
        raise Refused(f"not ready: {message}")
