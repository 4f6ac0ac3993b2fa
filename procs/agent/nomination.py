"""What aioice lacks: a session that began by a relay moves to the straight path once the other side has found it.

aioice gives up all checks but the one that succeeded first, and that is often the relay's: holes in NATs take a round
trip more. A browser goes on looking, finds the way straight, says so with each of its checks there (USE-CANDIDATE), and
aioice would wait for its own check, which it has given up, for ever: everything went by the relay. Private names of
aioice 0.13, as in ice.py.
"""

from __future__ import annotations

from typing import Any

from aioice import Connection
from aioice.ice import CandidatePair

_State = CandidatePair.State


def follow(connection: Connection) -> None:
    """Check anew a pair that the other side wants to use, where that was given up (RFC 8445, 7.3.1.4)."""
    check_incoming = connection.check_incoming

    def incoming(message: Any, address: tuple[str, int], protocol: Any) -> None:
        if "USE-CANDIDATE" in message.attributes:
            for pair in connection._check_list:
                if pair.protocol is protocol and pair.remote_addr == address:
                    _begin_again(pair)
        check_incoming(message, address, protocol)

    connection.check_incoming = incoming  # type: ignore[method-assign, assignment]


def _begin_again(pair: CandidatePair) -> None:
    if pair.state is _State.IN_PROGRESS and pair.task and pair.task.done():
        pair.task, pair.state = None, _State.WAITING
