"""What a tunnel is told: its interface, its addresses, and which peers may use which.

In planaria.yaml, as in run/tunnel.json, which `make up` makes of it:

tunnel:
  interface: mvp-tun0
  address: [10.77.0.1/24, "fd77::1/64"]
  mtu: 1380
  subnets: [192.168.7.0/24]
  hosts: /etc/hosts
  peers: {bob: {allowed: [10.77.0.2/32, "fd77::2/128"], key: "...", reach: [tcp/22, "192.168.7.0/24:udp/53"]}}
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from procs import settings
from procs.agent import reach
from procs.agent.netlink import Interface, Network
from procs.agent.packets import MIN_MTU4, MIN_MTU6, overlap
from procs.agent.reach import Reach
from procs.errors import ConfigError
from procs.kinds import ALL_PORTS, PATH, PORTS, SWITCH, TEXT, Kind, matching, whole
from procs.settings import option

NAME = "tunnel.json"
MAX_PEERS = 64
MTU = 1380  # what goes through as one DTLS record, whatever the path
_KEYS = ("interface", "address", "mtu", "port", "subnets", "masquerade", "hosts", "peers")
_PEER_KEYS = ("allowed", "key", "reach")
_PEER = r"[A-Za-z0-9_.:@-]{1,64}"


def _parse_addresses(text: str) -> tuple[Interface, ...]:
    found = tuple(ip_interface(word) for word in _words(text))
    if any(each.ip.is_multicast or each.ip.is_unspecified or "%" in str(each) for each in found):
        raise ValueError
    return found


def _parse_allowed(text: str) -> Mapping[str, tuple[Network, ...]]:
    found: dict[str, tuple[Network, ...]] = {}
    for word in text.split():
        peer, _, prefixes = word.partition("=")
        if not re.fullmatch(_PEER, peer) or peer in found or not _words(prefixes):
            raise ValueError
        found[peer] = tuple(ip_network(prefix) for prefix in _words(prefixes))
    if len(found) > MAX_PEERS:
        raise ValueError
    return found


def _parse_keys(text: str) -> Mapping[str, str]:
    pairs = dict(word.partition("=")[::2] for word in text.split())
    if not all(re.fullmatch(_PEER, peer) and re.fullmatch(r"[A-Za-z0-9+/]{43}=", key) for peer, key in pairs.items()):
        raise ValueError
    return pairs


def _parse_subnets(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(word) for word in _words(text))


def _parse_reach(text: str) -> Mapping[str, tuple[Reach, ...]]:
    pairs = [word.partition("=")[::2] for word in text.split()]
    if len(dict(pairs)) < len(pairs) or not all(re.fullmatch(_PEER, peer) for peer, _ in pairs):
        raise ValueError
    return {peer: reach.parse(entries) for peer, entries in pairs}


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _parse_port(text: str) -> int:
    found = int(text)
    if found and not 1024 <= found <= 65535:
        raise ValueError
    return found


INTERFACE = matching(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,15}", "1 to 15 of A-Z a-z 0-9 _ . -, which is all the kernel takes")
ADDRESSES = Kind(_parse_addresses, "addresses with their prefix lengths, such as 10.77.0.1/24,fd77::1/64")
ALLOWED = Kind(
    _parse_allowed, "PEER=PREFIX,... of each peer, without host bits, such as bob=10.77.0.2/32,192.168.7.0/24 eve=..."
)
PORT = Kind(_parse_port, "a port from 1024 to 65535, or 0")
SUBNETS = Kind(_parse_subnets, "prefixes without host bits, such as 192.168.7.0/24,fd99::/64")
REACH = Kind(_parse_reach, f"PEER=ENTRY,... of each; an ENTRY is {reach.ALLOWED}; nothing after = is nothing")
KEYS = Kind(_parse_keys, "PEER=KEY of each, a key as `cli.py status` shows it")


class Tunnel(settings.Settings):
    """One interface for many peers. Without an address there is no tunnel."""

    interface: str = option("mvp-tun0", INTERFACE, help="its name")
    address: tuple[Interface, ...] = option((), ADDRESSES, help="this machine's addresses in the tunnel")
    mtu: int = option(MTU, whole(MIN_MTU4, 9000), help="the largest packet")
    port: int = option(
        0, PORT, env=("PLANARIA_TUN_PORT",), help="UDP port by which all peers reach us; 0: one of udp-range, kept"
    )
    udp_range: tuple[int, int] = option(
        ALL_PORTS, PORTS, env=("PLANARIA_UDP_RANGE",), help="UDP ports that sessions use, as LOW-HIGH"
    )
    allowed: Mapping[str, tuple[Network, ...]] = option({}, ALLOWED, help="which addresses are behind which peer")
    keys: Mapping[str, str] = option({}, KEYS, help="the key of a peer, where it is not to be pinned at its first use")
    reach: Mapping[str, tuple[Reach, ...]] = option(
        {}, REACH, help="what a peer may begin with us and behind us, where that is not everything (needs nft)"
    )
    subnets: tuple[Network, ...] = option(
        (), SUBNETS, help="what peers may reach beyond this machine, which forwards from then on (needs nft)"
    )
    masquerade: bool = option(
        False, SWITCH, help="let peers reach what this machine reaches, by its own address (needs nft)"
    )
    hosts: Path | None = option(None, PATH, help="a hosts file that is to have NAME.planaria of us and our peers")
    name: str = option("", TEXT, env=("AGENT_ID",), help="ours, for that file")

    @property
    def routes(self) -> set[Network]:
        """What leads to peers beside the networks of its own addresses. A default route is left to who wants it: one
        by itself would lead the tunnel's own packets into the tunnel."""
        own = [address.network for address in self.address]
        every = {network for networks in self.allowed.values() for network in networks if network.prefixlen}
        return {network for network in every if not any(_is_within(network, one) for one in own)}


