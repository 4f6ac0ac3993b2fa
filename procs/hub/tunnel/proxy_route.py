"""/api/devices/{id}/proxy/...: the device's own pages, streams and files, as if whoever asks sat beside it."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import unquote_plus

from aiohttp import WSMsgType, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from procs import log
from procs.errors import LinkLost, Refused, StreamReset
from procs.hub.people import access, roles
from procs.hub.rest import SANDBOXED, refusal
from procs.hub.state import HUB
from procs.hub.tunnel import json_only, origins
from procs.hub.tunnel.tunnel import DEADLINE_S, SENT_WITH, Answer, Request, Rest, Tunnel, TunnelError
from procs.hub.tunnel.views import View
from procs.streams.stream import Stream
from procs.wire import fields
from procs.wire.mux1 import FIN, MORE, TEXT, Code, cost

SLOW_VIEWER_S = 30.0  # in which a viewer took nothing of what it asked for
UPLOAD_IDLE_S = 30.0
VIEWER_PING_S = 20.0
MAX_MESSAGE = 16 * 1024 * 1024  # of a WebSocket inside
# Ours, and not for the device to see; the rest of the credentials are dropped there once more.
_NOT_FOR_DEVICES = frozenset({"authorization", "cookie", "host", "x-forwarded-for", "x-forwarded-proto", "forwarded"})
_OURS = fields.OF_THE_ORIGIN | {"server", "date", "access-control-allow-origin"}  # whatever a device says
_ORIGIN = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")  # of a target in absolute form (RFC 9112, 3.2.2)

# What a browser runs in whatever page asks for it, so that no header of the answer helps.
_RUN_WHERE_ASKED = frozenset({
    *("script", "style", "xslt", "worker", "sharedworker", "serviceworker", "audioworklet", "paintworklet"),
    *("object", "embed"),
})  # fmt: skip

TUNNEL = web.AppKey("tunnel", Tunnel)
MaySay = Callable[[str | bytes], bool]


async def handle(request: web.Request) -> web.StreamResponse:
    """Any request below a device's proxy URL.

    They are for programs and for the hub's own page. A browser that opens such an address is led to the device's own
    origin; where there are none, nothing of the device runs.
    """
    request[SANDBOXED] = True
    device_id = request.match_info["id"]
    prefix, target = _split(request.raw_path)
    if request.headers.get("Sec-Fetch-Dest") in _RUN_WHERE_ASKED:
        request.app[HUB].counts.refuse("something of a device as a script at the hub", path=request.path)
        raise refusal(web.HTTPForbidden, "Nothing of a device runs at the hub's own address")
    if origins.is_opened(request) and (elsewhere := await origins.led_there(request, device_id, target)):
        return elsewhere
    asker = await access.viewer_of_device(request, device_id)
    if request.match_info["path"] == "":  # or what is relative in the page would lead elsewhere
        raise web.HTTPPermanentRedirect(f"{prefix}{target}")
    return await let_in(request, asker, device_id, prefix, target)


async def let_in(
    request: web.Request, asker: access.Asker, device_id: str, prefix: str, target: str
) -> web.StreamResponse:
    """What the device answers to somebody who may see it; `prefix` stands before its own paths here. Raises
    HTTPForbidden for a viewer who wants more than to look."""
    access.refuse_change(request, asker.role, target.partition("?")[0])
    views = request.app[HUB].views
    view = View(asker.user.id, asker.login, device_id, functools.partial(_cut, request))
    views.begin(view)
    try:
        return await _served(request, device_id, prefix, target, asker.role)
    finally:
        views.end(view)


async def _served(
    request: web.Request, device_id: str, prefix: str, target: str, role: roles.Role
) -> web.StreamResponse:
    try:
        wanted = await _wanted(request, device_id, target)
        control = request.app[HUB].presence.control(device_id)
        if control and "mux1" not in control.caps:
            answer = await json_only.request(control, wanted)
        elif request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
            return await _websocket(request, wanted, role)
        else:
            answer = await request.app[TUNNEL].request(wanted)
    except Refused as reason:
        return _failed(400, str(reason))
    except TimeoutError:
        return _failed(408, "the body did not come", "not-sent")
    except TunnelError as error:
        return _failed(error.status, str(error), error.outcome)
    if _is_no_picture(request, target, answer):
        return _failed(502, "The camera gives no picture: go2rtc's is empty")
    return await _passed_on(request, answer, prefix)


def _is_no_picture(request: web.Request, target: str, answer: Answer) -> bool:
    """go2rtc answers 200 with nothing where its source is dead."""
    its_path = target.partition("?")[0]
    is_empty = answer.head.status == 200 and answer.rest is None and not answer.gathered
    return its_path == "/api/frame.jpeg" and is_empty and _may_have_body(request, answer)


def _split(raw_path: str) -> tuple[str, str]:
    """(what stands before the device's own paths, the target there), as it was sent, without any decoding."""
    path, question, query = target_of(raw_path).partition("?")
    parts = path.split("/", 5)  # "", api, devices, ID, proxy, the rest
    return "/".join(parts[:5]), f"/{parts[5] if len(parts) > 5 else ''}{question}{query}"


def target_of(raw_path: str) -> str:
    """A target in origin form, whichever form it was sent in."""
    return _ORIGIN.sub("", raw_path)


def _without_token(target: str) -> str:
    """A target as it was sent, but for the query key that is ours."""
    path, question, query = target.partition("?")
    left = [piece for piece in query.split("&") if unquote_plus(piece.partition("=")[0]) != "token"]
    return path + question + "&".join(left) if left else path


async def _wanted(request: web.Request, device_id: str, target: str) -> Request:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
    kept = [pair for pair in fields.request_fields(pairs) if pair[0].lower() not in _NOT_FOR_DEVICES]
    if request.app[HUB].settings.compat:  # ?token= opens all that is the asker's: no device is to know it
        target = _without_token(target)
        kept = [pair for pair in kept if pair[0].lower() != "referer"]
    wanted = Request(device_id, request.method, target, kept)
    if not request.can_read_body:
        return wanted
    if (request.content_length or SENT_WITH + 1) > SENT_WITH:
        return wanted._replace(body=_pieces(request))
    async with asyncio.timeout(UPLOAD_IDLE_S):
        return wanted._replace(body=b"".join([piece async for piece in _pieces(request)]))


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """What is uploaded, as it comes. Raises OSError when it stops coming, Refused for what is no body."""
    while True:
        try:
            async with asyncio.timeout(UPLOAD_IDLE_S):
                if not (piece := await request.content.readany()):
                    return
        except (web.RequestPayloadError, HttpProcessingError) as error:
            raise Refused(f"the body: {error}"[:200]) from None
        yield piece


def _failed(status: int, reason: str, outcome: str = "") -> web.Response:
    """An error of the tunnel, not of the device."""
    headers = {"Retry-After": "1"} if status == 503 else {}
    return web.json_response(
        {"detail": reason, **({"outcome": outcome} if outcome else {})}, status=status, headers=headers
    )


def _headers(answer: Answer, prefix: str) -> CIMultiDict[str]:
    kept = CIMultiDict[str]()
    for name, value in fields.response_fields(answer.head.headers):
        lower = name.lower()
        if lower == "location" and value.startswith("/"):
            value = prefix + value
        if lower not in _OURS:
            kept.add(name, value)
    return kept


async def _passed_on(request: web.Request, answer: Answer, prefix: str) -> web.StreamResponse:
    try:
        if answer.head.status < 200:  # whoever reads it would take what follows for the answer proper
            raise Refused(f"status {answer.head.status} is no answer")
        headers = _headers(answer, prefix)
    except Refused as reason:
        if answer.rest:
            answer.rest.close(Code.PROTOCOL)
        return _failed(502, f"the device's answer: {reason}")
    if answer.rest and not _may_have_body(request, answer):
        answer.rest.close()
        answer = answer._replace(rest=None)
    if answer.rest is None:
        return _whole(request, answer, headers)
    try:
        return await _streamed(request, answer, answer.rest, headers)
    finally:
        answer.rest.close()


def _may_have_body(request: web.Request, answer: Answer) -> bool:
    """Whether what follows the head is part of this answer; else it would be taken for the answer to the next request,
    which may be somebody else's where a proxy in front shares a connection among people."""
    return request.method != hdrs.METH_HEAD and answer.head.status not in (204, 304)


def _whole(request: web.Request, answer: Answer, headers: CIMultiDict[str]) -> web.Response:
    if _may_have_body(request, answer):
        headers.pop(hdrs.CONTENT_LENGTH, None)
        return web.Response(status=answer.head.status, headers=headers, body=answer.gathered)
    return web.Response(status=answer.head.status, headers=headers)


async def _streamed(request: web.Request, answer: Answer, rest: Rest, headers: CIMultiDict[str]) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.head.status, headers=headers)
    missing = response.content_length or 0
    await response.prepare(request)
    try:
        if answer.gathered:
            await response.write(answer.gathered)
            missing -= len(answer.gathered)
        while (piece := await rest.read()) is not None:
            missing -= len(piece)
            async with asyncio.timeout(SLOW_VIEWER_S):
                await response.write(piece)
        if missing > 0:  # else the next answer would be taken for the end of this one
            raise TunnelError(502, f"the device's answer is {missing} bytes too short")
        await response.write_eof()
    except ConnectionError:
        pass  # the viewer has gone
    except TimeoutError:
        rest.close(Code.SLOW_VIEWER)
        _cut(request)
    except TunnelError as error:
        log.warning("an answer broke off", path=request.path, reason=str(error))
        _cut(request)
    return response


