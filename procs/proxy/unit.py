"""What is handed on to a viewer whole or not at all."""

from __future__ import annotations

from typing import NamedTuple

MAX_UNIT = 16 * 1024 * 1024  # bytes of one picture


class Unit(NamedTuple):
    """What is sent whole or not at all."""

    data: bytes
    is_key: bool  # a viewer can begin here
    may_drop: bool
    flags: int = 0  # of the DATA frame
