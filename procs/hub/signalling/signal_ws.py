"""/ws/signal: agents that look for each other. First register, then what one says to another, by its id.

Nothing is kept: who is not there is told so, and who comes back registers again.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSCloseCode, web

from procs.errors import LinkLost, Refused, StoreDown
from procs.hub.people.access import address_of
from procs.hub.rest import busy
from procs.hub.signalling.admission import refuse_strange_page, room_of
from procs.hub.signalling.rooms import Agent
from procs.hub.state import HUB, State
from procs.hub.viewers.peer import Bounds, Peer, new_socket
from procs.wire import signal
from procs.wire.signal import Error, Ping, Pong, Register

REGISTER_S = 10.0
EXPECTED = "register first"
# About 100 small frames a second, or 1,000 at once: so many has a mesh of 60 that comes back together.
SIGNALLING = Bounds(bytes_per_s=1e6, burst=10e6, frame_cost=10_000, unsent=1024 * 1024)


async def socket(request: web.Request) -> web.StreamResponse:
    """An agent that looks for others, for as long as it is connected."""
    hub = request.app[HUB]
    refuse_strange_page(request)
    if hub.rooms.is_full:
        raise busy("Too many agents", 5)
    ws = new_socket(4 * signal.MAX_BYTES)
    await ws.prepare(request)
    peer = Peer(ws, request, address_of(request), hub.counts, SIGNALLING)
    with contextlib.suppress(LinkLost):
        if agent := await _registered(hub, peer, request):
            await _serve(hub, agent)
    return ws


async def _registered(hub: State, peer: Peer, request: web.Request) -> Agent | None:
    """The agent, let in; None when it was turned away, and told why."""
    try:
        async with asyncio.timeout(REGISTER_S):
            text = await peer.receive()
            frame = signal.decode(text) if text is not None else None
            if not isinstance(frame, Register):
                raise Refused(EXPECTED)
            room, session = await room_of(request, frame.token)
        agent = Agent(peer, room, frame.id, session)
        replaced = hub.rooms.enter(agent)
    except TimeoutError:
        await _turn_away(peer, EXPECTED)
    except StoreDown:
        await _turn_away(peer, "try again later", WSCloseCode.TRY_AGAIN_LATER)
    except Refused as error:
        await _turn_away(peer, str(error))
    else:
        if replaced:
            hub.counts.add("agents_replaced")
            hub.spawn(_end(replaced.peer, signal.REPLACED))
        return agent
    return None


async def _turn_away(peer: Peer, why: str, code: int = WSCloseCode.POLICY_VIOLATION) -> None:
    peer.refuse("agent without a proper register", error=why)
    await _end(peer, why, code)


async def _end(peer: Peer, why: str, code: int = WSCloseCode.POLICY_VIOLATION) -> None:
    await peer.say(signal.encode(Error(why[:500])))
    await peer.close(why, code)


async def _serve(hub: State, agent: Agent) -> None:
    try:
        while (text := await agent.peer.receive()) is not None:
            try:
                await _take(hub, agent, text)
            except Refused as error:
                agent.peer.refuse("frame of an agent", error=str(error), agent=agent.id)
                await agent.peer.say(signal.encode(Error(str(error)[:500], to=agent.id)))
    finally:
        hub.rooms.leave(agent)


async def _take(hub: State, agent: Agent, text: str) -> None:
    kind = signal.kind_of(text)
    if kind in signal.ROUTED:
        await _route(hub, agent, text)
    elif kind in signal.TYPES:
        frame = signal.decode(text)
        if isinstance(frame, Ping):
            await agent.peer.say(signal.encode(Pong()))
        elif isinstance(frame, Register) and frame.id != agent.id:
            raise Refused(f"register: this connection is {agent.id!r}; open another")


async def _route(hub: State, agent: Agent, text: str) -> None:
    frame, passed = signal.relayed(text, agent.id)
    if other := hub.rooms.called_by(agent, frame.to):
        with contextlib.suppress(LinkLost):
            await other.peer.say(passed)
            hub.counts.add("signals")
            return
    hub.counts.add("signals_to_nobody")
    await agent.peer.say(signal.encode(Error(signal.NOT_CONNECTED, agent.id, frame.to, frame.session)))


def end_login(hub: State, login: str | None = None, user: int | None = None) -> None:
    """Close the connections that came by a log-in, or by a user, whose tokens are good no more."""
    for agent in hub.rooms.agents:
        if agent.session and (agent.session.login == login or agent.session.user.id == user):
            hub.spawn(_end(agent.peer, "invalid token"))


def sweep(hub: State, time_now: float, wall: float) -> None:
    """Close who is silent or whose token has expired; ask those who were silent for a while. Once a second."""
    for agent in hub.rooms.agents:
        silent_s = time_now - agent.peer.heard_at
        if agent.session and wall >= agent.session.expires_at:
            hub.spawn(_end(agent.peer, "invalid token"))
        elif silent_s > signal.SILENCE_S:
            agent.peer.abort("an agent was silent")
        elif silent_s > signal.PING_S:
            hub.spawn(agent.peer.ping())
