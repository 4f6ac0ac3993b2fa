"""What a channel carries: text, JSON values, bytes, or whatever a class of yours makes of it.

    transport = create_transport("json")
    transport.attach_channel(channel)
    transport.on_message(print)
    await transport.send_json({"hello": "bob"})      # or without await, where nobody sends much

`send_*` send at once and raise LinkLost where the channel is not open; what they give can be awaited for room.
To make your own, override `encode` and `decode`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from procs import log
from procs.agent.channel import Channel
from procs.errors import ConfigError, LinkLost, Refused

T = TypeVar("T", bound=Callable[[Any], Any])


class _Room:
    """Awaited: until there is room for more on that channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __await__(self) -> Generator[Any, None, None]:
        return self._channel.room().__await__()


class Transport:
    """Between values and the messages of one channel."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self._takers: list[Callable[[Any], Any]] = []
        self.refused = 0  # messages that were none of this kind

    def encode(self, value: Any) -> str | bytes:
        """A value as a message. Raises Refused for one that can't be."""
        raise NotImplementedError

    def decode(self, message: str | bytes) -> Any:
        """A message as a value. Raises Refused for one that is none."""
        raise NotImplementedError

    def attach_channel(self, channel: Channel) -> None:
        """Carry over this channel from now on, whatever connections it has."""
        self.channel = channel
        channel.on("message", self._take)

    def on_message(self, taker: T) -> T:
        """Have each value that comes given to `taker`; also good as a decorator."""
        self._takers.append(taker)
        return taker

    def send(self, value: Any) -> Awaitable[None]:
        """Send a value."""
        if self.channel is None:
            raise LinkLost("no channel is attached")
        self.channel.send(self.encode(value))
        return _Room(self.channel)

    def send_text(self, text: str) -> Awaitable[None]:
        """Send a text."""
        return self.send(text)

    def send_json(self, value: Any) -> Awaitable[None]:
        """Send a JSON value."""
        return self.send(value)

    def send_bytes(self, data: bytes) -> Awaitable[None]:
        """Send bytes."""
        return self.send(data)

    def close(self) -> None:
        """Close the channel, here and at the peer."""
        if self.channel:
            self.channel.close()

    def _take(self, message: str | bytes) -> None:
        try:
            value = self.decode(message)
        except Refused as reason:
            self.refused += 1
            log.warning("a message of another kind", why=str(reason), refused=self.refused)
            return
        for taker in self._takers:
            taker(value)


class ChatTransport(Transport):
    """UTF-8 text, one line of talk a message."""

    def encode(self, value: Any) -> str:
        if not isinstance(value, str):
            raise Refused(f"chat is text, not {type(value).__name__}")
        return value

    def decode(self, message: str | bytes) -> str:
        return message if isinstance(message, str) else message.decode(errors="replace")


class JsonTransport(Transport):
    """One JSON value a message."""

    def encode(self, value: Any) -> str:
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise Refused(f"no JSON: {error}") from None

    def decode(self, message: str | bytes) -> Any:
        try:
            return json.loads(message)
        except (ValueError, RecursionError) as error:
            raise Refused(f"no JSON: {error}") from None


class BytesTransport(Transport):
    """Bytes, as they are."""

    def encode(self, value: Any) -> bytes:
        if isinstance(value, str) or not isinstance(value, bytes | bytearray | memoryview):
            raise Refused(f"bytes are wanted, not {type(value).__name__}")
        return bytes(value)

    def decode(self, message: str | bytes) -> bytes:
        return message.encode() if isinstance(message, str) else message


TRANSPORTS: dict[str, type[Transport]] = {"chat": ChatTransport, "json": JsonTransport, "bytes": BytesTransport}


def create_transport(mode: str) -> Transport:
    """The transport of a mode. Raises ConfigError for none."""
    if mode not in TRANSPORTS:
        raise ConfigError(f"mode={mode!r}: must be one of {', '.join(TRANSPORTS)}")
    return TRANSPORTS[mode]()
