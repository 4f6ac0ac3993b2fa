"""What a channel carries: text, JSON values, bytes, or whatever a class of yours makes of it.

    transport = create_transport("json")
    transport.attach_channel(channel)
    transport.on_value(print)
    await transport.send_json({"hello": "bob"})      # or without await, where nobody sends much

All `send_*` send at once, as one message of bytes, and raise LinkLost where the channel is not open; what they return
can be awaited for room for more. `on_message` gets the bytes that come, as published; `on_value` what they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, TypeVar

from procs import log
from procs.agent.channel import Channel
from procs.agent.datagrams import Datagrams
from procs.errors import ConfigError, LinkLost, Refused

T = TypeVar("T", bound=Callable[[Any], Any])


class _Room:
    """Awaited: until there is room for more on that channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __await__(self) -> Generator[Any, None, None]:
        return self._channel.room().__await__()


class _Sent:
    """Awaited: at once."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


class Transport:
    """Between values and the messages of one channel. To make your own, override `decode` and what you need of
    `send_text`, `send_json` and `send_bytes`."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self._on_message: list[Callable[[bytes], Any]] = []
        self._on_value: list[Callable[[Any], Any]] = []
        self.refused = 0  # messages that were none of this kind

    def attach_channel(self, channel: Channel) -> None:
        """Carry over this channel from now on, whatever connections it has."""
        self.channel = channel
        channel.on("message", self._take)

    @property
    def is_taken(self) -> bool:
        """Whether what comes is given to anybody."""
        return bool(self._on_message or self._on_value)

    def on_message(self, taker: T) -> T:
        """Have each message that comes given to `taker`, as bytes; also good as a decorator."""
        self._on_message.append(taker)
        return taker

    def on_value(self, taker: T) -> T:
        """Have what each message stands for given to `taker`."""
        self._on_value.append(taker)
        return taker

    def send(self, message: bytes) -> Awaitable[None]:
        """Send a message."""
        if self.channel is None:
            raise LinkLost("no channel is attached")
        self.channel.send(message)
        return _Room(self.channel)

    def send_text(self, text: str) -> Awaitable[None]:
        """Send a text."""
        return self.send(text.encode())

    def send_json(self, value: Any) -> Awaitable[None]:
        """Send a JSON value. Raises Refused for one that is none."""
        try:
            return self.send(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise Refused(f"no JSON: {error}") from None

    def send_bytes(self, data: bytes) -> Awaitable[None]:
        """Send bytes."""
        return self.send(bytes(data))

    def decode(self, message: bytes) -> Any:
        """What a message stands for. Raises Refused for one that is none of this kind."""
        return message

    async def close(self) -> None:
        """Close the channel, here and at the peer."""
        if self.channel:
            self.channel.close()

    def _take(self, message: str | bytes) -> None:
        data = message.encode() if isinstance(message, str) else message
        for taker in self._on_message:
            taker(data)
        if not self._on_value:
            return
        try:
            value = self.decode(data)
        except Refused as reason:
            self.refused += 1
            log.warning("a message of another kind", why=str(reason), refused=self.refused)
            return
        for taker in self._on_value:
            taker(value)


class ChatTransport(Transport):
    """UTF-8 text, one line of talk a message."""

    def decode(self, message: bytes) -> str:
        return message.decode(errors="replace")


class JsonTransport(Transport):
    """One JSON value a message."""

    def send_text(self, text: str) -> Awaitable[None]:
        """Send a text, as a JSON value."""
        return self.send_json(text)

    def decode(self, message: bytes) -> Any:
        try:
            return json.loads(message)
        except (ValueError, RecursionError) as error:
            raise Refused(f"no JSON: {error}") from None


class BytesTransport(Transport):
    """Bytes, as they are."""


class TunTransport(Transport):
    """One IP packet a message, on the best plane that the session has. A packet that there is no room for, or no
    connection, is dropped, as any network does it."""

    def __init__(self) -> None:
        super().__init__()
        self._datagrams: Datagrams | None = None
        self.dropped = 0

    def attach_session(self, datagrams: Datagrams) -> None:
        """Carry over these."""
        self._datagrams = datagrams
        datagrams.on_packets = self._packets

    def send(self, message: bytes) -> Awaitable[None]:
        """Send a packet."""
        if self._datagrams is None:
            return super().send(message)
        self.dropped += 1 - self._datagrams.send([message])
        return _Sent()

    def _packets(self, packets: Sequence[bytes]) -> None:
        for packet in packets:
            self._take(packet)


TRANSPORTS: dict[str, type[Transport]] = {
    "chat": ChatTransport,
    "json": JsonTransport,
    "bytes": BytesTransport,
    "tun": TunTransport,
}


def create_transport(mode: str) -> Transport:
    """The transport of a mode. Raises ConfigError for none."""
    if mode not in TRANSPORTS:
        raise ConfigError(f"mode={mode!r}: must be one of {', '.join(TRANSPORTS)}")
    return TRANSPORTS[mode]()


def transport_of(mode: str, channel: Channel, datagrams: Datagrams) -> Transport:
    """The transport of a mode, on a session's main channel or, for packets, beside it."""
    made = create_transport(mode)
    if isinstance(made, TunTransport):
        made.attach_session(datagrams)
    else:
        made.attach_channel(channel)
    return made
