"""Whether an answer that broke off can go on where it broke, and how to ask for that (RFC 9110, ranges). Pure."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procs.hub.tunnel.tunnel import Request
    from procs.wire.mux1 import Head


def field(head: Head, name: str) -> str:
    """The value of a field of an answer; "" without one."""
    return next((value for key, value in head.headers if key.lower() == name), "")


def validator(head: Head) -> str:
    """What two answers with the same bytes have in common: a strong ETag, else the date of the last change, if that was
    over when the answer was made (RFC 9110, 8.8.2.2: within one second there may be two versions); or ""."""
    tag, changed = field(head, "etag"), field(head, "last-modified")
    if tag:
        return "" if tag.startswith("W/") else tag
    age_s = (_time(field(head, "date")) or 0.0) - (_time(changed) or math.inf)
    return changed if age_s >= 1 else ""


def _time(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def request(first: Request, head: Head, had: int) -> Request | None:
    """What asks for the bytes from `had` on; None if the answer can't be gone on with."""
    length = field(head, "content-length")
    asked = {name.lower() for name, _ in first.headers}
    if (
        first.method != "GET"
        or head.status != 200
        or head.endless
        or not validator(head)
        or not length.isdecimal()
        or field(head, "accept-ranges").lower() == "none"
        or "range" in asked
    ):
        return None
    if not had:
        return first
    ranged = [("Range", f"bytes={had}-"), ("If-Range", validator(head))]
    return first._replace(headers=[*first.headers, *ranged])


def is_rest(head: Head, found: Head, had: int) -> bool:
    """Whether what was found is the rest of the answer that began with `head`, from byte `had` on."""
    length = field(head, "content-length")
    if (field(found, "etag"), field(found, "last-modified")) != (field(head, "etag"), field(head, "last-modified")):
        return False
    if not had:
        return found.status == 200 and field(found, "content-length") == length
    return found.status == 206 and field(found, "content-range") == f"bytes {had}-{int(length) - 1}/{length}"
