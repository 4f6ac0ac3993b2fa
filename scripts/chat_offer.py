#!/usr/bin/env python3
"""Calls a peer and talks to it: what you type goes there, what comes is shown. Ctrl-C, or the end of stdin, ends it.

AGENT_ID=bob SIGNALING_URL=ws://127.0.0.1:8000/ws/signal scripts/chat_offer.py alice
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.become()

from procs.errors import PlanariaError
from scripts.agent_api.config import load_settings
from scripts.agent_api.core import AgentCore
from scripts.agent_api.signaling import SignalingClient

CONNECT_S = 30.0


async def talk(peer: str) -> None:
    """Until nothing more is typed."""
    settings = load_settings()
    core = AgentCore(settings, SignalingClient(settings))
    await core.start()
    session = await core.connect_to(peer)
    await session.opened(CONNECT_S)
    print(f"connected to {peer}", flush=True)
    try:
        await core.wait_for_shutdown()
    finally:
        await core.stop()


def main() -> int:
    """The exit code."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(__doc__)
        return 0
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        asyncio.run(talk(sys.argv[1]))
    except PlanariaError as error:
        print(f"chat_offer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
