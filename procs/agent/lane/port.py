"""The one UDP port of all peers: sockets for IPv4 and for IPv6 (sockets.py), with the same number, read by exactly one
process.

The owner of the port has its sockets, and sessions reach them by messages (way.py); no descriptor is handed over
(SCM_RIGHTS). So there is one port for a firewall to know, and exactly one reader, who needs nobody to tell it whose a
datagram is; and a session's death, however it dies, never touches the path that packets take.
"""

from __future__ import annotations

import asyncio
import functools
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from procs import log
from procs.agent import netlink
from procs.agent.lane import sockets
from procs.agent.lane.demux import Demux
from procs.agent.lane.sockets import SPARSE, Sockets
from procs.agent.lane.way import Take
from procs.agent.udp import MAX_RUN, UDP_GRO, Address, Ancillary, Arrived, Outlet, Sent, arrived

RECORD = 0xF1  # the first byte of a record of the lane (wire/records.py)
_RECORDS, _SEALED = bytes([RECORD]), b"\x17"  # and that of a DTLS record of application data
SPARSE_READS, SPARSE_EVERY = 16, 1 << 16  # of sparse flows' datagrams, between so many bytes of all others
_IPV6_PKTINFO = 50  # Python's socket module lacks it
_IP_PKTINFO = 8
_PKTINFO_SPACE = socket.CMSG_SPACE(20)
# Where the interface is in that, and our address: struct in_pktinfo and in6_pktinfo.
_PKTINFO: dict[int, tuple[slice, slice]] = {
    socket.AF_INET: (slice(4), slice(8, 12)),
    socket.AF_INET6: (slice(16, 20), slice(16)),
}
_Heard = dict[tuple[Take, str, Address], list[bytes]]
_Read = Callable[[Sockets, _Heard], bool]  # whether anything has come


