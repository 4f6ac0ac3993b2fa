"""Two ends of one connection, joined by queues; and one end against another that breaks the rules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from procs.errors import LinkLost, Refused, StreamReset
from procs.streams.link import MAX_CONTROL, SHARED_FRAME, Link
from procs.streams.stream import QUEUED, Stream
from procs.wire import mux1
from procs.wire.mux1 import DROPPED_BEFORE, FIN, KEY, MORE, TEXT, Code, Head, MuxLimits, Open, Type
from tests.joined import Joined, one_by_one

GET = Open("http", "GET", "/")


@contextlib.asynccontextmanager
async def joined(accept: Callable[[Stream], None], limits: MuxLimits | None = None) -> AsyncIterator[tuple[Link, Link]]:
    """(hub, device), whose messages go to and fro until the block ends."""
    ends = Joined(accept, limits)
    try:
        async with asyncio.timeout(20):
            yield ends.hub, ends.device
    finally:
        await ends.end()


async def whole(stream: Stream) -> bytes:
    """All that is still to come."""
    found = bytearray()
    while chunk := await stream.read():
        found += chunk.data
    return bytes(found)


def test_a_request_and_its_answer() -> None:
    async def serve(stream: Stream) -> None:
        body = await whole(stream)
        stream.send_head(Head(200, [("X", "y")]))
        await stream.write(body * 3)
        stream.finish()

    async def run() -> None:
        async with joined(lambda stream: tasks.append(asyncio.create_task(serve(stream)))) as (hub, device):
            stream = hub.open(GET)
            body = bytes(range(256)) * 4000
            await stream.write(body)
            stream.finish()
            assert await stream.head() == Head(200, [("X", "y")])
            assert await whole(stream) == body * 3
            assert hub.streams == device.streams == 0

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(run())


def test_who_does_not_read_stops_nobody_else() -> None:
    """More streams stall than the session's credit could carry, if windows were not kept within it."""

    async def serve(stream: Stream) -> None:
        with contextlib.suppress(StreamReset):
            stream.send_head(Head(200))
            while True:
                await stream.write(bytes(64 * 1024))

    async def run() -> None:
        async with joined(lambda stream: tasks.append(asyncio.create_task(serve(stream)))) as (hub, _):
            stalled = [hub.open(GET) for _ in range(63)]
            for stream in stalled[:8]:
                for _ in range(40):  # so that its window has grown
                    assert await stream.read()
            await asyncio.sleep(0.1)
            quick = hub.open(GET)
            for _ in range(60):
                assert await quick.read()
            quick.reset(Code.CANCEL)
            with pytest.raises(StreamReset):
                await whole(quick)
        for task in tasks:
            task.cancel()

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(run())


def test_a_lost_connection_and_too_many_streams() -> None:
    async def run() -> None:
        async with joined(lambda stream: None, MuxLimits(max_streams=2)) as (hub, _device):
            first, _ = hub.open(GET), hub.open(GET)
            with pytest.raises(Refused, match="open already"):
                hub.open(GET)
            hub.lost("cut")
            with pytest.raises(LinkLost, match="cut"):
                await first.head()
            with pytest.raises(LinkLost):
                hub.open(GET)

    asyncio.run(run())


# One end, and what is said to it byte by byte


class End:
    """One link whose other side is the test."""

    def __init__(self, opens: Any = "even", limits: MuxLimits | None = None, *, takes: bool = True) -> None:
        limits = limits or MuxLimits()
        self.sent: list[mux1.Frame] = []
        self.accepted: list[Stream] = []
        self.gate = asyncio.Event()  # closed: the transport is full
        self.gate.set()
        accept = self.accepted.append if takes else None
        self.link = Link(one_by_one(self._send), opens=opens, ours=limits, theirs=limits, accept=accept)

    async def _send(self, message: bytes) -> None:
        await self.gate.wait()
        self.sent.append(mux1.unpack(message))

    async def hears(self, *messages: bytes) -> list[mux1.Frame]:
        """Take these; returns what is sent then."""
        for message in messages:
            self.link.received(message)
        await self.turns()
        sent, self.sent = self.sent, []
        return sent

    async def turns(self) -> None:
        """Let tasks run."""
        for _ in range(20):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def end(opens: Any = "even", limits: MuxLimits | None = None, *, takes: bool = True) -> AsyncIterator[End]:
    one = End(opens, limits, takes=takes)
    writing = asyncio.create_task(one.link.write())
    try:
        async with asyncio.timeout(20):
            yield one
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def types(frames: list[mux1.Frame]) -> list[tuple[int, int]]:
    return [(frame.type, frame.sid) for frame in frames]


