"""The data connection to the hub: one WebSocket, many streams (procs/streams.py), made again whenever it is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from procs import log
from procs.carrier import Carrier, dial
from procs.errors import LinkLost, Refused
from procs.messages import TicketGrant
from procs.streams import Link, Stream
from procs.wire.mux1 import MuxLimits

SUBPROTOCOL = "planaria.mux1"
SEND_LIMIT_S = 25.0  # for which the hub may take nothing
CONNECT_LIMIT_S = 10.0
QUIET_S, DEAD_S = 10.0, 25.0
GOING_AWAY = 1001


class Connection:
    """One data connection, from the ticket to its end."""

    def __init__(self, grant: TicketGrant, accept: Callable[[Stream], None], ca: Path | None = None) -> None:
        self._grant, self._accept, self._ca = grant, accept, ca
        self._loop = asyncio.get_running_loop()
        self._carrier: Carrier | None = None

    async def carry(self) -> str:
        """Serve what the hub opens until the connection ends; returns why it did. Raises LinkLost if there was none."""
        limits = MuxLimits()
        link = Link(self._send, opens="even", ours=limits, theirs=limits, accept=self._accept)
        carrier = self._carrier = await self._connect(link)
        log.info("connected to the hub", url=self._grant.url)
        works = [asyncio.create_task(work) for work in (self._write(link), self._watch(link, carrier))]
        code, reason = GOING_AWAY, ""
        try:
            done, _ = await asyncio.wait((carrier.over, *works), return_when=asyncio.FIRST_COMPLETED)
            code, reason = carrier.over.result() if carrier.over in done else next(iter(done)).result()
        finally:
            link.lost("the connection to the hub is gone")
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            await carrier.close(code, reason)
        return reason

    async def _send(self, messages: list[bytes]) -> None:
        assert self._carrier is not None
        await self._carrier.send(messages)

    async def _connect(self, link: Link) -> Carrier:
        bearer = [("Authorization", f"Bearer {self._grant.ticket}")]
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                return await dial(self._grant.url, SUBPROTOCOL, bearer, link.received, self._ca)
        except Refused as reason:
            raise LinkLost(f"the hub takes no data connection: {reason}") from None
        except (OSError, TimeoutError) as error:
            raise LinkLost(f"no data connection: {error or 'no answer in time'}") from None

    async def _write(self, link: Link) -> tuple[int, str]:
        try:
            await link.write()
        except LinkLost as lost:
            return GOING_AWAY, str(lost)
        return GOING_AWAY, "it takes less than it asks for"

    async def _watch(self, link: Link, carrier: Carrier) -> tuple[int, str]:
        while (quiet_s := self._loop.time() - carrier.heard_at) < DEAD_S:
            if carrier.stuck_s > SEND_LIMIT_S:
                return GOING_AWAY, f"the hub took nothing for {SEND_LIMIT_S:g} s"
            if quiet_s >= QUIET_S:
                link.ping(os.urandom(8))
            await asyncio.sleep(QUIET_S / 4)
        return GOING_AWAY, f"the hub was silent for {DEAD_S:g} s"
