"""How long a user waits for a reply, and for what: shares that add up to the whole. Pure."""

from __future__ import annotations

from typing import Literal

from procs.voice.conversation.actions import Action, Seen

# In their order: when the user's voice ended, that was noticed, and all words were there; when the model was asked, its
# first words were there, the synthesiser was told them, its first sound was there, and the first of it was sent.
Moment = Literal["voice", "pause", "flush", "asked", "llm", "spoken", "tts", "sent"]
Left = Literal["asked", "spoken", "sent"]  # those at which something has left us
_MOMENTS: tuple[Moment, ...] = ("voice", "pause", "flush", "asked", "llm", "spoken", "tts", "sent")
_LEFT: tuple[Moment, ...] = ("asked", "spoken", "sent")


class Latency:
    """Of the reply that is being made. `out`: where the figures go."""

    def __init__(self, out: list[Action]) -> None:
        self._out = out
        self._at: list[float] = []  # of the moments so far
        self.last: dict[str, float] = {}

    def voice(self, now: float) -> None:
        """The user was last heard then."""
        if len(self._at) < 2 or now > self._at[1]:
            self._at = [now]

    def reached(self, moment: Moment, now: float) -> None:
        """So far it is now. A moment counts when all before it were reached, and once. An answer may be here before it
        is known that the question has left."""
        known = _MOMENTS.index(moment)
        if self._at and len(self._at) == known - 1 and _MOMENTS[known - 1] in _LEFT:
            self._at.append(self._at[-1])
        if len(self._at) != known:
            return
        self._at.append(max(now, self._at[-1]) if self._at else now)
        if moment == "sent":
            self._tell()

    def _tell(self) -> None:
        voice, pause, flush, asked, llm, spoken, tts, sent = self._at
        self.last = {
            "pause": pause - voice,
            "flush": flush - pause,
            "llm": llm - asked,
            "tts": tts - spoken,
            "ours": (asked - flush) + (spoken - llm) + (sent - tts),
        }
        self._out.extend(Seen(f"planaria_voice_{name}_seconds", share) for name, share in self.last.items())
        self._at = []
