"""Two agents: they meet, talk, lose each other and come back."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from procs import log
from procs.agent import path, signaling
from procs.agent import session as session_module
from procs.agent.caps import Caps
from procs.agent.channel import Channel
from procs.agent.core import MAX_SESSIONS, AgentCore
from procs.agent.identity import Trust
from procs.agent.session import PeerSession
from procs.agent.settings import AgentSettings
from procs.agent.signaling import AWAITED_S, SignalingClient
from procs.agent.transports import create_transport
from procs.errors import LinkLost
from procs.wire.signal import Answer, Frame, Offer
from tests import golden, hub_rig, signal_minimal
from tests.agents import Server, identity_of, meeting, settings, until
from tests.rig import free_port

GARBAGE: list[str | bytes] = [
    *("", "{", "[]", '{"beat": 1e999}', '{"beat": [1]}', '{"back": true}', '{"back": -1}', "x" * 60_000),
    *(b"", b"\0", b"\xff" * 1160, b"\0\5abc", b"\0\0"),
]


def test_two_agents_chat_by_the_published_api(tmp_path: Path) -> None:
    async def talk() -> list[str]:
        heard: list[str] = []
        async with meeting(tmp_path, "alice", "bob") as (_, (alice, bob)):
            bob.on_session = lambda session: session.transport.on_message(heard.append)
            session = await alice.connect_to("bob")
            ours = create_transport("chat")
            ours.attach_channel(await session.opened(20))
            ours.on_value(heard.append)
            await ours.send_text("grüß dich")
            await until(lambda: len(heard) == 1)
            theirs = bob.get_session("alice")
            assert theirs and theirs.is_connected() and theirs.pc.connectionState == "connected"
            theirs.transport.send_text("dich auch")
            await until(lambda: len(heard) == 2)
            assert alice.get_channel("bob") is session.main and session.signed and theirs.signed
            assert alice._identity.peers.all()["bob"].met and bob._identity.peers.all()["alice"].met
        return heard

    assert asyncio.run(talk()) == ["grüß dich".encode(), "dich auch"]


def test_where_nothing_passes_but_signalling_turn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob") as (server, (alice, _)):
            session = await alice.connect_to("bob")
            await until(lambda: "TURN server helps (ICE_URLS)" in session.why)
            server.change = lambda frame: None
            await until(lambda: session.why == "no answer within 0.5 s")

    monkeypatch.setattr(session_module, "TRY_S", 0.5)
    monkeypatch.setattr(path.Path, "add_candidate", lambda *_: None)
    asyncio.run(work())


@pytest.mark.parametrize("caller", ["alice", "bob"])  # the smaller id offers again; the other one knows to wait
def test_a_killed_agent_comes_back_to_the_same_channels_without_a_word_of_the_server(
    tmp_path: Path, caller: str
) -> None:
    async def work() -> None:
        other = {"alice": "bob", "bob": "alice"}[caller]
        async with meeting(tmp_path, "alice", "bob") as (server, agents):
            calling, called = agents if caller == "alice" else agents[::-1]
            session = await calling.connect_to(other)
            more = session.channel("more", ordered=False)
            await session.opened(20)
            await more.opened(20)
            before = called.get_session(caller)
            assert before
            heard: list[bytes] = []
            vanish(called, before)
            again = settings(other, server)
            new = AgentCore(again, SignalingClient(again), identity_of(other, tmp_path))
            new.on_session = lambda made: made.main.on("message", heard.append)
            new.on_session = lambda made: setattr(made, "on_channel", lambda c: c.on("message", heard.append))
            await new.start(5)
            began = time.monotonic()
            await until(lambda: not session.is_connected())
            await until(lambda: more.opened_times == 2)
            assert time.monotonic() - began < 15
            more.send(b"here again")
            await until(lambda: heard == [b"here again"])
            await new.stop()

    asyncio.run(work())


def vanish(core: AgentCore, session: PeerSession) -> None:
    """As kill -9 does it: nothing is said to anybody, and nothing comes any more."""
    for task in (session._task, core._task, core.signaling._task):
        assert task
        task.cancel()
    assert session.path and session.path._connection
    for protocol in session.path._connection._protocols:
        protocol.transport.abort()


def test_sessions_do_not_notice_that_the_server_dies(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob") as (server, (alice, bob)):
            session = await alice.connect_to("bob")
            channel = await session.opened(20)
            await server.stop()
            await until(lambda: not alice.signaling.is_connected)
            heard: list[bytes] = []
            theirs = bob.get_channel("alice")
            assert theirs
            theirs.on("message", heard.append)
            channel.send(b"still here")
            await until(lambda: heard == [b"still here"])
            await server.start()
            await until(lambda: alice.signaling.is_connected and bob.signaling.is_connected)
            assert session.connections == 1 and session.state == "connected"

    asyncio.run(work())


def test_a_call_without_a_server_builds_nothing_and_has_the_server_tried_again_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        own = AgentSettings(agent_id="alice", signaling_url=f"ws://127.0.0.1:{free_port()}/ws/signal")
        built: list[object] = []
        monkeypatch.setattr(session_module, "Path", lambda *_: built.append(1))
        alice = AgentCore(own, SignalingClient(own), identity_of("alice", tmp_path))
        await alice.start()
        assert alice.signaling._no_longer(70.0) == 70.0
        session = await alice.connect_to("bob")
        await until(lambda: session.why == session_module.NO_SERVER)
        session.offer()
        await until(lambda: session.state == "waiting")
        assert not built and alice.signaling._no_longer(70.0) == AWAITED_S
        await alice.stop()

    asyncio.run(work())


def test_who_waits_at_the_socket_of_a_server_that_is_not_there_yet_is_served_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signaling, "OPEN_S", 0.3)

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            own = AgentSettings(agent_id="alice", signaling_url=f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/signal")
            client = SignalingClient(own)
            client.begin()
            await asyncio.sleep(3 * signaling.OPEN_S)
            server = Server()
            await server.serve(listener)
            await client.connect(10)
            assert client.connections == 1 and not client.why, "it was the first try"
            await client.close()
            await server.stop()

    asyncio.run(work())


def test_both_call_at_once_and_one_connection_comes_of_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob") as (_, (alice, bob)):
            one, other = await alice.connect_to("bob"), await bob.connect_to("alice")
            await asyncio.gather(one.opened(20), other.opened(20))
            await asyncio.sleep(0.5)
            assert (one.connections, other.connections) == (1, 1)

    asyncio.run(work())


def test_packets_go_beside_the_channels_and_on_the_channel_while_they_do_not(tmp_path: Path) -> None:
    async def work() -> None:
        can = Caps(planes=[2, 1], mtu=1380)
        async with meeting(tmp_path, "alice", "bob", can=can) as (_, (alice, bob)):
            session = await alice.connect_to("bob")
            await session.opened(20)
            theirs = bob.get_session("alice")
            assert theirs
            came: list[bytes] = []

            def take(packets: Sequence[bytes]) -> None:
                came.extend(packets)

            theirs.datagrams.on_packets = take
            await until(lambda: session.datagrams.is_up and theirs.datagrams.is_up)
            assert session.datagrams.plane == 2 and session.datagrams.mtu == 1380
            packets = [b"\x45" + bytes([n]) * 1379 for n in range(3)]
            assert session.datagrams.send(packets) == 3
            await until(lambda: came == packets)
            assert theirs.datagrams._records
            answered = theirs.datagrams._records._control
            theirs.datagrams._records._control = lambda text: None  # type: ignore[method-assign]
            await until(lambda: session.datagrams.plane == 1)
            came.clear()
            small = [b"\x60" + bytes([n]) * 99 for n in range(20)]
            assert session.datagrams.mtu < 1160 and session.datagrams.send(small) == 20
            await until(lambda: sorted(came) == small)
            theirs.datagrams._records._control = answered  # type: ignore[method-assign]
            await until(lambda: session.datagrams.plane == 2)

    asyncio.run(work())


def test_a_server_in_the_middle_is_found_out(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob") as (server, (alice, _bob)):

            def change(frame: dict[str, Any]) -> dict[str, Any]:
                if frame["type"] == "answer":  # as one that has put its own certificate there
                    frame["sdp"] = frame["sdp"].replace("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:")
                return frame

            server.change = change
            session = await alice.connect_to("bob")
            await until(lambda: "signature" in session.why)
            assert not session.connections
            server.change = lambda frame: frame
            await session.opened(20)  # it is called again, and now nobody stands between

    asyncio.run(work())


def test_a_server_can_not_end_a_session_that_lives(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob") as (server, (alice, bob)):
            session = await alice.connect_to("bob")
            await session.opened(20)
            session._lost("so that there is an offer of long ago")
            await until(lambda: session.connections == 2 and session.main.readyState == "open")
            offers = [frame for frame in server.seen if frame["type"] == "offer"]
            assert offers[0]["session"] != offers[-1]["session"]
            await server.agents["bob"].send_json(offers[0])
            for name, other in (("alice", "bob"), ("bob", "alice")):
                goodbye = {"type": "bye", "from": other, "to": name, "session": session._id}
                await server.agents[name].send_json(goodbye)
            heard: list[bytes] = []
            theirs = bob.get_session("alice")
            assert theirs
            await asyncio.sleep(0.5)
            theirs.main.on("message", heard.append)
            session.main.send(b"still here")
            await until(lambda: heard == [b"still here"])
            assert session.connections == theirs.connections == 2

    asyncio.run(work())


@pytest.mark.parametrize(("kind", "word"), [("bye", "why"), ("error", "error")])
def test_what_others_say_changes_nothing_of_a_terminal(tmp_path: Path, kind: str, word: str) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice") as (server, (alice,)):
            said = {"type": kind, "from": "bob", "to": "alice", word: "\x1b[31mwritten\r\n* \x9b2J"}
            offers: list[str] = []
            server.change = lambda frame: offers.append(frame["session"]) if frame["type"] == "offer" else None
            session = await alice.connect_to("bob")
            whys: list[str] = []
            session.on_state = lambda its: whys.append(its.why)
            await until(lambda: bool(offers))
            await server.agents["alice"].send_json({**said, "session": offers[0]})
            await until(lambda: "written" in "".join(whys))
            assert all(why.isprintable() for why in whys)

    asyncio.run(work())


def test_an_offer_that_could_not_be_answered_is_taken_when_it_comes_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob") as (server, (alice, bob)):
            silenced: list[Frame] = []

            def silence(session: PeerSession) -> None:
                send = session._send

                def say(frame: Frame) -> bool:
                    if isinstance(frame, Answer) and not silenced:
                        silenced.append(frame)
                        return False
                    return send(frame)

                session._send = say

            bob.on_session = silence
            session = await alice.connect_to("bob")
            await until(lambda: bool(silenced))
            (offer,) = (frame for frame in server.seen if frame["type"] == "offer")
            await server.agents["bob"].send_json(offer)
            await session.opened(20)
            assert session._id == offer["session"]

    asyncio.run(work())


def test_a_goodbye_ends_the_session_at_both_ends(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob") as (_, (alice, bob)):
            session = await alice.connect_to("bob")
            channel: Channel = await session.opened(20)
            closed = asyncio.Event()
            channel.on("close", closed.set)
            theirs = bob.get_session("alice")
            assert theirs
            await theirs.close("enough")
            await asyncio.wait_for(closed.wait(), 5)
            assert session.state == "closed" and session.why == "the peer has left: enough"
            assert (await alice.connect_to("bob")) is not session

    asyncio.run(work())


def test_a_published_agent_is_let_in_where_that_is_allowed_and_only_there(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice") as (server, (strict,)):
            own = settings("zoe", server)
            identity = identity_of("zoe", tmp_path, Trust(allow_unsigned=True))
            zoe = AgentCore(own, SignalingClient(own), identity)
            await zoe.start(5)
            async with signal_minimal.agent(server.url, "old") as old:
                await old.call("alice")
                await until(lambda: any(frame["type"] == "bye" for frame in server.seen))
                assert (known := strict.get_session("old")) and not known.connections
                old.peers.clear()
                await old.call("zoe")
                heard: list[bytes] = []
                zoe.on_session = lambda session: session.transport.on_message(heard.append)
                await old.say("zoe", "from long ago")
                await until(lambda: heard == [b"from long ago"])
            async with signal_minimal.agent(server.url, "older", label="another") as older:
                session = await zoe.connect_to("older")
                await until(session.is_connected)
                assert not session.signed
                assert list(older.peers) == ["zoe"]
            _hold_against_the_transcript(server.seen)
            await zoe.stop()

    asyncio.run(work())


def _hold_against_the_transcript(frames: list[dict[str, Any]]) -> None:
    """Each frame has at least the fields that the published one of its type has."""
    published = {said.frame["type"]: said.frame for said in golden.transcript("signal") if said.sender != "server"}
    for frame in frames:
        assert published[frame["type"]].keys() - frame.keys() <= {"token"}, frame
        if frame["type"] == "candidate" and frame["candidate"]:
            assert frame["candidate"].keys() >= {"candidate", "sdpMid", "sdpMLineIndex"}
    assert {frame["type"] for frame in frames} >= {"register", "offer", "answer", "candidate", "bye"}


def test_offers_of_many_strangers_leave_nothing(tmp_path: Path) -> None:
    """Whoever runs the server can invent them."""

    async def work() -> None:
        async with meeting(tmp_path, "alice") as (_, (alice,)):
            for number in range(3 * MAX_SESSIONS):
                alice._said(Offer(f"stranger{number}", "alice", "v=0\r\n"))
                await asyncio.sleep(0)
            await until(lambda: _sessions() <= MAX_SESSIONS)
            assert len(alice.get_all_sessions()) <= MAX_SESSIONS

    asyncio.run(work())


def _sessions() -> int:
    return sum(task.get_name().startswith("session ") for task in asyncio.all_tasks())


def test_garbage_from_a_peer_or_at_the_port_changes_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob", can=Caps(planes=[2, 1])) as (_, (alice, bob)):
            session = await alice.connect_to("bob")
            await session.opened(20)
            theirs = bob.get_session("alice")
            assert theirs and theirs.path and session.path
            await until(lambda: session._cargo.control.is_open and theirs._cargo.control.is_open)
            for label in ("planaria", "planaria-ip", *(f"more-{number}" for number in range(70))):
                below = theirs.path.open(label)
                below.on("open", lambda below=below: [below.send(each) for each in GARBAGE])
            assert theirs._cargo.control._below
            for each in GARBAGE:
                theirs._cargo.control._below.send(each)
            theirs.datagrams._records.dtls.write([bytes([n]) * 9 for n in range(256)])  # type: ignore[union-attr]
            assert session.path._connection
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for local in session.path._connection._local_candidates:
                    if ":" not in local.host:
                        for size in (0, 1, 13, 20, 1500):
                            stranger.sendto(os.urandom(size), (local.host, local.port))
                            stranger.sendto(b"\x17\xfe\xfd" + os.urandom(size), (local.host, local.port))
            await asyncio.sleep(2.5)
            assert session.stats["unreadable"] >= 10 and not theirs.stats["unreadable"]
            assert session.connections == theirs.connections == 1 and session.is_connected()
            assert len(session._cargo.channels._known) <= 64
            heard: list[bytes] = []
            theirs.main.on("message", heard.append)
            session.main.send(b"as before")
            await until(lambda: heard == [b"as before"])

    asyncio.run(work())


def test_who_is_replaced_stops_and_says_so(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "hub", command=(*hub_rig.HUB, "--only", "signal")) as hub:

        async def work() -> None:
            own = AgentSettings(agent_id="alice", signaling_url=f"ws://127.0.0.1:{hub.port}/ws/signal")
            first, second = SignalingClient(own), SignalingClient(own)
            await first.connect(10)
            await second.connect(10)
            with pytest.raises(LinkLost, match="somebody else has registered as 'alice'"):
                await asyncio.wait_for(first.recv(), 10)
            assert await second.send({"type": "offer", "from": "alice", "to": "nobody", "sdp": "v=0"})
            assert (await asyncio.wait_for(second.recv(), 10))["error"] == "peer not connected"
            await second.close()
            await first.close()

        asyncio.run(work())


def test_a_session_that_is_closed_in_the_middle_of_an_offer_just_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        log.configure("test")
        async with meeting(tmp_path, "alice") as (_, (alice,)):
            session = await alice.connect_to("bob")
            while session.path is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await session.close("never mind")
            await asyncio.sleep(0.5)
            assert session.state == "closed" and session.why == "never mind"

    asyncio.run(work())
    assert "a connection failed" not in capfd.readouterr().err
