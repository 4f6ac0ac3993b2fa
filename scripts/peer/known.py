"""Whom this machine's agents know, and how this machine's agent stands at its server: peers, and a part of status."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import sys
import time
from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from procs.errors import ConfigError, LinkLost, PlanariaError
from procs.settings import run_dir

if TYPE_CHECKING:
    from procs.agent.keyring import Peers

SERVER_S = 5.0


def peers(arguments: argparse.Namespace) -> None:
    """Show them; approve, forget or revoke one."""
    from procs.agent.identity import public_key
    from procs.agent.keyring import Peers, folder_in, own_key

    if arguments.approve:
        _refuse_wrong(arguments.approve)
    folder = folder_in(run_dir())
    known = Peers(folder)
    if arguments.forget:
        _forget(known, arguments.forget)
    if arguments.revoke and not known.revoke(arguments.revoke):
        raise ConfigError(f"--revoke {arguments.revoke} (command line): is no peer that is known, and no key")
    if arguments.approve:
        known.pin(*arguments.approve, approved=True)
    own, all_, revoked = public_key(own_key(folder)), known.all(), known.book().revoked
    if arguments.json:
        told = {"key": own, "peers": {each: pin.key for each, pin in all_.items()}, "revoked": sorted(revoked)}
        print(json.dumps(told, ensure_ascii=False))
        return
    print(f"our own key: {own}")
    width = max(map(len, all_), default=0)
    for each, pin in sorted(all_.items()):
        how = "REVOKED" if pin.key in revoked else "approved" if pin.approved else "at first use"
        print(f"{each:{width}}  {pin.key}  {how:12}  {_in_words(pin.since)}")
    for key, its in sorted(revoked.items()):
        print(f"revoked: {key}  {_in_words(its.since)}{f', of {its.peer}' if its.peer else ''}")


def _in_words(since: str) -> str:
    return f"{since[:19].replace('T', ' ')} UTC" if since else ""


def _forget(known: Peers, peer: str) -> None:
    pin = known.all().get(peer)
    if not known.forget(peer) or not pin:
        raise ConfigError(f"--forget {peer} (command line): is no peer that is known")
    if pin.key in known.book().revoked:
        again = f"cli.py peers --approve {quote(peer)} {pin.key}"
        print(f"{peer} is forgotten; its key stays revoked until it is approved: {again}", file=sys.stderr)


def _refuse_wrong(approved: Sequence[str]) -> None:
    from procs.agent.keyring import KEY_SHAPE, is_key, refuse_unnamed

    peer, *keys = approved
    if len(keys) != 1:
        shape = f"{KEY_SHAPE}: cli.py peers --approve {quote(peer)} KEY"
        raise ConfigError(f"--approve {' '.join(approved)} (command line): must be a peer and {shape}")
    key = keys[0]
    try:
        refuse_unnamed(peer)
    except ConfigError as error:
        raise ConfigError(f"--approve PEER={error} (command line)") from None
    if not is_key(key):
        raise ConfigError(f"--approve {peer} KEY={key!r} (command line): must be {KEY_SHAPE}")


def agent_status() -> dict[str, Any] | None:
    """The agent of this environment: who it is, whether its server answers, and whether somebody is registered there
    under its name; None where no agent is set up. Raises ConfigError."""
    from procs.agent.settings import load_settings  # here: make status has no agent as a rule

    settings = load_settings(is_partial=True)
    if not settings.agent_id or not settings.signaling_url:
        return None
    from procs.agent.identity import public_key
    from procs.agent.keyring import Peers, folder_in, own_key

    logging.getLogger("planaria").setLevel(logging.ERROR)  # it says below what there is to be said
    folder = folder_in(run_dir())
    found: dict[str, Any] = {"id": settings.agent_id, "server": settings.signaling_url, "mode": settings.mode}
    found |= {"key": public_key(own_key(folder)), "peers": len(Peers(folder).all())}
    try:
        answer_ms, is_there = asyncio.run(_asked(settings))
    except (PlanariaError, OSError, TimeoutError) as error:
        said = str(error).removeprefix(f"no connection to {settings.signaling_url}: ")
        return found | {"answers": False, "said": said or "no answer"}
    return found | {"answers": True, "answer_ms": answer_ms, "is_registered": is_there}


async def _asked(settings: Any) -> tuple[float, bool]:
    """How fast the server answers, and whether our name is taken there. Under a name of its own: ours may be in use."""
    from procs.agent.signaling import SignalingClient
    from procs.wire.signal import NOT_CONNECTED, Bye, Error

    me, nobody = f"status-{secrets.token_hex(6)}", f"nobody-{secrets.token_hex(6)}"
    client = SignalingClient(settings.but(agent_id=me))
    away: set[str | None] = set()
    async with asyncio.timeout(SERVER_S + 1):
        await client.connect(SERVER_S)
        began = time.perf_counter()
        for peer in (settings.agent_id, nobody):  # a goodbye of somebody whom nobody knows does nothing there
            await client.send(Bye(me, peer))
        while nobody not in away:
            frame = await client.take()
            if isinstance(frame, Error) and frame.error != NOT_CONNECTED:  # it will not have us
                raise LinkLost(frame.error)
            away |= {frame.sender or nobody} if isinstance(frame, Error) else set()
        took_ms = (time.perf_counter() - began) * 1000
        await client.close()
    return round(took_ms, 2), settings.agent_id not in away


def show_agent(its: dict[str, Any]) -> None:
    """The same for people."""
    how = f"answers in {its['answer_ms']:.1f} ms" if its["answers"] else its["said"]
    there = "" if not its["answers"] else "; registered there" if its["is_registered"] else "; not registered there"
    print(f"AGENT {its['id']}: {its['server']}: {how}{there}; {_count(its['peers'])} known; key {its['key']}")


def _count(peers: int) -> str:
    return f"{peers} peer{'' if peers == 1 else 's'}"
