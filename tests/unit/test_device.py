"""When an interface is read, and who is called with what: a pair of sockets is an interface, as far as that goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from procs.agent.device import LARGE_BATCH, TunDevice
from procs.agent.lane.vnet import HEAD
from procs.errors import NotHere

LIMIT_S = 5.0


@pytest.fixture
def ends() -> Iterator[tuple[TunDevice, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        yield TunDevice(ours.fileno(), "pair"), theirs


async def turns(count: int = 5) -> None:
    """Of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_who_wants_more_is_called_in_each_turn_and_who_does_not_when_something_comes(
    ends: tuple[TunDevice, socket.socket],
) -> None:
    device, kernel = ends
    calls: list[list[bytes]] = []
    wants = {"more": True}
    came = asyncio.Event()

    def take(found: list[bytes]) -> bool:
        calls.append(found)
        came.set()
        return wants["more"]

    async def run() -> None:
        device.start(take)
        await turns()
        assert len(calls) >= 3 and not any(calls)
        kernel.send(b"one")
        await turns()
        assert [b"one"] in calls
        wants["more"] = False
        await turns()
        calls.clear()
        came.clear()
        await turns()
        assert calls == []
        kernel.send(b"two")
        await asyncio.wait_for(came.wait(), LIMIT_S)
        assert calls == [[b"two"]]

    asyncio.run(run())


@pytest.mark.parametrize("is_within", [True, False])
@pytest.mark.parametrize("wants_more", [True, False])
def test_while_paused_nothing_is_read_and_then_what_has_come(
    ends: tuple[TunDevice, socket.socket], wants_more: bool, is_within: bool
) -> None:
    """Paused from within a turn, or between two."""
    device, kernel = ends
    calls: list[list[bytes]] = []

    def take(found: list[bytes]) -> bool:
        calls.append(found)
        if is_within:
            device.pause()
        return wants_more or len(calls) < 3

    async def run() -> None:
        device.start(take)
        await turns()
        device.pause()
        before = calls[:]
        kernel.send(b"one")
        await asyncio.sleep(0.05)
        assert calls == before and not any(calls)
        device.start(take)
        await turns()
        assert calls[len(before)] == [b"one"]

    asyncio.run(run())


def test_who_pauses_and_starts_from_within_is_called_once_a_turn_and_not_while_paused(
    ends: tuple[TunDevice, socket.socket],
) -> None:
    device, _ = ends
    calls: list[list[bytes]] = []

    def take(found: list[bytes]) -> bool:
        calls.append(found)
        if len(calls) < 4:
            device.pause()
            device.start(take)
        return True

    async def run() -> None:
        device.start(take)
        await turns(20)
        assert len(calls) <= 20
        device.pause()
        calls.clear()
        await turns()
        assert calls == []

    asyncio.run(run())


def test_what_the_taker_raises_ends_reading(ends: tuple[TunDevice, socket.socket]) -> None:
    device, kernel = ends

    def take(found: list[bytes]) -> None:
        if found:
            raise NotHere("no")

    async def run() -> None:
        device.start(take)
        await turns()
        kernel.send(b"one")
        assert device.broken
        with pytest.raises(NotHere):
            await asyncio.wait_for(device.broken, LIMIT_S)

    asyncio.run(run())


def test_large_frames_are_read_so_many_at_once(ends: tuple[TunDevice, socket.socket]) -> None:
    device, kernel = ends
    for _ in range(LARGE_BATCH + 2):
        kernel.send(bytes(HEAD + 30_000))
    assert [len(device.read()) for _ in range(3)] == [LARGE_BATCH, 2, 0]
