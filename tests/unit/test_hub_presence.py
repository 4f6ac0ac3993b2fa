"""Which devices are here and how to reach them: by links of real streams and real control connections."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from websockets.asyncio.client import connect

from procs.errors import LinkLost, Refused
from procs.hub.devices import device_ws
from procs.hub.devices.presence import GRACE_S, MAX_ASKED, REMEMBERED_S, Control, Presence
from procs.hub.viewers import viewer_ws, watching
from procs.hub.viewers.peer import Peer
from procs.streams.link import Link
from procs.wire.frames.connection import Hello
from procs.wire.frames.device import ProxyHttp
from procs.wire.mux1 import MuxLimits, Open
from tests import hub_rig
from tests.hub_rig import Http
from tests.joined import one_by_one
from tests.rig import until


class Clock:
    """A time that only we move."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def _nowhere(_: bytes) -> None:
    """What a link sends to nobody."""


def link(max_streams: int = 2) -> Link:
    """A data connection that nobody reads."""
    return Link(one_by_one(_nowhere), opens="odd", ours=MuxLimits(), theirs=MuxLimits(max_streams=max_streams))


def control(device_id: str, instance: str = "") -> Control:
    """A control connection that says nothing."""
    return Control(Peer.__new__(Peer), 1, Hello(device_id, instance=instance))


def opened(one: Link) -> Link:
    """The same, with one stream more."""
    one.open(Open(kind="http", rid="r", method="GET", path="/", headers=[]))
    return one


def test_a_device_comes_and_goes() -> None:
    clock = Clock()
    presence = Presence(clock)
    assert presence.was_online_within("cam", 30), "this hub has only just started"
    clock.now += 60
    assert not presence.was_online_within("cam", 30)
    mine = control("cam")
    assert presence.arrived(mine) is None and presence.is_online("cam") and presence.control("cam") is mine
    assert presence.left(mine) and not presence.is_online("cam")
    clock.now += 29
    assert presence.was_online_within("cam", 30)
    clock.now += 2
    assert not presence.was_online_within("cam", 30)


def test_it_is_known_at_once_when_a_device_went() -> None:
    """The store is told only later."""
    presence, one, before = Presence(), control("cam"), time.time()
    presence.arrived(one)
    assert presence.went_at("cam") is None
    presence.left(one)
    assert before <= (presence.went_at("cam") or 0) <= time.time()


def test_who_has_gone_is_forgotten_in_the_end() -> None:
    clock = Clock()
    presence = Presence(clock)
    for number in range(100):
        one = control(f"cam {number}")
        presence.arrived(one)
        presence.left(one)
    clock.now += REMEMBERED_S + 1
    presence.sweep()
    assert not presence._gone


def test_one_that_is_replaced_does_not_take_its_successor_with_it() -> None:
    presence = Presence()
    first, second = control("cam", "i"), control("cam", "i")
    presence.arrived(first)
    assert presence.arrived(second) is first
    assert not presence.left(first) and presence.control("cam") is second


def test_data_connections_go_with_another_instance_and_stay_with_the_same() -> None:
    presence, dropped, one = Presence(), [], link()
    presence.arrived(control("cam", "i1"))
    presence.add_link("cam", "i1", one, lambda code, reason: dropped.append((code, reason)))
    assert presence.takes("cam", "i1") and not presence.takes("cam", "i2") and presence.takes("other", "i2")
    presence.arrived(control("cam", "i1"))
    assert dropped == [] and presence.links("cam") == [one]
    presence.arrived(control("cam", "i2"))
    assert dropped == [(1012, "Replaced by new connection")]
    presence.remove_link("cam", "i1", one)
    assert presence.links("cam") == [] and presence.link_count == 0


def test_a_device_that_is_deleted_loses_its_data_connections() -> None:
    presence, dropped, mine = Presence(), [], control("cam")
    presence.arrived(mine)
    presence.add_link("cam", "", link(), lambda *said: dropped.append(said))
    assert presence.forget("cam") is mine and dropped == [(1008, "Device not found")]


