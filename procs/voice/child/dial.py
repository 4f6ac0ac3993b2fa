"""One WebSocket as a client: opened within a deadline or not at all, and why not in words that a person can act on."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
)
from websockets.typing import Subprotocol

from procs.voice import unreached

CLOSE_S = 0.5
MAX_QUEUE = 16  # frames that were read and not taken yet
_SHOWN = 200  # characters of what the other side says
_quiet = logging.getLogger("planaria.websockets")


class Failed(Exception):
    """There is no connection, or no more; the text says why."""


class _Direct(connect):
    """Without redirects: what we show to one must not be shown to another."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Never another address."""
        return exc


async def dial(
    url: str,
    *,
    within_s: float,
    max_bytes: int,
    headers: Mapping[str, str],
    protocols: Sequence[str] = (),
    tls: ssl.SSLContext | None = None,
    host: str = "",
) -> ClientConnection:
    """A connection. `host`: the address to call, where there are several under the name in `url`. Raises Failed."""
    _quiet.setLevel(logging.CRITICAL)  # it says whatever goes wrong with a stack, and we say it in words
    where: dict[str, Any] = {"host": host} if host else {}
    try:
        async with asyncio.timeout(within_s):
            return await _Direct(
                url,
                subprotocols=[Subprotocol(each) for each in protocols] or None,
                additional_headers=dict(headers),
                ssl=tls,
                compression=None,
                user_agent_header=None,
                proxy=None,
                open_timeout=None,
                close_timeout=CLOSE_S,
                ping_interval=None,
                max_size=max_bytes,
                max_queue=MAX_QUEUE,
                logger=_quiet,
                **where,
            )
    except TimeoutError:
        raise Failed(f"does not answer within {within_s:g} s") from None
    except (OSError, InvalidHandshake, InvalidURI, ConnectionClosed, EOFError, ValueError) as error:
        raise Failed(why(error)) from None


def why(error: Exception) -> str:
    """What went wrong, without a word of Python."""
    match error:
        case ssl.SSLCertVerificationError():  # which is a ValueError, too
            return f"its certificate is not trusted: {error.verify_message}"
        case InvalidStatus():
            return _status(error.response.status_code, bytes(error.response.body or b""))
        case NegotiationError():
            return "speaks none of the protocols that it is offered"
        case InvalidMessage() | InvalidHandshake() | EOFError() | ValueError():
            return "does not speak WebSocket"
        case ConnectionClosed():
            frame = error.rcvd or error.sent
            return f"closed with {frame.code} {frame.reason}"[:_SHOWN].strip() if frame else "the connection broke"
        case ssl.SSLError():
            return f"no TLS with it: {error.reason or error}"[:_SHOWN]
        case OSError():
            return unreached.why(error)[:_SHOWN]
    return str(error)[:_SHOWN]


def _status(status: int, body: bytes) -> str:
    said = " ".join(body[:_SHOWN].decode(errors="replace").split())
    if status == 401:
        return "refuses the token, or asks for one (HTTP 401)"
    return f"answers HTTP {status}" + (f": {said}" if said else "")


def trusting(ca: str = "") -> ssl.SSLContext:
    """Who is trusted: what this machine trusts, and the certificates in a file. Raises Failed."""
    try:
        context = ssl.create_default_context()
        if ca:
            context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise Failed(f"ca={ca!r}: cannot be read: {error.strerror or error}") from None
    return context
