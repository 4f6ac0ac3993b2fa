"""An end as our agents are: python -m tests.bench.our_end offer|answer PLANES [INTERFACE ADDRESS,... MTU]

With an interface it is a tunnel on the best of these planes, as in the command line's tun mode; else a channel.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import uvloop
from msgspec import to_builtins
from msgspec.structs import replace

from procs.agent import files
from procs.agent.caps import Caps
from procs.agent.file_io import Inbox, Outbox
from procs.agent.identity import Identity
from procs.agent.network import Tunnel
from procs.agent.planes import LANE
from procs.agent.session import PeerSession
from procs.agent.settings import AgentSettings
from procs.agent.tunnel import PeerTunnel
from procs.wire.signal import Answer, Frame, Offer, Trickle, decode, encode
from tests.bench import ends
from tests.bench.attribution import Attribution
from tests.bench.ends import OFFER, Lines, Measure

LIMIT_S = 30.0
LOOK_S = 0.02


async def main(lines: Lines, words: list[str]) -> None:
    """A session, and what it is for."""
    role, planes, *interface = words
    offers = role == OFFER
    me, peer = ("alice", "bob") if offers else ("bob", "alice")
    tunnel = _tunnel(*interface) if interface else None
    can = replace(tunnel.caps if tunnel else Caps(), planes=[int(each) for each in planes.split(",")])
    way = tunnel.port if tunnel and LANE in can.planes else None

    def send(frame: Frame) -> bool:
        lines.say(json.loads(encode(frame)))
        return True

    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as folder:
        session = PeerSession(me, peer, AgentSettings(agent_id=me), Identity(me, Path(folder)), send, can=can, way=way)
        if tunnel:
            tunnel.start()
            tunnel.join(session)
        if offers:
            session.offer()
        hearing = asyncio.create_task(_hear(lines, session))
        channel = await session.opened(LIMIT_S)
        async with asyncio.timeout(LIMIT_S):
            # What it looks at tells nobody.
            while tunnel and not _is_up(tunnel, session, can):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
        more = {"file": _sending_files(session, Path(folder)), "rows": _rows(tunnel), "profile": _profile}
        await ends.measure(lines, channel, offers=offers, **more)
        hearing.cancel()


def _is_up(tunnel: PeerTunnel, session: PeerSession, can: Caps) -> bool:
    """On the best plane that both know."""
    (peer,) = tunnel.peers()
    return peer.is_up and peer.plane == max({*can.planes} & {*session.caps.planes}, default=0)


def _rows(tunnel: PeerTunnel | None) -> Measure:
    """What gives what the tunnel says of its peers."""

    async def rows(_: float) -> Any:
        return to_builtins(tunnel.peers() if tunnel else [])

    return rows


async def _profile(seconds: float) -> Any:
    """Where our CPU goes for so long."""
    sampled = Attribution()
    await asyncio.sleep(seconds)
    return sampled.end()


def _sending_files(session: PeerSession, folder: Path) -> Measure:
    """What sends a file of so many bytes, as the command line does, and gives the Mbit/s of it; the other side takes
    it, on the channel of these."""
    inboxes: list[Inbox] = []
    session.on_channel = lambda channel: inboxes.append(Inbox(channel, session.peer, folder, _forget))

    async def send(size: float) -> float:
        path = folder / "file"
        path.write_bytes(os.urandom(int(size)))
        outbox = Outbox(session.channel(files.LABEL))
        return size * 8e-6 / (await outbox.send(path)).took_s

    return send


def _forget(path: Path, offered: object, sha256: str) -> None:
    path.unlink()


def _tunnel(name: str, address: str, mtu: str) -> PeerTunnel:
    return PeerTunnel(Tunnel(interface=name, address=tuple(map(ip_interface, address.split(","))), mtu=int(mtu)))


async def _hear(lines: Lines, session: PeerSession) -> None:
    while True:
        frame = decode(json.dumps(await lines.frames.get()))
        if isinstance(frame, (Offer, Answer, Trickle)):
            session.take(frame)


if __name__ == "__main__":
    ends.run(main, uvloop.new_event_loop)
