"""What was said so far: as lines for the store and for who looks on, and as messages for a language model. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from procs.messages.voice import Line, Role
from procs.voice.conversation.actions import Action, Keep
from procs.voice.conversation.words import CUT, SILENCE
from procs.wire.conversation import ChatMessage

KEPT = 200  # lines
BUDGET = 12_000  # characters that a request holds at most, the system prompt among them: about 3,000 tokens
MOST_OF_LINE = 16_000  # characters, as Line has it
WAITS_S = 30.0  # whoever has asked something, from when they began
KEEP_EVERY_S = 0.5  # a line that grows
HELLO = "Hello."  # of a user who has said nothing: many models want one to speak first


class History:
    """All lines. The last may grow until it is final. `out`: where `Keep` goes."""

    def __init__(self, lines: Sequence[Line], wall: Callable[[], datetime], out: list[Action]) -> None:
        self.lines = list(lines[-KEPT:])
        self._wall, self._out = wall, out
        self._kept_at = float("-inf")

    def grow(self, role: Role, text: str, now: float, *, new: bool = False, final: bool = False) -> int:
        """The last line is this text now, if it is of this role and goes on; else a new one begins. Its number. What a
        user says may go on although it was taken to be at its end."""
        line = self.lines[-1] if self.lines else None
        if new or line is None or line.role != role or (role == "assistant" and line.final):
            number = self.lines[-1].number + 1 if self.lines else 1
            line = Line(number, role, "", at=self._wall().timestamp())
            self.lines.append(line)
            del self.lines[:-KEPT]
            self._kept_at = float("-inf")
        line = Line(line.number, role, text[:MOST_OF_LINE], final, line.at)
        self.lines[-1] = line
        if final or now - self._kept_at >= KEEP_EVERY_S:
            self._kept_at = now
            self._out.append(Keep(line))
        return line.number

    def correct(self, number: int, text: str) -> None:
        """A line that is closed was not quite so."""
        for index, line in enumerate(self.lines):
            if line.number == number and line.text != text:
                self.lines[index] = Line(number, line.role, text[:MOST_OF_LINE], True, line.at)
                self._out.append(Keep(self.lines[index]))

    @property
    def was_cut(self) -> bool:
        """Whether the bot was in the middle of a sentence when all ended."""
        return bool(self.lines) and self.lines[-1].role == "assistant" and not self.lines[-1].final

    @property
    def was_asked(self) -> bool:
        """Whether somebody still waits for an answer that nobody has heard anything of."""
        if not self.lines or self.lines[-1].role != "user" or self.lines[-1].text in ("", SILENCE):
            return False
        return self._wall().timestamp() - self.lines[-1].at < WAITS_S

    def close(self, now: float) -> None:
        """The last line goes no further."""
        if not self.lines or self.lines[-1].final:
            return
        role, text = self.lines[-1].role, self.lines[-1].text
        self.grow(role, text.removesuffix(CUT) + CUT if role == "assistant" else text, now, final=True)

    @property
    def spoken(self) -> list[ChatMessage]:
        """The newest of it as events show it: no system prompt."""
        return _newest([ChatMessage(line.role, line.text) for line in self.lines if line.text], BUDGET)

    def messages(self, system: str, aside: str = "") -> list[ChatMessage]:
        """For a language model: the prompt, and the newest that fits beside it. `aside`: said by no user, and not
        kept."""
        merged: list[ChatMessage] = []
        said = [(line.role, _clean(line)) for line in self.lines]
        for role, text in [*said, ("user", aside)]:
            if text and merged and merged[-1].role == role:
                merged[-1] = ChatMessage(role, f"{merged[-1].content} {text}")
            elif text:
                merged.append(ChatMessage(role, text))
        kept = _newest([ChatMessage(each.role, _heard(each)) for each in merged], BUDGET - len(system))
        if not kept or kept[0].role != "user":
            kept.insert(0, ChatMessage("user", HELLO))
        return [ChatMessage("system", system), *kept]


def _clean(line: Line) -> str:
    text = line.text.strip()
    return text.removesuffix(CUT).rstrip() if line.role == "assistant" else text


def _heard(message: ChatMessage) -> str:
    """A silence before words is none."""
    text = message.content
    while message.role == "user" and text.startswith(SILENCE) and text != SILENCE:
        text = text.removeprefix(SILENCE).strip() or SILENCE
    return text


def _newest(messages: Sequence[ChatMessage], budget: int) -> list[ChatMessage]:
    """The last that fit; of the very last, if it alone does not, its end."""
    kept: list[ChatMessage] = []
    for message in reversed(messages):
        budget -= len(message.content)
        if budget < 0 and kept:
            break
        kept.insert(0, ChatMessage(message.role, message.content[-max(budget + len(message.content), 1000) :]))
    return kept
