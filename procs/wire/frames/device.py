"""What a device has and does for its hub: streams, requests to them, data connections, and pairing with a user."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from procs.wire.envelope import MAX_BYTES, Payload, SecretPayload
from procs.wire.scalars import AnyId, Id, OriginPath, Text, Time

MAX_BODY = 1024 * 1024  # of a proxied body, before base64

Target = Annotated[str, msgspec.Meta(max_length=16 * 1024)]
Headers = Annotated[
    dict[
        Annotated[str, msgspec.Meta(max_length=256)],
        Annotated[str, msgspec.Meta(max_length=16 * 1024)],
    ],
    msgspec.Meta(max_length=100),
]


class Capabilities(Payload, frozen=True):
    """capabilities, device to hub: what go2rtc answers to GET /api/streams."""

    max_bytes: ClassVar[int] = 1024 * 1024

    device_id: Id
    streams: dict[str, Any]


class DevicePresence(Payload, frozen=True):
    """device_presence: whether a device is there."""

    device_id: AnyId = ""
    is_online: bool = True
    last_seen: Time | None = None


class ProxyHttp(Payload, frozen=True):
    """proxy_http, hub to device: make this request."""

    max_bytes: ClassVar[int] = MAX_BYTES

    rid: Id
    method: Annotated[str, msgspec.Meta(max_length=32, pattern=r"^[A-Za-z]+\Z")] = "GET"
    path: Target = "/"  # with its query
    headers: Headers = msgspec.field(default_factory=dict)
    body_b64: str | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=86_400_000)] = 30_000


class ProxyHttpResp(Payload, frozen=True):
    """proxy_http_resp, device to hub: the answer to the request of the same rid."""

    max_bytes: ClassVar[int] = MAX_BYTES

    rid: Id
    status: Annotated[int, msgspec.Meta(ge=100, le=599)]
    headers: Headers = msgspec.field(default_factory=dict)
    body_b64: str = ""


class DataTicketRequest(Payload, frozen=True):
    """data_ticket, device to hub, with a request_id: let a data connection in."""


class DataTicket(SecretPayload, frozen=True):
    """data_ticket, the hub's answer. The ticket is good once."""

    ticket: Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._~+/=-]+\Z")]
    expires_in_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    path: OriginPath


class PairingRequest(Payload, frozen=True):
    """pairing_request, device to hub, with a request_id: make a code for the people beside me."""


class PairingCode(SecretPayload, frozen=True):
    """pairing_code, the hub's answer."""

    code: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}\Z")]
    expires_at: Time
    ttl: Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class Paired(SecretPayload, frozen=True):
    """paired, hub to device: a user has claimed it with this code, which is good no more."""

    code: Text = ""
