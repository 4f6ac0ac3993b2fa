"""What waits before a TURN server that is reached by TCP: it takes little at a time, and nothing gets old."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aioice.turn import TurnClientTcpProtocol, TurnTransport

from procs.agent import aging
from procs.agent.relay import HANDED_BYTES, UNSENT_BYTES, WAITING_BYTES, RelayTransport

PEER = ("192.0.2.7", 9)
SIZE = 1200
SMALL = 8192  # bytes that the kernel of the other side keeps, as it counts them
LIMIT_S = 20.0


class Server:
    """Who has a channel to one peer, and reads when it likes."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()

    async def client(self) -> RelayTransport:
        """The way into it."""
        loop = asyncio.get_running_loop()
        address = self._listener.getsockname()
        client: TurnClientTcpProtocol
        _, client = await loop.create_connection(
            lambda: TurnClientTcpProtocol(address, None, None, lifetime=600, channel_refresh_time=500), *address
        )
        client.peer_to_channel[PEER], client.channel_refresh_at[0x4000] = 0x4000, float("inf")
        self._sock, _ = self._listener.accept()
        self._sock.setblocking(False)
        return RelayTransport(TurnTransport(client), asyncio.DatagramProtocol())

    async def numbers(self, last: int) -> list[int]:
        """Of all datagrams that arrive, up to this one."""
        found, data = [-1], b""
        async with asyncio.timeout(LIMIT_S):
            while found[-1] != last:
                data += await asyncio.get_running_loop().sock_recv(self._sock, 1 << 16)
                while len(data) >= 4 + SIZE:
                    assert struct.unpack_from("!HH", data) == (0x4000, SIZE)
                    found.append(int.from_bytes(data[4:8], "big"))
                    data = data[4 + SIZE :]
        return found[1:]

    def end(self) -> None:
        self._sock.close()
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.end()


def datagrams(first: int, count: int) -> bytes:
    return b"".join(number.to_bytes(4, "big").ljust(SIZE, b"x") for number in range(first, first + count))


def test_all_goes_in_order_to_who_reads(server: Server, on_either_loop: Callable[[Any], Any]) -> None:
    async def work() -> None:
        relay = await server.client()
        reading = asyncio.ensure_future(server.numbers(299))
        for first in range(0, 300, 50):
            assert relay.send_cut(datagrams(first, 50), SIZE, PEER) == 50
        assert await reading == list(range(300))
        relay._client.transport.abort()

    on_either_loop(work())


def test_what_has_waited_too_long_is_dropped_and_counted(
    server: Server, on_either_loop: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aging, "MOST_S", 0.2)

    async def work() -> None:
        relay = await server.client()
        assert relay.send_cut(datagrams(0, 300), SIZE, PEER) == 300  # nobody reads
        relay.sendto(datagrams(1000, 1), PEER)
        await asyncio.sleep(0.3)
        reading = asyncio.ensure_future(server.numbers(301))
        taken = 300 + relay.send_cut(datagrams(300, 1), SIZE, PEER)
        await asyncio.sleep(0.1)
        taken += relay.send_cut(datagrams(301, 1), SIZE, PEER)
        while relay._lost:
            taken -= 1
            relay._lost -= 1
        found = await reading
        early = found.index(1000)
        assert found[:early] == list(range(early)), "what had been handed over, and then what goes first"
        assert found[early + 1 :] == [300, 301] and taken == len(found) - 1
        assert early * SIZE < HANDED_BYTES + UNSENT_BYTES + 8 * SMALL
        relay._client.transport.abort()

    on_either_loop(work())


def test_no_more_waits_than_there_is_room_for(server: Server, on_either_loop: Callable[[Any], Any]) -> None:
    async def work() -> None:
        relay = await server.client()
        taken = sum(relay.send_cut(datagrams(0, 50), SIZE, PEER) for _ in range(40))
        assert taken < 2000 and relay._bytes < WAITING_BYTES + SIZE
        relay.close()
        assert not relay._waiting
        relay.let_go()
        relay._client.transport.abort()

    on_either_loop(work())
