"""Passwords: kept by scrypt, checked in two threads, with a bound on how many wait."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from procs.errors import StoreDown

A = ParamSpec("A")
T = TypeVar("T")

LOG2_N, R, P = 15, 8, 3  # 32 MiB and about 0.2 s each
THREADS = 2
MAX_WAITING = 32  # beyond it, whoever comes is told to come later: each would wait for seconds
LENGTHS = range(8, 1025)
_SCHEME = "scrypt"


def hashed(password: str, salt: bytes | None = None, log2_n: int = LOG2_N, r: int = R, p: int = P) -> str:
    """What to keep of a password; the parameters stand in it, so that they can change."""
    salt = os.urandom(16) if salt is None else salt
    memory = 128 * r * (2**log2_n + p + 2)
    key = hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=2**log2_n, r=r, p=p, maxmem=memory, dklen=32
    )
    return f"{_SCHEME}${log2_n}${r}${p}${salt.hex()}${key.hex()}"


def matches(password: str, kept: str) -> bool:
    """Whether it is that password."""
    scheme, log2_n, r, p, salt, _ = kept.split("$")
    again = hashed(password, bytes.fromhex(salt), int(log2_n), int(r), int(p))
    return scheme == _SCHEME and hmac.compare_digest(again, kept)


# What nobody's password matches: looking for a user who is not there takes as long as a wrong password.
NOBODY = f"{_SCHEME}${LOG2_N}${R}${P}${bytes(16).hex()}${bytes(32).hex()}"


class Passwords:
    """Hashing in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "scrypt")
        self._waiting = 0

    async def hashed(self, password: str) -> str:
        """As the function. Raises StoreDown when too many wait."""
        return await self._in_thread(hashed, password)

    async def matches(self, password: str, kept: str | None) -> bool:
        """As the function; None is nobody's."""
        return await self._in_thread(matches, password, kept or NOBODY) and kept is not None

    async def _in_thread(self, work: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        if self._waiting >= MAX_WAITING:
            raise StoreDown("too many log in at once")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))
        finally:
            self._waiting -= 1
