"""The UDP port of all sessions, by itself (procs/agent/lane/port.py): sockets, runs, what is whose, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aioice import stun

from procs.agent.lane import sockets
from procs.agent.lane.port import SPARSE_READS, Port
from procs.agent.lane.sockets import SPARSE
from procs.agent.udp import UDP_SEGMENT, Address, Sent
from procs.errors import ConfigError
from tests.agents import until
from tests.unit.test_demux import stun_of

RANGE = (20000, 40000)
HOSTS = ["127.0.0.1", "::1"]
RECORD = b"\xf1" + bytes(99)
DTLS = b"\x17\xfe\xfd" + bytes(97)


class Taken:
    """What a port has given to whom."""

    def __init__(self, port: Port) -> None:
        self.records = list[tuple[list[bytes], Address]]()
        self.others = list[tuple[str, Address, list[bytes]]]()
        port.on_records = self._records

    def _records(self, joined: memoryview, step: int, sender: Address) -> None:
        self.records.append(([bytes(joined[at : at + step]) for at in range(0, len(joined), step)], sender))

    def take(self, local: str, sender: Address, datagrams: list[bytes]) -> None:
        """As a Way gives it."""
        self.others.append((local, sender, datagrams))

    @property
    def datagrams(self) -> list[bytes]:
        """All records, in the order that they came in."""
        return [each for run, _ in self.records for each in run]


@contextlib.contextmanager
def started() -> Iterator[Port]:
    """One, in the running event loop."""
    made = Port(0, RANGE)
    made.start()
    try:
        yield made
    finally:
        made.close()


async def on_one(scenario: Callable[[Port], Awaitable[None]]) -> None:
    """Run it on a port."""
    with started() as port:
        await scenario(port)


@pytest.mark.parametrize("host", HOSTS)
def test_records_go_from_port_to_port_in_runs_as_they_were(on_either_loop: Callable[[Any], Any], host: str) -> None:
    async def scenario() -> None:
        with started() as here, started() as there:
            await between(here, there)

    async def between(here: Port, there: Port) -> None:
        taken = Taken(there)
        sent = [b"\xf1" + bytes([number]) * 1400 for number in range(40)] + [b"\xf1 the last"]
        assert here.send_records(b"".join(sent), 1401, (host, there.number)) is Sent.YES
        assert here.send_records(b"\xf1", 1, (host, there.number))
        await until(lambda: len(taken.datagrams) == 42)
        assert taken.datagrams == [*sent, b"\xf1"] and len(taken.records) < 10, "the kernel joins them"
        assert {sender for _, sender in taken.records} == {(host, here.number)}
        assert here.send_records(b"\xf1" * 66_000, 66_000, (host, there.number)) is Sent.TOO_BIG
        assert here.send_records(b"\xf1", 1, ("255.255.255.255", 9)) is Sent.REFUSED  # nobody has allowed that
        for odd in (("name.invalid", 9), (host, 0), (host, 65536), ("", 9)):
            assert here.send_records(b"\xf1", 1, odd) is Sent.REFUSED

    on_either_loop(scenario())


@pytest.mark.parametrize("host", HOSTS)
def test_each_datagram_of_a_mixed_run_goes_to_whom_it_is_for(host: str) -> None:
    async def scenario(port: Port) -> None:
        taken, family = Taken(port), socket.AF_INET6 if ":" in host else socket.AF_INET
        port.expect("here", taken.take)
        check = stun_of(stun.Class.REQUEST, "here:there").ljust(100, b"\0")
        check = check[:2] + (80).to_bytes(2, "big") + check[4:]  # as long as the others, so that they are joined
        with socket.socket(family, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            peer.settimeout(5)
            its: Address = peer.getsockname()[:2]
            assert port.send("here", host, its, DTLS + DTLS[:50], 100) == 2
            assert [len(peer.recv(2000)) for _ in range(2)] == [100, 50]
            mixed = [RECORD, check, DTLS, RECORD, b"\x80" * 100, DTLS, RECORD, RECORD[:50]]
            peer.sendmsg(
                [b"".join(mixed)],
                [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", 100))],
                0,
                (host, port.number),
            )
            for lone in (b"", DTLS, b"\xf1"):
                peer.sendto(lone, (host, port.number))
            await until(lambda: len(taken.datagrams) == 5)
        got = [each for local, sender, each in taken.others if (local, sender) == (host, its)]
        assert [each for part in got for each in part] == [check, DTLS, DTLS, DTLS]
        assert taken.datagrams == [RECORD, RECORD, RECORD, RECORD[:50], b"\xf1"]
        assert (port.malformed, port.strangers) == (2, 0)

    asyncio.run(on_one(scenario))


def test_who_is_forgotten_neither_hears_nor_says_anything() -> None:
    async def scenario(port: Port) -> None:
        taken = Taken(port)
        port.expect("here", taken.take)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(5)
            assert port.send("here", "127.0.0.1", peer.getsockname(), DTLS, 100) == 1
            port.forget("here")
            assert port.send("here", "127.0.0.1", peer.getsockname(), DTLS, 100) == 0
            peer.sendto(DTLS, ("127.0.0.1", port.number))
            await until(lambda: port.strangers == 1)
            assert not taken.others
        for local, to in (("nowhere", ("127.0.0.1", 9)), ("127.0.0.1", ("nowhere", 9))):
            port.expect("odd", taken.take)
            assert port.send("odd", local, to, DTLS, 100) == 0

    asyncio.run(on_one(scenario))


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_is_taken_that_comes_by_the_tunnel(host: str) -> None:
    async def scenario(port: Port) -> None:
        taken, family = Taken(port), socket.AF_INET6 if ":" in host else socket.AF_INET
        port.expect("here", taken.take)
        check = stun_of(stun.Class.REQUEST, "here:there")
        with socket.socket(family, socket.SOCK_DGRAM) as peer:
            for shunned, strangers in ((socket.if_nametoindex("lo") + 1, 0), (socket.if_nametoindex("lo"), 2)):
                port.shun(shunned)
                peer.sendto(RECORD, (host, port.number))
                peer.sendto(check, (host, port.number))
                await until(lambda: len(taken.datagrams) + len(taken.others) + port.strangers == 2 + strangers)  # noqa: B023
                assert port.strangers == strangers and port.shuns(host) == bool(strangers)

    asyncio.run(on_one(scenario))


MARKED = b"\xf1 marked"


def told(port: Port, host: str, datagrams: list[bytes]) -> None:
    """Send it these, which are marked where they say so."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        for each in datagrams:
            peer.sendmsg([each], SPARSE[family] if each == MARKED else [], 0, (host, port.number))


