"""Packets as DTLS records and in data channels: what arrives, what it costs in system calls, and what garbage does."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest
from aioice import Connection

from procs.agent import ice
from procs.agent.dtls import _Acks
from procs.agent.packing import OPTIONS, Packing
from procs.agent.records import FRAME, MTU, PROBE, Records
from procs.agent.udp import Address, BatchTransport, UdpTransport
from tests.channel_pair import LIMIT_S, Side, pair


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network but this machine's own."""
    monkeypatch.setattr(ice, "host_addresses", lambda: ["127.0.0.1"])


def packets(count: int, *, size: int = 0) -> list[bytes]:
    """IPv4 packets, as far as their first byte and number go."""
    chance = random.Random(count)
    return [b"E" + n.to_bytes(4, "big") + chance.randbytes((size or chance.randint(20, MTU)) - 5) for n in range(count)]


async def until(true: Callable[[], bool]) -> None:
    """Wait for it, no longer than a test may."""
    async with asyncio.timeout(LIMIT_S):
        while not true():  # noqa: ASYNC110 - what it looks at changes in callbacks
            await asyncio.sleep(0.002)


def both(here: Side, there: Side) -> tuple[Records, Records, list[bytes]]:
    """Records at both ends, and what comes out at the far one."""
    near, far, got = Records(here.dtls), Records(there.dtls), list[bytes]()
    far.on_packets = got.extend
    return near, far, got


def nominated(side: Side) -> Any:
    """The path of one end."""
    return side.dtls.transport._connection._nominated[1]


def test_packets_of_all_sizes_arrive_as_they_were_beside_channels_that_lose_nothing(
    on_either_loop: Callable[[Any], Any],
) -> None:
    async def scenario() -> None:
        async with pair() as (here, there):
            near, far, got = both(here, there)
            texts = list[bytes]()
            there.channel.on("message", texts.append)
            sent = [*packets(40), *packets(40, size=MTU), b"\x13\x88 a frame that begins as SCTP does", b"\x01", b"`v6"]
            data = random.Random(1).randbytes(300_000)
            for at in range(0, len(data), 10_000):
                here.channel.send(data[at : at + 10_000])
                assert near.send(sent) == len(sent)
                await asyncio.sleep(0)
            await until(lambda: len(got) == 30 * len(sent) and len(texts) == 30)
            assert sorted(got) == sorted(sent * 30)
            assert hashlib.sha256(b"".join(texts)).digest() == hashlib.sha256(data).digest()
            assert (near.sent, near.dropped, far.received) == (30 * len(sent), 0, 30 * len(sent))

    on_either_loop(scenario())


def test_many_of_one_size_leave_and_arrive_together(on_either_loop: Callable[[Any], Any]) -> None:
    async def scenario() -> None:
        async with pair() as (here, there):
            near, _, got = both(here, there)
            calls = list[str]()
            for side in (here, there):
                transport = nominated(side).protocol.transport
                transport._sock = transport._outlet._sock = Counted(transport._sock, calls)
            near.send(packets(90, size=MTU))
            await until(lambda: len(got) == 90)
            # Two or three buffers, maybe a check of consent, and for each wake a read that finds nothing.
            assert 2 <= len([call for call in calls if call.startswith("send")]) <= 4
            assert 2 <= calls.count("recvmsg_into") <= 10

    on_either_loop(scenario())


class Counted:
    """A socket that tells what is called."""

    def __init__(self, sock: socket.socket, calls: list[str]) -> None:
        self._sock, self._calls = sock, calls

    def __getattr__(self, name: str) -> Any:
        self._calls.append(name)
        return getattr(self._sock, name)


class Association:
    """As much of SCTP as acknowledges."""

    _remote_port = 5000

    def __init__(self) -> None:
        self._sack_needed = False
        self._sack_misordered = set[int]()
        self.sacks = 0

    async def _handle_data(self, packet: bytes) -> None:
        self._sack_needed = True
        await self._send_sack()

    async def _send_sack(self) -> None:
        self.sacks += 1
        self._sack_needed = False


def test_every_second_packet_is_acknowledged_the_last_of_a_batch_and_each_while_one_is_missing() -> None:
    association = Association()
    acks = _Acks(association)  # type: ignore[arg-type]
    asyncio.run(acks.take([b""] * 7))
    assert association.sacks == 4
    asyncio.run(acks.take([b""]))
    assert association.sacks == 5
    association._sack_misordered.add(9)
    asyncio.run(acks.take([b""] * 7))
    assert association.sacks == 12


