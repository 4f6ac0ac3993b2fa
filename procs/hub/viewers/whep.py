"""WHEP: watch a device by any player that speaks it. An offer is posted, the answer comes back, and nothing else of the
session goes by HTTP but candidates, and its end.

What the device finds of itself within GATHER_S after its answer is in the answer: WHEP has no way to say it later.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

import msgspec
from aiohttp import web

from procs.errors import Refused
from procs.hub.people.access import asked_for, signed_in
from procs.hub.people.roles import OWNER
from procs.hub.rest import answer, busy, query, refusal
from procs.hub.state import HUB, State, now
from procs.hub.viewers import sdp, watching
from procs.hub.viewers.peer import Watcher
from procs.hub.viewers.watches import WHEP, Watch
from procs.wire import envelope
from procs.wire.frames.watch import SignalAnswer, SignalIce, SignalOffer, WatchEnded
from procs.wire.scalars import StreamName
from procs.wire.webrtc import Candidate, IceServer, SessionDescription

ANSWER_S = 10.0  # for the device
GATHER_S = 0.5
SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Max-Age": "7200",  # no browser keeps it for longer
}
_QUOTED = re.compile(r'[^\x20-\x7e]|["\\]')


class Wanted(msgspec.Struct):
    """Query of POST /api/devices/{id}/whep: which stream; the device chooses without."""

    stream: StreamName = ""


class _Ended(Exception):
    """The device can't; the text says why."""


