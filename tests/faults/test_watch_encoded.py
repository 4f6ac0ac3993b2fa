"""What a viewer can't take is made for all who can't, once: sound that no browser plays, pictures for who takes no
H.264. And made again when the process that makes it has died or stands still."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from procs import proc
from tests.json_hub import JsonHub
from tests.linked import linked
from tests.peered import Peered, Watcher, heard, peered, watch
from tests.rig import go2rtc, until

ID = ("--device-id", "pi-cam-001")
SHAPE = {"width": 320, "height": 180, "fps": 30, "gop": 30, "audio": "tone"}
STREAM = "omega-0"


@pytest.fixture
def device(run_dir: Path, request: pytest.FixtureRequest) -> Iterator[tuple[JsonHub, Peered]]:
    """A hub, and a device whose stream has sound of the codec that the test asks for."""
    producer = SHAPE | {"audio_codec": request.param}
    with (
        go2rtc({"workers": 1, "producer": producer}, run_dir=run_dir) as served,
        JsonHub() as hub,
        linked(run_dir, hub.backend, *ID),
        peered(run_dir, served) as peer,
    ):
        hub.connected()
        yield hub, peer


def encoders(peer: Peered, codec: str) -> list[int]:
    """Their pids, oldest first, as the log has them."""
    found = [line for line in peer.log_lines("encoder") if line["codec"] == codec and "pid" in line]
    return [int(line["pid"]) for line in found]


@pytest.mark.parametrize("device", ["aac"], indirect=True)
def test_aac_is_heard_by_all_from_one_encoder_which_may_die(device: tuple[JsonHub, Peered]) -> None:
    hub, peer = device

    async def test() -> None:
        async with AsyncExitStack() as stack:
            watchers = []
            for name in ("one", "two"):
                watch(hub, name, STREAM)
                watchers.append(await stack.enter_async_context(Watcher(hub, name, sound=True)))
            one, two = watchers
            await one.until(lambda: one.hears and two.hears and min(one.pictures, two.pictures) > 10)
            (first,) = encoders(peer, "opus")
            for number in (signal.SIGKILL, signal.SIGSTOP):
                last = encoders(peer, "opus")[-1]
                os.kill(last, number)
                await one.until(functools.partial(_is_another, peer, last))
                one.loudest.clear()
                await one.until(lambda: one.hears)
            assert not proc.is_alive(first)
        last = encoders(peer, "opus")[-1]
        until(lambda: not proc.is_alive(last))

    asyncio.run(test())


def _is_another(peer: Peered, last: int) -> bool:
    return encoders(peer, "opus")[-1] != last


@pytest.mark.parametrize("device", ["opus"], indirect=True)
def test_who_takes_no_h264_sees_vp8_and_nobody_else_pays_for_it(device: tuple[JsonHub, Peered]) -> None:
    hub, peer = device

    async def test() -> None:
        async with AsyncExitStack() as stack:
            watch(hub, "plain", STREAM)
            plain = await stack.enter_async_context(Watcher(hub, "plain", sound=True))
            await plain.until(lambda: plain.hears and plain.pictures > 10)
            assert not peer.log_lines("encoder"), "it is passed on as it is"
            watchers = []
            for name in ("one", "two"):
                watch(hub, name, STREAM)
                watchers.append(await stack.enter_async_context(Watcher(hub, name, only=["VP8"], sound=True)))
            one, two = watchers
            assert "VP8/90000" in one.answer and "H264" not in one.answer
            await one.until(lambda: min(one.pictures, two.pictures) > 40 and one.hears)
            (pid,) = encoders(peer, "vp8")
            os.kill(pid, signal.SIGKILL)
            seen = one.pictures, two.pictures
            await one.until(lambda: one.pictures > seen[0] + 40 and two.pictures > seen[1] + 40)
            assert len(encoders(peer, "vp8")) == 2 and not encoders(peer, "opus")
        last = encoders(peer, "vp8")[-1]
        until(lambda: not proc.is_alive(last))

    asyncio.run(test())
    watch(hub, "none", STREAM)
    hub.send("signal_offer", {"session_id": "none", "sdp": {"type": "offer", "sdp": "v=0"}})
    assert heard(hub, "watch_ended", "none")["reason"] == "error"