def test_the_emptiest_link_is_chosen_and_equals_in_turn() -> None:
    async def main() -> None:
        presence = Presence()
        one, other = link(), link()
        presence.add_link("cam", "", one)
        presence.add_link("cam", "", other)
        assert {id(await presence.link_for("cam", 1)) for _ in range(2)} == {id(one), id(other)}
        opened(one)
        assert {id(await presence.link_for("cam", 1)) for _ in range(4)} == {id(other)}
        opened(opened(other))
        assert await presence.link_for("cam", 1) is one
        opened(one)
        assert (await presence.link_for("cam", 1)).is_full
        one.lost("gone")
        presence.remove_link("cam", "", one)
        presence.add_link("cam", "", third := link())
        assert await presence.link_for("cam", 1) is third

    asyncio.run(main())


def test_a_link_is_waited_for() -> None:
    async def main() -> None:
        presence = Presence()
        waiting = [asyncio.ensure_future(presence.link_for("cam", 5)) for _ in range(3)]
        late = asyncio.ensure_future(presence.link_for("other", 0.05))
        await asyncio.sleep(0)
        presence.add_link("cam", "", mine := link())
        assert await asyncio.gather(*waiting) == [mine] * 3
        with pytest.raises(TimeoutError):
            await late
        assert not presence._arrivals

    asyncio.run(main())


# A real control connection, in one loop with the hub.


def test_requests_over_the_control_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_rig.within(tmp_path, compat=True) as (hub, http):
            await hub.registry.register("cam", "cam", "camera", None)
            async with connect(f"ws://127.0.0.1:{http.port}/ws/device", proxy=None, max_queue=None) as ws:
                await ws.send(json.dumps({"type": "hello", "payload": {"device_id": "cam"}}))
                assert json.loads(await ws.recv())["type"] == "hello_ack"
                mine = hub.presence.control("cam")
                assert mine
                asked = [asyncio.ensure_future(mine.request_http(ProxyHttp(f"r{n}", path=f"/{n}"))) for n in range(2)]
                heard = [json.loads(await ws.recv())["payload"] for _ in range(2)]
                assert [(ask["rid"], ask["path"], ask["method"]) for ask in heard] == [
                    ("r0", "/0", "GET"),
                    ("r1", "/1", "GET"),
                ]
                for ask in reversed(heard):
                    answer = {"rid": ask["rid"], "status": 200, "headers": {"A": ask["path"]}, "body_b64": "eA=="}
                    await ws.send(json.dumps({"type": "proxy_http_resp", "payload": answer}))
                assert [response.headers["A"] for response in await asyncio.gather(*asked)] == ["/0", "/1"]

                with pytest.raises(Refused, match="in flight"):
                    await asyncio.gather(*(mine.request_http(ProxyHttp("same", timeout_ms=1)) for _ in range(2)))
                many = [asyncio.ensure_future(mine.request_http(ProxyHttp(f"m{n}"))) for n in range(MAX_ASKED - 1)]
                await asyncio.sleep(0)
                with pytest.raises(Refused, match="too many"):
                    await asyncio.gather(*(mine.request_http(ProxyHttp(f"more{n}")) for n in range(2)))
                await ws.close()
                assert {type(e) for e in await asyncio.gather(*many, return_exceptions=True)} == {LinkLost}
                assert not mine._asked

    asyncio.run(main())


def test_no_answer_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procs.hub.devices.presence.GRACE_S", 0.1)

    async def main() -> None:
        async with hub_rig.within(tmp_path, compat=True) as (hub, http):
            await hub.registry.register("cam", "cam", "camera", None)
            async with connect(f"ws://127.0.0.1:{http.port}/ws/device", proxy=None) as ws:
                await ws.send(json.dumps({"type": "hello", "payload": {"device_id": "cam"}}))
                await ws.recv()
                mine = hub.presence.control("cam")
                assert mine
                with pytest.raises(TimeoutError):
                    await mine.request_http(ProxyHttp("r", timeout_ms=100))
                # The answer that comes after all is refused, and the link lives.
                await ws.recv()
                late = {"rid": "r", "status": 200, "headers": {}, "body_b64": ""}
                await ws.send(json.dumps({"type": "proxy_http_resp", "payload": late}))
                assert json.loads(await ws.recv())["type"] == "error"

    assert GRACE_S >= 1
    asyncio.run(main())