class Jammed(BatchTransport):
    """A relay before which all stands that waits for its turn."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol, {})
        self.below = protocol.transport

    def send_cut(self, data: bytes, step: int, to: Address) -> int:
        return -(-len(data) // step)

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.below.sendto(data, addr)


def test_probes_do_not_wait_behind_packets(on_either_loop: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with pair() as (here, there):
            near, _, got = both(here, there)
            protocol = here.dtls.transport._connection._nominated[1].protocol
            protocol.transport = jammed = Jammed(protocol)
            answers: list[None] = []
            near.on_answer = lambda: answers.append(None)
            near.send(packets(20))
            near.probe()
            await until(lambda: bool(answers))
            assert not got
            protocol.transport = jammed.below

    on_either_loop(work())


def test_garbage_forged_records_and_a_probe_leave_the_session_as_it_was() -> None:
    async def scenario() -> None:
        async with pair() as (here, there):
            near, far, got = both(here, there)
            answers = list[int]()
            near.on_answer = lambda: answers.append(1)
            to = nominated(here).remote_addr
            chance = random.Random(7)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for size in (1, 2, 12, 13, 40, 1417):
                    stranger.sendto(chance.randbytes(size), to)
                    body = chance.randbytes(size)
                    stranger.sendto(b"\x17\xfe\xfd" + bytes(8) + len(body).to_bytes(2, "big") + body, to)
                    stranger.sendto(b"\x17\xfe\xfd" + bytes(8) + b"\xff\xff" + body, to)  # a length that is wrong
                    near.send(packets(5))
            near.probe()
            await until(lambda: len(got) == 30 and bool(answers))
            assert sorted(got) == sorted(packets(5) * 6)
            assert (far.received, far.dtls.unreadable) == (30, 3 * 6)
            await there.connection.close()
            await until(lambda: here.dtls.state == "closed")  # its alert was understood
            assert near.send(packets(3)) == 0
            assert near.dropped == 3

    asyncio.run(scenario())


def test_a_short_probe_gets_a_short_answer_and_an_empty_frame_is_no_packet() -> None:
    async def scenario() -> None:
        async with pair() as (here, there):
            near, _, got = both(here, there)
            answers = list[bytes]()
            near._control = answers.append  # type: ignore[method-assign, assignment]
            near.dtls.write([FRAME, PROBE + bytes(3), *packets(1)])
            near.probe()
            await until(lambda: len(answers) == 2)
            assert [len(each) for each in answers] == [4, MTU] and got == packets(1)

    asyncio.run(scenario())


def test_what_anybody_sends_to_a_port_is_neither_kept_nor_an_error() -> None:
    """No way has been found yet, and nobody takes what comes; and there is STUN that aioice's parser breaks on."""
    stun = bytes.fromhex("000100042112a442") + bytes(12) + bytes.fromhex("00240000")  # a priority of no bytes
    errors = list[dict[str, Any]]()

    async def scenario() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        connection = Connection(ice_controlling=False)
        ice.prepare(connection, (20000, 40000))
        await connection.gather_candidates()
        (local,) = connection.local_candidates
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for number in range(2 * ice.MAX_QUEUED):
                stranger.sendto(stun if number % 9 == 0 else b"\x80 garbage", (local.host, local.port))
                if number % 64 == 0:
                    await asyncio.sleep(0)
        await until(lambda: connection._queue.qsize() == ice.MAX_QUEUED)
        await asyncio.sleep(0.05)
        kept = connection._queue.qsize()
        await connection.close()
        return kept

    assert asyncio.run(scenario()) == ice.MAX_QUEUED
    assert not errors


def test_what_a_peer_says_of_its_session_is_no_error_of_who_sends_to_it() -> None:
    """One interface serves many peers: an error here would end it for all of them."""

    async def scenario() -> None:
        async with pair() as (here, _):
            records, packing = Records(here.dtls), Packing(here.channel)
            assert here.connection.sctp
            here.connection.sctp._remote_max_message_size = 10  # as an offer or an answer has it
            assert packing.send(packets(3)) == 0 and packing.dropped == 3
            assert here.dtls._ssl
            here.dtls._ssl.shutdown()  # as after a fatal alert: OpenSSL takes nothing more, as aiortc has yet to see
            assert records.send(packets(3)) == 0 and records.dropped == 3
            with pytest.raises(ConnectionError):
                await here.dtls._send_data(b"of a channel")

    asyncio.run(scenario())


def test_a_channel_carries_packed_packets_and_a_published_peer_gets_them_one_by_one() -> None:
    async def scenario(packed: bool) -> tuple[int, int]:
        async with pair(**OPTIONS) as (here, there):
            Records(here.dtls), Records(there.dtls)
            near, far, got = Packing(here.channel, packed=packed), Packing(there.channel, packed=packed), list[bytes]()
            far.on_packets = got.extend
            messages = list[bytes]()
            there.channel.on("message", messages.append)
            sent = [*packets(40, size=100), *packets(2, size=near.mtu), *packets(1, size=1400)]
            assert near.send(sent) == len(sent)
            await until(lambda: len(got) == len(sent))
            assert sorted(got) == sorted(sent)
            assert all(len(each) <= 1160 for each in messages if len(each) < 1400)
            flood = near.send(packets(1000, size=near.mtu))
            return len(messages), flood

    messages, taken = asyncio.run(scenario(True))
    assert messages == 4 + 2 + 1
    assert 100 < taken < 300  # about 128 KiB, and no more
    assert asyncio.run(scenario(False))[0] == 43


def test_a_socket_that_is_full_keeps_some_and_drops_the_rest() -> None:
    async def scenario() -> None:
        got = list[bytes]()

        class Takes(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
                got.append(data)

        class Full:
            """A socket whose buffer has room only when a test says so."""

            room = False

            def __init__(self, sock: socket.socket) -> None:
                self._sock = sock

            def __getattr__(self, name: str) -> Any:
                if name in ("sendto", "sendmsg") and not self.room:
                    raise BlockingIOError
                return getattr(self._sock, name)

        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for each in sockets:
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            each.bind(("127.0.0.1", 0))
        here, there = (UdpTransport(each, Takes()) for each in sockets)
        full = Full(sockets[0])
        here._outlet._sock = full  # type: ignore[assignment]
        to = sockets[1].getsockname()
        taken = sum(here.send_cut(bytes(1000 * 50), 1000, to) for _ in range(40))
        assert (taken, here.dropped) == (1048, 2000 - 1048)
        assert here.get_write_buffer_size() == 1_048_000
        full.room = True
        await until(lambda: here.get_write_buffer_size() == 0)
        await until(lambda: len(got) == taken)
        here.close()
        there.close()
        await until(lambda: sockets[0].fileno() == -1)

    asyncio.run(scenario())
