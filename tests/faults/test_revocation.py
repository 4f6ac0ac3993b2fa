"""A peer's key is taken away while there is a session with it: it ends, and does not come back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from procs.agent.core import AgentCore
from procs.agent.identity import Identity
from procs.agent.signaling import SignalingClient
from procs.settings import ROOT
from tests.agents import Server, identity_of, meeting, settings, until
from tests.faults.test_tunnel_peers import passes, pumps, suites
from tests.rig import clean_environ

ENDS_WITHIN_S = 5.0


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
