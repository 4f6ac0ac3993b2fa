#!/usr/bin/env python3
"""An IP tunnel between two agents, as root (or with CAP_NET_ADMIN), and nothing else running.

AGENT_ID=server SIGNALING_URL=ws://127.0.0.1:8000/ws/signal scripts/lan_demo.py answer           # mvp-tun1
AGENT_ID=client SIGNALING_URL=ws://127.0.0.1:8000/ws/signal scripts/lan_demo.py offer server     # mvp-tun0

--address 10.77.0.1/24 gives the interface an address and brings it up; without it, that is yours to do. The interface
is gone with the program. For one that stays, and for many peers: role `tun`, in the README.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.become()

import argparse
from ipaddress import ip_interface

from procs.agent import netlink
from procs.agent.network import MTU
from procs.agent.session import PeerSession
from procs.errors import ConfigError, PlanariaError
from scripts.agent_api.config import load_settings
from scripts.agent_api.core import AgentCore
from scripts.agent_api.signaling import SignalingClient
from scripts.agent_api.tun import TunDevice, create_tun

CONNECT_S = 30.0


def join(device: TunDevice, session: PeerSession) -> None:
    """Packets of the one are packets of the other."""

    def take(packets: list[bytes]) -> None:
        session.datagrams.send(packets)  # what there is no room for is lost, as on any network

    session.datagrams.on_packets = lambda packets: device.write([packet] for packet in packets)
    device.start(take)


def open_interface(name: str, address: str) -> TunDevice:
    """The interface, with that address if there is any. Raises ConfigError, NotHere."""
    device = TunDevice(*create_tun(name))
    link = netlink.link(name)
    if address and link:
        try:
            netlink.set_link(link.number, mtu=MTU, queue=500, alias="")
            netlink.set_addresses(link.number, (ip_interface(address),))
        except ValueError as error:
            raise ConfigError(f"--address {error}") from None
    else:
        print(f"ip link set {name} mtu {MTU} up; ip addr add 10.77.0.1/24 dev {name}", flush=True)
    return device


async def run(peer: str, address: str, interface: str) -> None:
    """Call that peer, or wait for one that calls."""
    settings = load_settings(flags={"mode": "tun"})
    device = open_interface(interface or ("mvp-tun0" if peer else "mvp-tun1"), address)
    core = AgentCore(settings, SignalingClient(settings))
    core.on_session = lambda session: join(device, session)
    await core.start()
    print(f"{device.name}: {f'calling {peer}' if peer else 'listening'} as {settings.agent_id}", flush=True)
    try:
        if peer:
            session = await core.connect_to(peer)
            await session.opened(CONNECT_S)
            join(device, session)
            print(f"connected to {peer}", flush=True)
        await asyncio.Event().wait()
    finally:
        await core.stop()


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["offer", "answer"])
    parser.add_argument("peer", nargs="?", default="", help="whom to call")
    parser.add_argument("--address", default="", help="of the interface, such as 10.77.0.1/24")
    parser.add_argument("--interface", default="", help="its name, where another has that one")
    given = parser.parse_args()
    if (given.what == "offer") != bool(given.peer):
        parser.error("offer PEER, or answer")
    try:
        asyncio.run(run(given.peer, given.address, given.interface))
    except PlanariaError as error:
        print(f"lan_demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
