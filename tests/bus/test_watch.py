"""What webrtc_peer says on the bus: to ws_link, to its children, to the producers of what is watched, to tun_pump."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio

from procs import bus, rpc
from procs.errors import Refused
from procs.messages import encode, tunnel, watch
from procs.messages.requests import Bitrate, Command, Describe, Description, Keyframe, Reply
from procs.messages.tunnel import Packets, PeerUp, PumpUp
from procs.messages.watch import (
    Beat,
    Encoding,
    KeyframeWanted,
    PacketsWanted,
    RateWanted,
    Rtp,
    Sent,
    SessionsReady,
    Signal,
    SignalTaken,
    Source,
    Takes,
    Unit,
    Way,
)
from procs.webrtc_peer import wishes
from procs.webrtc_peer.wishes import Wishes

SIGNAL = Signal(1, "signal_ice", "s")
RTP = Rtp("video", "h264", 90_000, 96, 1, 97, 2, b"\xbe\xde\0\1", -1, 7, bytes(28), ("192.0.2.1", 5))
PACKETS = Packets(65536, 4)
EACH: dict[Callable[[bytes], Any], list[msgspec.Struct]] = {
    watch.decode_from_peer: [SessionsReady(1, ["a", "b"]), SIGNAL, SignalTaken(1)],
    watch.decode_to_peer: [SIGNAL, SignalTaken(1)],
    watch.decode_from_child: [
        Beat("s", 1, "connected", "relayed", 0.5, {"loss": 0.1}), SIGNAL, KeyframeWanted("s"),
        PacketsWanted("s", "video", [1, 65535], 0.05), RateWanted("s", 500_000),
        Takes("s", ["vp8", "opus"]), Encoding("encoder 1", 1, 5, 0),
        Unit("video", "h264", 5, 1_000_000, True),
    ],
    watch.decode_to_encoder: [Unit("audio", "aac", 5, 1_000_000), Keyframe(), Bitrate(500_000)],
    watch.decode_to_child: [SIGNAL, Source("dry", ["h264"], "why"), Sent("audio", 5, 0, 5, 4_800, 1, 1 << 63, 90_000)],
    watch.decode_way: [Way("s", [RTP])],
    tunnel.decode_to_pump: [PeerUp("bob", 1, 1380, 2, "direct", "192.0.2.1:5", {"rtt_ms": 1.5}, 7, 8), PACKETS],
    tunnel.decode_from_pump: [PumpUp(1380, ["10.77.0.1/24"], 7, 8), PACKETS],
}  # fmt: skip


@pytest.mark.parametrize("decode", EACH)
def test_each_message_comes_back_as_it_went_and_no_other_is_taken(decode: Callable[[bytes], Any]) -> None:
    for message in EACH[decode]:
        assert decode(encode(message)) == message
    others = {type(message): message for many in EACH.values() for message in many}
    for kind, message in others.items():
        if kind not in {type(mine) for mine in EACH[decode]}:
            with pytest.raises(Refused):
                decode(encode(message))


@pytest.mark.parametrize(
    "wrong",
    [
        SessionsReady(1, ["s"] * 65),
        SessionsReady(0, []),
        SessionsReady(1, ["a b"]),
        Signal(1, "signal_ice", ""),
        Signal(1, "hello", "s"),  # type: ignore[arg-type]
        Signal(-1, "signal_ice", "s"),
        Beat("s", 1, "lost"),  # type: ignore[arg-type]
        Beat("s" * 129, 1, "new"),
        RateWanted("s", 1),
        Encoding("s", 1, 0, 0),
    ],
)
def test_what_is_out_of_its_limits_is_refused(wrong: msgspec.Struct) -> None:
    decode = watch.decode_from_peer if isinstance(wrong, SessionsReady | Signal) else watch.decode_from_child
    with pytest.raises(Refused):
        decode(encode(wrong))


def test_an_encoder_gets_the_seconds_of_a_stream_that_it_joins_at_once(run_dir: Path) -> None:
    async def scenario() -> None:
        context = zmq.asyncio.Context()
        leader = bus.work_binder(context, run_dir, bus.WEBRTC_PEER_CHILDREN)
        child = bus.work_connector(context, run_dir, "s", bus.WEBRTC_PEER_CHILDREN)
        await until(lambda: bus.send_work(child, Encoding("encoder 1", 1, 0, 0)))
        assert (await bus.receive_work(leader))[0] == "s"
        for number in range(240):
            assert bus.send_work(leader, Unit("video", "h264", number, number), b"x" * 5000, worker="s")
        for number in range(240):
            assert watch.decode_to_encoder((await bus.receive_work(child))[1]) == Unit("video", "h264", number, number)
        assert not bus.send_work(leader, SIGNAL, worker="nobody"), "one that is gone is noticed"
        context.destroy()

    asyncio.run(scenario())


class Producer:
    """One of ours, as far as the bus sees it."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self.got: list[Command] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._responder = rpc.Responder(self._context, run_dir, bus.control_of(name))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            self._responder.serve(self._obey, wait_s=0.02)

    def _obey(self, command: Command) -> Reply | None:
        if isinstance(command, Describe):
            return Reply(id=0, ok=True, body=Description("omega-0", 1, 640, 360, 30, 2_000_000, "x264", 5, 0))
        self.got.append(command)
        return None

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self._context.destroy()


