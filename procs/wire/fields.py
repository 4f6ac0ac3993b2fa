"""Header fields of a proxied request or answer, as hub and proxy both hold them: pairs of text, order and doubles kept.

What one connection means for itself ends there (RFC 9110, 7.6.1), and nothing passes that could be read as more than
one field by whoever is next. Pure.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from procs.errors import Refused

MAX_FIELDS = 100
MAX_BYTES = 32 * 1024  # names and values, and four for each pair: as they stand on a line
# A WebSocket's handshake is each connection's own; of it only the subprotocol is for the other end.
_HANDSHAKE = {"sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"}
HOP_BY_HOP = frozenset(
    {
        *("connection", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("proxy-authenticate", "proxy-authentication-info", "proxy-authorization", "upgrade"),
        *_HANDSHAKE,
    }
)
# What acts on an origin as a whole, and not on the one answer: an answer of a device's must not at the hub's address.
OF_THE_ORIGIN = frozenset(
    {
        *("alt-svc", "clear-site-data", "nel", "public-key-pins", "report-to", "reporting-endpoints"),
        *("service-worker-allowed", "set-cookie", "set-cookie2", "strict-transport-security", "www-authenticate"),
    }
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")  # a surrogate is half of a character: not to be sent
_LENGTH = re.compile(r"[0-9]{1,18}")

MAX_KNOWN = 64  # characters of a name that is worth remembering

Pairs = list[tuple[str, str]]


def request_fields(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """The fields of a request that go on to the other end. Raises Refused for what must not be sent.

    Expect is dropped: bodies flow as they come, and nobody waits for a 100.
    """
    kept = _end_to_end(pairs, HOP_BY_HOP | {"expect"})
    if sum(name.lower() == "host" for name, _ in kept) > 1:
        raise Refused("more than one Host")
    return kept


def response_fields(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """The fields of an answer that go on to the other end. Raises Refused for what must not be sent."""
    return _end_to_end(pairs, HOP_BY_HOP)


def _end_to_end(pairs: Iterable[tuple[str, str]], dropped: frozenset[str]) -> Pairs:
    checked = _checked(pairs)
    for lower, _, value in checked:
        if lower == "connection":
            dropped |= {option.strip(" \t").lower() for option in value.split(",")}
        elif lower == "transfer-encoding":
            dropped |= {"content-length"}  # it is the other one that says where the body ends (RFC 9112, 6.3)
    kept: Pairs = []
    length: str | None = None
    for lower, name, value in checked:
        if lower in dropped:
            continue
        if lower == "content-length":
            if length == value:
                continue
            if length is not None or not _LENGTH.fullmatch(value):
                raise Refused(f"Content-Length {value[:40]!r}" + (f" beside {length}" if length else ""))
            length = value
        kept.append((name, value))
    return kept


def _checked(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Names in small letters, names and values that can stand on a line of their own, within the limits; blanks around
    a value cut off."""
    checked: list[tuple[str, str, str]] = []
    size = 0
    for name, value in pairs:
        is_plain = value.isascii()
        size += len(name) + (len(value) if is_plain else len(value.encode(errors="replace"))) + 4
        if len(checked) == MAX_FIELDS or size > MAX_BYTES:
            raise Refused(f"more than {MAX_FIELDS} header fields or {MAX_BYTES} bytes of them")
        lower = _known(name) if len(name) <= MAX_KNOWN else _lower(name)
        if not lower:
            raise Refused(f"{name[:40]!r} is no name of a header field")
        if not (is_plain and value.isprintable()) and not _VALUE.fullmatch(value):
            raise Refused(f"{name[:40]}: a control character in the value")
        checked.append((lower, name, value.strip(" \t")))
    return checked


def _lower(name: str) -> str:
    """A name in small letters; "" for what is none."""
    return name.lower() if _TOKEN.fullmatch(name) else ""


_known = functools.lru_cache(1024)(_lower)  # the same few names come again and again
