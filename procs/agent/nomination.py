"""What aioice lacks on the way to a straight path: to knock again at once when the other side is heard, to move there
from a relay once the other side has found it, and to go on looking for it itself.

aioice sends a check again after half a second, though the hole in a NAT that it was lost at is there as soon as the
other side's own check comes; and it gives up all checks but the one that succeeded first, which is often the relay's.
A browser goes on looking, finds the way straight, says so with each of its checks there (USE-CANDIDATE), and aioice
would wait for its own check, which it has given up, for ever: everything went by the relay. Private names of aioice
0.13, as in ice.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aioice import Connection
from aioice.ice import CandidatePair, candidate_pair_priority

AT_ONCE_S = 2.0  # after a pair was agreed on; checks of others may have been on their way
_State = CandidatePair.State


def follow(connection: Connection) -> None:
    """Have incoming checks answered by checks of ours on the same pair, also while one is on its way and where it was
    given up (RFC 8445, 7.3.1.4)."""
    check_incoming = connection.check_incoming

    def incoming(message: Any, address: tuple[str, int], protocol: Any) -> None:
        for pair in connection._check_list:
            if pair.protocol is protocol and pair.remote_addr == address and pair.state is _State.IN_PROGRESS:
                if pair.task is None or pair.task.done():
                    if "USE-CANDIDATE" in message.attributes:
                        pair.task, pair.state = None, _State.WAITING
                elif not connection._nominated:
                    _knock_again(pair)
        check_incoming(message, address, protocol)

    connection.check_incoming = incoming  # type: ignore[method-assign, assignment]


def keep_the_best(connection: Connection) -> None:
    """Of all that the other side and we agree on at once, have the pair with the highest priority (RFC 5245, 8.1.1.2),
    where aioice has the last: who calls nominates each pair that passes, and many may at once. What is agreed on later
    is where the other side has moved."""
    check_complete = connection.check_complete
    agreed_at: dict[int, float] = {}

    def complete(pair: CandidatePair) -> None:
        before = connection._nominated.get(pair.component)
        check_complete(pair)
        if connection._nominated.get(pair.component) is not pair:
            return
        now = time.monotonic()
        if (
            before
            and now - agreed_at.get(pair.component, now) < AT_ONCE_S
            and _priority(connection, before) > _priority(connection, pair)
        ):
            connection._nominated[pair.component] = before
        else:
            agreed_at[pair.component] = now

    connection.check_complete = complete  # type: ignore[method-assign]


def is_straight(pair: CandidatePair) -> bool:
    """Whether it leads through no relay."""
    return "relay" not in (pair.local_candidate.type, pair.remote_candidate.type)


def go_on(connection: Connection, is_wanted: Callable[[CandidatePair], bool]) -> None:
    """Look for such a path once more, though there is another one. The other side has to do the same."""
    for remote in connection._remote_candidates:
        connection._pair_remote_candidate(remote)  # forms those pairs that are not there
    for pair in list(connection._check_list):
        if is_wanted(pair) and pair.state is not _State.SUCCEEDED and (pair.task is None or pair.task.done()):
            pair.task, pair.state = None, _State.WAITING
            connection.check_start_task(pair)


def _priority(connection: Connection, pair: CandidatePair) -> int:
    return candidate_pair_priority(pair.local_candidate, pair.remote_candidate, connection.ice_controlling)


def _knock_again(pair: CandidatePair) -> None:
    """Send the check of this pair again now. To begin another would lose the answer that may be here already."""
    for transaction in pair.protocol.transactions.values():
        if transaction._Transaction__addr == pair.remote_addr:  # type: ignore[attr-defined]
            pair.protocol.send_stun(transaction._Transaction__request, pair.remote_addr)  # type: ignore[attr-defined]
