"""STUN and TURN: what candidates they give a connection that already checks, several servers of each.

Private names of aioice 0.13, as in ice.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from aioice import Candidate, Connection
from aioice.candidate import candidate_priority
from aioice.ice import StunProtocol, relayed_candidate, server_reflexive_candidate
from aioice.turn import TurnTransport
from aiortc.rtcicetransport import parse_stun_turn_uri

from procs import log
from procs.agent.ice import preference
from procs.agent.relay import RelayTransport

T = TypeVar("T")
SERVER_S = 5.0  # a server that has not answered by then is not used
CLOSE_S = 2.0  # for it to hear that we are done
MAX_SERVERS = 8  # of one kind, asked beside each other
Found = Callable[[Candidate], None]
_asking: set[asyncio.Task[None]] = set()  # the event loop itself keeps none of its tasks


async def gather_more(connection: Connection, servers: Sequence[dict[str, Any]], found: Found) -> None:
    """Ask the STUN and TURN servers, and pair and tell what they give. Returns when all has come or is too late."""
    stuns, turns = _servers(servers)
    protocols = [each for each in connection._protocols if ":" not in each.local_candidate.host]
    async with asyncio.TaskGroup() as group:
        for protocol in protocols if stuns else []:
            group.create_task(_reflexive(protocol, stuns, found))
        if turns:
            group.create_task(_relayed(connection, turns, found))


def let_go(protocol: StunProtocol) -> None:
    """Of a relay that is being closed, without a word of its TURN server."""
    if isinstance(protocol.transport, RelayTransport):
        protocol.transport.let_go()


def _servers(servers: Sequence[dict[str, Any]]) -> tuple[list[tuple[str, int]], list[dict[str, Any]]]:
    """STUN addresses, and what aioice needs of each TURN server. What can't be used is left out."""
    stuns: list[tuple[str, int]] = []
    turns: list[dict[str, Any]] = []
    for server in servers:
        urls = server.get("urls") or []
        for url in [urls] if isinstance(urls, str) else urls:
            try:
                parsed = parse_stun_turn_uri(str(url))
            except ValueError:
                log.warning("an ICE server that can't be used", url=url)
                continue
            where = (parsed["host"], parsed["port"])
            if parsed["scheme"] == "stun":
                stuns.append(where)
            elif parsed["scheme"] in ("turn", "turns") and server.get("credentialType", "password") == "password":
                turns.append(
                    {
                        "turn_server": where,
                        "turn_ssl": parsed["scheme"] == "turns",
                        "turn_transport": parsed["transport"],
                        "turn_username": server.get("username"),
                        "turn_password": server.get("credential"),
                    }
                )
    return stuns[:MAX_SERVERS], turns[:MAX_SERVERS]


async def _reflexive(protocol: StunProtocol, stuns: list[tuple[str, int]], found: Found) -> None:
    """The address under which one socket is seen outside. It sends nothing of its own, so there is no pair for it."""
    got = await _first([server_reflexive_candidate(protocol, stun_server) for stun_server in stuns])
    if got and got[0].host != protocol.local_candidate.host:  # else there is no NAT
        got[0].priority = candidate_priority(1, "srflx", preference(protocol.local_candidate))
        found(got[0])


async def _relayed(connection: Connection, turns: list[dict[str, Any]], found: Found) -> None:
    async def allocation(server: dict[str, Any]) -> tuple[Candidate, StunProtocol]:
        relayed, protocol = await relayed_candidate(
            component=1,
            hide_related_address=False,
            protocol_factory=lambda: StunProtocol(connection),
            **server,
        )
        assert isinstance(protocol.transport, TurnTransport)
        protocol.transport = RelayTransport(protocol.transport, protocol)
        return relayed, protocol

    def unused(relay: tuple[Candidate, StunProtocol]) -> None:
        relay[1].transport.close()
        asyncio.get_running_loop().call_later(CLOSE_S, let_go, relay[1])

    got = await _first([allocation(server) for server in turns], unused)
    if got is None:
        return
    relayed, protocol = got
    connection._protocols.append(protocol)
    connection._local_candidates.append(relayed)
    for remote in connection._remote_candidates:
        connection._pair_remote_candidate(remote)  # forms those pairs that are not there yet
    connection.sort_check_list()
    found(relayed)


async def _first(asked: Sequence[Coroutine[Any, Any, T]], unused: Callable[[T], None] = lambda got: None) -> T | None:
    """What the first that succeeds gives, and None when none has in time; `unused` gets what others give, also once
    nobody waits any more. None of them is cancelled before its time: in the middle of making a socket, uvloop would
    never close that."""
    first: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
    failed = 0

    async def ask(one: Coroutine[Any, Any, T]) -> None:
        nonlocal failed
        try:
            async with asyncio.timeout(SERVER_S):
                got = await one
        except Exception as error:  # whatever a server does, or does not do in time: it is not used
            failed += 1
            if not first.done():
                log.info("an ICE server is of no use", why=f"{type(error).__name__}: {error}")
                if failed == len(asked):
                    first.set_result(None)
        else:
            if first.done():
                unused(got)
            else:
                first.set_result(got)

    for each in asked:
        task = asyncio.ensure_future(ask(each))
        _asking.add(task)
        task.add_done_callback(_asking.discard)
    try:
        return await first
    except asyncio.CancelledError:
        if not first.cancelled() and (got := first.result()) is not None:  # it came in the same turn
            unused(got)
        raise