class _Player:
    """Who posted an offer, for as long as they wait for the answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ended = ""
        self.candidates: list[Candidate] = []
        self.has_all = asyncio.Event()

    async def send(self, kind: str, payload: envelope.Payload, request_id: str | None = None) -> None:
        """What the device says, or the hub. Later than the answer it is for nobody."""
        if isinstance(payload, SignalIce):
            if payload.candidate is None or not payload.candidate.candidate:
                self.has_all.set()
            elif len(self.candidates) < sdp.MAX_CANDIDATES:
                self.candidates.append(payload.candidate)
        elif isinstance(payload, SignalAnswer) and not self.answer.done():
            self.answer.set_result(payload.sdp.sdp)
        elif isinstance(payload, WatchEnded):
            self.ended = payload.why or payload.reason
            self.has_all.set()
            self.answer.cancel()  # of no effect on one that is there

    async def answered(self) -> str:
        """The answer, with what the device has found of itself. Raises TimeoutError, _Ended, Refused."""
        async with asyncio.timeout(ANSWER_S):
            await asyncio.wait([self.answer])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self.has_all.wait()
        if self.ended:
            raise _Ended(self.ended)
        return sdp.with_candidates(self.answer.result(), self.candidates, is_all=self.has_all.is_set())


async def post(request: web.Request) -> web.Response:
    """POST /api/devices/{id}/whep: watch it. The body is an offer, as application/sdp.

    Location is where candidates may be added (PATCH), and where the session ends (DELETE). Link says which ICE servers
    may be used.
    """
    hub, session = request.app[HUB], await signed_in(request)
    device, role = await asked_for(request)
    offer = await _sent(request, SDP)
    stream = query(request, Wanted).stream
    try:
        sdp.check_offer(offer)
    except Refused as error:
        raise refusal(web.HTTPBadRequest, str(error)) from None
    control = hub.presence.control(device.device_id)
    if control is None:
        raise busy("Device offline", 5)
    if stream and control.streams and all(stream != each.name for each in control.streams):
        raise refusal(web.HTTPNotFound, "The device has no such stream")
    player, user = _Player(), session.user.id
    watch: Watch[Watcher] = Watch(player, user, device.device_id, control.instance, now(), WHEP, stream, session.login)
    watch.ufrag, watch.may_talk = sdp.ufrag(offer), role == OWNER
    try:
        await watching.begin(hub, watch, control)
    except watching.NoWatch as error:
        raise busy(str(error), 5) from None
    text = await _answer(hub, watch, player, offer)
    return _created(request, watch, text)


async def _answer(hub: State, watch: Watch[Watcher], player: _Player, offer: str) -> str:
    """What the device says to an offer. Raises HTTPException, and then the session is over."""
    description = SessionDescription("offer", offer)
    signal, reason = SignalOffer(watch.session_id, description), "user_ended"
    try:
        if not await watching.to_device(hub, watch, "signal_offer", signal):
            raise busy("Device offline", 5)
        text = await player.answered()
        reason = ""
        return text
    except TimeoutError:
        reason = "timeout"
        raise refusal(web.HTTPGatewayTimeout, f"The device did not answer within {ANSWER_S:g} s") from None
    except (_Ended, Refused) as error:
        raise refusal(web.HTTPBadGateway, f"The device did not take it: {error}") from None
    finally:  # also when the player has gone meanwhile
        if reason:
            hub.spawn(watching.end(hub, watch, reason, viewer=False))


def _created(request: web.Request, watch: Watch[Watcher], text: str) -> web.Response:
    made = web.Response(body=text.encode(), status=201, content_type=SDP)
    made.headers["Location"] = f"{request.rel_url.raw_path}/{watch.session_id}"
    made.headers["Accept-Patch"] = FRAGMENT
    made.headers["Cache-Control"] = "no-store"
    made.headers["ETag"] = f'"{watch.session_id}"'
    for server in watching.ice_servers(request.app[HUB], watch.user_id):
        for url in [server.urls] if isinstance(server.urls, str) else server.urls:
            made.headers.add("Link", _link(url, server))
    return made


def _link(url: str, server: IceServer) -> str:
    """An ICE server as WHEP has it."""
    said = f'<{url}>; rel="ice-server"'
    if server.username is None or server.credential is None:
        return said
    username, credential = (_QUOTED.sub("", text) for text in (server.username, server.credential))
    return f'{said}; username="{username}"; credential="{credential}"; credential-type="password"'


async def patch(request: web.Request) -> web.Response:
    """PATCH /api/devices/{id}/whep/{session}: candidates that the player has found since, as
    application/trickle-ice-sdpfrag."""
    hub, watch = request.app[HUB], await _session(request)
    text = await _sent(request, FRAGMENT)
    try:
        name, candidates, is_all = sdp.fragment(text)
    except Refused as error:
        raise refusal(web.HTTPBadRequest, str(error)) from None
    if watch.ufrag and name and name != watch.ufrag:
        raise refusal(web.HTTPUnprocessableEntity, "ICE can't be restarted: begin another session")
    for candidate in [*candidates, *([None] if is_all else [])]:
        if not await watching.to_device(hub, watch, "signal_ice", SignalIce(watch.session_id, candidate)):
            raise busy("Device offline", 5)
    return web.Response(status=204)


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/devices/{id}/whep/{session}: enough of it."""
    await watching.end(request.app[HUB], await _session(request), "user_ended", viewer=False)
    return answer({"message": "Watch session ended"})


async def options(_: web.Request) -> web.Response:
    """OPTIONS /api/devices/{id}/whep: what a browser asks before it lets another site's page post."""
    return web.Response(status=204, headers={**_PREFLIGHT, "Accept-Post": SDP})


async def options_of_session(_: web.Request) -> web.Response:
    """OPTIONS /api/devices/{id}/whep/{session}: what a browser asks before it lets another site's page go on."""
    return web.Response(status=204, headers={**_PREFLIGHT, "Accept-Patch": FRAGMENT})


async def _session(request: web.Request) -> Watch[Watcher]:
    """The asker's session in the path. Raises HTTPNotFound, and what `asked_for` does."""
    hub, session = request.app[HUB], await signed_in(request)
    device, _ = await asked_for(request)
    watch = hub.watches.by_user(session.user.id, request.match_info["session"], WHEP)
    if watch is None or watch.device_id != device.device_id:
        raise refusal(web.HTTPNotFound, "No such watch session")
    return watch


async def _sent(request: web.Request, kind: str) -> str:
    """The body, as text of this media type. Raises HTTPUnsupportedMediaType, HTTPBadRequest."""
    if request.content_type != kind:
        raise refusal(web.HTTPUnsupportedMediaType, f"The body has to be {kind}", Accept=kind)
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError:
        raise refusal(web.HTTPBadRequest, "The body is not UTF-8") from None
