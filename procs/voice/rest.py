"""What people and programs ask over HTTP: the published paths and fields, and ours to change things."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from aiohttp import web

from procs.errors import Refused
from procs.figures import TYPE
from procs.messages.voice import MAX_SAY, Do, Listen, VoiceBeat, VoiceDevice
from procs.voice import browsers, config, door, voices
from procs.voice.browsers import Browsers
from procs.voice.config import Device
from procs.voice.leader import Leader

MAX_BODY = 64 * 1024
BODY_S = 10.0
SERVICE = "auto-connect"  # as published
_MOST_NAMED = 3  # devices of which health says what is wrong
_TEXT = f'text: must be 1 to {MAX_SAY} characters, not all blank, as in {{"text": "dinner is ready"}}'
_TOLD = (
    "turn", "muted", "protocol", "echo", "microphone", "speaker", "since", "attempts", "connections", "services",
)  # fmt: skip
_WORDS = {"stt": "STT", "tts": "TTS", "llm": "LLM"}
EXAMPLE = {
    "devices": [
        {"name": "kitchen", "host": "192.168.1.50", "port": 8765, "voice": "Watercooler",
         "instructions": {"type": "smalltalk", "language": "en"}, "auto_reconnect": True, "reconnect_delay": 5.0,
         "enabled": True, "token": "what-run/audio-token-of-that-device-holds", "tls": False},
        {"name": "living room", "host": "living-room.local", "voice": "Quiz show",
         "instructions": {"type": "quiz_show"}, "enabled": False},
    ]
}  # fmt: skip


def application(leader: Leader, seen: Browsers) -> web.Application:
    """What answers callers."""
    app = web.Application(middlewares=[door.in_words, door.guard(leader.settings)], client_max_size=MAX_BODY)
    rest = Rest(leader)
    one = "/v1/devices/{name}"
    app.add_routes(
        [
            web.get("/", rest.root),
            web.get("/v1/health", rest.health),
            web.get("/v1/voices", rest.voices),
            web.get("/v1/config/example", rest.example),
            web.get("/v1/devices", rest.devices),
            web.post("/v1/devices", rest.add),
            web.get("/v1/devices/status", rest.status),
            web.get(one, rest.device),
            web.put(one, rest.change),
            web.delete(one, rest.remove),
            web.get(f"{one}/lines", rest.lines),
            web.delete(f"{one}/lines", rest.forget),
            *(web.post(f"{one}/{what}", rest.do(what)) for what in _DONE),
            web.get("/metrics", rest.metrics),
            web.get(browsers.PATH, seen.serve),
        ]
    )
    return app


Order = Literal["say", "mute", "unmute", "reconnect", "enable", "disable"]
_DONE: dict[Order, str] = {
    "say": "{} is about to say it",
    "mute": "{} is muted",
    "unmute": "{} is no more muted",
    "reconnect": "Reconnection initiated for device {}",
    "enable": "{} is enabled",
    "disable": "{} is disabled",
}


class Rest:
    """The handlers."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    async def root(self, _: web.Request) -> web.Response:
        """What is where."""
        endpoints = {
            "health": "/v1/health", "devices": "/v1/devices", "status": "/v1/devices/status", "metrics": "/metrics",
            "voices": "/v1/voices", "example": "/v1/config/example", "realtime": browsers.PATH,
        }  # fmt: skip
        message = "Planaria's voice backend: it calls the devices of devices.json and talks through them"
        return web.json_response({"service": SERVICE, "message": message, "endpoints": endpoints})

    async def health(self, _: web.Request) -> web.Response:
        """Whether it can serve; 503 only if it can't."""
        services = await self._leader.health.look()
        summary = self._summary()
        down = [f"{_WORDS[name]} is down ({why})" for name, why in services.items() if why]
        if self._leader.memory.problem:
            down.append(f"the store is down ({self._leader.memory.problem})")
        lacking = self._lacking(summary)
        status = "unhealthy" if down else "degraded" if lacking else "healthy"
        message = "; ".join(down or lacking) or self._message(summary)
        body = {
            "status": status,
            "service": SERVICE,
            "devices": summary,
            "message": message,
            "services": {f"{name}_up": not why for name, why in services.items()},
            "ok": not any(services.values()),
        }
        return web.json_response(body, status=503 if down else 200)

    def _lacking(self, summary: dict[str, int]) -> list[str]:
        """What is not as it should be, though it can serve."""
        away = summary["enabled"] - summary["connected"]
        found = [f"{away} of {summary['enabled']} devices are not connected"] if away else []
        bad = [its for its in self._leader.devices() if its.state == "connected" and its.problem]
        found += [f"{its.name}: {its.problem}" for its in bad[:_MOST_NAMED]]
        found += [unread] if (unread := self._leader.file.told.unread) else []
        return found + ([f"{len(bad) - _MOST_NAMED} more devices"] if len(bad) > _MOST_NAMED else [])

    def _message(self, summary: dict[str, int]) -> str:
        if not self._leader.file.told.configured:
            return "idle: not configured: there is no devices.json"
        if not summary["enabled"]:
            return "idle: no device is enabled"
        return "all devices are connected"

    def _summary(self) -> dict[str, int]:
        devices = self._leader.devices()
        return {
            "total": len(devices),
            "enabled": sum(its.enabled for its in devices),
            "connected": sum(its.state == "connected" for its in devices),
        }

    async def voices(self, _: web.Request) -> web.Response:
        """Those with a name."""
        found = [
            {
                "name": its.name,
                "good": True,
                "instructions": msgspec.to_builtins(its.instructions),
                "source": {"source_type": "file", "path_on_server": its.voice},
            }
            for its in voices.known()
        ]
        return web.json_response(found)

    async def example(self, _: web.Request) -> web.Response:
        """A devices.json that one can begin with."""
        description = "devices.json: the devices that are called"
        note = "save it where REMOTE_DEVICES_CONFIG says, or as ./devices.json; changes count at once"
        return web.json_response({"example_config": EXAMPLE, "description": description, "note": note})

    async def devices(self, _: web.Request) -> web.Response:
        """As devices.json has them."""
        fields = ("name", "host", "port", "voice", "enabled", "auto_reconnect", "reconnect_delay")
        found = [{name: getattr(its, name) for name in fields} for its in self._leader.devices()]
        return web.json_response({"devices": found, "total_count": len(found)})

    async def status(self, _: web.Request) -> web.Response:
        """How they do."""
        devices = {its.name: _state(its) for its in self._leader.devices()}
        problems = self._leader.file.told.problems
        body = {"devices": devices, "summary": self._summary(), "timestamp": time.time(), "problems": problems}
        return web.json_response(body)

    async def device(self, request: web.Request) -> web.Response:
        """One: what is set, and how it does. Its token is nobody's business."""
        return web.json_response(self._one(request.match_info["name"]))

    def _one(self, name: str) -> dict[str, Any]:
        its = self._leader.device(name)
        set_as: Device = self._leader.file.told.devices[name]
        more = {"instructions": json.loads(its.instructions), "has_token": bool(set_as.token), "tls": set_as.tls}
        settings = {key: getattr(its, key) for key in ("name", "host", "port", "reconnect_delay")}
        return {**settings, **more, **_state(its), "lines": its.lines}

    async def add(self, request: web.Request) -> web.Response:
        """One more device."""
        entry = await _object(request)
        try:
            self._leader.file.refuse_new(entry)
        except Refused as why:
            raise web.HTTPUnprocessableEntity(text=str(why)) from None
        await self._leader.edit(lambda: self._leader.file.add(entry))
        return web.json_response(self._one(entry["name"]), status=201)

    async def change(self, request: web.Request) -> web.Response:
        """Other values for one device; those that are not named stay, and null takes one back to its default."""
        name, changes = request.match_info["name"], await _object(request)
        await self._leader.edit(lambda: self._leader.file.change(name, changes))
        return web.json_response(self._one(name))

    async def remove(self, request: web.Request) -> web.Response:
        """One less."""
        name = request.match_info["name"]
        await self._leader.edit(lambda: self._leader.file.remove(name))
        return web.json_response({"message": f"{name} is removed", "device": name})

    async def lines(self, request: web.Request) -> web.Response:
        """What was said there, since `after`."""
        after = request.query.get("after", "0")
        if not after.isascii() or not after.isdigit() or len(after) > 18:
            raise web.HTTPBadRequest(text="after: must be what `next` of the answer before was")
        told = await self._leader.told(Listen(request.match_info["name"], int(after)))
        lines = [msgspec.to_builtins(line) for line in told.lines]
        return web.json_response({"lines": lines, "next": told.next})

    async def forget(self, request: web.Request) -> web.Response:
        """All of that."""
        name = request.match_info["name"]
        await self._leader.forget(name)
        return web.json_response({"message": f"{name} has forgotten what was said", "device": name})

    def do(self, what: Order) -> Callable[[web.Request], Awaitable[web.Response]]:
        """The handler of one order."""

        async def order(request: web.Request) -> web.Response:
            name, text = request.match_info["name"], ""
            if what == "say":
                text = (await _object(request)).get("text", "")
                if not isinstance(text, str) or not text.strip() or len(text) > MAX_SAY:
                    raise web.HTTPUnprocessableEntity(text=_TEXT)
            if what == "reconnect" and not self._leader.device(name).enabled:
                raise KeyError(name)  # as published
            await self._leader.do(Do(name, what, text))
            return web.json_response({"message": _DONE[what].format(name), "device": name})

        return order

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(text=self._leader.metrics.figures.text(), headers={"Content-Type": TYPE})


def _state(its: VoiceDevice) -> dict[str, Any]:
    beat = its.beat or VoiceBeat("over")
    published = {
        "connected": its.state == "connected",
        "device_host": its.host,
        "device_port": its.port,
        "voice": its.voice,
        "auto_reconnect": its.auto_reconnect,
        "enabled": its.enabled,
    }
    told = {name: getattr(beat, name) for name in _TOLD}
    told["muted"] = beat.muted if its.beat else None  # which the store knows, and nobody has asked it
    return published | {"state": its.state, "problem": its.problem, **told}


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        async with asyncio.timeout(BODY_S):
            found = json.loads(await request.read())
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY_S:g} s") from None
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"not JSON: {error}"[:300]) from None
    try:
        config.refuse_halves(found, "body")
    except Refused as why:
        raise web.HTTPUnprocessableEntity(text=str(why)) from None
    if not isinstance(found, dict):
        raise web.HTTPBadRequest(text="must be a JSON object")
    return found