def _cut(request: web.Request) -> None:
    """End the connection so that nobody takes what has come for the whole."""
    if request.transport:
        request.transport.abort()


# WebSockets inside


async def _websocket(request: web.Request, wanted: Request, role: roles.Role) -> web.StreamResponse:
    may_say = functools.partial(roles.may_say, role, wanted.target.partition("?")[0])
    stream = await request.app[TUNNEL].open(wanted._replace(body=b""), "ws", time.monotonic() + DEADLINE_S)
    try:
        async with asyncio.timeout(DEADLINE_S):
            head = await stream.head()
        if head.status != 101:
            return _failed(head.status if head.status >= 400 else 502, "the device takes no WebSocket there")
        protocols = (head.subprotocol,) if head.subprotocol else ()
        viewer = web.WebSocketResponse(
            protocols=protocols, compress=False, max_msg_size=MAX_MESSAGE, heartbeat=VIEWER_PING_S
        )
        await viewer.prepare(request)
        await _joined(viewer, stream, may_say)
        return viewer
    except TimeoutError:
        return _failed(504, "Gateway Timeout")
    except StreamReset as error:
        return _failed(403 if error.code == Code.REFUSED else 502, str(error))
    except LinkLost:
        return _failed(502, "the connection to the device broke")
    finally:
        if not stream.is_over:
            stream.reset(Code.CANCEL)