def code(frame: mux1.Frame) -> int:
    assert frame.type == Type.RESET
    return mux1.read_reset(frame.payload)[0]


def runs(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


GET_1 = mux1.opening(1, GET)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no frame",
        mux1.opening(0, GET),
        mux1.opening(2, GET),
        mux1.head(0, Head(200)),
        mux1.data(0, b"x"),
        mux1.reset(0, 1),
        mux1.credit(0, 2**31),
        mux1.credit(0, 1)[:-1],
        mux1.ping(b"1234567"),
        mux1.data(3, b"x"),
        mux1.data(2, b"x"),
        mux1.head(2**32 - 1, Head(200)),
        mux1.credit(3, 1),
        mux1.reset(3, 1),
    ],
)
def test_what_breaks_the_session_is_refused_and_changes_nothing(message: bytes) -> None:
    async def run() -> None:
        async with end() as one:
            await one.hears(GET_1)
            with pytest.raises(Refused):
                await one.hears(message)
            assert types(await one.hears(mux1.ping(b"12345678"))) == [(Type.PONG, 0)]
            assert one.link.streams == 1

    runs(run())


def test_an_id_is_opened_once() -> None:
    async def run() -> None:
        async with end() as one:
            await one.hears(mux1.opening(5, GET))
            for sid in (5, 3, 1):
                with pytest.raises(Refused, match=f"stream {sid}"):
                    await one.hears(mux1.opening(sid, GET))

    runs(run())


@pytest.mark.parametrize(
    "message",
    [
        mux1.head(1, Head(200)),
        mux1.credit(1, 2**31),
        mux1.credit(1, 1)[:-1],
        mux1.reset(1, 1)[:-1],
        mux1.data(1, bytes(2000)),
        mux1.HEADER.pack(mux1.MAGIC, Type.PING, 0, 1) + bytes(8),
    ],
)
def test_what_breaks_a_stream_ends_that_stream_only(message: bytes) -> None:
    async def run() -> None:
        async with end(limits=MuxLimits(max_frame=1024)) as one:
            sent = await one.hears(GET_1, mux1.opening(3, GET), message)
            assert types(sent) == [(Type.RESET, 1)] and code(sent[0]) == Code.PROTOCOL
            with pytest.raises(StreamReset):
                await one.accepted[0].read()
            assert await one.hears(mux1.credit(1, 2**31), mux1.head(1, Head(200))) == [], "it is over already"
            await one.hears(mux1.data(3, b"x", FIN))
            assert (await whole(one.accepted[1])) == b"x"

    runs(run())


def test_no_data_before_a_head_and_one_head() -> None:
    """Who waits for the beginning of an answer hears that there will be none."""

    async def run() -> None:
        for wrong in (mux1.data(1, b"x"), mux1.data(1, b"", FIN)):
            async with end("odd") as one:
                stream = one.link.open(GET)
                stream.finish()
                sent = await one.hears(wrong)
                assert code(sent[-1]) == Code.PROTOCOL
                with pytest.raises(StreamReset):
                    await stream.head()
        async with end("odd") as one:
            stream = one.link.open(GET)
            sent = await one.hears(mux1.head(1, Head(200)), mux1.head(1, Head(200)))
            assert code(sent[-1]) == Code.PROTOCOL

    runs(run())


def test_data_after_fin() -> None:
    async def run() -> None:
        async with end() as one:
            sent = await one.hears(GET_1, mux1.data(1, b"x", FIN), mux1.data(1, b"y"))
            assert code(sent[-1]) == Code.PROTOCOL

    runs(run())


