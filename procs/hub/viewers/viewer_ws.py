"""/ws/viewer: people who watch, by a page of theirs. First hello with an access token, then watch sessions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import WSCloseCode, web

from procs.errors import LinkLost, Refused, StoreDown
from procs.hub.people.access import address_of, by_cookie
from procs.hub.people.accounts import Session
from procs.hub.rest import busy
from procs.hub.state import HUB, State, now
from procs.hub.viewers import live, watching
from procs.hub.viewers.peer import Peer, Viewer, new_socket
from procs.wire import envelope
from procs.wire.envelope import Envelope
from procs.wire.frames.connection import Error, HeartbeatAck, ViewerHello, ViewerHelloAck

HELLO_S = 10.0
SILENT_S = 60.0  # browsers answer pings by themselves
PING_AFTER_S = 25.0
MAX_VIEWERS = 5000
MAX_OF_USER = 1000  # or one user alone could keep all others out
EXPECTED = "Expected hello message"
RESUMES = "resume"  # the capability of a viewer that comes back to its watch sessions


async def socket(request: web.Request) -> web.StreamResponse:
    """One viewer, for as long as it is connected."""
    hub = request.app[HUB]
    if len(hub.viewers) >= MAX_VIEWERS:
        raise busy("Too many viewers", 5)
    page = await by_cookie(request)
    ws = new_socket()
    await ws.prepare(request)
    peer = Peer(ws, request, address_of(request), hub.counts)
    with contextlib.suppress(LinkLost):
        if viewer := await _introduced(hub, peer, request, page is not None):
            await _serve(hub, viewer)
    return ws


async def _introduced(hub: State, peer: Peer, request: web.Request, is_page: bool) -> Viewer | None:
    """The viewer, let in and told so; None when it was turned away. `is_page`: a good cookie came with the upgrade."""
    try:
        hello, session = await _hello(hub, peer, request, is_page)
    except TimeoutError:
        peer.refuse("no hello in time")
        await peer.close(EXPECTED)
    except StoreDown:
        await peer.close("Try again later", WSCloseCode.TRY_AGAIN_LATER)
    except Refused as error:
        peer.refuse("viewer without a proper hello", error=str(error))
        await peer.close(EXPECTED)
    else:
        if session and sum(each.session.user.id == session.user.id for each in hub.viewers) >= MAX_OF_USER:
            peer.refuse("too many connections of a viewer", user=session.user.username)
            await peer.close("Too many connections", WSCloseCode.TRY_AGAIN_LATER)
            return None
        if session:
            viewer = Viewer(peer, session, can_resume=RESUMES in hello.caps)
            await _acknowledge(viewer)
            return viewer
        peer.refuse("invalid or expired token")
        await peer.close("Invalid token")
    return None


async def _hello(hub: State, peer: Peer, request: web.Request, is_page: bool) -> tuple[ViewerHello, Session | None]:
    async with asyncio.timeout(HELLO_S):
        text = await peer.receive()
        if text is None:
            raise LinkLost("it went away before its hello")
        frame = envelope.decode(text)
        if frame.type != "hello":
            raise Refused(EXPECTED)
        hello = envelope.parse(frame, ViewerHello)
        if hello.token is not None:
            return hello, await hub.accounts.session(hello.token)
        if not is_page:
            raise Refused(EXPECTED)
        return hello, await by_cookie(request)  # once more: the log-in may have ended since


async def _acknowledge(viewer: Viewer) -> None:
    caps = [RESUMES] if viewer.can_resume else []
    ack = ViewerHelloAck(str(viewer.session.user.id), envelope.timestamp(), caps)
    await viewer.send("hello_ack", ack)


async def _serve(hub: State, viewer: Viewer) -> None:
    hub.viewers.add(viewer)
    try:
        while (text := await viewer.peer.receive()) is not None:
            try:
                await _take(hub, viewer, envelope.decode(text))
            except Refused as error:
                viewer.peer.refuse("frame of a viewer", error=str(error))
                await viewer.peer.send("error", Error(str(error)[:500]))
            except StoreDown:
                await viewer.peer.send("error", Error("Try again later"))
    finally:
        hub.viewers.discard(viewer)
        hub.subscriptions.pages.pop(viewer, None)
        over = hub.watches.viewer_left(viewer, now())
        hub.spawn(watching.end_all(hub, over, "viewer_disconnected"))


async def _take(hub: State, viewer: Viewer, frame: Envelope) -> None:
    take = _TAKES.get(frame.type)
    if take is None:
        raise Refused(f"unknown type {frame.type}")
    hub.counts.add("frames", frame.type)
    await take(hub, viewer, frame)


async def _heartbeat(_: State, viewer: Viewer, frame: Envelope) -> None:
    await viewer.peer.send("heartbeat_ack", HeartbeatAck(), frame.request_id, with_request_id=True)


async def _hello_again(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """The token was renewed, and the connection goes on with it."""
    token = envelope.parse(frame, ViewerHello).token
    session = await hub.accounts.session(token) if token else None
    if session is None or session.user.id != viewer.session.user.id:
        viewer.peer.refuse("invalid or expired token")
        raise Refused("Invalid token")
    viewer.session = session
    await _acknowledge(viewer)


_TAKES: dict[str, Callable[[State, Viewer, Envelope], Awaitable[None]]] = {
    "heartbeat": _heartbeat,
    "hello": _hello_again,
    "subscribe": live.subscribe,
    "watch_request": watching.request,
    "watch_resume": watching.resume,
    "signal_offer": watching.from_viewer,
    "signal_ice": watching.from_viewer,
    "end_watch": watching.ended_by_viewer,
}


def end_login(hub: State, login: str | None = None, user: int | None = None) -> None:
    """Close the connections of a log-in, or of a user, whose tokens are good no more."""
    for viewer in list(hub.viewers):
        if viewer.session.login == login or viewer.session.user.id == user:
            hub.spawn(viewer.peer.close("Invalid token"))


def sweep(hub: State, time_now: float, wall: float) -> None:
    """Close who is silent or whose token has expired; ask those who were silent for a while. Once a second."""
    for viewer in list(hub.viewers):
        silent_s = time_now - viewer.peer.heard_at
        if wall >= viewer.session.expires_at:
            viewer.peer.refuse("invalid or expired token")
            hub.spawn(viewer.peer.close("Invalid token"))
        elif silent_s > SILENT_S:
            viewer.peer.abort("a viewer was silent")
        elif silent_s > PING_AFTER_S:
            hub.spawn(viewer.peer.ping())
