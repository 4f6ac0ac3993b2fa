"""The UDP sockets of the port that all peers share: of each version of IP one, and beside it, with the same number, one
for datagrams that their sender has marked as of sparse flows (procs/agent/fair_queue.py).

The kernel sorts them, by a filter (SO_ATTACH_REUSEPORT_CBPF, socket(7)): what is sparse neither waits behind megabytes
of others' bulk nor is lost with them. The mark is a DSCP (RFC 2474), AF42, which is for conferences (RFC 4594), so
that routers that know it do the same, and no network interface joins what is marked with what is not. Anybody may set
it, and any network take it away: it says which queue, and nothing else. A kernel without such filters has all in one.

Not every DSCP that stands for little delay gets it. Linux still reads them as RFC 1349 would, and thereby has datagrams
of IPv4 under AF21 wait in the interface's own queue (pfifo_fast, the kernel's default) for all that is not marked, for
ever where that fills the link; Wi-Fi looks at the three highest bits. AF42 is urgent by each of these readings.
"""

from __future__ import annotations

import array
import errno
import random
import socket
import struct
from typing import NamedTuple

from procs import log
from procs.agent.udp import Ancillary, joins
from procs.errors import ConfigError

BIND_TRIES = 50
IN_BYTES, SPARSE_IN_BYTES = 4 << 20, 1 << 20
# What the kernel holds on the way out, it holds before any queue that would be fair: no more than keeps it busy.
OUT_BYTES = 1 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # Python's socket module lacks these, and all that follow
_SO_ATTACH_REUSEPORT_CBPF = 51
_IP_PKTINFO, _IP_TOS, _IPV6_TCLASS = 8, 1, 67
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_CLASS = 0x90  # AF42, with the two bits of ECN behind it
SPARSE: dict[int, tuple[Ancillary, ...]] = {  # what sets the mark
    socket.AF_INET: ((socket.IPPROTO_IP, _IP_TOS, struct.pack("=i", _CLASS)),),
    socket.AF_INET6: ((socket.IPPROTO_IPV6, _IPV6_TCLASS, struct.pack("=i", _CLASS)),),
}
_LOAD_BYTE, _LOAD_HALF, _AND, _IF_EQUAL, _RETURN = 0x30, 0x28, 0x54, 0x15, 0x06  # linux/bpf_common.h
_NETWORK = 0xFFF00000  # SKF_NET_OFF (linux/filter.h): where IP begins
_WHERE = {  # the mark is in IP's header: how to load it, its bits, what they have to be
    socket.AF_INET: (_LOAD_BYTE, _NETWORK + 1, 0xFC, _CLASS),
    socket.AF_INET6: (_LOAD_HALF, _NETWORK, 0xFC0, _CLASS << 4),
}
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter


class Sockets(NamedTuple):
    """Of one version of IP. `sparse` gets what is marked; None where all is in one."""

    family: int  # a socket takes long to say it
    bulk: socket.socket
    sparse: socket.socket | None


def any_of(udp_range: tuple[int, int]) -> list[Sockets]:
    """With any number of the range that is free. Raises ConfigError."""
    for _ in range(BIND_TRIES):
        number = random.randint(*udp_range)
        try:
            return bound(number, "port")
        except ConfigError:
            continue
    raise ConfigError(f"PLANARIA_UDP_RANGE={udp_range[0]}-{udp_range[1]}: no UDP port of it is free")


def bound(number: int, key: str) -> list[Sockets]:
    """With this number, which is from the setting `key`, for each version of IP that this machine has. Raises
    ConfigError."""
    made: list[Sockets] = []
    try:
        made.append(_pair(socket.AF_INET, number))
        if socket.has_ipv6:
            made.append(_pair(socket.AF_INET6, number))
    except OSError as error:
        if made and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return made  # IPv6 is switched off
        for each in made:
            close(each)
        why = "another program has this UDP port" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigError(f"{key}={number}: {why}") from None
    return made


def close(sockets: Sockets) -> None:
    """Both."""
    sockets.bulk.close()
    if sockets.sparse:
        sockets.sparse.close()


def _pair(family: socket.AddressFamily, number: int) -> Sockets:
    bulk = _socket(family, IN_BYTES)
    try:
        bulk.bind(("", number))  # alone: a number that another program has is refused, though that program would share
    except OSError:
        bulk.close()
        raise
    sparse = _socket(family, SPARSE_IN_BYTES)
    try:
        for each in (bulk, sparse):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sparse.bind(("", number))
        _sort(bulk)
    except OSError as error:
        log.info("what is urgent waits in line with all else: no second UDP socket", why=str(error))
        sparse.close()
        return Sockets(int(family), bulk, None)
    return Sockets(int(family), bulk, sparse)


def _socket(family: socket.AddressFamily, in_bytes: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sizes = ((_SO_RCVBUFFORCE, socket.SO_RCVBUF, in_bytes), (_SO_SNDBUFFORCE, socket.SO_SNDBUF, OUT_BYTES))
    for force, kind, size in sizes:
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, kind, size)
    # Nothing is cut into fragments, and what a router claims of its link's size, which anybody may, is not believed:
    # the lane finds out itself what passes.
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    joins(sock)
    return sock


def _sort(sock: socket.socket) -> None:
    """Of the sockets that share its number, the second gets what is marked, and the first all else."""
    load, place, bits, mark = _WHERE[sock.family]
    code = ((load, 0, 0, place), (_AND, 0, 0, bits), (_IF_EQUAL, 0, 1, mark), (_RETURN, 0, 0, 1), (_RETURN, 0, 0, 0))
    program = array.array("B", b"".join(_INSTRUCTION.pack(*each) for each in code))
    told = struct.pack("@HP", len(code), program.buffer_info()[0])  # struct sock_fprog; the kernel takes a copy
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, told)