def test_who_is_silent_is_cut_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_rig.within(tmp_path, compat=True) as (hub, http):
            await hub.registry.register("cam", "cam", "camera", None)
            _, token = await hub.accounts.log_in("admin", hub_rig.ADMIN_PASSWORD)
            address = f"ws://127.0.0.1:{http.port}/ws/"
            async with (
                connect(address + "device", proxy=None) as device,
                connect(address + "viewer", proxy=None) as one,
            ):
                await device.send(json.dumps({"type": "hello", "payload": {"device_id": "cam"}}))
                await one.send(json.dumps({"type": "hello", "payload": {"token": token}}))
                await asyncio.gather(device.recv(), one.recv())
                mine = hub.presence.control("cam")
                assert mine
                start = mine.peer.heard_at
                device_ws.sweep(hub, start + device_ws.SILENT_S - 0.1)
                await device.ping()
                await device.send(json.dumps({"type": "heartbeat", "payload": {}}))
                assert json.loads(await device.recv())["type"] == "heartbeat_ack"
                assert mine.peer.heard_at > start, "a sign of life does not count"
                device_ws.sweep(hub, mine.peer.heard_at + device_ws.SILENT_S + 0.1)
                await asyncio.wait_for(device.wait_closed(), 5)
                assert not hub.presence.is_online("cam")

                (viewer,) = hub.viewers
                heard_at = viewer.peer.heard_at
                viewer_ws.sweep(hub, heard_at + viewer_ws.PING_AFTER_S + 1, time.time())
                await asyncio.to_thread(until, lambda: viewer.peer.heard_at > heard_at)  # its pong
                viewer_ws.sweep(hub, viewer.peer.heard_at, viewer.session.expires_at)
                await asyncio.wait_for(one.wait_closed(), 5)
                assert (one.close_code, one.close_reason) == (1008, "Invalid token")
                assert not hub.viewers

    asyncio.run(main())


def test_a_viewer_goes_on_with_a_renewed_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_rig.within(tmp_path) as (hub, http):
            _, token = await hub.accounts.log_in("admin", hub_rig.ADMIN_PASSWORD)
            _, renewed = await hub.accounts.log_in("admin", hub_rig.ADMIN_PASSWORD)
            async with connect(f"ws://127.0.0.1:{http.port}/ws/viewer", proxy=None) as ws:
                for said, kind in ((token, "hello_ack"), (renewed, "hello_ack"), ("made up", "error")):
                    await ws.send(json.dumps({"type": "hello", "payload": {"token": said}}))
                    assert json.loads(await ws.recv())["type"] == kind
                (viewer,) = hub.viewers
                old, new = await hub.accounts.session(token), await hub.accounts.session(renewed)
                assert old and new and viewer.session == new
                viewer_ws.end_login(hub, login=old.login)
                await ws.send(json.dumps({"type": "heartbeat", "payload": {}}))
                assert json.loads(await ws.recv())["type"] == "heartbeat_ack"
                assert (await hub_rig.ask(Http(http.port, renewed), "POST", "/api/auth/logout")).status == 200
                await asyncio.wait_for(ws.wait_closed(), 5)
                assert (ws.close_code, ws.close_reason) == (1008, "Invalid token")

    asyncio.run(main())


def test_without_an_answer_of_the_device_a_session_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_rig.within(tmp_path, compat=True) as (hub, http):
            admin, token = await hub.accounts.log_in("admin", hub_rig.ADMIN_PASSWORD)
            await hub.registry.register("cam", "cam", "camera", None)
            await hub.store.run(lambda c: c.execute(text(f"UPDATE devices SET owner_id = {admin.id}")) and None)
            hub.registry.changed("cam")
            address = f"ws://127.0.0.1:{http.port}/ws/"
            async with (
                connect(address + "device", proxy=None) as device,
                connect(address + "viewer", proxy=None) as one,
            ):
                await device.send(json.dumps({"type": "hello", "payload": {"device_id": "cam"}}))
                await one.send(json.dumps({"type": "hello", "payload": {"token": token}}))
                await asyncio.gather(device.recv(), one.recv())
                await one.send(json.dumps({"type": "watch_request", "payload": {"device_id": "cam"}}))
                session = json.loads(await one.recv())["payload"]["session_id"]
                await device.recv()
                watching.sweep(hub, time.monotonic() + 31)
                for end in (device, one):
                    while (said := json.loads(await end.recv()))["type"] != "watch_ended":
                        pass
                    assert said["payload"] == {"session_id": session, "reason": "timeout"}
                assert len(hub.watches) == 0

    asyncio.run(main())
