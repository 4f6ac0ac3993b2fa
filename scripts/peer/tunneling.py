"""An interface whose packets go to peers: connect and listen with --mode tun. One interface serves all peers."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from procs import prctl, settings
from procs.agent.core import AgentCore
from procs.agent.lane.port import Port
from procs.agent.network import Tunnel, check
from procs.agent.session import PeerSession
from procs.agent.tunnel import PeerTunnel
from procs.errors import ConfigError, Refused
from procs.settings import Layers
from scripts.peer.joining import about, chosen, connected, joined, or_replaced, say
from scripts.peer.parser import TUNNEL_FLAGS


def claimed(arguments: argparse.Namespace) -> PeerTunnel:
    """The interface that the command line wants; whatever needs root is done then. Raises ConfigError, NotHere."""
    given = {name: getattr(arguments, name) for name in TUNNEL_FLAGS if getattr(arguments, name) is not None}
    flags = {name: " ".join(value) if isinstance(value, list) else value for name, value in given.items()}
    tunnel = check(settings.load(Tunnel, Layers(flags)))
    if not tunnel.address:
        raise ConfigError("--address (command line): must be there with --mode tun, such as 10.77.0.1/24")
    transport = PeerTunnel(tunnel, port=Port(0, chosen(arguments, "tun").udp_range))
    with contextlib.suppress(OSError):  # where even that is forbidden there is nothing to be dropped
        prctl.drop_privileges()
    return transport


async def run(arguments: argparse.Namespace, transport: PeerTunnel) -> None:
    """Until killed, or nothing can be read of the interface any more. One that ends by Ctrl-C takes it away; one that
    is killed leaves it for the next."""
    can = msgspec.structs.replace(transport.caps, does="tun")
    try:
        async with joined(arguments, can, "tun", transport.port) as core:
            core.on_session = lambda session: _join(arguments, transport, session)
            transport.start()
            tunnel = transport.tunnel
            addresses = ", ".join(map(str, tunnel.address))
            text = f"{core.settings.agent_id}: {tunnel.interface} has {addresses}"
            say(arguments, "listening", text, interface=tunnel.interface, addresses=list(map(str, tunnel.address)))
            try:
                await or_replaced(core, _carry(core, arguments, transport))
            finally:
                for session in core.get_all_sessions().values():
                    session.on_state = lambda _: None  # what happens now is our own doing
    finally:
        transport.close()


async def _carry(core: AgentCore, arguments: argparse.Namespace, transport: PeerTunnel) -> None:
    if peer := getattr(arguments, "peer", None):
        session = await core.connect_to(peer)
        transport.join(session)
        await connected(core, arguments)
        session.on_state = _teller(arguments)
    await transport.wait()


def _join(arguments: argparse.Namespace, transport: PeerTunnel, session: PeerSession) -> None:
    session.on_state = _teller(arguments)
    try:
        transport.join(session)
    except Refused as reason:
        say(arguments, "refused", str(reason), peer=session.peer)
        _CLOSING.add(closing := asyncio.ensure_future(session.close(str(reason))))
        closing.add_done_callback(_CLOSING.discard)


_CLOSING: set[asyncio.Future[None]] = set()  # asyncio itself does not hold on to them


def _teller(arguments: argparse.Namespace) -> Callable[[PeerSession], None]:
    def tell(session: PeerSession) -> None:
        if session.state == "connected":
            text, fields = about(session)
            say(arguments, "connected", text, **fields)
        elif session.state in ("waiting", "closed"):
            say(arguments, "lost", f"{session.peer}: {session.why}", peer=session.peer, why=session.why)

    return tell