async def all_of(port: Port) -> list[bytes]:
    """What has been waiting, in the order in which it is given to somebody."""
    taken = Taken(port)
    port.start()
    await asyncio.sleep(0.3)
    port.close()
    return taken.datagrams


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_marked_is_read_first_and_is_not_lost_with_what_is_not(
    on_either_loop: Callable[[Any], Any], host: str
) -> None:
    bulk, port = [b"\xf1" + bytes(60_000)] * 200, Port(0, RANGE)
    told(port, host, [*bulk, MARKED])
    got = on_either_loop(all_of(port))
    assert got[0] == MARKED and MARKED not in got[1:]
    assert 0 < len(got) - 1 < len(bulk), "more than the socket has room for"


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("mark", "is_first"), [(0x90, True), (0x93, True), (0x98, False), (0xB8, False)])
def test_a_mark_is_six_bits_and_what_routers_say_of_their_queues_is_none_of_it(
    host: str, mark: int, is_first: bool
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    port = Port(0, RANGE)
    told(port, host, [RECORD])
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        ((level, option, _),) = SPARSE[family]
        peer.sendmsg([MARKED], [(level, option, struct.pack("=i", mark))], 0, (host, port.number))
    assert asyncio.run(all_of(port)) == ([MARKED, RECORD] if is_first else [RECORD, MARKED])


@pytest.mark.parametrize("host", HOSTS)
def test_who_marks_everything_holds_nobody_up(on_either_loop: Callable[[Any], Any], host: str) -> None:
    port = Port(0, RANGE)
    told(port, host, [MARKED] * 200 + [RECORD] * 4)
    got = on_either_loop(all_of(port))
    assert sorted(got) == sorted([MARKED] * 200 + [RECORD] * 4)
    assert [number for number, each in enumerate(got) if each == RECORD][-1] < 3 * SPARSE_READS + 4


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_marked_is_handed_over_before_bulk_is_read_and_ends_its_turn(host: str) -> None:
    bulk, port, events = b"\xf1" + bytes(60_000), Port(0, RANGE), list[str]()

    def came(joined: memoryview, step: int, sender: Address) -> None:
        events.append("marked" if joined == MARKED else "bulk")
        if events.count("bulk") == 1:
            told(port, host, [MARKED])
        elif joined == MARKED and "bulk" in events:
            asyncio.get_running_loop().call_soon(events.append, "others")

    async def scenario() -> None:
        told(port, host, [bulk] * 9 + [MARKED])
        port.on_records, port.on_all = came, lambda: events.append("all")
        port.start()
        await until(lambda: events.count("bulk") == 9)
        port.close()

    asyncio.run(scenario())
    # The second came after the first of bulk, and is looked for after some bytes of it.
    assert events[:8] == ["marked", "all", "bulk", "bulk", "marked", "all", "others", "bulk"]


def test_what_is_marked_is_urgent_to_our_own_interface_too() -> None:
    ((level, option, mark),) = SPARSE[socket.AF_INET]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, option, mark)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 6, "TC_PRIO_INTERACTIVE"


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_marked_leaves_and_arrives_as_such(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    level, option, kind = (socket.IPPROTO_IPV6, 66, 67) if ":" in host else (socket.IPPROTO_IP, 13, 1)

    async def scenario(port: Port) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            peer.settimeout(5)
            peer.setsockopt(level, option, 1)  # IP_RECVTOS, IPV6_RECVTCLASS
            for is_sparse, can_cut in ((True, True), (True, False), (False, True), (False, False)):
                port._outlets[family]._can_segment = can_cut
                to: Address = peer.getsockname()[:2]
                assert port.send_records(RECORD * 3, 100, to, is_sparse=is_sparse) is Sent.YES
                for _ in range(3):
                    _, ((_, what, value),), _, _ = peer.recvmsg(200, 100)
                    assert (what, value[0]) == (kind, 0x90 if is_sparse else 0), "AF42"

    asyncio.run(on_one(scenario))


@pytest.mark.parametrize("host", HOSTS)
def test_where_the_kernel_does_not_sort_all_is_in_one_socket(
    on_either_loop: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def refuse(sock: socket.socket) -> None:
        raise OSError(errno.ENOPROTOOPT, "no filters")

    monkeypatch.setattr(sockets, "_sort", refuse)
    port = Port(0, RANGE)
    told(port, host, [RECORD, MARKED, RECORD])
    assert on_either_loop(all_of(port)) == [RECORD, MARKED, RECORD]


def test_a_glance_takes_what_is_marked_and_leaves_the_rest() -> None:
    async def scenario(port: Port) -> None:
        taken = Taken(port)
        done = list[int]()
        port.on_all = lambda: done.append(len(taken.datagrams))
        told(port, "127.0.0.1", [RECORD, MARKED])
        told(port, "::1", [RECORD, MARKED])
        port.glance()
        assert (taken.datagrams, done) == ([MARKED, MARKED], [1, 2])
        port.glance()
        assert len(done) == 2
        await until(lambda: len(taken.datagrams) == 4)

    asyncio.run(on_one(scenario))


class Full:
    """A socket whose buffer has room only when a test says so."""

    def __init__(self, sock: socket.socket, room: int) -> None:
        self._sock, self.room, self.can_cut = sock, room, True

    def sendmsg(self, buffers: list[bytes], ancillary: list[tuple[int, int, bytes]], *more: Any) -> int:
        if not self.can_cut and any(kind == UDP_SEGMENT for _, kind, _ in ancillary):
            raise OSError(errno.EIO, "no checksums")
        if self.room <= 0:
            raise BlockingIOError
        self.room -= 1
        return self._sock.sendmsg(buffers, ancillary, *more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_records_never_wait_and_who_has_them_is_told_of_room(on_either_loop: Callable[[Any], Any]) -> None:
    async def scenario(port: Port) -> None:
        told = list[int]()
        port.on_writable = lambda: told.append(1)
        outlet = port._outlets[socket.AF_INET]
        full = Full(port._sockets[0].bulk, room=0)
        outlet._sock = full  # type: ignore[assignment]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(5)
            to: Address = peer.getsockname()
            port.expect("here", lambda *given: None)
            assert port.send_records(RECORD * 3, 100, to) is Sent.FULL
            assert port.send("here", "127.0.0.1", to, DTLS * 2, 100) == 2, "a session's wait"
            full.room = 1 << 30
            assert port.send_records(RECORD * 3, 100, to) is Sent.FULL, "and go first"
            await until(lambda: bool(told))
            assert port.send_records(RECORD * 3, 100, to) is Sent.YES
            assert [peer.recv(2000)[0] for _ in range(5)] == [0x17, 0x17, 0xF1, 0xF1, 0xF1]

            full.can_cut, full.room = False, 2
            assert port.send_records(RECORD * 3, 100, to) is Sent.YES and port.dropped == 1, (
                "one by one, as far as can be"
            )
            assert port.send_records(RECORD, 100, to) is Sent.FULL

    on_either_loop(on_one(scenario))


def test_what_nobody_has_foreseen_ends_whoever_waits_for_the_port(on_either_loop: Callable[[Any], Any]) -> None:
    async def scenario() -> None:
        with started() as here, started() as there:
            nothing, calls = dict[str, None](), list[int]()

            def came(joined: memoryview, step: int, sender: Address) -> None:
                calls.append(step)
                nothing["unforeseen"]

            there.on_records = came
            assert here.send_records(RECORD, len(RECORD), ("127.0.0.1", there.number))
            with pytest.raises(KeyError, match="unforeseen"):
                await asyncio.wait_for(there.broken, 5)
            assert not here.broken.done()
            assert here.send_records(RECORD, len(RECORD), ("127.0.0.1", there.number))
            await asyncio.sleep(0.1)
            assert len(calls) == 1, "and it is not read any more"

    on_either_loop(scenario())


def test_a_number_that_somebody_has_is_refused_by_the_name_of_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port(0, RANGE)
    with pytest.raises(ConfigError, match=f"PLANARIA_TUN_PORT={port.number}: another program has this UDP port"):
        Port(port.number, RANGE, "PLANARIA_TUN_PORT")
    port.close()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("", 0))
        number = six.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port={number}: another"):
            Port(number, RANGE)
        with pytest.raises(ConfigError, match=f"PLANARIA_UDP_RANGE={number}-{number}: no UDP port of it is free"):
            Port(0, (number, number))
    Port(number, RANGE).close()

    def no_six(family: socket.AddressFamily, number: int, made: Any = sockets._pair) -> Any:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "IPv6 is off")
        return made(family, number)

    monkeypatch.setattr(sockets, "_pair", no_six)
    alone = Port(number, RANGE)
    assert alone.number == number and len(alone._sockets) == 1
    alone.close()