@contextmanager
def producing(run_dir: Path) -> Iterator[Producer]:
    producer = Producer(run_dir, "omega-0")
    try:
        yield producer
    finally:
        producer.end()


def with_wishes(run_dir: Path, scenario: Callable[[Wishes], Awaitable[None]]) -> None:
    async def run() -> None:
        context = zmq.asyncio.Context()
        one = Wishes(context, run_dir)
        keeping = asyncio.ensure_future(one.keep_rates())
        await scenario(one)
        keeping.cancel()
        context.destroy()

    asyncio.run(run())


async def until(look: Callable[[], object], within_s: float = 10.0) -> None:
    for _ in range(int(within_s / 0.02)):
        if look():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {within_s:g} s: {look}")


def test_a_producer_makes_a_keyframe_for_all_who_want_one(run_dir: Path) -> None:
    with producing(run_dir) as producer:

        async def scenario(one: Wishes) -> None:
            assert one.can_ask("omega-0") and not one.can_ask("door")
            assert not one.can_ask("../bus/headless_agent.omega-0"), "viewers choose names of streams"
            one.keyframe("door")
            for _ in range(20):
                one.keyframe("omega-0")
            await until(lambda: producer.got == [Keyframe()])
            await asyncio.sleep(wishes.KEYFRAME_EVERY_S)
            one.keyframe("omega-0")
            await until(lambda: producer.got == [Keyframe(), Keyframe()])

        with_wishes(run_dir, scenario)


def test_a_producer_is_held_to_its_slowest_viewer_and_let_go_with_it(run_dir: Path) -> None:
    with producing(run_dir) as producer:

        async def scenario(one: Wishes) -> None:
            one.rate("omega-0", "fast", 50_000_000)
            one.rate("omega-0", "slow", 600_000)
            await until(lambda: producer.got == [Bitrate(600_000)])
            one.rate("omega-0", "slow", 620_000)  # not worth a command
            await asyncio.sleep(1.5)
            assert producer.got == [Bitrate(600_000)]
            one.left("omega-0", "slow")
            await until(lambda: producer.got[1:] == [Bitrate(2_000_000)])
            one.left("omega-0", "fast")

        with_wishes(run_dir, scenario)


def test_a_producer_that_does_not_answer_holds_nobody_up(run_dir: Path) -> None:
    async def scenario(one: Wishes) -> None:
        began = time.monotonic()
        for _ in range(100):
            one.keyframe("omega-0")
        one.rate("omega-0", "s", 100_000)
        assert time.monotonic() - began < 1, "it waited"
        await asyncio.sleep(wishes.ASK_LIMIT_S * 2.5)

    (run_dir / "bus").mkdir(parents=True, exist_ok=True)
    (run_dir / "bus" / bus.control_of("omega-0")).touch()  # of one that has died
    with_wishes(run_dir, scenario)
