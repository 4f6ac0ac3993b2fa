"""Passwords are kept by scrypt, and checking one never stops the loop."""

from __future__ import annotations

import asyncio
import time

import pytest

from procs.errors import StoreDown
from procs.hub.people import passwords
from procs.hub.people.passwords import MAX_WAITING, Passwords, hashed, matches


def test_it_is_scrypt() -> None:
    # RFC 7914, section 12, its first 32 bytes: a key of that length is a prefix of the longer one.
    kept = hashed("pleaseletmein", b"SodiumChloride", log2_n=14, r=8, p=1)
    assert (
        kept
        == "scrypt$14$8$1$536f6469756d43686c6f72696465$7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
    )
    assert (passwords.LOG2_N, passwords.R, passwords.P) == (15, 8, 3)


def test_a_password_matches_itself_only() -> None:
    kept = hashed("correct horse", log2_n=10)
    assert kept != hashed("correct horse", log2_n=10), "no salt"
    assert matches("correct horse", kept)
    assert not matches("correct hors", kept) and not matches("", kept) and not matches("\udcff", kept)
    assert not matches("", passwords.NOBODY)


def test_nobody_takes_as_long_as_somebody() -> None:
    kept = hashed("some password")

    async def measured(of: str | None) -> float:
        start = time.process_time()  # what others want of the processor meanwhile is not meant
        assert not await Passwords().matches("wrong", of)
        return time.process_time() - start

    somebody = min(asyncio.run(measured(kept)) for _ in range(2))
    nobody = min(asyncio.run(measured(None)) for _ in range(2))
    assert nobody == pytest.approx(somebody, rel=0.5)


def test_the_loop_turns_meanwhile_and_the_queue_has_an_end() -> None:
    async def crowd() -> tuple[int, int]:
        store, turns = Passwords(), 0
        waiting = [asyncio.ensure_future(store.matches("x", None)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(StoreDown):
            await store.matches("x", None)
        for task in waiting[4:]:
            task.cancel()
        while not waiting[0].done():
            await asyncio.sleep(0.005)
            turns += 1
        await asyncio.gather(*waiting, return_exceptions=True)
        return turns, len(waiting)

    turns, _ = asyncio.run(crowd())
    assert turns > 3
