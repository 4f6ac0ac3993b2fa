"""What the hub answers in JSON: the structs of which its description is made."""

from __future__ import annotations

import msgspec


class Detail(msgspec.Struct):
    """Why not."""

    detail: str


class Said(msgspec.Struct):
    """Done."""

    message: str


class Person(msgspec.Struct):
    """A user, as users see themselves."""

    id: int
    username: str
    email: str


class Granted(msgspec.Struct):
    """An access token, and whose."""

    access_token: str
    token_type: str
    user: Person


class Registered(msgspec.Struct):
    """A device is known."""

    device_id: str
    message: str


class Status(msgspec.Struct):
    """Whether a device is here. Times are UTC."""

    device_id: str
    is_online: bool
    last_seen: str | None


class Named(msgspec.Struct):
    """Which device."""

    device_id: str
    device_name: str


class Paired(msgspec.Struct):
    """A device is the asker's."""

    message: str
    device: Named


class Opened(msgspec.Struct):
    """Where to look."""

    url: str


class Health(msgspec.Struct):
    """This process answers. The time is UTC."""

    status: str
    timestamp: str
