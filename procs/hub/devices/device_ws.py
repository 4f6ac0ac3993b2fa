"""/ws/device: a device's control connection. Hello and proof, then heartbeats, answers, signalling, tickets, codes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import WSCloseCode, web

from procs import log
from procs.errors import LinkLost, Refused, StoreDown
from procs.hub.devices import announced, pairing, suite, tickets
from procs.hub.devices.presence import Control
from procs.hub.devices.registry import Device
from procs.hub.devices.suite_link import CAP
from procs.hub.people.access import address_of
from procs.hub.rest import busy
from procs.hub.state import HUB, State, now
from procs.hub.viewers import watching
from procs.hub.viewers.peer import Peer, new_socket
from procs.wire import challenge, envelope
from procs.wire.envelope import Envelope
from procs.wire.frames.connection import Challenge, ChallengeResp, Error, HeartbeatAck, Hello, HelloAck
from procs.wire.frames.device import Capabilities, DataTicket, DevicePresence, ProxyHttpResp
from procs.wire.mux1 import MuxLimits

STEP_S = 10.0  # for each frame of the introduction
SILENT_S = 45.0  # three heartbeats
REPLACED = "Replaced by new connection"
DATA_PATH = "/ws/data"


class TurnedAway(Exception):
    """A device is not let in; the text is the reason of the close frame."""

    def __init__(self, reason: str, code: int = WSCloseCode.POLICY_VIOLATION) -> None:
        super().__init__(reason)
        self.code = code


class WrongCredential(TurnedAway):
    """It is not the device that it says it is."""


class _Proven(NamedTuple):
    signature: str | None  # ours, for a device that asked for proof


async def socket(request: web.Request) -> web.StreamResponse:
    """One device, for as long as it is connected."""
    hub = request.app[HUB]
    if wait_s := hub.rates.hellos.take("", now()):
        raise busy("Too many devices at once", wait_s + 1)
    address = address_of(request)
    if wait_s := hub.rates.proofs_from.wait_s(address, now()):
        raise busy("Too many wrong credentials from here", wait_s)
    ws = new_socket()
    await ws.prepare(request)
    peer = Peer(ws, request, address, hub.counts)
    with contextlib.suppress(LinkLost):
        if control := await _introduced(hub, peer):
            await _serve(hub, control)
    return ws


async def _introduced(hub: State, peer: Peer) -> Control | None:
    """The device, let in and told so; None when it was turned away."""
    try:
        hello = await _hello(peer)
        device = await hub.registry.find(hello.device_id)
        if device is None:
            raise TurnedAway("Device not found")
        try:
            proven = await _proven(hub, peer, hello, device)
        except WrongCredential:
            hub.events.add(device.key, "refused", f"a wrong credential, from {peer.address}")
            raise
        again = await hub.registry.find(hello.device_id)
        if again is None or again.key != device.key:  # forgotten since, and its key may be another device's by now
            raise TurnedAway("Device not found")
    except StoreDown:
        await peer.close("Try again later", WSCloseCode.TRY_AGAIN_LATER)
        return None
    except TurnedAway as error:
        peer.refuse(str(error))
        await peer.close(str(error), error.code)
        return None
    control = Control(peer, device.key, hello)
    # Known before it is told so: what it asks for next must find it here.
    _arrived(hub, control)
    try:
        await control.send("hello_ack", _ack(hello, proven))
        await watching.device_is_back(hub, control)
    except LinkLost:
        _left(hub, control)
        raise
    hub.counts.add("hellos")
    return control


async def _hello(peer: Peer) -> Hello:
    frame = await _step(peer, "hello", "Expected hello message")
    try:
        return envelope.parse(frame, Hello)
    except Refused as error:
        peer.refuse("hello that is not one", error=str(error))
        has_no_id = "missing required field `device_id`" in str(error) or "at `$.device_id`" in str(error)
        raise TurnedAway("Missing device_id" if has_no_id else "Malformed hello") from None


async def _step(peer: Peer, kind: str, otherwise: str) -> Envelope:
    """The next frame, which must be of this type. Raises TurnedAway, LinkLost."""
    try:
        async with asyncio.timeout(STEP_S):
            text = await peer.receive()
        if text is None:
            raise LinkLost("it went away before its hello was done")
        frame = envelope.decode(text)
    except TimeoutError:
        raise TurnedAway(otherwise) from None
    except Refused as error:
        peer.refuse("frame that is not one", error=str(error))
        raise TurnedAway(otherwise) from None
    if frame.type != kind:
        raise TurnedAway(otherwise)
    return frame


async def _proven(hub: State, peer: Peer, hello: Hello, device: Device) -> _Proven:
    """Check that it is the device. Raises TurnedAway, StoreDown."""
    pair = f"{peer.address} {device.key}"
    if hub.rates.proofs.wait_s(pair, now()):
        raise TurnedAway("Too many wrong credentials", WSCloseCode.TRY_AGAIN_LATER)
    if "challenge" in hello.caps and device.verifier is not None:
        return await _challenged(hub, peer, hello, device.verifier, pair)
    if not hub.settings.compat:
        raise TurnedAway("No credential" if device.verifier is None else "Challenge required")
    if hello.device_secret:
        await _known_secret(hub, peer, hello.device_secret, device, pair)
    elif device.verifier is not None:
        _wrong(hub, peer, pair)
    return _Proven(None)


async def _challenged(hub: State, peer: Peer, hello: Hello, kept: str, pair: str) -> _Proven:
    if not hello.nonce:
        raise TurnedAway("Malformed hello")
    verifier = challenge.Verifier.from_text(kept)
    nonce = challenge.nonce()
    await peer.send("challenge", Challenge(nonce))
    frame = await _step(peer, "challenge_resp", "Expected challenge_resp message")
    said = challenge.transcript(hello.device_id, hello.instance, hello.nonce, nonce)
    try:
        is_right = challenge.check(verifier, said, envelope.parse(frame, ChallengeResp).proof)
    except Refused:
        is_right = False
    if not is_right:
        _wrong(hub, peer, pair)
    return _Proven(challenge.signature(verifier, said))


async def _known_secret(hub: State, peer: Peer, secret: str, device: Device, pair: str) -> None:
    """The published way: the secret itself. A device that has none yet keeps the first one that it comes with."""
    shown = await asyncio.to_thread(challenge.verifier, secret, device.device_id)
    kept = device.verifier
    if kept is None and not await hub.registry.keep_verifier(device.device_id, shown.to_text()):
        found = await hub.registry.find(device.device_id)
        kept = found and found.verifier
    if kept is not None and not hmac.compare_digest(kept, shown.to_text()):
        _wrong(hub, peer, pair)


def _wrong(hub: State, peer: Peer, pair: str) -> None:
    hub.rates.proofs.take(pair, now())
    hub.rates.proofs_from.take(peer.address, now())
    raise WrongCredential("Wrong credential")


def _ack(hello: Hello, proven: _Proven) -> HelloAck:
    """The published answer; with more for who has asked for more."""
    time = envelope.timestamp()
    caps = [cap for cap in ("mux1", CAP) if cap in hello.caps]
    if "mux1" not in caps:
        return HelloAck(hello.device_id, time, caps=caps, signature=proven.signature)
    return HelloAck(hello.device_id, time, caps=caps, mux=MuxLimits(), signature=proven.signature, data_path=DATA_PATH)


def _arrived(hub: State, control: Control) -> None:
    before = hub.presence.arrived(control)
    hub.subscriptions.changed(control.device_id)
    said = f"{control.peer.address}, version {control.agent_version}".removesuffix(", version ")
    hub.events.add(control.key, "replaced" if before else "connected", f"{'by' if before else 'from'} {said}")
    if before:
        hub.counts.add("replaced")
        log.info("a device's connection is replaced", device=control.device_id, by=control.peer.address)
        hub.spawn(before.peer.close(REPLACED, WSCloseCode.SERVICE_RESTART))
    if before and before.instance != control.instance:
        hub.tickets.revoke(control.device_id)
    over = hub.watches.device_came(control.device_id, control.instance)
    hub.spawn(watching.end_all(hub, over, "device_disconnected"))


async def _serve(hub: State, control: Control) -> None:
    peer = control.peer
    try:
        while (text := await peer.receive()) is not None:
            question = None
            try:
                frame = envelope.decode(text)
                question = frame.request_id
                await _take(hub, control, frame)
            except Refused as error:
                peer.refuse("frame of a device", device=control.device_id, error=str(error))
                await peer.send("error", Error(str(error)[:500]), question)
    finally:
        _left(hub, control)


def _left(hub: State, control: Control) -> None:
    if hub.presence.left(control):
        hub.events.add(control.key, "disconnected")
        hub.subscriptions.changed(control.device_id)
        hub.seen.add(control.key)
        over = hub.watches.device_left(control.device_id, now())
        hub.spawn(watching.end_all(hub, over, "device_disconnected"))


async def _take(hub: State, control: Control, frame: Envelope) -> None:
    take = _TAKES.get(frame.type)
    if take is None:
        raise Refused(f"unknown type {frame.type}")
    hub.counts.add("frames", frame.type)
    await take(hub, control, frame)


async def _heartbeat(_: State, control: Control, frame: Envelope) -> None:
    await control.peer.send("heartbeat_ack", HeartbeatAck(), frame.request_id, with_request_id=True)


async def _capabilities(hub: State, control: Control, frame: Envelope) -> None:
    said = envelope.parse(frame, Capabilities)
    if said.device_id != control.device_id:
        raise Refused("capabilities of another device")
    before, control.streams = control.streams, announced.streams(said.streams)
    if control.streams != before:
        hub.subscriptions.changed(control.device_id)


async def _presence(_: State, __: Control, frame: Envelope) -> None:
    envelope.parse(frame, DevicePresence)


async def _answered(_: State, control: Control, frame: Envelope) -> None:
    response = envelope.parse(frame, ProxyHttpResp)
    if not control.answered(response):
        raise Refused("proxy_http_resp to nobody: too late, twice, or of no request")


async def _data_ticket(hub: State, control: Control, frame: Envelope) -> None:
    if "mux1" not in control.caps:
        raise Refused("data_ticket without the capability mux1")
    ticket = hub.tickets.grant(control.device_id, control.instance, now())
    await control.send("data_ticket", DataTicket(ticket, tickets.GOOD_FOR_S, DATA_PATH), frame.request_id)


async def _pairing(hub: State, control: Control, frame: Envelope) -> None:
    try:
        code = await pairing.generate(hub, control.key)
    except StoreDown as error:
        raise Refused(str(error)) from None
    await control.send("pairing_code", code, frame.request_id)


_TAKES: dict[str, Callable[[State, Control, Envelope], Awaitable[None]]] = {
    "heartbeat": _heartbeat,
    "capabilities": _capabilities,
    "device_presence": _presence,
    "proxy_http_resp": _answered,
    "data_ticket": _data_ticket,
    "pairing_request": _pairing,
    "suite": suite.took,
    "suite_restarted": suite.answered,
    "suite_event": suite.ended,
    "signal_answer": watching.from_device,
    "signal_ice": watching.from_device,
    "watch_ended": watching.ended_by_device,
}


def sweep(hub: State, time: float) -> None:
    """Close who is silent. Once a second."""
    for control in hub.presence.controls():
        if time - control.peer.heard_at > SILENT_S:
            control.peer.refuse("device was silent", device=control.device_id)
            control.peer.abort("a device was silent")
