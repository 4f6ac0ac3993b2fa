"""speech_stt under SIGKILL: of one session's child, of the zygote, of the leader. Who is not hit notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from procs import proc
from procs.wire import moshi
from tests import moshi_client, speech_rig
from tests.moshi_client import Gone, Session
from tests.rig import until
from tests.speech_rig import Service

PATH = "/api/asr-streaming"
STEP = moshi.encode(moshi.Audio(np.zeros(moshi.STEP, np.int16)))
SOME = 12


async def steps(session: Session, count: int) -> None:
    """Have so many steps heard."""
    for _ in range(count):
        await session.socket.send(STEP)
    while count:
        count -= (await session.next())["type"] == "Step"


def zygote(stt: Service) -> int:
    (found,) = proc.children(stt.process.pid)
    return found


def test_a_child_that_dies_is_told_to_its_own_caller(tmp_path: Path) -> None:
    async def talk(stt: Service) -> list[dict[str, Any]]:
        url = f"{stt.url}{PATH}"
        async with contextlib.AsyncExitStack() as stack:
            other = await stack.enter_async_context(moshi_client.session(url))
            await other.ready()
            before = set(proc.children(zygote(stt)))
            hit = await stack.enter_async_context(moshi_client.session(url))
            await hit.ready()
            (child,) = set(proc.children(zygote(stt))) - before
            await steps(hit, SOME)
            assert proc.kill(child, signal.SIGKILL)
            told = await hit.rest()
            await steps(other, SOME)
            async with moshi_client.session(url) as again:
                await again.ready()
                await steps(again, SOME)
            return told

    with speech_rig.service("stt", tmp_path) as stt:
        told = asyncio.run(talk(stt))
        assert [each["type"] for each in told] == ["Error"] and "gone" in told[0]["message"]
        until(lambda: proc.children(zygote(stt)) == [])
        assert stt.figure("asr_open_channels") == 0


def test_a_leader_or_zygote_that_dies_takes_all_along_and_the_next_serves(tmp_path: Path) -> None:
    async def last_words(stt: Service, victim: int) -> None:
        async with moshi_client.session(f"{stt.url}{PATH}") as session:
            await session.ready()
            await steps(session, SOME)
            family = proc.descendants(stt.process.pid)
            assert proc.kill(victim, signal.SIGKILL)
            killed_at = time.monotonic()
            with contextlib.suppress(Gone):
                await session.next()
            print(f"the caller was told after {time.monotonic() - killed_at:.3f} s")
            until(lambda: not any(proc.is_alive(pid) for pid in family))

    with speech_rig.service("stt", tmp_path) as stt:
        asyncio.run(last_words(stt, stt.process.pid))
        killed_at = time.monotonic()
        with speech_rig.service("stt", tmp_path, port=stt.port) as following:
            print(f"the next one serves after {time.monotonic() - killed_at:.3f} s")
            asyncio.run(last_words(following, zygote(following)))
            assert following.process.wait(10) == 15
