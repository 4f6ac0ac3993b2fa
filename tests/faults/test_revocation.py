"""A peer's key is taken away while there is a session with it: it ends, and does not come back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from procs.agent.core import AgentCore
from procs.agent.identity import Identity
from procs.agent.keyring import Peers
from procs.agent.signaling import SignalingClient
from procs.settings import ROOT
from tests import nat
from tests.agents import Server, identity_of, meeting, settings, until
from tests.bench import peers_ground
from tests.faults.test_tunnel_peers import passes, pumps, suites
from tests.rig import clean_environ
from tests.rig import until as until_there

ENDS_WITHIN_S = 20.0  # at once where nothing else runs; never, if nobody looks


async def cli(run_dir: Path, *words: str) -> None:
    """What a person types on that machine."""
    command = [sys.executable, str(ROOT / "scripts/cli.py"), "peers", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)), timeout=60, check=False
    )
    assert done.returncode == 0


async def agent(server: Server, identity: Identity) -> AgentCore:
    """Another bob, at its server."""
    own = settings("bob", server)
    core = AgentCore(own, SignalingClient(own), identity)
    await core.start(5)
    return core


def test_a_session_ends_with_the_key_that_it_stands_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with meeting(tmp_path, "alice", "bob") as (server, (alice, bob)):
            session = await alice.connect_to("bob")
            await session.opened(20)
            alices = alice._identity.peers
            alices.forget("bob")
            await until(lambda: session.connections == 2)  # met again, as if for the first time
            alices.revoke("bob")
            await until(lambda: "was revoked" in session.why and not session.is_connected(), ENDS_WITHIN_S)
            theirs = bob.get_session("alice")
            assert theirs
            await until(lambda: "was revoked" in theirs.why)
            await bob.stop()
            again = await agent(server, bob._identity)
            refused = await again.connect_to("alice")
            await until(lambda: "was revoked" in refused.why)
            assert session.connections == 2 and not refused.connections
            await again.stop()
            shutil.rmtree(tmp_path / "bob")
            new = await agent(server, identity_of("bob", tmp_path))
            another = await new.connect_to("alice")
            await until(lambda: f"--approve bob {new._identity.key}" in another.why)
            alices.pin("bob", new._identity.key, approved=True)
            await (await new.connect_to("alice")).opened(30)
            await new.stop()

    asyncio.run(work())


def test_tun_pump_is_told_whoever_was_killed(tmp_path: Path) -> None:
    with suites(tmp_path) as (_, sides):

        async def work() -> None:
            async with pumps(tmp_path) as (alice, bob):
                await passes(alice, bob, 1)
                await until(lambda: len(alice.ups[-1].key) == 44)
                (child,) = sides["alice"].children()
                os.kill(child, signal.SIGSTOP)  # it does not see it: the next one has to
                await cli(tmp_path / "alice", "--revoke", "bob")
                alice.why = ""
                os.kill(child, signal.SIGKILL)
                await until(lambda: alice.why != "" and alice.trusted == "")
                await until(lambda: "was revoked" in alice.why and "was revoked" in bob.why, 25)
                sides["alice"].kill()
                sides["bob"].kill()
                alice.why = bob.why = ""
                for side in sides.values():
                    side.start()
                await until(lambda: "was revoked" in alice.why and "was revoked" in bob.why, 25)
                before = len(alice.came)
                bob.send(b"\x45" * 20)
                await asyncio.sleep(0.3)
                assert len(alice.came) == before and alice.trusted == "" and len(bob.trusted) == 44

        asyncio.run(work())


@pytest.mark.skipif(bool(nat.why_not()), reason=nat.why_not())
def test_a_tunnel_of_one_process_ends_its_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where both ends keep their keys
    ends = [("lane-a", "10.77.0.1", 1380), ("lane-b", "10.77.0.2", 1380)]
    with peers_ground.straight() as wire, peers_ground.pair(wire, ("our_end", "3,2,1"), ends) as pair:
        until_there(lambda: [row["plane"] for row in pair.asked("rows")] == [3])
        homes = [Peers(path.parent) for path in tmp_path.rglob("peers.json")]
        (alices,) = (each for each in homes if "bob" in each.all())
        alices.revoke("bob")

        def is_down() -> bool:
            (row,) = pair.asked("rows")
            return not row["is_up"] and "was revoked" in row["why"]

        until_there(is_down, ENDS_WITHIN_S)
        for _ in range(4):  # the other side goes on for as long as it may hope
            time.sleep(0.5)
            assert is_down()
