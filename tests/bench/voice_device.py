"""A device whose clock is known: each sample of its microphone has a time, and so has all that comes to its speaker.

It speaks our protocol and plays by audio_io's own player, without a card, an echo or a codec in the way: packets are
made before, and what comes is not decoded. Times are of time.monotonic().
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from procs.audio_io.player import Player
from procs.audio_io.sound import BLOCK, BLOCK_S, RATE, Cursor, Pcm
from procs.errors import Unhealthy
from procs.media.opus import Encoder, packet_samples
from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio, parse_audio
from tests.bench import signs
from tests.bench.voice_fakes import LOUD
from tests.rig import free_port

TOLD_EVERY_S = 0.2
T = TypeVar("T")
WAIT_S = 0.3  # from the end of a reply to the next question
LOOK_S = 0.02  # between two looks: a bench that looks all the time is in the way of what it looks at
BEFORE = 5  # blocks of silence, in which the encoder settles


class Utterance(NamedTuple):
    """Something to say, ready for the wire."""

    packets: list[bytes]
    onset_s: float  # from its first sample
    end_s: float
    pcm: Pcm


class Said(NamedTuple):
    """When it was said."""

    onset: float
    end: float


@functools.cache
def _silence() -> bytes:
    return Encoder().encode(np.zeros(20 * BLOCK, np.int16))[-1]


def utterance(pcm: Pcm) -> Utterance:
    """It, with silence before and after."""
    heard = np.flatnonzero(np.abs(pcm.astype(np.int32)) > LOUD)
    quiet = np.zeros(BEFORE * BLOCK, np.int16)
    padded = np.concatenate([quiet, pcm[: heard[-1] + 1], quiet])
    start = BEFORE * BLOCK
    return Utterance(Encoder().encode(padded), float(start + heard[0]) / RATE, float(start + heard[-1]) / RATE, padded)


class Device:
    """One, lent to one backend at a time. What it has seen is read by another thread than that which it lives in."""

    def __init__(self) -> None:
        self.port = free_port()
        self.player = Player()
        self.connected: list[float] = []  # when a backend had said its first word
        self.sounds: list[float] = []  # when a frame came for the speaker
        self.firsts: list[float] = []  # the first of a response
        self.paused: list[float] = []  # when the speaker fell silent for a pause
        self.heard: list[tuple[str, float]] = []  # what else was told, and when
        self.timings: list[dict[str, float]] = []  # of each reply, as the backend has told them
        self.late_s = 0.0  # the microphone, at worst
        self._responses = self._ended = 0
        self._speaks = deque[bytes]()
        self._say: deque[tuple[Utterance, list[Said]]] = deque()

    @property
    def is_playing(self) -> bool:
        """Whether there is something to hear, and will be for half a second."""
        cursor = self.player.cursor
        return cursor.state == "playing" and cursor.buffered_ms > 500

    @property
    def is_quiet(self) -> bool:
        """Whether all was said, and heard."""
        return bool(self._responses) and self._responses == self._ended and not self.player.cursor.buffered_ms

    def say(self, what: Utterance) -> Said:
        """Begin to say it; returns when it is heard."""
        told: list[Said] = []
        self._say.append((what, told))
        while not told:
            time.sleep(BLOCK_S / 2)
        return told[0]

    async def serve(self) -> None:
        """For ever."""
        server = await serve(
            self._call, "127.0.0.1", self.port, subprotocols=[Subprotocol(wire.OURS)], compression=None,
            ping_interval=None,
        )  # fmt: skip
        await server.serve_forever()

    async def _call(self, ws: ServerConnection) -> None:
        self._responses, self._ended, self.player = 0, 0, Player()
        with contextlib.suppress(ConnectionClosed):
            await ws.send(wire.encode(wire.Hello(name="bench", echo="cancelled")))
            first = await ws.recv()
            self.connected.append(time.monotonic())
            async with asyncio.TaskGroup() as group:
                group.create_task(self._live(ws))
                group.create_task(self._listen(ws, first))

    async def _listen(self, ws: ServerConnection, frame: str | bytes) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                if isinstance(frame, bytes):
                    self._sound(parse_audio(frame))
                else:
                    self._heard(wire.decode(frame, wire.FROM_BACKEND))
                frame = await ws.recv()

    def _sound(self, frame: AudioFrame) -> None:
        now = time.monotonic()
        self.sounds.append(now)
        if frame.first:
            self.firsts.append(now)
        pcm = np.zeros(packet_samples(frame.packet), np.int16)
        self.player.play(pcm, response=self._responses, timestamp=frame.timestamp, first=frame.first)

    def _heard(self, event: wire.FromBackend) -> None:
        self.heard.append((type(event).__name__, time.monotonic()))
        match event:
            case wire.ResponseCreated():
                self._responses += 1
            case wire.AudioDone():
                self.player.finish()
                self._ended = self._responses
            case wire.Pause():
                self.player.pause()
            case wire.Resume():
                self.player.resume()
            case wire.Flush() | wire.Interrupted():
                self.player.flush()
                self._ended = self._responses
            case wire.AdditionalOutputs():
                self.timings.append(dict(event.args.debug_dict.get("timing", {})))

    async def _live(self, ws: ServerConnection) -> None:
        """A block of the microphone every 20 ms, when its last sample was heard, and one for the speaker."""
        began, number, before = time.monotonic(), 0, Cursor(0, "done", 0, 0)
        with contextlib.suppress(ConnectionClosed):
            while True:
                at = began + (number + 1) * BLOCK_S
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                packet = self._packet(began + number * BLOCK_S)
                await ws.send(pack_audio(AudioFrame(packet, number, number * BLOCK, not number)))
                self.late_s = max(self.late_s, time.monotonic() - at)
                before = await self._play(ws, before, number)
                number += 1

    def _packet(self, at: float) -> bytes:
        if not self._speaks and self._say:
            what, told = self._say.popleft()
            self._speaks.extend(what.packets)
            told.append(Said(at + what.onset_s, at + what.end_s))
        return self._speaks.popleft() if self._speaks else _silence()

    async def _play(self, ws: ServerConnection, before: Cursor, number: int) -> Cursor:
        self.player.pull()
        cursor = self.player.cursor
        if (cursor.response, cursor.state) != (before.response, before.state) and cursor.state == "paused":
            self.paused.append(time.monotonic())
        changed = (cursor.response, cursor.state) != (before.response, before.state)
        due = cursor.state == "playing" and number % round(TOLD_EVERY_S / BLOCK_S) == 0
        if cursor.response and (changed or due):
            told = wire.Playback(
                response=cursor.response,
                state=cursor.state,
                heard_ms=float(cursor.heard_ms),
                buffered_ms=float(cursor.buffered_ms),
            )
            await ws.send(wire.encode(told))
        return cursor


@contextlib.contextmanager
def devices(count: int) -> Iterator[list[Device]]:
    """Some, in a thread of their own, until the end of the block."""
    made = [Device() for _ in range(count)]
    runner, over = asyncio.Runner(loop_factory=uvloop.new_event_loop), asyncio.Event()

    async def all_of_them() -> None:
        works = [asyncio.create_task(each.serve()) for each in made]
        await over.wait()
        for work in works:
            work.cancel()

    def live() -> None:
        with runner:
            runner.run(all_of_them())

    loop = runner.get_loop()
    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


class Turn(NamedTuple):
    """A question and its answer: when it was heard at the device that..."""

    end: float  # ... nobody spoke any more
    stopped: float  # that was known
    asked: float  # all words were, too
    written: float  # the first words of the answer were
    first: float  # and the first frame of it was there

    @property
    def whole_s(self) -> float:
        """For which the user waits."""
        return self.first - self.end


def wait_for(look: Callable[[], T], what: str) -> T:
    """What `look` gives once it is true. Raises Unhealthy if that takes too long."""
    return signs.wait_for(look, what, LOOK_S)


def turn(device: Device, question: Utterance) -> Turn:
    """Ask once the bot has ended, and wait until the answer was heard."""
    wait_for(lambda: device.is_quiet, "the bot to end")
    time.sleep(WAIT_S)
    told, end = len(device.heard), device.say(question).end
    first = wait_for(lambda: next((at for at in device.firsts if at > end), 0.0), "an answer")
    wait_for(lambda: device.is_quiet, "the bot to end its answer")
    heard = {what: at for what, at in reversed(device.heard[told:]) if at <= first}
    try:
        return Turn(end, heard["SpeechStopped"], heard["ResponseCreated"], heard["TextReady"], first)
    except KeyError as missing:
        raise Unhealthy(f"the backend has not said {missing} before its answer") from None
