"""A WHEP player sees a real stream of a real device through a real hub, plays on when the hub is killed, and leaves
nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from tests import hub_rig
from tests.hub_rig import Process
from tests.linked import linked
from tests.peered import Peered, peered
from tests.rig import Go2rtc, go2rtc, until
from tests.viewer_whep import Player

DEVICE = "pi-cam-001"
STREAM = {"workers": 1, "producer": {"width": "320", "height": "180", "fps": "30"}}
LIMIT_S = 20.0


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Process]:
    """A hub that takes the published ways."""
    with hub_rig.process(tmp_path / "hub", PLANARIA_COMPAT="1") as running:
        yield running


@pytest.fixture
def served(run_dir: Path) -> Iterator[Go2rtc]:
    """The device's go2rtc."""
    with go2rtc(STREAM, run_dir=run_dir) as running:
        yield running


@pytest.fixture
def device(run_dir: Path, hub: Process, served: Go2rtc) -> Iterator[Peered]:
    """The device, of the hub's admin."""
    backend, at = hub.ws("/ws/device"), f"http://{served.api}"
    with (
        linked(run_dir, backend, "--device-id", DEVICE, GO2RTC_HTTP=at),
        peered(run_dir, served) as peer,
    ):
        until(lambda: hub.metric("devices_online") == 1, LIMIT_S)
        hub_rig.paired(hub, hub.admin, DEVICE)
        yield peer


def address(hub: Process, query: str = "") -> str:
    """Where players ask."""
    return f"http://127.0.0.1:{hub.port}/api/devices/{DEVICE}/whep{query}"


def is_free(hub: Process, device: Peered) -> bool:
    """Whether nobody holds anything of a session."""
    return hub.metric("watch_sessions") == 0 and not device.children()


def test_it_plays(hub: Process, device: Peered) -> None:
    async def main() -> None:
        async with Player(address(hub, "?stream=omega-0"), hub.admin.token) as player:
            await player.has_seen(30)
            hub.kill()
            await player.has_seen(30)
            hub.start()
            await asyncio.to_thread(hub.wait)
            await asyncio.to_thread(until, lambda: hub.metric("devices_online") == 1, LIMIT_S)
            await player.has_seen(30)
            await player.leave()
            await asyncio.to_thread(until, lambda: is_free(hub, device), LIMIT_S)

    asyncio.run(main())


def test_one_that_says_nothing_when_it_leaves(hub: Process, device: Peered) -> None:
    async def main() -> None:
        async with Player(address(hub), hub.admin.token) as player:
            await player.has_seen(5)

    asyncio.run(main())
    until(lambda: is_free(hub, device), LIMIT_S)


def test_what_the_device_does_not_take(hub: Process, device: Peered) -> None:
    async def main() -> str:
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        pc.addTransceiver("video", "recvonly")
        await pc.setLocalDescription(await pc.createOffer())
        await pc.close()
        return pc.localDescription.sdp

    offer, admin = asyncio.run(main()), hub.admin
    # Its streams are known here, once it has announced them.
    until(lambda: admin("GET", f"/api/devices/{DEVICE}").json["streams"], LIMIT_S)
    for query, sdp, status, said in (
        ("?stream=nothing", offer, 404, "no such stream"),
        ("", offer.replace("H264", "H265").replace("VP8", "VP9"), 502, "H.264"),
    ):
        path = f"/api/devices/{DEVICE}/whep{query}"
        answer = admin("POST", path, sdp.encode(), headers={"Content-Type": "application/sdp"})
        assert answer.status == status and said in answer.detail, (query, answer.body)
    until(lambda: is_free(hub, device), LIMIT_S)
