#!/usr/bin/env python3
"""Waits for peers that call, and tells each what it has said.

AGENT_ID=alice SIGNALING_URL=ws://127.0.0.1:8000/ws/signal scripts/chat_answer.py
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.become()

from procs.agent.session import PeerSession
from procs.errors import PlanariaError
from scripts.agent_api.config import load_settings
from scripts.agent_api.core import AgentCore
from scripts.agent_api.signaling import SignalingClient


def answer(session: PeerSession) -> None:
    """Talk to whoever has called."""
    transport = session.transport

    def said(message: bytes) -> None:
        text = message.decode(errors="replace")
        print(f"{session.peer}: {text}", flush=True)
        transport.send_text(f"you said: {text}")

    transport.on_message(said)
    print(f"{session.peer} calls", flush=True)


async def listen() -> None:
    """Until it is ended."""
    settings = load_settings()
    core = AgentCore(settings, SignalingClient(settings))
    core.on_session = answer
    await core.start()
    print(f"listening as {settings.agent_id}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await core.stop()


def main() -> int:
    """The exit code."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(__doc__)
        return 0
    if len(sys.argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        asyncio.run(listen())
    except PlanariaError as error:
        print(f"chat_answer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
