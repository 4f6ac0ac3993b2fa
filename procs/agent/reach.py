"""What a peer may begin with this machine, and with what lies behind it: how that is written. Pure.

192.168.7.0/24                everything there
10.77.0.1:tcp/22,443          these ports of it; also ranges: tcp/8000-8100
192.168.7.0/24:udp/53
192.168.7.9:icmp              echo requests: it can be pinged
tcp/22   udp   icmp           the same of this machine's own addresses in the tunnel
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import NamedTuple

from procs.agent.netlink import Network

ALLOWED = "[PREFIX:]tcp/PORTS, [PREFIX:]udp/PORTS, [PREFIX:]icmp or PREFIX, such as 192.168.7.0/24:tcp/22,8000-8100"
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_WHAT = re.compile(r"(?:(.+):)?(tcp|udp|icmp)(?:/(.*))?")


class Reach(NamedTuple):
    """One entry."""

    to: Network | None  # None: this machine's own addresses
    protocol: str = ""  # tcp, udp, icmp; "": all
    ports: tuple[tuple[int, int], ...] = ()  # from, to; none: all


def parse(text: str) -> tuple[Reach, ...]:
    """Entries with commas or spaces between, where a port alone belongs to the entry before it. Raises ValueError whose
    text is the word that is wrong."""
    found: list[Reach] = []
    for word in text.lower().replace(",", " ").split():
        try:
            if _PORTS.fullmatch(word):
                last = found.pop()
                if not last.ports:
                    raise ValueError
                found.append(last._replace(ports=(*last.ports, _ports(word))))
            else:
                found.append(_entry(word))
        except (ValueError, IndexError):
            raise ValueError(word) from None
    return tuple(found)


def _entry(word: str) -> Reach:
    match = _WHAT.fullmatch(word)
    if not match:
        return Reach(ip_network(word))
    to, protocol, ports = match.groups()
    if ports is not None and protocol == "icmp":
        raise ValueError
    return Reach(ip_network(to) if to else None, protocol, () if ports is None else (_ports(ports),))


def _ports(text: str) -> tuple[int, int]:
    match = _PORTS.fullmatch(text)
    if not match:
        raise ValueError
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high <= 65535:
        raise ValueError
    return low, high