class Port:
    """A Way for the sessions of this process, and what the lane's records go through. `key` names the setting that the
    number comes from; 0 is any that is free in the range. Raises ConfigError.

    `on_records(joined, step, sender)` is called with records, datagrams of `step` bytes that lie behind each other, the
    last maybe shorter; the memory is the caller's own again afterwards. `on_all()` once there are no more for now.
    `on_writable()` once `send_records` was FULL and there is room again.
    """

    def __init__(self, number: int, udp_range: tuple[int, int], key: str = "port") -> None:
        self._sockets = sockets.any_of(udp_range) if number == 0 else sockets.bound(number, key)
        self.number: int = self._sockets[0].bulk.getsockname()[1]
        self._demux: Demux[Take] = Demux()
        self._outlets: dict[int, Outlet] = {}  # by family
        self._urgent = select.poll()  # says in half a microsecond whether a socket for sparse flows has anything
        self._buffer = self._run = memoryview(bytearray(MAX_RUN))  # the newest run, in it
        self.on_records: Callable[[memoryview, int, Address], None] = lambda joined, step, sender: None
        self.on_all: Callable[[], None] = lambda: None
        self.on_writable: Callable[[], None] = lambda: None
        self._shunned: set[bytes] = set()  # as they stand in what the kernel says of a datagram

    @property
    def strangers(self) -> int:
        """Datagrams that came and were nobody's."""
        return self._demux.strangers

    @property
    def malformed(self) -> int:
        """Datagrams that came and are of no protocol."""
        return self._demux.malformed

    @property
    def dropped(self) -> int:
        """Datagrams on their way out, of sessions: there was no room for them, or no route."""
        return sum(each.dropped for each in self._outlets.values())

    def start(self) -> None:
        """Read and write from now on, in the running event loop. `broken` ends as that does."""
        loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[None] = loop.create_future()
        for its in self._sockets:
            outlet = self._outlets[its.family] = Outlet(its.bulk, self._failed)
            outlet.on_room = lambda: self.on_writable()
            loop.add_reader(its.bulk.fileno(), self._turn, its.bulk, self._read_bulk, its)
            if its.sparse:
                self._urgent.register(its.sparse, select.POLLIN)
                loop.add_reader(its.sparse.fileno(), self._turn, its.sparse, self._read_sparse, its)

    def shun(self, interface: int) -> None:
        """Take nothing that comes by this one, which is the tunnel: a peer that sent to this port from inside it would
        have the tunnel carry itself."""
        self._shunned.add(struct.pack("=I", interface))

    def shuns(self, host: str) -> bool:
        """Whether what is sent to that address leaves by such an interface."""
        try:
            return struct.pack("=I", netlink.way_to(ip_address(host))) in self._shunned
        except ValueError:  # with a scope it is of one link
            return False

    def close(self) -> None:
        """Hold nothing any more."""
        self._urgent = select.poll()
        for its in self._sockets:
            if outlet := self._outlets.pop(its.family, None):
                outlet.forget()
                for each in filter(None, (its.bulk, its.sparse)):
                    asyncio.get_running_loop().remove_reader(each.fileno())
            sockets.close(its)

    # --- for sessions -----------------------------------------------------------------------------------

    def expect(self, ufrag: str, take: Take) -> None:
        """As a Way has it."""
        if not self._demux.expect(ufrag, take):
            log.warning("too many connections for one UDP port: another has only sockets of its own")

    def send(self, ufrag: str, local: str, to: Address, joined: bytes, step: int) -> int:
        """As a Way has it."""
        outlet, source = self._outlets.get(_family(to)), _source(local)
        if not outlet or not source or step <= 0 or not self._demux.sent(ufrag, to, joined[:step], time.monotonic()):
            return 0
        return outlet.send(joined, step, to, source)

    def forget(self, ufrag: str) -> None:
        """As a Way has it."""
        self._demux.forget(ufrag)

    def heard(self, ufrag: str, senders: Sequence[Address]) -> None:
        """That connection has had datagrams from there, as an earlier owner of this port knew."""
        self._demux.heard(ufrag, senders, time.monotonic())

    # --- for the lane -----------------------------------------------------------------------------------

    def send_records(self, joined: bytes, step: int, to: Address, *, is_sparse: bool = False) -> Sent:
        """Send datagrams of `step` bytes that lie behind each other, the last maybe shorter, as many as one system call
        takes (MAX_SEGMENTS, MAX_JOINED), or none. Which address of ours they leave from is for the kernel to say."""
        outlet = self._outlets.get(family := _family(to))
        return outlet.send_now(joined, step, to, SPARSE[family] if is_sparse else ()) if outlet else Sent.REFUSED

    def glance(self) -> None:
        """Take what has come of sparse flows, in the middle of something that takes long."""
        if self._urgent.poll(0):
            for its in self._sockets:
                self._take(its, self._read_sparse)

    # --- in ---------------------------------------------------------------------------------------------

    def _turn(self, sock: socket.socket, read: _Read, its: Sockets) -> None:
        try:
            self._take(its, read)
        except Exception as error:  # handed on whole: whoever waits for `broken` raises it
            asyncio.get_running_loop().remove_reader(sock.fileno())
            if not self.broken.done():
                self.broken.set_exception(error)

    def _take(self, its: Sockets, read: _Read) -> None:
        heard: _Heard = {}
        if read(its, heard):
            self.on_all()
        for (take, local, sender), datagrams in heard.items():
            take(local, sender, datagrams)

    def _read_bulk(self, its: Sockets, heard: _Heard) -> bool:
        """Until all of it was read, or it is time for others: it is, too, once something has come of a sparse flow,
        since the answer to that may be waiting in the interface."""
        if self._urgent.poll(0) and self._read_sparse(its, heard):
            self.on_all()
        left = SPARSE_EVERY
        try:
            for arrival in arrived(its.bulk, self._buffer, _PKTINFO_SPACE):
                self._sort(its.family, arrival, heard)
                left -= arrival[0]
                if left <= 0:
                    left = SPARSE_EVERY
                    if self._urgent.poll(0) and self._read_sparse(its, heard):
                        break
        except OSError as error:
            self._failed(error)
        return True

    def _read_sparse(self, its: Sockets, heard: _Heard) -> bool:
        """Some of it, so that nobody who marks all holds up all; whether there was any."""
        has_come = False
        try:
            for arrival in arrived(its.sparse, self._buffer, _PKTINFO_SPACE, SPARSE_READS) if its.sparse else ():
                self._sort(its.family, arrival, heard)
                has_come = True
        except OSError as error:
            self._failed(error)
        return has_come

    def _sort(self, family: int, arrival: Arrived, heard: _Heard) -> None:
        """What has been read, a run of datagrams or one."""
        size, step, sender, ancillary = arrival
        interface, address = _PKTINFO[family]
        run, info = self._run_of(size), _pktinfo(ancillary)
        if info[interface] in self._shunned:
            self._demux.strangers += -(-size // max(1, step))
            return
        firsts = bytes(run[:: max(1, step)]) if step < size else bytes(run[:1])
        if firsts and not firsts.strip(_RECORDS):
            self.on_records(run, step, sender[:2])
            return
        cut = [bytes(run[at : at + step]) for at in range(0, size, step)] if size else [b""]
        came = sender[:2], _text(family, info[address]), heard
        if firsts and not firsts.strip(_SEALED):
            self._all_of_dtls(cut, *came)
        else:
            self._one_by_one(cut, *came)

    def _run_of(self, size: int) -> memoryview:
        """What was read. One object for runs of one size, so that others can tell that they lie at the same place."""
        if len(self._run) != size:
            self._run = self._buffer[:size]
        return self._run

    def _all_of_dtls(self, run: list[bytes], sender: Address, local: str, heard: _Heard) -> None:
        """Packets of plane 2, of which there are many."""
        if take := self._demux.of_dtls(run[0], sender, time.monotonic(), len(run)):
            heard.setdefault((take, local, sender), []).extend(run)

    def _one_by_one(self, run: list[bytes], sender: Address, local: str, heard: _Heard) -> None:
        """One flow may carry anything."""
        now, demux = time.monotonic(), self._demux
        for datagram in run:
            kind = datagram[0] if datagram else 0xFF
            if kind < 4:
                take = demux.of_stun(datagram, now)
            elif 20 <= kind < 64:
                take = demux.of_dtls(datagram, sender, now)
            elif kind == RECORD:
                self.on_records(memoryview(datagram), len(datagram), sender)
                continue
            else:
                demux.malformed += 1
                continue
            if take:
                heard.setdefault((take, local, sender), []).append(datagram)

    def _failed(self, error: OSError) -> None:
        log.debug("the UDP port says", why=str(error))


def _pktinfo(ancillary: Sequence[Ancillary]) -> bytes:
    for _, kind, value in ancillary:
        if kind != UDP_GRO:  # nothing else was asked for
            return value
    return b""


@functools.lru_cache(maxsize=64)
def _text(family: int, packed: bytes) -> str:
    return socket.inet_ntop(family, packed)


@functools.lru_cache(maxsize=1024)
def _family(to: Address) -> int:
    """0 of what is no address: a peer may name anything as its own, and the kernel would ask for it in the DNS."""
    packed = _packed(to[0])
    return (socket.AF_INET6 if len(packed) > 4 else socket.AF_INET) if packed and 0 < to[1] < 65536 else 0


@functools.lru_cache(maxsize=64)
def _source(local: str) -> tuple[Ancillary, ...]:
    """What has the kernel send from this address of ours; nothing of what is none."""
    packed = _packed(local)
    if len(packed) > 4:
        return ((socket.IPPROTO_IPV6, _IPV6_PKTINFO, packed + struct.pack("=I", 0)),)
    return ((socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I", 0) + packed + bytes(4)),) if packed else ()


def _packed(host: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, ValueError):
        return b""
