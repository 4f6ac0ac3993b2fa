"""How many examples a property is tried with. Each run makes up others, so that many runs try many."""

from __future__ import annotations

import os

SHARE = 1 if os.environ.get("PLANARIA_LONG") else 3


def some_of(number: int) -> int:
    """All of so many with `make test LONG=1`, else a third."""
    return number // SHARE
