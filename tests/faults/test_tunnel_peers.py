"""The tunnel's sessions as they run in a suite: two webrtc_peer at a hub; in the place of each tun_pump is the test."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import zmq

from procs import bus, line
from procs.agent import network
from procs.agent.conduit import Conduit, packets_of
from procs.agent.lane.port import Port
from procs.messages.tunnel import (
    Depart,
    LaneKeys,
    Listening,
    Packets,
    PeerAway,
    PeerUp,
    PumpUp,
    Reached,
    decode_to_pump,
)
from procs.tun_pump.ways import Ways
from procs.webrtc_peer import pump_lives
from tests import hub_rig
from tests.agents import until
from tests.peer_rig import ALONE
from tests.peered import Peered, peered
from tests.tunnelled import section

OTHER = {"alice": "bob", "bob": "alice"}


class Pump:
    """What tun_pump is to one side: its UDP port is a real one."""

    def __init__(self, me: str, run_dir: Path, *, tells_port: bool = True) -> None:
        self.peer, self._tells_port, self._life = OTHER[me], tells_port, 0
        self.ups: list[PeerUp] = []
        self.came: list[bytes] = []
        self.keys: list[LaneKeys] = []
        self.why = self.trusted = ""  # there is no session, and by which key the peer would have one
        self._run_dir = run_dir
        self.begin(0)

    def begin(self, number: int) -> None:
        """A life."""
        self.nonce, self.is_told = secrets.token_bytes(16), False
        self._life += 1
        self.port = Port(number, (42000, 42999))
        self.port.start()
        self._ways = Ways(self.port, [self.peer], self._say)
        self._conduit = Conduit()
        self._line = line.binder(self._run_dir, bus.TUN_PUMP_PACKETS, self._heard)

    def tell(self) -> None:
        """As it does each second, and to whoever is new."""
        news = self._conduit.news()
        port = self.port.number if self._tells_port else 0
        self.is_told |= self._say(self.peer, PumpUp(1380, [], news.at, news.seen, port, self.nonce, self._life))

    def _say(self, peer: str, message: msgspec.Struct, body: bytes = b"") -> bool:
        return self._line.say(message, body, to=peer)

    def send(self, *packets: bytes) -> None:
        """Have the peer get these."""
        for message, body in self._conduit.batches(packets):
            self._line.say(message, body, to=self.peer)

    def end(self) -> None:
        """Be gone."""
        self.port.close()
        asyncio.get_running_loop().remove_reader(int(self._line._sock.getsockopt(zmq.FD)))
        self._line._sock.context.destroy(linger=0)

    def _heard(self, peer: str, data: bytes, body: bytes) -> None:
        message = decode_to_pump(data)
        assert peer == self.peer
        if isinstance(message, PeerAway):
            self.why, self.trusted = message.why, message.key
        elif isinstance(message, Listening):
            self.tell()
            self._ways.listening(peer, message)
        elif isinstance(message, Depart):
            self._ways.depart(peer, message, body)
        elif isinstance(message, Reached):
            self._ways.reached(peer, message)
        elif isinstance(message, LaneKeys):
            self.keys.append(message)
        else:
            self._of_packets(message, body)

    def _of_packets(self, message: PeerUp | Packets, body: bytes) -> None:
        self._conduit.heard(message.at, message.seen)
        if isinstance(message, PeerUp):
            self.ups.append(message)
        else:
            self.came += packets_of(body)


@contextmanager
def suites(folder: Path, tokens: str = "") -> Iterator[tuple[hub_rig.Process, dict[str, Peered]]]:
    """A hub, and both sides' webrtc_peer."""
    with ExitStack() as stack:
        (folder / "hub").mkdir()
        hub = stack.enter_context(hub_rig.process(folder / "hub", command=ALONE, SIGNALING_TOKENS=tokens))
        found = {}
        for me in OTHER:
            run_dir = folder / me
            run_dir.mkdir()
            (run_dir / network.NAME).write_text(json.dumps(network.document_of(section(me), "tunnel")))
            url = f"ws://127.0.0.1:{hub.port}/ws/signal"
            found[me] = stack.enter_context(peered(run_dir, AGENT_ID=me, SIGNALING_URL=url))
        yield hub, found


@asynccontextmanager
async def pumps(folder: Path, *, ports: bool = True) -> AsyncIterator[tuple[Pump, Pump]]:
    """Both; `ports`: sessions go by theirs, and not by sockets of their own."""
    both = Pump("alice", folder / "alice", tells_port=ports), Pump("bob", folder / "bob", tells_port=ports)
    try:
        yield both
    finally:
        for each in both:
            each.end()


async def passes(one: Pump, other: Pump, number: int) -> None:
    """Packets go both ways, sooner or later."""
    there, back = (b"\x45" + kind + bytes([number]) * 1300 for kind in (b"there", b"back"))

    def is_there() -> bool:
        one.send(there)
        other.send(back)
        return there in other.came and back in one.came

    await until(is_there, 25)