async def _joined(viewer: web.WebSocketResponse, stream: Stream, may_say: MaySay) -> None:
    """Carry messages both ways until either side ends it."""
    up = asyncio.create_task(_up(viewer, stream, may_say))
    down = asyncio.create_task(_down(stream, viewer))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
    if not viewer.closed:
        async with asyncio.timeout(SLOW_VIEWER_S):
            await viewer.close(code=1001)


async def _up(viewer: web.WebSocketResponse, stream: Stream, may_say: MaySay) -> None:
    async for message in viewer:
        if not may_say(message.data):
            continue  # go2rtc's player offers several ways at once, and goes on with another
        if message.type is WSMsgType.TEXT:
            await stream.write(message.data.encode(), TEXT)
        elif message.type is WSMsgType.BINARY:
            await stream.write(message.data)


async def _down(stream: Stream, viewer: web.WebSocketResponse) -> None:
    pieces: list[memoryview] = []
    size = 0  # as credit counts it: many empty pieces are many, too
    while (chunk := await stream.read()) is not None:
        if chunk.flags & FIN:
            code = int.from_bytes(chunk.data[:2], "big") if len(chunk.data) >= 2 else 1000
            await viewer.close(code=code, message=bytes(chunk.data[2:125]))
            return
        pieces.append(chunk.data)
        if chunk.flags & MORE:
            size += cost(len(chunk.data))
            if size > MAX_MESSAGE:
                stream.reset(Code.PROTOCOL, "a message over the limit")
                return
            continue
        whole, size = b"".join(pieces) if len(pieces) > 1 else bytes(pieces[0]), 0
        pieces.clear()
        async with asyncio.timeout(SLOW_VIEWER_S):
            if chunk.flags & TEXT:
                await viewer.send_str(whole.decode(errors="replace"))
            else:
                await viewer.send_bytes(whole)
