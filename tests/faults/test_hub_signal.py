"""Signalling at a real hub: the published transcript, rooms, who may come in, replacement, limits, and two minimal
agents that meet there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from procs.hub.signalling import signal_ws
from procs.wire import signal
from tests import golden, hub_rig, signal_minimal
from tests.hub_rig import Process, Talker
from tests.rig import until

TOKENS = ("the-token-of-room-one", "the-token-of-room-two")
ALONE = (*hub_rig.HUB, "--only", "signal")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Signalling alone, for this machine. It needs no store: there is none."""
    run_dir, nowhere = tmp_path_factory.mktemp("hub"), "postgresql://nobody@127.0.0.1:1/none"
    with hub_rig.process(run_dir, command=ALONE, DATABASE_URL=nowhere) as running:
        yield running
        assert '"trace"' not in running.said(), "something unforeseen was logged"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A whole hub that others can reach."""
    run_dir, tokens = tmp_path_factory.mktemp("guarded"), ",".join(TOKENS)
    with hub_rig.process(run_dir, SIGNALING_TOKENS=tokens, PLANARIA_HUB_INSECURE="1") as running:
        yield running


class Raw(Talker):
    """One WebSocket with flat frames."""

    def send(self, kind: str, **fields: object) -> None:
        """Send a frame."""
        self.ws.send(json.dumps({"type": kind, **fields}))

    def is_alive(self) -> bool:
        """Whether it is answered; also that all before has been taken."""
        self.send("ping")
        return bool(self.hear("pong"))


@contextmanager
def agent(hub: Process, name: str, token: str | None = None, header: str = "") -> Iterator[Raw]:
    """An agent that has said who it is."""
    headers = {"Authorization": f"Bearer {header}"} if header else {}
    with connect(hub.ws("/ws/signal"), additional_headers=headers, proxy=None, close_timeout=1) as ws:
        raw = Raw(ws)
        raw.send("register", id=name, token=token)
        yield raw


def is_away(asker: Raw, me: str, other: str) -> bool:
    """Whether an agent is told that another is not there."""
    asker.send("offer", **{"from": me, "to": other, "sdp": "v=0"})
    said = asker.hear("error")
    assert said["to"] == me and said["from"] == other
    return bool(said["error"] == "peer not connected")


def test_the_transcript(hub: Process) -> None:
    with ExitStack() as stack:
        at: dict[str, Raw] = {}
        for said in golden.transcript("signal"):
            frame = said.frame
            if frame["type"] == "register":
                at[said.sender] = stack.enter_context(agent(hub, frame["id"], frame["token"]))
                assert at[said.sender].is_alive()
            elif said.sender != "server":
                at[said.sender].ws.send(json.dumps(frame))
                if frame.get("to") in at:
                    assert at[frame["to"]].hear() == frame
            else:
                assert frame.items() <= at["bob"].hear().items(), "all that the published server says"


def test_what_is_not_known_goes_through_and_nobody_speaks_for_another(hub: Process) -> None:
    with agent(hub, "a") as a, agent(hub, "b") as b:
        assert a.is_alive() and b.is_alive()
        a.send("bye", to="b", session="s-1", later={"field": [1]})
        assert b.hear() == {"type": "bye", "from": "a", "to": "b", "session": "s-1", "later": {"field": [1]}}
        a.ws.send('{"type": "bye", "from": "a", "to": "b", "to": "b", "from": "b"}')
        assert "as registered" in a.hear("error")["error"]
        for poor in (
            '{"type": "offer", "to": "b"}',
            "no json",
            '{"type": "bye", "to": "b", "x": ' + "[" * 99 + "]" * 99,
        ):
            a.ws.send(poor + ("}" if poor.endswith("]") else ""))
            assert a.hear("error")["error"]
        a.send("offer", to="b", sdp="x" * signal.MAX_BYTES)
        assert "over the limit" in a.hear("error")["error"]
        a.send("presence", of="later")
        a.send("register", id="b")
        assert "open another" in a.hear("error")["error"]
        assert a.is_alive() and b.is_alive(), "and it goes on"
        with pytest.raises(TimeoutError):
            b.ws.recv(0)


def test_rooms_do_not_see_each_other(hub: Process) -> None:
    with agent(hub, "a", "one") as a, agent(hub, "b", "two") as b, agent(hub, "b", header="one") as same:
        assert a.is_alive() and b.is_alive() and same.is_alive()
        a.send("bye", to="b")
        assert same.hear() == {"type": "bye", "from": "a", "to": "b"}
        assert is_away(b, "b", "a")


def test_the_newer_of_two_stays(hub: Process) -> None:
    with agent(hub, "twin") as first:
        assert first.is_alive()
        with agent(hub, "twin") as second, agent(hub, "caller") as caller:
            assert second.is_alive()
            assert first.hear() == {"type": "error", "error": "replaced"}
            assert first.closing()[0] == 1008
            caller.send("bye", to="twin")
            assert second.hear()["from"] == "caller"
            second.ws.close()
            until(lambda: is_away(caller, "caller", "twin"))


def test_who_does_not_register_is_turned_away(hub: Process) -> None:
    for first in ('{"type": "ping"}', '{"type": "register"}', "", "{" * 1000):
        with connect(hub.ws("/ws/signal"), proxy=None) as ws:
            ws.send(first)
            talker = Talker(ws)
            assert talker.hear()["type"] == "error"
            assert talker.closing()[0] == 1008


def test_another_sites_page_gets_nowhere(hub: Process) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    rebound = {"Host": "evil.example", "Origin": "http://evil.example"}  # a name of theirs that leads here now
    for headers in ({"Origin": "https://evil.example"}, rebound):
        assert hub.http("GET", "/ws/signal", headers=upgrade | headers).status == 403


def test_a_hub_that_others_reach_wants_a_token(guarded: Process) -> None:
    for wrong in (None, "", "no such token at all", TOKENS[0][:-1]):
        with agent(guarded, "a", wrong) as turned_away:
            assert turned_away.hear() == {"type": "error", "error": "invalid token"}
            assert turned_away.closing()[0] == 1008
    admin = guarded.admin
    program = admin("POST", "/api/tokens", {"name": "x", "role": "owner"}).json
    looker = admin("POST", "/api/tokens", {"name": "y", "role": "viewer"}).json
    with agent(guarded, "a", looker["token"]) as turned_away:
        assert turned_away.hear("error")["error"] == "invalid token"
    with (
        agent(guarded, "a", TOKENS[0]) as a,
        agent(guarded, "b", header=TOKENS[1]) as b,
        agent(guarded, "a", program["token"]) as c,
        agent(guarded, "d", header=admin.token) as d,
    ):
        assert all(each.is_alive() for each in (a, b, c, d))
        assert is_away(a, "a", "b") and is_away(a, "a", "d")
        c.send("bye", to="d")
        assert d.hear()["from"] == "a"
        assert guarded.metric("agents") == 4 and guarded.metric("agent_rooms") == 3
        by_room = [guarded.metric(f'agents_by_room{{agents="{size}"}}') for size in ("1", "2", "3-10")]
        assert by_room == [2, 2, 0], "c and d have the admin's"
        assert admin("DELETE", f"/api/tokens/{program['id']}").status == 200
        assert c.hear() == {"type": "error", "error": "invalid token"}
        assert c.closing()[0] == 1008


def test_guesses_of_tokens_are_limited(guarded: Process) -> None:
    said: list[Any] = []
    for n in range(40):
        with agent(guarded, "a", f"guess number {n} of many") as one:
            said.append(one.hear()["error"])
    assert said[0] == "invalid token" and said[-1] == "too many wrong tokens; try again later"


def test_who_does_not_read_is_cut_off_and_holds_up_nobody(hub: Process) -> None:
    with agent(hub, "deaf") as deaf, agent(hub, "loud") as loud, agent(hub, "other") as other:
        assert deaf.is_alive() and loud.is_alive() and other.is_alive()
        deaf.ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(140):  # over what may wait, and below what is read at full speed
            loud.send("offer", to="deaf", sdp="x" * 60_000)
        loud.send("bye", to="other")
        assert other.hear()["from"] == "loud"
        assert until(lambda: is_away(loud, "loud", "deaf"))


def test_two_minimal_agents_talk(hub: Process) -> None:
    async def main() -> None:
        url = hub.ws("/ws/signal")
        async with signal_minimal.agent(url, "alice", "t") as alice, signal_minimal.agent(url, "bob", "t") as bob:
            await bob.call("nobody")
            assert (await bob.errors.get())["error"] == "peer not connected"
            await bob.call("alice")
            await bob.say("alice", "hallo 🪱")
            assert await alice.heard.get() == ("bob", "hallo 🪱")
            await alice.say("bob", b"\0\1")
            assert await bob.heard.get() == ("alice", b"\0\1")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_after_a_kill_they_register_again(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "run", command=ALONE) as hub:
        with agent(hub, "a") as a:
            assert a.is_alive()
            hub.restart()
            assert a.closing()[0] == 1006
        with agent(hub, "a") as a:
            assert a.is_alive()


def test_who_is_silent_is_asked_and_then_cut_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_rig.within(tmp_path) as (state, http), contextlib.AsyncExitStack() as stack:
            one = await stack.enter_async_context(signal_minimal.agent(f"ws://127.0.0.1:{http.port}/ws/signal", "a"))
            await until_so(lambda: bool(state.rooms.agents))
            (agent,) = state.rooms.agents
            before = agent.peer.heard_at
            signal_ws.sweep(state, time.monotonic() + signal.PING_S + 1, time.time())
            await until_so(lambda: agent.peer.heard_at > before)  # the answer to the ping
            signal_ws.sweep(state, time.monotonic() + signal.SILENCE_S + 1, time.time())
            await one.ws.wait_closed()
            await until_so(lambda: not state.rooms.agents)

    asyncio.run(asyncio.wait_for(main(), 30))


async def until_so(look: Callable[[], bool]) -> None:
    """Wait for it without holding up the loop."""
    await asyncio.to_thread(until, look)
