"""What `ip` does for an interface, asked of the kernel itself (rtnetlink(7)): a bare machine may have no `ip`.

Everything here sets things as they should be, whatever they were: one that was killed half-way finds its own work.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from struct import Struct, error, pack, unpack_from
from typing import NamedTuple

from procs.agent.lane.vnet import MOST_BYTES, MOST_SEGMENTS

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

OURS = "planaria"  # begins the alias of an interface of ours
ROUTES_ARE_OURS = 119  # the protocol by which we know the routes that we have made (see /etc/iproute2/rt_protos)
_HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = Struct("=BBBBi")  # family, prefix length, flags, scope, index
_ROUTE = Struct(
    "=BBBBBBBBI"
)  # family, prefix lengths of destination and source, tos, table, protocol, scope, type, flags
_ATTRIBUTE = Struct("=HH")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 1, 4, 0x300, 0x100, 0x200, 0x400
_IFLA_NAME, _IFLA_MTU, _IFLA_QUEUE, _IFLA_INFO, _IFLA_ALIAS, _IFLA_FAMILIES = 3, 4, 13, 18, 20, 26
_IFLA_GSO_SEGMENTS, _IFLA_GSO_SIZE, _IFLA_GSO_SIZE4 = 40, 41, 63  # the last one of Linux 6.3, ignored before
_INFO_KIND, _INFO_DATA = 1, 2
_TUN_OWNER, _TUN_TYPE = 1, 3
_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_NODAD = 2  # nobody else is on this link: the address can be used at once
_RTA_DST, _RTA_OIF = 1, 4
_MAIN, _SCOPE_LINK, _UNICAST = 254, 253, 1
_UP = 1
_WAIT_S = 5.0


class Link(NamedTuple):
    """An interface."""

    number: int  # by which the kernel knows it
    name: str
    kind: str  # tun (also of TAP), veth, ...; "" of hardware
    is_tap: bool
    owner: int  # the user who may open a tun; -1: only root
    alias: str
    mtu: int
    is_up: bool


def link(name: str) -> Link | None:
    """The interface of this name. Raises OSError."""
    return next((each for each in links() if each.name == name), None)


def links() -> list[Link]:
    """All interfaces of this network namespace. Raises OSError."""
    return [_link(body) for body in _ask(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), _DUMP)]


def set_link(index: int, *, mtu: int, queue: int, alias: str) -> None:
    """Have the interface up, with this name for people and nothing of its own to say, and never so many segments in one
    that they would not leave as one. Raises OSError."""
    families = _attribute(socket.AF_INET6, _attribute(_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE])))
    with contextlib.suppress(OSError):  # without IPv6 there is nothing to be kept from it
        _do(_NEWLINK, _LINK.pack(0, 0, index, 0, 0) + _attribute(_IFLA_FAMILIES, families))
    numbers = {_IFLA_MTU: mtu, _IFLA_QUEUE: queue, _IFLA_GSO_SEGMENTS: MOST_SEGMENTS}
    numbers |= {_IFLA_GSO_SIZE: MOST_BYTES, _IFLA_GSO_SIZE4: MOST_BYTES}
    values = [_attribute(kind, pack("=I", value)) for kind, value in numbers.items()]
    _do(_NEWLINK, _LINK.pack(0, 0, index, _UP, _UP) + b"".join(values) + _attribute(_IFLA_ALIAS, alias.encode()))


def delete_link(index: int) -> None:
    """Raises OSError."""
    _do(_DELLINK, _LINK.pack(0, 0, index, 0, 0))


def addresses(index: int) -> set[Interface]:
    """Of the interface, but for those that the kernel gives itself. Raises OSError."""
    found = set()
    for body in _ask(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), _DUMP):
        _, length, _, _, of = _ADDRESS.unpack_from(body)
        values = _attributes(body, _ADDRESS.size)
        raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS, b"")
        address = ip_interface((raw, length))
        if of == index and not address.is_link_local:
            found.add(address)
    return found


def set_addresses(index: int, wanted: Iterable[Interface]) -> None:
    """Have these and no others. Raises OSError."""
    has, wanted = addresses(index), set(wanted)
    for address in has - wanted:
        _do(_DELADDR, _address(index, address))
    for address in wanted - has:
        _do(_NEWADDR, _address(index, address) + _attribute(_IFA_FLAGS, pack("=I", _NODAD)), _CREATE | _REPLACE)


def routes(index: int) -> set[Network]:
    """Those of ours that lead to the interface. Raises OSError."""
    found = set()
    for body in _ask(_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), _DUMP):
        family, length, _, _, table, protocol, *_ = _ROUTE.unpack_from(body)
        values = _attributes(body, _ROUTE.size)
        if (table, protocol) == (_MAIN, ROUTES_ARE_OURS) and values.get(_RTA_OIF) == pack("=i", index):
            found.add(ip_network((values.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16), length)))
    return found


def set_routes(index: int, wanted: Iterable[Network]) -> list[Network]:
    """Have these and no others of ours; returns those that lead elsewhere already, and are left so. Raises OSError."""
    has, wanted, taken = routes(index), set(wanted), []
    for network in has - wanted:
        _do(_DELROUTE, _route(index, network))
    for network in sorted(wanted - has, key=str):
        try:
            _do(_NEWROUTE, _route(index, network), _CREATE | _EXCL)
        except FileExistsError:
            taken.append(network)
    return taken


def way_to(address: IPv4Address | IPv6Address) -> int:
    """The number of the interface by which packets go there; 0 if by none."""
    family, bits = (socket.AF_INET, 32) if address.version == 4 else (socket.AF_INET6, 128)
    asked = _ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, 0) + _attribute(_RTA_DST, address.packed)
    with contextlib.suppress(OSError):  # there is no route
        for body in _ask(_GETROUTE, asked):
            return int.from_bytes(_attributes(body, _ROUTE.size).get(_RTA_OIF, b""), sys.byteorder)
    return 0


def _address(index: int, address: Interface) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = _ADDRESS.pack(family, address.network.prefixlen, _NODAD, 0, index)
    return head + _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)


def _route(index: int, network: Network) -> bytes:
    family, scope = (socket.AF_INET, _SCOPE_LINK) if network.version == 4 else (socket.AF_INET6, 0)
    head = _ROUTE.pack(family, network.prefixlen, 0, 0, _MAIN, ROUTES_ARE_OURS, scope, _UNICAST, 0)
    return head + _attribute(_RTA_DST, network.network_address.packed) + _attribute(_RTA_OIF, pack("=i", index))


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    values = _attributes(body, _LINK.size)
    info = _attributes(values.get(_IFLA_INFO, b""))
    kind = _text(info.get(_INFO_KIND, b""))
    data = _attributes(info.get(_INFO_DATA, b"")) if kind == "tun" else {}
    owner = unpack_from("=i", data.get(_TUN_OWNER, b"\xff\xff\xff\xff"))[0]
    (mtu,) = unpack_from("=I", values.get(_IFLA_MTU, bytes(4)))
    name, alias = _text(values.get(_IFLA_NAME, b"")), _text(values.get(_IFLA_ALIAS, b""))
    return Link(index, name, kind, data.get(_TUN_TYPE) == b"\2", owner, alias, mtu, bool(flags & _UP))


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    found = {}
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += length + -length % 4
    return found


def _do(kind: int, body: bytes, flags: int = 0) -> None:
    for _ in _ask(kind, body, flags | _ACK):
        pass


def _ask(kind: int, body: bytes, flags: int = 0) -> Iterator[bytes]:
    """The bodies of what the kernel answers. Raises OSError for what it refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_WAIT_S)
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, 1, 0) + body)
        more = True
        while more:
            data, more = sock.recv(1 << 20), bool(flags & (_DUMP | _ACK))
            for answered, part in _messages(data):
                if answered == _NLMSG_DONE:
                    return
                if answered == _NLMSG_ERROR:
                    (number,) = unpack_from("=i", part)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return
                yield part


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        try:
            length, kind, *_ = _HEADER.unpack_from(data, at)
        except error:
            raise OSError(errno.EBADMSG, "the kernel's answer is cut short") from None
        yield kind, data[at + _HEADER.size : at + length]
        at += length + -length % 4
