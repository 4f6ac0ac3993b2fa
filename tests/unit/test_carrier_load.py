"""A data connection whose other side makes work without end."""

from __future__ import annotations

import asyncio
import time
from unittest import mock

from procs.carrier import Carrier
from procs.wire import ws13


def test_who_makes_much_work_is_not_read_for_a_while() -> None:
    async def main() -> None:
        def busy(_: memoryview) -> None:
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                pass

        transport = mock.Mock(asyncio.Transport)
        transport.is_closing.return_value = False
        carrier = Carrier(busy)
        carrier.connection_made(transport)
        carrier.data_received(b"".join(ws13.frames([b"work"], lambda: bytes(4))))
        transport.pause_reading.assert_called_once()
        transport.resume_reading.assert_not_called()
        await asyncio.sleep(0.2)
        transport.resume_reading.assert_called_once()

    asyncio.run(main())
