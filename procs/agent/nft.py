"""What our rules of nft have dropped, asked of the kernel itself (netlink(7)): without a program of its own it takes
microseconds, and can't hang. Who asks needs CAP_NET_ADMIN each time.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from struct import Struct, pack, unpack_from

LIMIT_S = 0.5
_NETFILTER = 12
_HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
_FAMILY = Struct("!BBH")  # family, version, 0
_INET = 1
_ERROR, _DONE = 2, 3
_GETRULE, _NEWRULE, _REQUEST, _DUMP = 0xA07, 0xA06, 1, 0x300
_TABLE, _CHAIN, _EXPRESSIONS, _USERDATA = 1, 2, 4, 7  # of a rule
_NAME, _DATA, _PACKETS = 1, 2, 2  # of an expression, and of a counter
_COMMENT = 0  # of nft's own data of a rule


def table(interface: str) -> str:
    """The name of ours, for this interface."""
    return f"planaria_{interface}"


def dropped(interface: str) -> dict[str, int]:
    """Packets by the comment of the rule that has dropped them, since the rules were set: the peer whose `reach` they
    were beyond, and "" for `subnets`. Raises OSError."""
    named = table(interface).encode() + b"\0"
    body = _FAMILY.pack(_INET, 0, 0) + pack("=HH", 4 + len(named), _TABLE) + named + bytes(-len(named) % 4)
    until, parts = time.monotonic() + LIMIT_S, []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as sock:
        sock.settimeout(LIMIT_S)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GETRULE, _REQUEST | _DUMP, 1, 0) + body)
        while time.monotonic() < until:
            data = sock.recv(1 << 16)
            parts.append(data)
            if _is_last(data):
                return counted(parts)
    raise TimeoutError("the kernel tells rules without end")


def counted(answers: list[bytes]) -> dict[str, int]:
    """The same of what the kernel answers. Pure."""
    found: Counter[str] = Counter()
    for kind, rule in (each for data in answers for each in _messages(data)):
        if kind != _NEWRULE:
            continue
        its = dict(_attributes(rule, _FAMILY.size))
        for expression in (dict(_attributes(each)) for _, each in _attributes(its.get(_EXPRESSIONS, b""))):
            if expression.get(_NAME) == b"counter\0":
                (packets,) = unpack_from("!Q", dict(_attributes(expression.get(_DATA, b""))).get(_PACKETS, bytes(8)))
                is_subnets = its.get(_CHAIN) == b"passing\0"
                found["" if is_subnets else _comment(its.get(_USERDATA, b""))] += packets
    return dict(found)


def _comment(data: bytes) -> str:
    at = 0
    while at + 2 <= len(data):
        kind, size = data[at], data[at + 1]
        if kind == _COMMENT:
            return data[at + 2 : at + 2 + size].rstrip(b"\0").decode(errors="replace")
        at += 2 + size
    return ""


def _is_last(data: bytes) -> bool:
    """Whether nothing comes after it. Raises OSError for what the kernel refuses."""
    for kind, part in _messages(data):
        if kind == _ERROR:
            raise OSError(-unpack_from("=i", part)[0], "the rules of nft can't be read")
        if kind == _DONE:
            return True
    return False


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + size]
        at += max(_HEADER.size, (size + 3) & ~3)


def _attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each; lists have several of one kind."""
    while at + 4 <= len(data):
        size, kind = unpack_from("=HH", data, at)
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += max(4, (size + 3) & ~3)