def test_more_than_the_credit_of_a_stream_ends_it_and_costs_the_session_nothing() -> None:
    async def run() -> None:
        limits = MuxLimits(init_credit=1024, session_credit=64 * 1024)
        async with end(limits=limits) as one:
            for sid in range(1, 401, 2):
                sent = await one.hears(mux1.opening(sid, GET), mux1.data(sid, bytes(1025)))
                assert code(next(frame for frame in sent if frame.type == Type.RESET)) == Code.FLOW
            await one.hears(mux1.opening(401, GET), mux1.data(401, bytes(1024)))
            assert (await one.accepted[-1].read()) is not None

    runs(run())


def test_more_than_the_credit_of_the_session_breaks_it() -> None:
    async def run() -> None:
        limits = MuxLimits(init_credit=8192, session_credit=64 * 1024)
        async with end(limits=limits) as one:
            for sid in range(1, 17, 2):
                await one.hears(mux1.opening(sid, GET), mux1.data(sid, bytes(8192)))
            with pytest.raises(Refused, match="session"):
                await one.hears(mux1.opening(17, GET), mux1.data(17, b"x"))

    runs(run())


def test_tiny_frames_use_up_credit_before_memory() -> None:
    async def run() -> None:
        async with end(limits=MuxLimits(init_credit=128 * 100)) as one:
            sent = await one.hears(GET_1, *([mux1.data(1, b"")] * 101))
            assert code(sent[-1]) == Code.FLOW

    runs(run())


def test_ten_thousand_opens_are_refused_beyond_the_limit() -> None:
    async def run() -> None:
        async with end(limits=MuxLimits(max_streams=8)) as one:
            one.gate.clear()  # and the other side does not even read our answers
            for sid in range(1, 20_001, 2):
                one.link.received(mux1.opening(sid, GET))
            assert (one.link.streams, len(one.accepted), one.link.refused) == (8, 8, 9_992)
            one.gate.set()
            sent = await one.hears()
            while more := await one.hears():
                sent += more
            assert [frame.sid for frame in sent] == [*range(17, 20_001, 2)]
            assert {code(frame) for frame in sent} == {Code.TOO_MANY}
            await one.hears(mux1.reset(1, Code.CANCEL), mux1.opening(20_001, GET))
            assert len(one.accepted) == 9, "there is room again"

    runs(run())


def test_who_makes_us_queue_without_end_loses_the_connection() -> None:
    async def run() -> None:
        async with end() as one:
            one.gate.clear()
            await one.hears(GET_1)
            for _ in range(MAX_CONTROL + 10):
                one.link.received(mux1.ping(b"12345678"))
            assert len(one.link._controls) <= MAX_CONTROL + 1
            with pytest.raises(LinkLost):
                await one.accepted[0].read()
            await one.hears(mux1.opening(3, GET), b"anything")
            assert len(one.accepted) == 1, "nobody would ever hear that this one is over"

    runs(run())


def test_who_takes_no_streams_says_so_and_a_wrong_opening_is_refused() -> None:
    async def run() -> None:
        async with end(takes=False) as one:
            assert [code(frame) for frame in await one.hears(GET_1)] == [Code.REFUSED]
        async with end() as one:
            wrong = mux1.HEADER.pack(mux1.MAGIC, Type.OPEN, 0, 1) + b'{"kind":"tcp"}'
            assert [code(frame) for frame in await one.hears(wrong)] == [Code.PROTOCOL]
            assert not one.accepted and one.link.refused == 1

    runs(run())


def test_what_was_under_way_to_an_ended_stream_is_counted_and_dropped() -> None:
    async def run() -> None:
        limits = MuxLimits(init_credit=65_536, session_credit=128 * 1024)
        async with end(limits=limits) as one:
            for sid in range(1, 41, 2):
                await one.hears(mux1.opening(sid, GET))
                one.accepted[-1].reset(Code.CANCEL)
                late = (
                    mux1.data(sid, bytes(65_536)),
                    mux1.credit(sid, 5),
                    mux1.reset(sid, 1),
                    mux1.head(sid, Head(200)),
                )
                sent = await one.hears(*late)
                assert types(sent)[0] == (Type.RESET, sid)
                assert types(sent)[1:] == [(Type.CREDIT, 0)]
            assert one.link.streams == 0

    runs(run())


