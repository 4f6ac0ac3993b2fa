"""How often pictures are fetched, however many ask, and what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from procs.hub.tunnel import pictures
from procs.hub.tunnel.pictures import (
    AT_ONCE,
    AT_ONCE_DEVICE,
    AT_ONCE_SLOW,
    FAILED_S,
    SLOW_S,
    NoPicture,
    Picture,
    Pictures,
    Source,
)

JPEG = b"\xff\xd8 a picture"


def source(stream: str = "door", device: str = "cam", owner: int = 1) -> Source:
    return Source(device, 1, owner, stream)


class Device:
    """Gives pictures when it is let, and counts."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fetched: list[Source] = []
        self.most = self._at_once = 0
        self.gate = asyncio.Event()
        self.failure: NoPicture | None = None
        self.body = JPEG
        self.kept = Pictures(self._fetch, lambda: self.now)

    async def _fetch(self, wanted: Source) -> bytes:
        self.fetched.append(wanted)
        self._at_once += 1
        self.most = max(self.most, self._at_once)
        await self.gate.wait()
        self._at_once -= 1
        if self.failure:
            raise self.failure
        return self.body

    async def crowd(self, *wanted: Source, every_s: float = 2.0) -> list[Picture | BaseException]:
        """Many ask at once; then the device answers."""
        asking = asyncio.gather(*(self.kept.of(each, every_s) for each in wanted), return_exceptions=True)
        await asyncio.sleep(0.01)
        self.gate.set()
        found = await asking
        self.gate.clear()
        return found


def run(work: Callable[[Device], Awaitable[None]]) -> None:
    async def main() -> None:
        await work(Device())

    asyncio.run(main())


def test_many_who_ask_at_once_share_one_fetch() -> None:
    async def work(device: Device) -> None:
        found = await device.crowd(*[source()] * 50)
        assert len(device.fetched) == 1 and {each.body for each in found if isinstance(each, Picture)} == {JPEG}
        assert len(found) == 50 and not any(isinstance(each, BaseException) for each in found)

    run(work)


@pytest.mark.parametrize(("every_s", "fetches"), [(2.0, 31), (30.0, 3)])
def test_none_is_fetched_before_the_last_is_old(every_s: float, fetches: int) -> None:
    async def work(device: Device) -> None:
        device.gate.set()
        for _ in range(241):
            assert (await device.kept.of(source(), every_s)).at > device.now - every_s
            device.now += 0.25
        assert len(device.fetched) == fetches

    run(work)


def test_a_stream_that_starts_to_run_is_fresh_at_once() -> None:
    async def work(device: Device) -> None:
        device.gate.set()
        await device.kept.of(source(), 30.0)
        device.now += 3
        device.body = JPEG + b"2"
        assert (await device.kept.of(source(), 30.0)).body == JPEG
        assert (await device.kept.of(source(), 2.0)).body == JPEG + b"2"

    run(work)


def test_few_at_a_time_of_one_device_and_of_all() -> None:
    async def work(device: Device) -> None:
        found = await device.crowd(*(source(f"s{n}") for n in range(10)))
        assert device.most == AT_ONCE_DEVICE
        failures = [each for each in found if isinstance(each, NoPicture)]
        assert len(failures) == 8 and all(each.status == 503 and each.wait_s > 0 for each in failures)
        device.most = 0
        await device.crowd(*(source("s", f"d{n}") for n in range(20)))
        assert device.most == AT_ONCE

    run(work)


def test_cameras_that_hang_do_not_keep_others_away() -> None:
    async def work(device: Device) -> None:
        hanging = [asyncio.create_task(device.kept.of(source("s", f"d{n}"), 30.0)) for n in range(AT_ONCE)]
        await asyncio.sleep(0.01)
        with pytest.raises(NoPicture, match="Too many"):
            await device.kept.of(source(), 2.0)
        device.now += SLOW_S
        (found,) = await device.crowd(source())
        assert isinstance(found, Picture)
        await asyncio.gather(*hanging)
        device.gate.clear()
        crowd = []
        for n in range(AT_ONCE_SLOW + 1):
            crowd.append(asyncio.create_task(device.kept.of(source("t", f"d{n}"), 30.0)))
            await asyncio.sleep(0.001)
            device.now += SLOW_S
        device.gate.set()
        await asyncio.gather(*crowd, return_exceptions=True)
        assert device.most == AT_ONCE_SLOW

    run(work)


def test_without_a_place_there_is_the_last_picture() -> None:
    async def work(device: Device) -> None:
        await device.crowd(source())
        device.now += 60
        found = await device.crowd(source("a"), source("b"), source())
        assert isinstance(found[2], Picture) and found[2].at == 1000.0
        assert len(device.fetched) == 3

    run(work)


@pytest.mark.parametrize(("status", "wait_s"), [(502, FAILED_S), (504, FAILED_S), (404, FAILED_S), (503, 2.0)])
def test_a_failure_is_not_tried_again_at_once(status: int, wait_s: float) -> None:
    async def work(device: Device) -> None:
        device.failure = NoPicture(status, "why")
        for _ in range(3):
            (found,) = await device.crowd(source())
            assert isinstance(found, NoPicture) and (found.status, str(found)) == (status, "why")
            assert found.wait_s == wait_s
        assert len(device.fetched) == 1
        device.now += wait_s
        device.failure = None
        (found,) = await device.crowd(source())
        assert isinstance(found, Picture) and len(device.fetched) == 2

    run(work)


def test_who_leaves_takes_nothing_from_the_others() -> None:
    async def work(device: Device) -> None:
        first = asyncio.create_task(device.kept.of(source(), 2.0))
        await asyncio.sleep(0.01)
        first.cancel()
        (found,) = await device.crowd(source())
        assert isinstance(found, Picture) and len(device.fetched) == 1

    run(work)


def test_a_new_owner_never_sees_what_it_showed_the_old_one() -> None:
    async def work(device: Device) -> None:
        await device.crowd(source(owner=1))
        await device.crowd(source(owner=2))
        assert len(device.fetched) == 2

    run(work)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_KEPT", 10)
    monkeypatch.setattr(pictures, "MAX_BYTES", 5 * len(JPEG))

    async def work(device: Device) -> None:
        device.gate.set()
        for n in range(20):
            await device.kept.of(source(f"s{n}"), 30.0)
        device.fetched.clear()
        for n in range(15, 20):
            await device.kept.of(source(f"s{n}"), 30.0)
        assert device.fetched == [], "the last five are there"
        await device.kept.of(source("s14"), 30.0)
        assert device.fetched == [source("s14")], "and those before them are not"
        device.failure = NoPicture(404, "no such stream")
        for n in range(30):
            with pytest.raises(NoPicture):
                await device.kept.of(source(f"none{n}"), 30.0)
        assert len(device.kept._kept) == 10

    run(work)