def check(tunnel: Tunnel, where: str = "") -> Tunnel:
    """Raises ConfigError for what can't be together, with the file that says so, where it is one."""
    if why := _why_not(tunnel):
        raise ConfigError(f"{where}: {why}" if where else why)
    return tunnel


def _why_not(tunnel: Tunnel) -> str:
    if twice := overlap(tunnel.allowed):
        return f"allowed: {twice} overlap: an address is behind one peer only"
    addresses = [address.ip for address in tunnel.address]
    if tunnel.allowed and not addresses:
        return "address: must be set where there are peers, such as 10.77.0.1/24"
    if len({*addresses}) < len(addresses):
        return f"address={_shown(tunnel.address)}: stands twice"
    for peer, networks in tunnel.allowed.items():
        if own := [ip for ip in addresses for network in networks if str(network) in (f"{ip}/32", f"{ip}/128")]:
            return f"allowed: {own[0]} of {peer} is this machine's own address"
    behind = [(network, f"allowed: {network} of {peer}") for peer, many in tunnel.allowed.items() for network in many]
    for network, which in [*behind, *((network, f"subnets: {network}") for network in tunnel.subnets)]:
        if network.version not in {ip.version for ip in addresses}:
            return f"{which}: this machine has no IPv{network.version} address in the tunnel; add one to address"
    if tunnel.mtu < MIN_MTU6 and any(ip.version == 6 for ip in addresses):
        return f"mtu={tunnel.mtu}: must be at least {MIN_MTU6} where there are IPv6 addresses"
    for name, named in (("keys", tunnel.keys), ("reach", tunnel.reach)):
        if unknown := named.keys() - tunnel.allowed.keys():
            return f"{name}: {sorted(unknown)[0]}: is no peer in allowed"
    return ""