def test_credit_is_waited_for_and_used_to_the_last_byte() -> None:
    async def run() -> None:
        limits = MuxLimits(max_frame=1024, init_credit=2048)
        async with end(limits=limits) as one:
            await one.hears(GET_1)
            stream = one.accepted[0]
            stream.send_head(Head(200))
            await stream.write(bytes(5000), TEXT | KEY | DROPPED_BEFORE)
            assert stream.room() == 0
            data = [frame for frame in await one.hears() if frame.type == Type.DATA]
            assert [len(frame.payload) for frame in data] == [1024, 1024]
            data += await one.hears(mux1.credit(1, 500))
            data += await one.hears(mux1.credit(1, 100))
            assert [len(frame.payload) for frame in data] == [1024, 1024, 500], "no crumbs"
            data += await one.hears(mux1.credit(1, 10_000))
            assert b"".join(frame.payload for frame in data) == bytes(5000)
            assert [bool(frame.flags & MORE) for frame in data] == [True] * (len(data) - 1) + [False]
            assert {frame.flags & TEXT for frame in data} == {TEXT}
            marks = [frame.flags & (KEY | DROPPED_BEFORE) for frame in data]
            assert marks == [KEY | DROPPED_BEFORE] + [0] * (len(data) - 1), "what begins a message is said once"
            assert stream.room() == 10_000 - (5000 - 2048 - 600)

    runs(run())


def test_credit_of_the_session_is_waited_for_too() -> None:
    async def run() -> None:
        limits = MuxLimits(session_credit=64 * 1024)
        async with end(limits=limits) as one:
            await one.hears(GET_1, mux1.opening(3, GET))
            for stream in one.accepted:
                stream.send_head(Head(200))
                await stream.write(bytes(50_000))
            assert sum(len(frame.payload) for frame in await one.hears() if frame.type == Type.DATA) == 64 * 1024
            assert sum(len(frame.payload) for frame in await one.hears(mux1.credit(1, 9000))) == 0
            assert (
                sum(len(frame.payload) for frame in await one.hears(mux1.credit(0, 64 * 1024))) == 100_000 - 64 * 1024
            )

    runs(run())


def test_a_long_end_is_cut_and_ends_once_and_is_read_in_order_later() -> None:
    async def run() -> None:
        body = bytes(range(256)) * 256
        async with end(limits=MuxLimits(max_frame=16 * 1024)) as one:
            await one.hears(GET_1)
            one.accepted[0].send_head(Head(200))
            one.accepted[0].finish(body)
            frames = await one.hears()
        assert [frame.flags for frame in frames] == [0, MORE, MORE, MORE, FIN]
        async with end("odd") as other:
            stream = other.link.open(GET)
            await other.hears(*(mux1.HEADER.pack(mux1.MAGIC, *frame[:3]) + frame.payload for frame in frames))
            assert await whole(stream) == body

    runs(run())


def test_a_writer_waits_also_with_empty_messages() -> None:
    """As of a WebSocket that sends nothing but empty ones: they cost bytes, if not of their own."""

    async def run() -> None:
        async with end() as one:
            one.gate.clear()
            await one.hears(GET_1)
            stream = one.accepted[0]
            count = 0

            async def flood() -> None:
                nonlocal count
                while count < 5000:
                    await stream.write(b"")
                    count += 1
                    await asyncio.sleep(0)

            flooding = asyncio.create_task(flood())
            before = -1
            while before != count:
                before = count
                await one.turns()
            flooding.cancel()
            assert 1000 < count <= QUEUED // mux1.MIN_COST + 1  # one is with the transport

    runs(run())


