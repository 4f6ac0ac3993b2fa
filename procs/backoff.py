"""How long to wait before trying again: full jitter under a doubling cap. Pure but for the random source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

FREE = 3  # failures in a row that cost nothing


def uniform() -> float:
    """A random number in [0, 1). From the kernel: `random` would cost each start-up 10 ms of imports."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def delays(
    *, first_s: float = 0.1, base_s: float = 1.0, cap_s: float = 30.0, rng: Callable[[], float] = uniform
) -> Iterator[float]:
    """Yield seconds to wait before attempt 1, 2, 3, ... for ever.

    The first lies in [0, first_s), so that a fleet that lost its server together does not return together;
    the n-th after it lies in [0, min(cap_s, base_s * 2**n)) (full jitter).
    """
    yield first_s * rng()
    ceiling = base_s
    while True:
        yield min(ceiling, cap_s) * rng()
        ceiling = min(ceiling * 2, cap_s)


def crash_pause(failures: int, *, cap_s: float = 30.0, rng: Callable[[], float] = uniform) -> float:
    """Seconds to wait before run number `failures + 1` of a row in which no run has served yet.

    The first FREE failures cost nothing; then 1, 2, 4, ... up to cap_s, of which at least half is waited.
    """
    if failures < FREE:
        return 0.0
    ceiling = min(2.0 ** min(failures - FREE, 30), cap_s)
    return ceiling * (0.5 + 0.5 * rng())
