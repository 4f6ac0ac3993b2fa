"""The part of the settings that is about the way through the wall: the hub, the device's link to it, what it shows,
its proxies, and the tunnel to peers.

hub: {listen: 127.0.0.1:8000}                        as `python -m procs.hub --help` lists
device: {backend: wss://hub.example.org/ws/device}   as `python -m procs.ws_link --help` lists
watch: {stream: door}                                as `python -m procs.webrtc_peer --help` lists
upstreams:                                           what beside go2rtc can be reached (procs/proxy/options.py)
  files: {url: http://127.0.0.1:8080, prefix: /files, rules: ["GET,HEAD /**"]}
tunnel: {address: 10.77.0.1/24, peers: {bob: {allowed: 10.77.0.2/32}}}    as procs/agent/network.py has it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from procs import settings
from procs.agent import network
from procs.agent.network import Tunnel
from procs.agent.settings import AgentSettings
from procs.agent.settings import load_settings as load_agent
from procs.carrier import trust
from procs.errors import ConfigError
from procs.hub import options as hub_options
from procs.hub.options import Hub
from procs.kinds import Address
from procs.proxy import options as proxy
from procs.settings import Layers
from procs.webrtc_peer import options as watch
from procs.webrtc_peer.options import Peer
from procs.wire import challenge
from procs.ws_link import identity
from procs.ws_link.options import Link
from scripts import settings_file

SECTIONS = ("hub", "device", "watch", "upstreams", "tunnel")
ADOPT = "hub-adopt.json"  # what the hub of this machine takes for a device of its admin's


class Wall(NamedTuple):
    """The settings of all, and the variables by which their processes get them."""

    hub: Hub
    link: Link
    watch: dict[str, str]  # what webrtc_peer has to know of go2rtc
    first: tuple[str, str]  # the stream that is shown to who asks for none, and where that was set; "" where it was not
    upstreams: dict[str, Any]
    tunnel: dict[str, str]  # as run/tunnel.json is to have it
    tunnel_at: Address  # of UDP, where peers reach it; port 0: one that is free
    agent: AgentSettings  # of this machine, as far as they are set; none are read without the role tun
    variables: dict[str, str]

    @property
    def is_own_hub(self) -> bool:
        """Whether the device's hub is the one of this suite, where that has the role of one. By TLS it is called by the
        name in its certificate, so that only the port tells."""
        if self.hub.cert:
            parts = urlsplit(self.link.backend)
            return parts.scheme == "wss" and (parts.port or 443) == self.hub.listen.port
        return self.link.backend == backend_of(self.hub.listen)

    @property
    def hub_url(self) -> str:
        """Where people find the hub of this machine: with TLS by a name for which its certificate is good."""
        host = "127.0.0.1" if self.hub.listen.host == "0.0.0.0" else self.hub.listen.host
        named = names_in(self.hub.cert) if self.hub.cert else []
        if named and (self.hub.listen.host in ("0.0.0.0", "::") or host not in named):
            host = named[0]
        return f"{'https' if self.hub.cert else 'http'}://{Address(host, self.hub.listen.port)}"

    def files(self, run_dir: Path, roles: frozenset[str]) -> dict[str, str]:
        """Name -> text of what the processes find in run/. Makes the device's identity if there is none yet."""
        found = {network.NAME: json.dumps(self.tunnel if "tun" in roles else {})}
        if "device" not in roles:
            return found
        found |= {
            proxy.NAME: json.dumps({"upstreams": self.upstreams}),
            watch.NAME: json.dumps(self.watch),
        }
        if "hub" in roles and self.is_own_hub:
            own = identity.load(run_dir, self.link.device_id, self.link.device_secret)
            verifier = challenge.verifier(own.secret, own.device_id).to_text()
            found[ADOPT] = json.dumps({"device_id": own.device_id, "verifier": verifier, "name": own.device_id})
        return found


def names_in(cert: Path) -> list[str]:
    """Host names and addresses that a certificate is for, as they stand in it; none where it can't be read."""
    from cryptography import x509  # here: few have TLS

    try:
        found = x509.load_pem_x509_certificate(cert.read_bytes())
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return []
    names = [str(each.value) for each in extension.value if isinstance(each, x509.DNSName | x509.IPAddress)]
    return [name for name in names if not name.startswith("*.")]


def backend_of(hub: Address) -> str:
    """Where a device of this machine reaches a hub that listens there."""
    host = "127.0.0.1" if hub.host == "0.0.0.0" else hub.host
    return f"ws://{Address(host, hub.port)}/ws/device"


def load(
    document: Mapping[str, Any],
    name: str,
    environment: Mapping[str, str],
    env_file: Mapping[str, str],
    roles: frozenset[str],
    go2rtc: Address,
    rtsp: Address,
    login: Mapping[str, str],
) -> Wall:
    """Read the sections of the settings file `name`. Raises ConfigError.

    Without a backend the device's hub is the one of this machine, if there is one.
    """
    sections = {key: settings_file.mapping(document.get(key), f"{name}: {key}") for key in SECTIONS}
    hub = settings.load(Hub, Layers({}, environment, env_file, sections["hub"], f"{name}: hub"))
    if "hub" in roles:
        hub_options.check(hub)
    own = {"backend": backend_of(hub.listen)} if "hub" in roles else {}
    device = {"go2rtc_http": f"http://{go2rtc}", **own, **sections["device"]}
    link = settings.load(Link, Layers({}, environment, env_file, device, f"{name}: device"))
    watched = Layers({}, environment, env_file, sections["watch"], f"{name}: watch")
    first = settings.load(Peer, watched).stream, settings.places_set(Peer, watched).get("stream", "")
    if "device" in roles and link.ca:
        trust(link.ca)
    if hub.cert and {"hub", "device"} <= roles and link.backend == backend_of(hub.listen):
        raise ConfigError(
            f"BACKEND_URL={link.backend} (device: backend of {name}): this machine's hub takes TLS only; set it to"
            f" wss://NAME:{hub.listen.port}/ws/device, NAME as in {hub.cert} (one of your own making: also"
            f" PLANARIA_HUB_CA={hub.cert}), or leave one of the roles hub and device out"
        )
    proxy.upstreams(sections["upstreams"], f"{name}: upstreams")
    tunnel = network.document_of(sections["tunnel"], f"{name}: tunnel")
    where = f"{name}: tunnel"
    told = network.check(settings.load(Tunnel, Layers({}, environment, env_file, tunnel, where)), where)
    agent = AgentSettings()
    if "tun" in roles:
        agent = load_agent({**env_file, **environment}, is_partial=not told.allowed)
    variables: dict[str, str] = {}
    for cls, section in ((Hub, sections["hub"]), (Link, device), (Peer, sections["watch"])):
        variables |= settings.variables(cls, section, environment, env_file)
    watch_of = {"rtsp": str(rtsp), **login} if "streams" in roles else dict(login)
    tunnel_at = Address("0.0.0.0", told.port if told.address else 0)
    return Wall(hub, link, watch_of, first, sections["upstreams"], tunnel, tunnel_at, agent, variables)


def refuse_unknown_stream(through: Wall, go2rtc: Address, streams: Sequence[str]) -> None:
    """Raise ConfigError where who asks for no stream would be shown one that our go2rtc does not have. What another has
    is not known."""
    name, where = through.first
    if name and name not in streams and through.link.go2rtc_http == f"http://{go2rtc}":
        raise ConfigError(f"stream={name!r} ({where}): is no stream; there are {', '.join(streams) or 'none'}")
