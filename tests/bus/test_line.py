"""One end of an endpoint where much goes through."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import zmq

from procs import bus, line
from procs.messages.voice import MuteWanted


def test_one_that_says_much_leaves_others_their_turn(tmp_path: Path) -> None:
    """All of it is taken, but not in one go."""
    taken = 0
    seen: list[int] = []

    def take(_: str, __: bytes, ___: bytes) -> None:
        nonlocal taken
        taken += 1

    async def flood() -> None:
        binding, says = line.Line(here, take), line.Line(there, lambda *_: None)
        await says.connected(5.0)
        sent, until = 0, time.monotonic() + 0.5
        while time.monotonic() < until:  # nothing of this loop runs meanwhile
            sent += says.say(MuteWanted(True))
        while taken < sent:
            seen.append(taken)
            await asyncio.sleep(0)
        assert not binding.broken.done()

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    here = bus.work_binder(context, tmp_path, bus.VOICE_CHILDREN)
    there = bus.work_connector(context, tmp_path, "one", bus.VOICE_CHILDREN)
    try:
        asyncio.run(asyncio.wait_for(flood(), 20.0))
    finally:
        here.close()
        there.close()
        context.term()
    assert taken > 2 * line._IN_A_ROW, "there was not enough to tell"
    assert max(later - earlier for earlier, later in zip(seen, [*seen[1:], taken], strict=True)) <= 2 * line._IN_A_ROW
