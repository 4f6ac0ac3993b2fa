"""Two agents: they meet, talk, lose each other and come back."""

from __future__ import annotations

import asyncio

from procs.agent.transports import create_transport
from tests.agents import meeting, until


def test_two_agents_chat_by_the_published_api() -> None:
    async def talk() -> list[str]:
        heard: list[str] = []
        async with meeting("alice", "bob") as (_, (alice, bob)):
            theirs = create_transport("chat")
            bob.on_session = lambda session: theirs.attach_channel(session.main)
            theirs.on_message(heard.append)
            theirs.on_message(lambda text: theirs.send_text(f"you said {text}"))
            session = await alice.connect_to("bob")
            ours = create_transport("chat")
            ours.attach_channel(await session.opened(20))
            ours.on_message(heard.append)
            await ours.send_text("grüß dich")
            await until(lambda: len(heard) == 2)
            assert alice.get_channel("bob") is session.main and bob.get_session("alice") is not None
        return heard

    assert asyncio.run(talk()) == ["grüß dich", "you said grüß dich"]
