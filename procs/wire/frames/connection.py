"""How a device or a viewer connects to the hub and stays: hellos, the proof of a device, heartbeats, errors."""

from __future__ import annotations

import msgspec

from procs.wire.envelope import Payload, SecretPayload
from procs.wire.mux1 import MuxLimits
from procs.wire.scalars import Caps, Digest, Id, Instance, Nonce, NoNonce, OriginPath, Secret, Text, Time


class Hello(SecretPayload, frozen=True, omit_defaults=True):
    """hello, device to hub: the first frame. `nonce` goes with the capability "challenge"."""

    device_id: Id
    agent_version: Text = ""
    go2rtc_http: Text = ""
    device_secret: Secret | None = None
    caps: Caps = msgspec.field(default_factory=list)
    mux: MuxLimits | None = None
    instance: Instance = ""
    nonce: NoNonce = ""


class HelloAck(Payload, frozen=True, omit_defaults=True):
    """hello_ack, hub to device: it is taken. The later fields only to a device that says hello with caps."""

    device_id: Id
    server_time: Time
    agent_version: Text | None = None
    caps: Caps = msgspec.field(default_factory=list)
    mux: MuxLimits | None = None
    signature: Digest | None = None
    data_path: OriginPath | None = None


class Challenge(Payload, frozen=True):
    """challenge, hub to device: prove that you have the secret, over this nonce."""

    nonce: Nonce


class ChallengeResp(Payload, frozen=True):
    """challenge_resp, device to hub."""

    proof: Digest


class ViewerHello(SecretPayload, frozen=True, omit_defaults=True):
    """hello, viewer to hub: the first frame. Without a token where a page's cookie came with the upgrade. `caps` is
    ours: "resume" of a viewer that comes back to its watch sessions by watch_resume."""

    token: Secret | None = None
    caps: Caps = msgspec.field(default_factory=list)


class ViewerHelloAck(Payload, frozen=True, omit_defaults=True):
    """hello_ack, hub to viewer. `caps`: those of its hello that the hub has too."""

    user_id: Id
    server_time: Time
    caps: Caps = msgspec.field(default_factory=list)


class Heartbeat(Payload, frozen=True):
    """heartbeat, device or viewer to hub, every 15 s."""


class HeartbeatAck(Payload, frozen=True):
    """heartbeat_ack, the hub's answer."""


class Error(Payload, frozen=True):
    """error, hub to anybody: the answer to a request that is not fulfilled."""

    message: Text
