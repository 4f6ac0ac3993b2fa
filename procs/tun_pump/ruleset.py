"""The rules of nft(8) that a tunnel wants: what peers may begin, where they may go, under whose address. Pure.

What is sent to us on a connection that we began passes, and so do errors about any. All else that a peer sends is
looked up anew each time, so that rules that have become narrower end what they would not let begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import collapse_addresses, ip_network

from procs.agent import nft
from procs.agent.netlink import Network
from procs.agent.network import Tunnel
from procs.agent.reach import Reach

_FAMILY = {4: "ip", 6: "ip6"}
_ECHO = {4: "icmp type echo-request", 6: "icmpv6 type echo-request"}


def away(interface: str) -> str:
    """Have it no more, whether it is there or not."""
    table = nft.table(interface)
    return f"add table inet {table}\ndelete table inet {table}\n"


def rules(tunnel: Tunnel) -> str:
    """All of them; "" where none are wanted."""
    chains = [*_filter(tunnel), *_masquerade(tunnel)]
    return f"table inet {nft.table(tunnel.interface)} {{\n{''.join(chains)}}}\n" if chains else ""


def forwarded(tunnel: Tunnel) -> set[int]:
    """The versions of IP that this machine has to forward."""
    found: set[int] = {network.version for network in tunnel.subnets}
    return found or ({address.version for address in tunnel.address} if tunnel.masquerade else set())


def _filter(tunnel: Tunnel) -> Iterator[str]:
    if not tunnel.reach and not tunnel.subnets:
        return
    for number, (peer, entries) in enumerate(tunnel.reach.items()):
        yield _chain(f"peer{number}", [*_accepts(tunnel, entries), f'counter drop comment "{peer}"'])
    yield _chain("begun", _by_source(tunnel))
    ours = f'iifname "{tunnel.interface}"'
    answers = [f"{ours} ct direction reply accept", f"{ours} ct state related accept"]
    if tunnel.reach:
        yield _chain("arriving", ["type filter hook input priority filter", *answers, f"{ours} jump begun"])
    passing = [f"{ours} jump begun"]
    if tunnel.subnets:
        to = [
            f"{family} daddr {{ {', '.join(map(str, its))} }} goto begun"
            for version, family in _FAMILY.items()
            if (its := _merged_networks(tunnel.subnets, version))
        ]
        passing = [*(f"{ours} {each}" for each in to), f'{ours} counter drop comment "subnets"']
    yield _chain("passing", ["type filter hook forward priority filter", *answers, *passing])


def _by_source(tunnel: Tunnel) -> Iterator[str]:
    """To the chain of each peer; who has none may begin everything."""
    for version, family in _FAMILY.items():
        found = [
            f"{network} : goto peer{number}"
            for number, peer in enumerate(tunnel.reach)
            for network in _merged_networks(tunnel.allowed[peer], version)
        ]
        if found:
            yield f"{family} saddr vmap {{ {', '.join(found)} }}"


def _masquerade(tunnel: Tunnel) -> Iterator[str]:
    if tunnel.masquerade:
        what = f'iifname "{tunnel.interface}" oifname != "{tunnel.interface}" masquerade'
        yield _chain("leaving", ["type nat hook postrouting priority srcnat", what])


def _accepts(tunnel: Tunnel, entries: Iterable[Reach]) -> Iterator[str]:
    own = [ip_network(address.ip) for address in tunnel.address]
    for entry in entries:
        for network in own if entry.to is None else [entry.to]:
            what = _what(entry, network.version)
            yield f"{_FAMILY[network.version]} daddr {network}{what} accept"


def _what(entry: Reach, version: int) -> str:
    if entry.protocol == "icmp":
        return f" {_ECHO[version]}"
    if entry.ports:
        ports = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in _merged_ports(entry.ports))
        return f" {entry.protocol} dport {{ {ports} }}"
    return f" meta l4proto {entry.protocol}" if entry.protocol else ""


def _merged_networks(networks: Iterable[Network], version: int) -> list[Network]:
    """Those of a version of IP, none within another, which nft refuses."""
    return list(collapse_addresses(each for each in networks if each.version == version))  # type: ignore[type-var]


def _merged_ports(ports: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same of ports."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ports):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return found


def _chain(name: str, lines: Iterable[str]) -> str:
    return "".join([f"  chain {name} {{\n", *(f"    {line}\n" for line in lines), "  }\n"])