def document_of(section: Mapping[str, Any], where: str) -> dict[str, str]:
    """The section of planaria.yaml, whose peers are nested, as the options above have it. Raises ConfigError."""
    for key in ("allowed", "keys", "reach"):
        if key in section:
            raise ConfigError(f"{key!r}: unknown key in {where}: it belongs to each of its peers")
    settings.refuse_unknown_keys(section, _KEYS, where)
    document = {key: _text(value, f"{where}: {key}") for key, value in section.items() if key != "peers"}
    _refuse_wrong_prefixes(document.get("subnets", ""), f"{where}: subnets")
    peers = section.get("peers") or {}
    if not isinstance(peers, dict):
        raise ConfigError(f"{where}: peers: must be 'NAME: {{allowed: [...]}}' lines")
    if len(peers) > MAX_PEERS:
        raise ConfigError(f"{where}: peers: there are {len(peers)}, of at most {MAX_PEERS}")
    allowed, keys, reaches = [], [], []
    for peer, its in peers.items():
        if not re.fullmatch(_PEER, str(peer)):
            raise ConfigError(f"{where}: peers: {peer!r}: a peer's name must be 1 to 64 of A-Z a-z 0-9 _ . : @ -")
        its, at = its if isinstance(its, dict) else {}, f"{where}: peers: {peer}"
        settings.refuse_unknown_keys(its, _PEER_KEYS, at)
        allowed.append(f"{peer}={_allowed(its.get('allowed', ''), f'{at}: allowed')}")
        keys += [f"{peer}={_key(its['key'], f'{at}: key')}"] if its.get("key") else []
        if "reach" in its:
            reaches.append(f"{peer}={_reach(its['reach'], f'{at}: reach')}")
    found = ("allowed", allowed), ("keys", keys), ("reach", reaches)
    return document | {name: " ".join(many) for name, many in found if many}


# Which word of which peer is wrong is told here, since the options are of all peers.


def _allowed(value: Any, where: str) -> str:
    text = _text(value, where)
    if not _words(text):
        raise ConfigError(
            f"{where}: must be what is behind that peer, such as 10.77.0.2/32 or [10.77.0.2/32, fd77::2/128]"
        )
    _refuse_wrong_prefixes(text, where)
    return ",".join(_words(text))


def _refuse_wrong_prefixes(text: str, where: str) -> None:
    for word in _words(text):
        try:
            ip_network(word)
        except ValueError:
            raise ConfigError(f"{where}: {word!r}: must be {_meant(word)}") from None


def _meant(word: str) -> str:
    """What a prefix that is none has to be instead."""
    address, _, _ = word.partition("/")
    with contextlib.suppress(ValueError):
        return f"without host bits: {ip_network(word, strict=False)}, or {ip_network(address)} for this address alone"
    with contextlib.suppress(ValueError):
        return f"{address}/LENGTH, a length from 0 to {ip_network(address).max_prefixlen}"
    return "an address or a prefix, such as 10.77.0.2, 10.77.0.0/24 or fd77::/64"


def _key(value: Any, where: str) -> str:
    text = _text(value, where)
    try:
        _parse_keys(f"peer={text}")
    except ValueError:
        raise ConfigError(
            f"{where}: {text!r}: must be a key as `cli.py status` shows it there, 44 characters"
        ) from None
    return text


def _reach(value: Any, where: str) -> str:
    text = _text(value, where)
    if not text and not isinstance(value, list):  # written, and left open: it could mean everything and nothing
        raise ConfigError(f"{where}: is empty; [] is nothing, and without this key everything is allowed")
    try:
        reach.parse(text)
    except ValueError as word:
        raise ConfigError(f"{where}: {str(word)!r}: must be {reach.ALLOWED}") from None
    return ",".join(_words(text))


def _text(value: Any, where: str) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    if not isinstance(value, str):
        raise ConfigError(f"{where}: must be text or a list of texts")
    return value


def _shown(addresses: tuple[Interface, ...]) -> str:
    return ",".join(map(str, addresses))


def _is_within(network: Network, own: Network) -> bool:
    return network.version == own.version and network.subnet_of(own)  # type: ignore[arg-type]
