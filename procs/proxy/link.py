"""The data connection to the hub: one WebSocket, many streams (procs/streams), made again whenever it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from procs import log
from procs.carrier import Carrier, carry, dial
from procs.errors import LinkLost, Refused
from procs.messages.work import TicketGrant
from procs.streams.link import Link
from procs.streams.stream import Stream
from procs.wire.mux1 import SUBPROTOCOL, MuxLimits

CONNECT_LIMIT_S = 10.0
GOING_AWAY = 1001


async def serve(grant: TicketGrant, accept: Callable[[Stream], None], ca: Path | None = None) -> str:
    """Serve what the hub opens over one data connection, until it ends; returns why it did. Raises LinkLost if there
    was none."""

    async def send(messages: list[bytes]) -> None:
        await carrier.send(messages)

    limits = MuxLimits()
    link = Link(send, opens="even", ours=limits, theirs=limits, accept=accept)
    carrier = await _connect(grant, link, ca)
    log.info("connected to the hub", url=grant.url)
    code, reason = GOING_AWAY, ""
    try:
        code, reason = await carry(link, carrier)
    finally:
        link.lost("the connection to the hub is gone")
        await carrier.close(code, reason)
    return reason


async def _connect(grant: TicketGrant, link: Link, ca: Path | None) -> Carrier:
    bearer = [("Authorization", f"Bearer {grant.ticket}")]
    try:
        async with asyncio.timeout(CONNECT_LIMIT_S):
            return await dial(grant.url, SUBPROTOCOL, bearer, link.received, ca)
    except Refused as reason:
        raise LinkLost(f"the hub takes no data connection: {reason}") from None
    except (OSError, TimeoutError) as error:
        raise LinkLost(f"no data connection: {error or 'no answer in time'}") from None
