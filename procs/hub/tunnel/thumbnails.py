"""GET /api/devices/{id}/streams/{name}/thumbnail: what a stream shows, small, for pages with many of them."""

from __future__ import annotations

import asyncio
import functools
from urllib.parse import quote, unquote

from aiohttp import web

from procs.hub.devices.presence import Presence
from procs.hub.metrics import Counts
from procs.hub.people import access
from procs.hub.rest import busy, refusal
from procs.hub.state import HUB, now
from procs.hub.tunnel import json_only
from procs.hub.tunnel.pictures import NoPicture, Picture, Pictures, Source
from procs.hub.tunnel.tunnel import Answer, Request, Tunnel, TunnelError
from procs.hub.tunnel.views import View

JPEG = "image/jpeg"
WIDTH = 320
RUNNING_S = 2.0  # between two pictures of a stream that runs anyway,
IDLE_S = 30.0  # of one that is started for each
FETCH_S = 10.0
MAX_PICTURE = 1024 * 1024  # bytes; go2rtc makes only those of video small, and a camera's own JPEG may be large
_STARTS = b"\xff\xd8"

PICTURES = web.AppKey("pictures", Pictures)


def pictures(presence: Presence, tunnel: Tunnel, counts: Counts) -> Pictures:
    """Those of this hub's devices."""

    async def fetch(source: Source) -> bytes:
        try:
            async with asyncio.timeout(FETCH_S):
                found = await _fetched(presence, tunnel, source)
        except TimeoutError:
            failure = NoPicture(504, "The stream gave no picture in time")
        except TunnelError as error:
            failure = NoPicture(error.status if error.status in (503, 504) else 502, str(error))
        except NoPicture as error:
            failure = error
        else:
            counts.add("thumbnails", "fetched")
            return found
        counts.add("thumbnails", "failed")
        raise failure

    return Pictures(fetch)


async def _fetched(presence: Presence, tunnel: Tunnel, source: Source) -> bytes:
    """A picture from the device. Raises NoPicture, TunnelError."""
    target = f"/api/frame.jpeg?src={quote(source.stream, safe='')}&w={WIDTH}"
    wanted = Request(source.device_id, "GET", target, [])
    control = presence.control(source.device_id)
    if control and "mux1" not in control.caps:
        answer = await json_only.request(control, wanted)
    else:
        answer = await tunnel.request(wanted)
    try:
        body = await _body(answer)
    finally:
        if answer.rest:
            answer.rest.close()
    if answer.head.status == 404:
        raise NoPicture(404, "The device has no such stream")
    if answer.head.status != 200 or not body.startswith(_STARTS):
        raise NoPicture(502, f"The device gave no picture: status {answer.head.status}")
    return body


async def _body(answer: Answer) -> bytes:
    body = bytearray(answer.gathered)
    while answer.rest and (piece := await answer.rest.read()) is not None:
        body += piece
        if len(body) > MAX_PICTURE:
            raise NoPicture(502, f"The device's picture is over {MAX_PICTURE} bytes")
    return bytes(body)


async def get(request: web.Request) -> web.Response:
    """GET /api/devices/{id}/streams/{name}/thumbnail: a small picture, at most 2 s old of a stream that runs, at most
    30 s old of another.

    Many who ask get the same one. X-Planaria-Age says how old it is, in seconds.
    """
    hub, session = request.app[HUB], await access.signed_in(request)
    device, _ = await access.asked_for(request)
    # As it was sent: a name may hold a slash, which stays %2F in match_info.
    name = unquote(request.rel_url.raw_parts[5])
    control = hub.presence.control(device.device_id)
    if control is None:
        raise busy("Device offline", 5)
    stream = next((stream for stream in control.streams if stream.name == name), None)
    if stream is None:
        raise refusal(web.HTTPNotFound, "The device has no such stream")
    source = Source(device.device_id, device.key, device.owner, name)
    view = View(session.user.id, session.login, device.device_id, functools.partial(_cut, request))
    hub.views.begin(view)
    try:
        picture = await request.app[PICTURES].of(source, RUNNING_S if stream.is_running else IDLE_S)
    except NoPicture as error:
        raise _refused(error) from None
    finally:
        hub.views.end(view)
    return _answer(request, picture)


def _cut(request: web.Request) -> None:
    """Whoever waits may see no more of the device."""
    if request.transport:
        request.transport.abort()


def _refused(error: NoPicture) -> web.HTTPException:
    if error.status == 503:
        return busy(str(error), error.wait_s)
    kinds = {404: web.HTTPNotFound, 504: web.HTTPGatewayTimeout}
    return refusal(kinds.get(error.status, web.HTTPBadGateway), str(error), Retry_After=str(round(error.wait_s)))


def _answer(request: web.Request, picture: Picture) -> web.Response:
    headers = {
        "ETag": f'"{picture.etag}"',
        "Cache-Control": "private, no-cache",
        "X-Planaria-Age": f"{now() - picture.at:.1f}",
    }
    if any(tag.value in (picture.etag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=picture.body, content_type=JPEG, headers=headers)
