"""How long a user waits for a reply, and for what: shares that add up to the whole. Pure."""

from __future__ import annotations

from typing import Literal

from procs.voice.conversation.actions import Action, Seen

# In their order; each share is the time from the one before to it.
Moment = Literal["voice", "pause", "flush", "llm", "tts", "ours"]
_MOMENTS: tuple[Moment, ...] = ("voice", "pause", "flush", "llm", "tts", "ours")


class Latency:
    """Of the reply that is being made. `out`: where the figures go."""

    def __init__(self, out: list[Action]) -> None:
        self._out = out
        self._at: dict[Moment, float] = {}
        self.last: dict[str, float] = {}

    def voice(self, now: float) -> None:
        """The user was last heard then."""
        if now > self._at.get("pause", float("-inf")):
            self._at = {"voice": now}

    def reached(self, moment: Moment, now: float) -> None:
        """So far it is now. A moment counts when all before it were reached, and once."""
        known = list(self._at)
        if known == list(_MOMENTS[: len(known)]) and len(known) == _MOMENTS.index(moment):
            self._at[moment] = max(now, self._at[known[-1]]) if known else now
        if moment == "ours":
            self._tell()

    def _tell(self) -> None:
        if len(self._at) == len(_MOMENTS):
            times = list(self._at.values())
            self.last = {name: times[i + 1] - times[i] for i, name in enumerate(_MOMENTS[1:])}
            self._out.extend(Seen(f"planaria_voice_{name}_seconds", share) for name, share in self.last.items())
        self._at = {}
