"""What we ask the hub over the control connection: asked again when that is lost, until the deadline. Pure."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import NamedTuple

from procs.wire import envelope

MAX_OPEN = 64
Reply = Callable[[envelope.Envelope | str], None]  # the answer, or why there is none


class _Question(NamedTuple):
    kind: str
    payload: envelope.Payload
    deadline: float
    reply: Reply

    def text(self, request_id: str) -> str:
        return envelope.encode(self.kind, self.payload, request_id)


class Questions:
    """Open questions. Each is replied to exactly once."""

    def __init__(self) -> None:
        self._open: dict[str, _Question] = {}
        self._ids = itertools.count()
        self._prefix = os.urandom(6).hex()  # a late answer to the process before us can't be taken for one to us

    def ask(self, kind: str, payload: envelope.Payload, deadline: float, reply: Reply) -> str:
        """A new question; returns the frame that asks it, "" if there are too many already."""
        if len(self._open) >= MAX_OPEN:
            reply("too many open questions")
            return ""
        request_id = f"{self._prefix}-{next(self._ids)}"
        self._open[request_id] = question = _Question(kind, payload, deadline, reply)
        return question.text(request_id)

    def again(self) -> list[str]:
        """The frames that ask all that is open, for a new connection."""
        return [question.text(request_id) for request_id, question in self._open.items()]

    def answered(self, request_id: str, answer: envelope.Envelope) -> bool:
        """Whether it was a question of ours."""
        question = self._open.pop(request_id, None)
        if question:
            question.reply(answer)
        return bool(question)

    def refuse(self, kind: str, why: str) -> None:
        """Give up all questions of a kind: this hub does not know it."""
        for request_id in [each for each, question in self._open.items() if question.kind == kind]:
            self._open.pop(request_id).reply(why)

    def tick(self, now: float) -> None:
        """Give up what is late."""
        for request_id in [each for each, question in self._open.items() if now >= question.deadline]:
            self._open.pop(request_id).reply("the hub did not answer in time")
