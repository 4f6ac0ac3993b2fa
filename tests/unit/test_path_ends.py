"""A connection that is over holds nothing: no socket, no task, whatever became of the servers it had asked."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import uvloop
from aioice import stun

from procs.agent import ice, ice_servers
from procs.agent.path import Path
from procs.agent.settings import AgentSettings
from tests.agents import until

TRIES = 3


class Turn(asyncio.DatagramProtocol):
    """A TURN server that gives everybody a relay, and says nothing more after that."""

    asked = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        request = stun.parse_message(data)
        if request.message_method != stun.Method.ALLOCATE:
            return
        Turn.asked += 1
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        relay = ("127.0.0.1", 50000 + Turn.asked)
        answer.attributes |= {"LIFETIME": 600, "XOR-RELAYED-ADDRESS": relay, "XOR-MAPPED-ADDRESS": addr}
        self._transport.sendto(bytes(answer), addr)


def test_a_connection_that_is_over_holds_nothing_though_its_turn_servers_are_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ice, "host_addresses", lambda: ["127.0.0.1"])
    monkeypatch.setattr(ice_servers, "CLOSE_S", 0.5)

    async def one(settings: AgentSettings, turns: int | None = None) -> None:
        """A connection that ends so many turns of the event loop after it has begun to ask, or with a relay."""
        found: list[str | None] = []
        path = Path(settings, lambda: None, found.append, lambda below: None)
        path.open("x")
        await path.offer()
        path.gather()
        if turns is None:
            await until(lambda: None in found)
            assert [each for each in found if each and "typ relay" in each]
        for _ in range(turns or 0):
            await asyncio.sleep(0)
        await path.close()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        servers = [await loop.create_datagram_endpoint(Turn, ("127.0.0.1", 0)) for _ in range(2)]
        ports = [transport.get_extra_info("sockname")[1] for transport, _ in servers]
        urls = [f"turn:127.0.0.1:{port}?transport=udp" for port in ports]
        settings = AgentSettings(listed_servers=({"urls": urls, "username": "u", "credential": "p"},))
        await one(settings)  # what is made once for all of them is there now
        await asyncio.sleep(1.5 * ice_servers.CLOSE_S)
        before = len(os.listdir("/proc/self/fd")), asyncio.all_tasks()
        await asyncio.gather(*(one(settings) for _ in range(TRIES)), *(one(settings, turns) for turns in range(20)))
        await until(lambda: (len(os.listdir("/proc/self/fd")), asyncio.all_tasks()) == before, 5.0)
        for transport, _ in servers:
            transport.close()

    loop = uvloop.new_event_loop()
    loop.run_until_complete(work())
    loop.close()  # only then: uvloop would wait for what was not closed, for ever
    assert Turn.asked >= 2 * (TRIES + 1)
