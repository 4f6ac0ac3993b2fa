"""The way to the hub as the rest of the process sees it: whether it is open, and what waits to be sent."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable

from procs.errors import Refused
from procs.wire import envelope
from procs.wire.frames.device import ProxyHttpResp
from procs.ws_link import jobs
from procs.ws_link.link import Session
from procs.ws_link.outbox import Outbox


class Uplink:
    """One for the life of the process; connections come and go below it."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.session: Session | None = None
        self.waiting = asyncio.Event()  # there may be something to send
        self.overflowed = False
        self._then: dict[str, Callable[[], None]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the hub has taken us."""
        return self.session is not None and self.session.state == "connected"

    def begin(self, session: Session) -> None:
        """A new connection is there."""
        self.session, self.overflowed = session, False
        self.outbox.new_connection()
        self._then.clear()

    def send(self, text: str, then: Callable[[], None] | None = None) -> None:
        """Send a short frame over the connection that there is, and do `then` once it was written to it."""
        if then:
            self._then[text] = then
        self.overflowed |= not self.outbox.put(text)
        self.waiting.set()

    def sent(self, text: str) -> None:
        """The frame that the outbox gave was written."""
        self.outbox.sent(text)
        if then := self._then.pop(text, None):
            then()

    def answer(self, answer: jobs.Answer) -> None:
        """Send the answer to a request, over this connection or the next."""
        try:
            text = _frame(answer)
        except Refused as reason:
            text = _frame(jobs.refusal(answer.rid, 500, f"The answer can't be sent: {reason}"))
        if not self.outbox.put_bulk(text, time.monotonic()):
            self.send(_frame(jobs.refusal(answer.rid, 503, "Too much waits to be sent")))
        self.waiting.set()


def _frame(answer: jobs.Answer) -> str:
    body = base64.b64encode(answer.body).decode()
    return envelope.encode("proxy_http_resp", ProxyHttpResp(answer.rid, answer.status, answer.headers, body))
