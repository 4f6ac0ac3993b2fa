"""mux1 against any bytes from the other side, and two sides against each other in any order of events."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from procs.errors import LinkLost, Refused, StreamReset
from procs.streams.link import Link
from procs.streams.stream import Stream
from procs.wire import mux1
from procs.wire.mux1 import FIN, MORE, TEXT, Code, Head, MuxLimits, Open, Type
from tests.examples import some_of
from tests.joined import one_by_one

GET = Open("http", "GET", "/")
SMALL = MuxLimits(max_frame=1024, init_credit=1024, session_credit=64 * 1024, max_streams=12)
WIRE = 3  # messages that the transport takes before a sender has to wait
SHORT_QUEUE = 4096  # instead of QUEUED, so that writers wait too
TURNS = 5  # of the event loop: enough for what one message sets off

sids = st.integers(0, 8) | st.integers(0, 2**32 - 1)
texts = st.sampled_from(
    [
        b"",
        b'{"kind":"http","method":"GET","path":"/"}',
        b'{"kind":"ws","method":"GET","path":"/","headers":[["a","b"]],"prio":3,"mode":"live"}',
        b'{"kind":"tcp","method":"GET","path":"/"}',
        b'{"status":200}',
        b'{"status":99}',
        b"[" * 5000,
        b"\0\0\0\1",
        b"\xff\xff\xff\xff",
        b"\0\1reason",
        b"\0" * 8,
        b"\0" * 1500,
    ]
)
frames = st.builds(
    lambda kind, flags, sid, payload: mux1.HEADER.pack(mux1.MAGIC, kind, flags, sid) + payload,
    st.integers(0, 9),
    st.integers(0, 40) | st.integers(0, 65535),
    sids,
    st.binary(max_size=30) | texts,
)
messages = st.lists(st.binary(max_size=40) | frames, max_size=30)


async def nothing(_: bytes) -> None:
    """Takes all."""


@settings(deadline=None)  # a busy machine
@given(incoming=messages, opened=st.integers(0, 3), opens=st.sampled_from(["odd", "even"]))
def test_any_bytes_to_either_side(incoming: list[bytes], opened: int, opens: Any) -> None:
    async def run() -> None:
        accepted: list[Stream] = []
        link = Link(
            one_by_one(nothing), opens=opens, ours=SMALL, theirs=SMALL, accept=accepted.append if opened != 2 else None
        )
        mine = [link.open(GET) for _ in range(opened)]
        for stream in mine[1:]:
            stream.finish()
        writing = asyncio.create_task(link.write())
        readers = [asyncio.create_task(read_all(stream, is_opener=True)) for stream in mine]
        for message in incoming:
            with suppress(Refused):
                link.received(message)
            assert link._receiving.left >= 0
            assert link.streams <= SMALL.max_streams + opened
            await asyncio.sleep(0)
        link.lost("over")
        async with asyncio.timeout(5):
            await writing
            await asyncio.gather(*readers, *(read_all(stream) for stream in accepted))

    asyncio.run(run())


async def read_all(stream: Stream, *, is_opener: bool = False) -> None:
    with suppress(StreamReset, LinkLost):
        if is_opener:
            await stream.head()
        while await stream.read():
            pass


@settings(deadline=None)  # a busy machine
@given(message=st.binary(max_size=60) | frames)
def test_any_message_taken_apart(message: bytes) -> None:
    with suppress(Refused):
        frame = mux1.unpack(message)
        for read in (mux1.read_open, mux1.read_head, mux1.read_credit, mux1.read_reset):
            with suppress(Refused):
                read(frame.payload)


class Way:
    """One direction of one stream: what was written, and what came out."""

    def __init__(self, source: Stream, target: Stream, seed: int) -> None:
        self.source, self.target = source, target
        self._random = random.Random(seed)
        self.written: list[tuple[bytes, int]] = []  # whole messages
        self.read: list[tuple[bytes, int]] = []
        self._part = b""
        self.is_finished = self.saw_end = False
        self.writing: asyncio.Task[None] | None = None
        self.reading: asyncio.Task[None] | None = None
        self.error: StreamReset | None = None

    @property
    def is_writing(self) -> bool:
        return self.writing is not None and not self.writing.done()

    def fresh(self, size: int) -> bytes:
        return self._random.randbytes(size)

    async def write(self, size: int, flags: int) -> None:
        data = self.fresh(size)
        with suppress(StreamReset):
            self.written.append((data, flags))
            await self.source.write(data, flags)

    def finish(self, size: int) -> None:
        if not self.is_finished:
            self.is_finished = True
            data = self.fresh(size)
            self.written.append((data, FIN))
            self.source.finish(data)

    async def take(self, count: int) -> None:
        """Read so many pieces, and hold them against what was written."""
        try:
            while count and not self.saw_end:
                count -= 1
                chunk = await self.target.read()
                if chunk is None:
                    self.saw_end = True
                    if not (self.read and self.read[-1][1] & FIN):
                        self.read.append((b"", FIN))
                    break
                self._part += chunk.data
                if not chunk.flags & MORE:
                    self.read.append((self._part, chunk.flags))
                    self._part = b""
        except StreamReset as error:
            self.error = error
            self.saw_end = True

    def check(self) -> None:
        """What came out is the beginning of what was written."""
        count = len(self.read)
        assert self.read == self.written[:count]
        if self._part:
            assert self.written[count][0].startswith(self._part)
        assert self.error is None or self.error.reason == "enough"


class Pair:
    """One stream as both sides have it."""

    def __init__(self, opened: Stream) -> None:
        self.opened = opened
        self.accepted: Stream | None = None
        self.ways: list[Way] = []  # to the device and from it, once it knows of the stream
        self.is_answered = self.was_reset = False

    def accept(self, stream: Stream) -> None:
        self.accepted = stream
        self.ways = [Way(self.opened, stream, 2 * stream.id), Way(stream, self.opened, 2 * stream.id + 1)]


class TwoSides(RuleBasedStateMachine):
    """A hub and a device whose transport delivers when told to. Nothing may be lost, doubled, reordered or stuck."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)  # it would take ten times as long
        self.patched = mock.patch("procs.streams.stream.QUEUED", SHORT_QUEUE)
        self.patched.start()
        self.wires: tuple[deque[bytes], deque[bytes]] = deque(), deque()
        self.room = [asyncio.Event(), asyncio.Event()]
        self.pairs: dict[int, Pair] = {}
        self.resets: list[int] = []  # codes on the wire
        self.tasks: list[asyncio.Task[None]] = []

    @initialize()
    def connect(self) -> None:
        self.hub = Link(one_by_one(lambda m: self.send(0, m)), opens="odd", ours=SMALL, theirs=SMALL)
        self.device = Link(
            one_by_one(lambda m: self.send(1, m)), opens="even", ours=SMALL, theirs=SMALL, accept=self.accept
        )
        self.links = self.hub, self.device
        for link in self.links:
            self.start(link.write())
        for prio in (1, 1, 2):  # something to begin with
            self.open(prio)
            self.deliver(0, 1)
        for n in range(2):
            self.answer(n)
            self.write(n, 1, 3000, TEXT)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.append(task)
        return task

    def settle(self) -> None:
        async def turn() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            task.result()

    async def send(self, side: int, message: bytes) -> None:
        while len(self.wires[side]) >= WIRE:
            self.room[side].clear()
            await self.room[side].wait()
        self.wires[side].append(message)

    def accept(self, stream: Stream) -> None:
        self.pairs[stream.id].accept(stream)

    def pick(self, n: int) -> Pair | None:
        pairs = list(self.pairs.values())
        return pairs[n % len(pairs)] if pairs else None

    def way(self, n: int, side: int) -> Way | None:
        pair = self.pick(n)
        return pair.ways[side] if pair and pair.ways else None

    def writable(self, n: int, side: int) -> Way | None:
        """The way out of a side that has no write under way, and may write."""
        pair, way = self.pick(n), self.way(n, side)
        if pair is None or way is None or way.is_writing or (side == 1 and not pair.is_answered):
            return None
        return way

    @rule(prio=st.integers(0, 3))
    def open(self, prio: int) -> None:
        if self.hub.is_full:
            return
        stream = self.hub.open(Open("ws", "GET", f"/{prio}", prio=prio))
        self.pairs[stream.id] = Pair(stream)
        self.settle()

    @rule(n=st.integers(0, 4))
    def answer(self, n: int) -> None:
        pair = self.pick(n)
        if pair and pair.accepted and not pair.is_answered and not pair.was_reset:
            pair.is_answered = True
            with suppress(StreamReset):
                pair.accepted.send_head(Head(101, [("n", str(n))]))
            self.settle()

    @rule(n=st.integers(0, 4), side=st.integers(0, 1), size=st.integers(0, 20_000), flags=st.sampled_from([0, TEXT]))
    def write(self, n: int, side: int, size: int, flags: int) -> None:
        if (way := self.writable(n, side)) and not way.is_finished:
            way.writing = self.start(way.write(size, flags))
            self.settle()

    @rule(n=st.integers(0, 4), side=st.integers(0, 1), size=st.integers(0, 3000))
    def finish(self, n: int, side: int, size: int) -> None:
        if way := self.writable(n, side):
            way.finish(size)
            self.settle()

    @rule(n=st.integers(0, 4), side=st.integers(0, 1), count=st.integers(1, 40))
    def read(self, n: int, side: int, count: int) -> None:
        way = self.way(n, side)
        if way and (way.reading is None or way.reading.done()):
            way.reading = self.start(way.take(count))
            self.settle()

    @rule(n=st.integers(0, 4), by_hub=st.booleans())
    def reset(self, n: int, by_hub: bool) -> None:
        pair = self.pick(n)
        stream = pair and (pair.opened if by_hub else pair.accepted)
        if pair and stream:
            pair.was_reset = True
            stream.reset(Code.CANCEL, "enough")
            self.settle()

    @rule(side=st.integers(0, 1), count=st.integers(1, 30))
    def deliver(self, side: int, count: int) -> None:
        while count and self.wires[side]:
            count -= 1
            message = self.wires[side].popleft()
            frame = mux1.unpack(message)
            if frame.type == Type.RESET:
                self.resets.append(mux1.read_reset(frame.payload)[0])
            self.links[1 - side].received(message)  # Refused would be our own sender breaking the protocol
            self.room[side].set()
            self.settle()

    @rule(side=st.integers(0, 1))
    def ping(self, side: int) -> None:
        self.links[side].ping(b"12345678")
        self.settle()

    @invariant()
    def all_that_came_out_was_written(self) -> None:
        assert set(self.resets) <= {Code.CANCEL}, "no side finds a fault in the other"
        for pair in self.pairs.values():
            for way in pair.ways:
                way.check()

    def move(self) -> bool:
        """Deliver all that is under way; False if there was nothing."""
        moved = bool(self.wires[0] or self.wires[1])
        self.deliver(0, 1000)
        self.deliver(1, 1000)
        return moved

    def drain(self, pairs: list[Pair]) -> None:
        """Read what these streams bring until no more comes."""
        moved = True
        while moved:
            moved = self.move()
            for pair in pairs:
                for way in pair.ways:
                    if way.reading is None or way.reading.done():
                        way.reading = self.start(way.take(1_000_000))
            self.settle()
            moved |= bool(self.wires[0] or self.wires[1])

    def complete(self, pairs: list[Pair]) -> None:
        """End these streams in good order. All of them get through, whatever others do."""
        self.drain(pairs)
        for pair in pairs:
            for way in pair.ways:
                assert not way.is_writing, "a writer waits for ever"
                if not pair.was_reset:
                    way.finish(100)
        self.drain(pairs)
        for pair in pairs:
            for way in pair.ways:
                way.check()
                assert way.saw_end, "a reader waits for ever"
                assert pair.was_reset or way.read == way.written

    def teardown(self) -> None:
        try:
            if hasattr(self, "hub"):
                self.end()
        finally:
            for task in self.tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
            self.loop.close()
            self.patched.stop()

    def end(self) -> None:
        while self.move():
            pass
        for n in range(len(self.pairs)):
            self.answer(n)
        pairs = list(self.pairs.values())
        read_on = [pair for pair in pairs if pair.opened.id % 4 == 1]
        for pair in read_on:
            if pair.is_answered and not pair.was_reset:
                for way in pair.ways:
                    if not way.is_writing and not way.is_finished:
                        way.writing = self.start(way.write(50_000, 0))
        self.complete(read_on)  # while the rest stalls
        self.complete(pairs)
        self.all_that_came_out_was_written()
        assert self.hub.streams == self.device.streams == 0
        for here, there in (self.links, self.links[::-1]):
            assert here.credit == there._receiving.left, "no credit is lost"
            assert there._receiving.left + there._receiving._owed == SMALL.session_credit
            assert there._receiving._growth == SMALL.session_credit * 3 // 4 - SMALL.init_credit * SMALL.max_streams


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(deadline=None, max_examples=some_of(50), stateful_step_count=40)
