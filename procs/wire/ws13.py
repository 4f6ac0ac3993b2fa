"""WebSocket, version 13 (RFC 6455), as far as a connection of binary messages needs it, at both ends. Pure.

Pieces of TCP go in, whole messages come out as views of what came in: nothing is copied that need not be.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from procs.errors import Refused

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_CONTROL = 125  # bytes
MAX_HEAD = 16 * 1024  # of the answer to a handshake
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_STATUS = re.compile(r"HTTP/1\.1 ([0-9]{3})(?: (.*))?")


class Message(NamedTuple):
    """A whole binary message, or a control frame."""

    opcode: int
    data: memoryview


class Frames:
    """What comes in. `masked`: whether the other side is a client, whose frames have to be masked."""

    def __init__(self, *, masked: bool, limit: int) -> None:
        self._masked, self._limit = masked, limit
        self._rest = bytearray()  # less than a frame
        self._need = 2  # bytes that it takes to get any further
        self._fragments: list[memoryview] | None = None  # of a message that comes in several frames
        self._fragmented = 0  # bytes in them

    def feed(self, data: bytes) -> Iterator[Message]:
        """What has come whole with these bytes. Raises Refused for what breaks the protocol or the limit."""
        view, at, size = memoryview(data), 0, len(data)
        while self._rest:  # only what is missing of it is copied
            at += self._complete(view[at:])
            if len(self._rest) < self._need:
                return
            head, length = self._head(self._rest, 0, len(self._rest))
            self._need = head + length
            if head and len(self._rest) == self._need:
                whole, self._rest = self._rest, bytearray()
                message = self._message(whole[0], memoryview(whole)[head:], bytes(whole[head - 4 : head]), len(whole))
                if message is not None:
                    yield message
        while True:
            head, length = self._head(data, at, size)
            end = at + head + length
            if not head or end > size:
                break
            message = self._message(data[at], view[at + head : end], data[at + head - 4 : at + head], size)
            at = end
            if message is not None:
                yield message
        self._need = end - at if head else length
        if at < size:
            self._rest += view[at:]

    def _complete(self, view: memoryview) -> int:
        taken = view[: self._need - len(self._rest)]
        self._rest += taken
        return len(taken)

    def _head(self, data: bytes | bytearray, at: int, size: int) -> tuple[int, int]:
        """(bytes of the frame's head, of its payload); (0, bytes that are needed to say) if it is not there yet."""
        if size - at < 2:
            return 0, 2
        length = data[at + 1] & 127
        head = (2 if length < 126 else 4 if length == 126 else 10) + (4 if self._masked else 0)
        if size - at < head:
            return 0, head
        if length >= 126:
            length = int.from_bytes(data[at + 2 : at + (4 if length == 126 else 10)], "big")
        if length > self._limit:
            raise Refused(f"a frame of {length} bytes is over the limit of {self._limit}")
        if bool(data[at + 1] & 128) != self._masked:
            raise Refused("a frame that is not masked" if self._masked else "a masked frame of a server")
        return head, length

    def _message(self, first: int, payload: memoryview, key: bytes, read: int) -> Message | None:
        opcode, is_last = first & 15, bool(first & 128)
        if first & 0x70:
            raise Refused("a frame with reserved bits")
        if self._masked and any(key):
            unmasked = bytearray(payload)
            _mask(key, unmasked)
            payload = memoryview(unmasked)
        if opcode >= CLOSE:
            if opcode > PONG or not is_last or len(payload) > MAX_CONTROL:
                raise Refused("a control frame that is none")
            return Message(opcode, payload)
        if opcode == BINARY and is_last and self._fragments is None:
            # A view keeps all that was read with it: too much for a small message that has to wait for long.
            return Message(BINARY, payload if 4 * len(payload) > read else memoryview(bytes(payload)))
        return self._fragment(opcode, payload, is_last=is_last)

    def _fragment(self, opcode: int, payload: memoryview, *, is_last: bool) -> Message | None:
        if opcode not in (CONTINUATION, BINARY):
            raise Refused("only binary messages are taken here")
        if (opcode == CONTINUATION) != (self._fragments is not None):
            raise Refused("a fragment out of its place")
        if self._fragments is None:
            self._fragments, self._fragmented = [], 0
        fragments = self._fragments
        fragments.append(payload)
        self._fragmented += len(payload)  # kept, not summed up each time: many tiny ones would cost their square
        if self._fragmented > self._limit or len(fragments) > self._limit // 1024:
            raise Refused(f"a message of more than {self._limit} bytes, or of too many fragments")
        if not is_last:
            return None
        self._fragments = None
        return Message(BINARY, memoryview(b"".join(fragments)))


def frames(
    messages: Sequence[bytes], new_mask: Callable[[], bytes] | None, opcode: int = BINARY
) -> list[bytes | bytearray]:
    """Messages as they go over the wire, in pieces to be written one after the other. `new_mask` gives four bytes for
    each; a server has none."""
    pieces: list[bytes | bytearray] = []
    for message in messages:
        key = new_mask and new_mask()
        pieces.append(_header(opcode, len(message), key))
        if key is not None and any(key):
            masked = bytearray(message)
            _mask(key, masked)
            pieces.append(masked)
        else:
            pieces.append(message)
    return pieces


def _mask(key: bytes, data: bytearray) -> None:
    from aiohttp._websocket.helpers import websocket_mask  # here: with all of aiohttp it takes 0.3 s, and few need it

    websocket_mask(key, data)


def _header(opcode: int, size: int, key: bytes | None) -> bytes:
    mark, key = (0, b"") if key is None else (128, key)
    if size < 126:
        return bytes((128 | opcode, mark | size)) + key
    if size < 1 << 16:
        return bytes((128 | opcode, mark | 126)) + size.to_bytes(2, "big") + key
    return bytes((128 | opcode, mark | 127)) + size.to_bytes(8, "big") + key


def closing(code: int, reason: str) -> bytes:
    """The payload of a CLOSE frame."""
    return code.to_bytes(2, "big") + reason.encode(errors="replace")[: MAX_CONTROL - 2]


def read_closing(payload: memoryview) -> tuple[int, str]:
    """(code, reason) of a CLOSE frame."""
    if len(payload) < 2:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), bytes(payload[2:]).decode(errors="replace")


# The client's handshake


def new_key() -> str:
    """What a handshake is recognized by."""
    return base64.b64encode(os.urandom(16)).decode()


def asking(host: str, target: str, key: str, subprotocol: str, more: Sequence[tuple[str, str]] = ()) -> bytes:
    """A client's handshake."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Protocol: {subprotocol}"]
    lines += [f"{name}: {value}" for name, value in more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def check_answer(head: bytes, key: str, subprotocol: str) -> None:
    """Look at the answer to it, without the empty line at its end. Raises Refused."""
    first, *lines = head.decode("latin-1").split("\r\n")
    match = _STATUS.fullmatch(first)
    if not match or match[1] != "101":
        raise Refused(f"{match[1]} {match[2] or ''}".strip() if match else "no HTTP")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    wanted = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    if fields.get("sec-websocket-accept") != wanted or fields.get("upgrade", "").lower() != "websocket":
        raise Refused("no WebSocket")
    if fields.get("sec-websocket-protocol") != subprotocol or "sec-websocket-extensions" in fields:
        raise Refused(f"a WebSocket without {subprotocol}")
