"""Files between two agents, while the connection between them is lost."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from procs.agent import files
from procs.agent.channel import Channel
from procs.agent.core import AgentCore
from procs.agent.file_io import Inbox, Outbox
from procs.agent.session import PeerSession
from tests.agents import meeting


def test_a_file_survives_the_connection(tmp_path: Path) -> None:
    sent = tmp_path / "sent.bin"
    sent.write_bytes(os.urandom(12_000_000))
    (tmp_path / "into").mkdir()

    async def main() -> tuple[int, str]:
        arrived: asyncio.Queue[tuple[Path, str]] = asyncio.Queue()

        def receive(session: PeerSession) -> None:
            def opened(channel: Channel) -> None:
                Inbox(channel, session.peer, tmp_path / "into", lambda path, _, sha: arrived.put_nowait((path, sha)))

            session.on_channel = opened

        async with meeting(tmp_path, "alice", "bob") as (_, (alice, bob)):
            bob.on_session = receive
            session = await alice.connect_to("bob")
            outbox = Outbox(session.channel(files.LABEL))
            sending = asyncio.create_task(outbox.send(sent, progress=lambda each: cut(alice, each)))
            path, digest = await asyncio.wait_for(arrived.get(), 25)
            result = await sending
            assert path.read_bytes() == sent.read_bytes() and result.sha256 == digest
        await asyncio.sleep(0.1)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "files of alice"], "it waits for ever"
        return session.connections, result.name

    lost: list[int] = []

    def cut(alice: AgentCore, sending: files.Sending) -> None:
        session = alice.get_session("bob")
        if sending.got > 3_000_000 and not lost and session:
            lost.append(sending.got)
            session._lost("cut by the test")

    connections, name = asyncio.run(main())
    assert lost and connections == 2 and name == "sent.bin"