def test_packets_pass_again_whoever_was_killed(tmp_path: Path) -> None:
    with suites(tmp_path) as (hub, sides):

        async def work() -> None:
            async with pumps(tmp_path) as (alice, bob):
                await passes(alice, bob, 1)
                assert alice.ups[-1].plane == 2 and alice.ups[-1].mtu == 1380 and alice.ups[-1].path == "direct"
                (child,) = sides["alice"].children()
                os.kill(child, signal.SIGKILL)
                await until(lambda: any(up.pid != child for up in alice.ups))
                await passes(alice, bob, 2)
                sides["bob"].kill()
                sides["bob"].start()
                await passes(alice, bob, 3)
                await until(lambda: len(sides["bob"].children()) == 1)
                (frozen,) = sides["bob"].children()
                os.kill(frozen, signal.SIGSTOP)
                await until(lambda: sides["bob"].children() not in ([frozen], []))
                await passes(alice, bob, 4)
                hub.kill()
                before = len(bob.ups)
                await until(lambda: len(bob.ups) > before + 1)
                await passes(alice, bob, 5)

        asyncio.run(work())


def fit(one: Pump, other: Pump) -> bool:
    """Whether both have the same keys, of their nonces of now, and know where to send to."""
    if not one.keys or not other.keys:
        return False
    mine, theirs = one.keys[-1], other.keys[-1]
    return (
        (mine.mine, mine.theirs, mine.sends, mine.receives)
        == (theirs.theirs, theirs.mine, theirs.receives, theirs.sends)
        and (mine.mine, theirs.mine) == (one.nonce, other.nonce)
        and (mine.port, theirs.port) == (other.port.number, one.port.number)
        and mine.may_send
        and theirs.may_send
    )


def test_whoever_has_the_port_gets_keys_in_each_of_its_lives_and_in_each_of_the_session_s(tmp_path: Path) -> None:
    with suites(tmp_path) as (_, sides):

        async def work() -> None:
            async with pumps(tmp_path) as (alice, bob):
                await until(lambda: fit(alice, bob), 25)
                first, had = alice.keys[-1], len(bob.ups)
                children = sides["alice"].children()
                alice.end()  # it dies, and is back at the same port
                alice.begin(alice.port.number)
                await until(lambda: fit(alice, bob) and len(bob.ups) > had, 5)
                assert {up.pid for up in bob.ups[had:]} == {bob.ups[-1].pid}
                assert sides["alice"].children() == children and alice.ups[-1].stats["connections"] == 1
                second = alice.keys[-1]
                assert {first.sends, first.receives}.isdisjoint({second.sends, second.receives})
                os.kill(children[0], signal.SIGKILL)
                await until(lambda: fit(alice, bob) and alice.keys[-1].pid not in children, 15)
                assert alice.keys[-1].mine == second.mine and alice.keys[-1].sends != second.sends
                await passes(alice, bob, 1)
                alice.end()  # somebody else has its port now
                alice.begin(0)
                await until(lambda: fit(alice, bob), 15)

        asyncio.run(work())


def test_a_peer_with_another_key_gets_no_session_and_it_is_said_why(tmp_path: Path) -> None:
    with suites(tmp_path) as (_, sides):

        async def work() -> None:
            async with pumps(tmp_path) as (alice, bob):
                await passes(alice, bob, 1)
                sides["bob"].kill()
                (tmp_path / "bob" / "agent" / "key").unlink()  # as somebody who calls himself bob
                sides["bob"].start()
                await until(lambda: "ANOTHER KEY" in alice.why and "ANOTHER KEY" in bob.why, 25)
                before = len(alice.came)
                bob.send(b"\x45" * 20)
                await asyncio.sleep(0.3)
                assert len(alice.came) == before

        asyncio.run(work())


def test_it_is_said_that_the_server_will_not_have_us(tmp_path: Path) -> None:
    with suites(tmp_path, "the-token-of-this-room"):

        async def work() -> None:
            async with pumps(tmp_path) as (alice, _):
                await until(lambda: alice.why == "the signalling server: invalid token", 25)

        asyncio.run(work())


def test_a_peer_whose_pump_is_gone_or_dies_again_and_again_is_not_up_though_its_session_is(tmp_path: Path) -> None:
    with suites(tmp_path):

        async def work() -> None:
            async with pumps(tmp_path, ports=False) as (alice, bob):
                await passes(alice, bob, 1)
                bob.end()
                await until(lambda: alice.why.startswith("at the peer: no tun_pump for "), 10)
                bob.begin(0)
                before = len(alice.ups)
                await until(lambda: len(alice.ups) > before, 10)
                for _ in range(pump_lives.MANY - 2):  # that was the second
                    await until(lambda: bob.is_told, 10)
                    bob.end()
                    bob.begin(0)
                await until(lambda: "was started 4 times within" in alice.why and bob.why.startswith("here: "), 10)
                await passes(alice, bob, 2)

        asyncio.run(work())
