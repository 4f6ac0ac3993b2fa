"""Times as the hub's answers have them: UTC, ISO 8601, without a zone, as published."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload


@overload
def iso(seconds: float) -> str: ...
@overload
def iso(seconds: float | None) -> str | None: ...
def iso(seconds: float | None) -> str | None:
    """Of seconds since the Unix epoch; none of none."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