def test_urgent_streams_go_first_and_equals_take_turns() -> None:
    async def run() -> None:
        async with end() as one:
            one.gate.clear()
            opens = [mux1.opening(sid, Open("http", "GET", "/", prio=prio)) for sid, prio in ((1, 2), (3, 1), (5, 1))]
            await one.hears(*opens)
            for stream in one.accepted:
                stream.send_head(Head(200))
                stream._queue(bytes(48 * 1024), 0)
            await one.turns()
            one.gate.set()
            order = [frame.sid for frame in await one.hears() if frame.type == Type.DATA]
            assert order == [3, 5, 3, 5, 3, 5, 1, 1, 1]

    runs(run())


def test_a_lone_stream_has_large_frames_and_one_of_many_small_ones() -> None:
    async def run() -> None:
        async with end() as one:
            await one.hears(GET_1)
            one.accepted[0].send_head(Head(200))
            await one.accepted[0].write(bytes(65_536))
            assert max(len(frame.payload) for frame in await one.hears()) == 65_536
            await one.hears(mux1.opening(3, GET))
            await one.accepted[0].write(bytes(65_536))
            assert max(len(frame.payload) for frame in await one.hears()) == SHARED_FRAME

    runs(run())


def test_ids_end_before_they_repeat() -> None:
    async def run() -> None:
        async with end("odd") as one:
            one.link._next_id = 2**32 - 1
            last = one.link.open(GET)
            assert types(await one.hears()) == [(Type.OPEN, 2**32 - 1)]
            with pytest.raises(LinkLost, match="ids"):
                one.link.open(GET)
            with pytest.raises(LinkLost):
                await last.head()

    runs(run())


def test_what_came_before_the_end_is_read_and_then_the_end() -> None:
    async def run() -> None:
        for ended in (StreamReset, LinkLost):
            async with end() as one:
                await one.hears(GET_1, mux1.data(1, b"x"))
                if ended is StreamReset:
                    await one.hears(mux1.reset(1, 77, "why"))
                else:
                    one.link.lost("why")
                stream = one.accepted[0]
                chunk = await stream.read()
                assert chunk and bytes(chunk.data) == b"x"
                with pytest.raises(ended, match="why"):
                    await stream.read()
                with pytest.raises(ended):
                    await stream.write(b"y")
                with pytest.raises(ended):
                    stream.send_head(Head(200))
                stream.finish()
                assert [frame for frame in await one.hears() if frame.sid == 1] == []

    runs(run())


def test_whoever_waits_hears_of_the_end() -> None:
    async def run() -> None:
        async with end("odd", MuxLimits(init_credit=1024)) as one:
            asked, sending, reading = (one.link.open(GET) for _ in range(3))
            await one.hears(mux1.head(5, Head(200)))
            waits = [
                asyncio.create_task(asked.head()),
                asyncio.create_task(sending.write(bytes(2 * QUEUED))),
                asyncio.create_task(reading.read()),
            ]
            await one.turns()
            assert not any(task.done() for task in waits)
            one.link.lost("cut")
            for error in await asyncio.gather(*waits, return_exceptions=True):
                assert isinstance(error, LinkLost)

    runs(run())


def test_a_half_closed_stream_goes_on_the_other_way() -> None:
    async def run() -> None:
        async with end() as one:
            await one.hears(GET_1, mux1.data(1, b"", FIN))
            stream = one.accepted[0]
            assert await stream.read() is None
            stream.send_head(Head(200))
            await stream.write(b"late")
            stream.finish()
            stream.finish()
            sent = await one.hears()
            assert [(frame.type, frame.flags, bytes(frame.payload)) for frame in sent[1:]] == [
                (Type.DATA, 0, b"late"),
                (Type.DATA, FIN, b""),
            ]
            assert one.link.streams == 0 and stream.is_over

    runs(run())


def test_signs_of_life() -> None:
    async def run() -> None:
        async with end() as one:
            one.link.ping(b"12345678")
            sent = await one.hears(mux1.ping(b"abcdefgh"), mux1.pong(b"12345678"))
            assert [(frame.type, bytes(frame.payload)) for frame in sent] == [
                (Type.PING, b"12345678"),
                (Type.PONG, b"abcdefgh"),
            ]
            assert one.link.pongs == 1

    runs(run())
