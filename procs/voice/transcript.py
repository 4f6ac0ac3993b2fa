"""What was said at one device, as who looks on gets it: each line with the number of its last change. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from procs.messages import encode
from procs.messages.voice import Line, VoiceTold

KEPT = 200
SHOWN = 50  # to who asks for the first time
MAX_TOLD = 48 * 1024  # bytes of one answer
MAX_BORN_WITH = 32 * 1024  # bytes of lines that a child is born with


class Transcript:
    """The newest lines. `first`: where changes begin to count; later than any before, so that who looked on before we
    were started again misses none."""

    def __init__(self, lines: Iterable[Line], first: int) -> None:
        self._lines = {line.number: line for line in lines}
        self._changes = dict.fromkeys(self._lines, first)
        self._newest = first

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def lines(self) -> list[Line]:
        """All, oldest first."""
        return [self._lines[number] for number in sorted(self._lines)]

    def add(self, line: Line) -> None:
        """A new line, or one that has changed."""
        if self._lines.get(line.number) == line:
            return
        self._newest += 1
        self._lines[line.number], self._changes[line.number] = line, self._newest
        while len(self._lines) > KEPT:
            oldest = min(self._lines)
            del self._lines[oldest], self._changes[oldest]

    def forget(self) -> None:
        """Nothing was said."""
        self._newest += 1
        self._lines, self._changes = {}, {}

    def told(self, after: int) -> VoiceTold:
        """What has changed since, as much as goes into an answer: the newest where nothing is known, else the oldest
        change first."""
        if not 0 < after <= self._newest:
            newest = self.lines[-SHOWN:]
            return VoiceTold(_newest_within(newest, MAX_TOLD) or newest[-1:], self._newest)
        changed = sorted((change, number) for number, change in self._changes.items() if change > after)
        chosen: list[int] = []
        room, upto = MAX_TOLD, self._newest
        for change, number in changed:
            room -= len(encode(self._lines[number]))
            if room < 0 and chosen:  # one at least, for else nobody would get further
                break
            chosen.append(number)
            upto = change
        told_all = len(chosen) == len(changed)
        return VoiceTold([self._lines[number] for number in sorted(chosen)], self._newest if told_all else upto)

    def to_be_born_with(self) -> list[Line]:
        """The newest lines that go into a child's spec."""
        return _newest_within(self.lines, MAX_BORN_WITH)


def _newest_within(lines: list[Line], room: int) -> list[Line]:
    chosen: list[Line] = []
    for line in reversed(lines):
        room -= len(encode(line))
        if room < 0:
            break
        chosen.append(line)
    return chosen[::-1]
