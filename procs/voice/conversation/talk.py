"""One conversation, from the first connection to the last: what comes in goes to its ears and its mouth, and what is to
be done comes out. Pure: it has no clock, no socket and no thread.

`now` is in seconds of CLOCK_MONOTONIC and never goes back. Every call returns what is to be done, in that order.

For who drives it:
- `lost` when the connection is gone, `begin` when there is one, again and again. What is said meanwhile waits.
- `session.updated` is said by who got the update: only they have all of it.
- `FlushEars` is answered by `flushed` of its mark; at once where no recogniser is connected.
- After `tts_failed` the next `Speak` of the same reply opens a new session; after `llm_failed` an `Ask` of the same
  number may follow. What comes for a reply that was dropped is taken for nothing.
- Before `Tell(AudioDone)` what an encoder still holds is to be sent.
- Of `Seen`, the shares of a reply's latency are measured here (planaria_voice_{pause,flush,llm,tts,ours}_seconds),
  and planaria_voice_{replies,interruptions,false_interruptions,onset_to_paused_seconds}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

from procs.messages.voice import Line
from procs.voice.conversation.actions import Action
from procs.wire import moshi
from procs.wire import realtime as wire

Turn = Literal["waiting_for_user", "user_speaking", "bot_speaking"]


class Conversation:
    """One. `ours`: the other side knows planaria.* events; it may be set anew before `begin`. `headlines`: for news;
    None: there are none. Raises Refused for a voice that nobody knows."""

    def __init__(
        self,
        *,
        instructions: wire.Instructions | None,
        voice: str,
        lines: Sequence[Line],
        ours: bool,
        seed: int,
        llm_name: str,
        now: float,
        wall: Callable[[], datetime],
        headlines: Sequence[str] | None,
    ) -> None:
        self.ours = ours

    # The connection

    def begin(self, now: float) -> list[Action]:
        """Connected (again)."""
        return []

    def lost(self, now: float) -> list[Action]:
        """The connection is gone: nothing is heard any more of what is said."""
        return []

    def update(
        self,
        instructions: wire.Instructions | None,
        voice: str | None,
        now: float,
        headlines: Sequence[str] | None = None,
    ) -> list[Action]:
        """A session.update. None: as it was. Raises Refused for a voice that nobody knows, and nothing has changed."""
        return []

    def muted(self, muted: bool, now: float) -> list[Action]:
        """Hear nothing, or again."""
        return []

    # The microphone

    def sound_heard(self, seconds: float, now: float) -> list[Action]:
        """So much of the microphone went to the recogniser."""
        return []

    def voice_heard(self, active: bool, now: float) -> list[Action]:
        """Somebody's voice began, or ended."""
        return []

    # The recogniser

    def word(self, text: str, start_s: float, now: float) -> list[Action]:
        """A word."""
        return []

    def end_word(self, stop_s: float, now: float) -> list[Action]:
        """Where it ends."""
        return []

    def step(self, pause_probability: float, now: float) -> list[Action]:
        """80 ms more were dealt with; the third of its four scores."""
        return []

    def flushed(self, mark: int, now: float) -> list[Action]:
        """All before this mark was dealt with."""
        return []

    def ears_lost(self, now: float) -> list[Action]:
        """The recogniser's session is gone. What was heard stands; what is heard again of it is passed over."""
        return []

    # The language model

    def llm_word(self, reply: int, delta: str, now: float) -> list[Action]:
        """Any part of its text."""
        return []

    def llm_done(self, reply: int, now: float) -> list[Action]:
        """That was all."""
        return []

    def llm_failed(self, reply: int, why: str, now: float) -> list[Action]:
        """Nothing more comes of it."""
        return []

    # The synthesiser

    def tts_word(self, reply: int, text: str, start_s: float, stop_s: float, now: float) -> list[Action]:
        """When in its session's sound a word is spoken."""
        return []

    def tts_sound(self, reply: int, pcm: moshi.Samples, now: float) -> list[Action]:
        """More of its sound."""
        return []

    def tts_done(self, reply: int, now: float) -> list[Action]:
        """That was all."""
        return []

    def tts_failed(self, reply: int, why: str, now: float) -> list[Action]:
        """Nothing more comes of this session."""
        return []

    # Others

    def playback(self, event: wire.Playback, now: float) -> list[Action]:
        """What has left the speaker of a device of ours."""
        return []

    def say(self, text: str, now: float) -> list[Action]:
        """Say this, after what is being said. Raises Refused where too many wait already."""
        return []

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        return []

    @property
    def next_at(self) -> float | None:
        """When `tick` is wanted at the latest."""
        return None

    @property
    def turn(self) -> Turn:
        """Whose it is."""
        return "waiting_for_user"

    @property
    def lines(self) -> list[Line]:
        """All turns that are known, the newest last."""
        return []
