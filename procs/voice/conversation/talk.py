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
- Of `Seen`, the shares of a reply's latency are measured here (planaria_voice_{pause,flush,llm,tts,ours}_seconds), by
  the times at which messages came, and at which `left` is told that what they led to has gone,
  and planaria_voice_{replies,interruptions,false_interruptions,onset_to_paused_seconds}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from procs.messages.voice import Line
from procs.voice import voices
from procs.voice.conversation.actions import Action, Sound, Tell
from procs.voice.conversation.latency import Left
from procs.voice.conversation.prompts import Prompt
from procs.voice.conversation.turns import Turn, Turns
from procs.voice.onset import OFFSET_S
from procs.wire import moshi
from procs.wire import realtime as wire
from procs.wire.conversation import Instructions

__all__ = ["Conversation", "Turn"]


class Conversation:
    """One. `ours`: the other side knows planaria.* events; it may be set anew before `begin`. `headlines`: for news;
    None: there are none. Raises Refused for a voice that nobody knows."""

    def __init__(
        self,
        *,
        instructions: Instructions | None,
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
        self._seed, self._llm_name, self._wall, self._headlines = seed, llm_name, wall, headlines
        self._turns = Turns(lines, wall, _voice(voice))
        self._now = now
        self._greeted = False
        self._first_word = True  # of a connection: an empty one goes before it
        if instructions is not None:
            self._instruct(instructions)

    # The connection

    def begin(self, now: float) -> list[Action]:
        """Connected (again)."""
        turns = self._turns
        turns.speaking.lost(now)
        self._first_word, turns.sound_s, turns.voice_since, turns.doubt = True, 0.0, None, None
        if self.ours:  # whatever it was told by who called it last
            turns.out.append(Tell(wire.Mute(muted=turns.is_muted)))
        back = turns.prompt.texts.back if turns.prompt else ""
        turns.speaking.begin(ours=self.ours, back=back, voice=turns.voice[0], now=now)
        turns.attend(now)
        self._greet(now)
        return self._done(now)

    def lost(self, now: float) -> list[Action]:
        """The connection is gone: nothing is heard any more of what is said."""
        turns = self._turns
        turns.voice_since = turns.doubt = None
        turns.speaking.lost(now)
        return self._done(now)

    def update(
        self,
        instructions: Instructions | None,
        voice: str | None,
        now: float,
        headlines: Sequence[str] | None = None,
    ) -> list[Action]:
        """A session.update. None: as it was. Raises Refused for a voice that nobody knows, and nothing has changed."""
        if voice is not None:
            self._turns.voice = _voice(voice)
        if headlines is not None:
            self._headlines = headlines
        if instructions is not None:
            self._instruct(instructions)
            if self._turns.speaking.is_connected:
                self._greet(now)
        return self._done(now)

    def _instruct(self, instructions: Instructions) -> None:
        self._turns.prompt = Prompt(
            instructions, llm_name=self._llm_name, seed=self._seed, time=self._wall(), headlines=self._headlines
        )

    def _greet(self, now: float) -> None:
        """The bot speaks first, once. Where another life of it was cut off, it goes on; what that was asked, it
        answers."""
        turns = self._turns
        if turns.prompt is None:
            return
        if not self._greeted and (not turns.history.lines or turns.history.was_asked):
            turns.history.close(now)
            turns.ask(now)
        elif turns.history.was_cut and turns.speaking.reply is None and not turns.speaking.is_waiting:
            turns.history.close(now)
            turns.speaking.announce(turns.prompt.texts.back, first=True)
            turns.goes_on_with = turns.prompt.texts.go_on
        self._greeted = True

    def muted(self, muted: bool, now: float) -> list[Action]:
        """Hear nothing, or again."""
        turns = self._turns
        if muted != turns.is_muted:
            turns.is_muted = muted
            if self.ours and turns.speaking.is_connected:
                turns.out.append(Tell(wire.Mute(muted=muted)))
            turns.attend(now)
            if muted and turns.voice_since is not None:
                turns.voice_ended(now)
        return self._done(now)

    # The microphone

    def sound_heard(self, seconds: float, now: float) -> list[Action]:
        """So much of the microphone went to the recogniser."""
        self._turns.sound_s += seconds
        return self._done(now)

    def voice_heard(self, active: bool, now: float) -> list[Action]:
        """Somebody's voice began, or ended."""
        turns = self._turns
        if active and not turns.is_muted and turns.voice_since is None:
            turns.voice_began(now)
        elif not active and turns.voice_since is not None:
            turns.latency.voice(now - OFFSET_S)
            turns.voice_ended(now)
        return self._done(now)

    # The recogniser

    def word(self, text: str, start_s: float, now: float) -> list[Action]:
        """A word."""
        turns, text = self._turns, text.strip()
        if text and not turns.is_muted and not turns.listening.is_known(text, now):
            if self._first_word:
                self._first_word = False
                turns.out.append(Tell(wire.Transcription(delta="")))
            turns.out.append(Tell(wire.Transcription(delta=text, start_time=start_s)))
            turns.word(text, now)
        return self._done(now)

    def end_word(self, stop_s: float, now: float) -> list[Action]:
        """Where it ends."""
        return self._done(now)

    def step(self, pause_probability: float, now: float) -> list[Action]:
        """80 ms more were dealt with; the third of its four scores."""
        if self._turns.listening.score.step(pause_probability):
            self._turns.scored(now)
        return self._done(now)

    def flushed(self, mark: int, now: float) -> list[Action]:
        """All before this mark was dealt with."""
        self._turns.flushed(mark, now)
        return self._done(now)

    def ears_lost(self, now: float) -> list[Action]:
        """The recogniser's session is gone. What was heard stands; what is heard again of it is passed over."""
        self._turns.ears_lost(now)
        return self._done(now)

    # The language model

    def llm_word(self, reply: int, delta: str, now: float) -> list[Action]:
        """Any part of its text."""
        turns = self._turns
        if (found := turns.speaking.of(reply, now)) and not found.is_written:
            found.write(delta)
            if found.sent:
                turns.latency.reached("llm", now)
        return self._done(now)

    def llm_done(self, reply: int, now: float) -> list[Action]:
        """That was all."""
        if (found := self._turns.speaking.of(reply, now)) and not found.is_written:
            if found.is_empty:
                return self.llm_failed(reply, "it has nothing to say", now)
            found.end_text()
        return self._done(now)

    def llm_failed(self, reply: int, why: str, now: float) -> list[Action]:
        """Nothing more comes of it."""
        turns = self._turns
        if (found := turns.speaking.of(reply, now)) and turns.prompt is not None:
            turns.speaking.model_failed(found, why, turns.prompt.texts.sorry)
        return self._done(now)

    # The synthesiser

    def tts_word(self, reply: int, text: str, start_s: float, stop_s: float, now: float) -> list[Action]:
        """When in its session's sound a word is spoken."""
        if found := self._turns.speaking.of(reply, now):
            found.time(text, start_s, stop_s)
        return self._done(now)

    def tts_sound(self, reply: int, pcm: moshi.Samples, now: float) -> list[Action]:
        """More of its sound."""
        turns = self._turns
        if found := turns.speaking.of(reply, now):
            turns.latency.reached("tts", now)
            found.playing.put(pcm)
        return self._done(now)

    def tts_done(self, reply: int, now: float) -> list[Action]:
        """That was all."""
        if found := self._turns.speaking.of(reply, now):
            if not found.is_written:
                return self.tts_failed(reply, "it ended before the text did", now)
            found.is_spoken = True
        return self._done(now)

    def tts_failed(self, reply: int, why: str, now: float) -> list[Action]:
        """Nothing more comes of this session."""
        turns = self._turns
        if (found := turns.speaking.of(reply, now)) and turns.prompt is not None and not found.is_spoken:
            turns.speaking.voice_failed(found, why, turns.prompt.texts.unspoken)
        return self._done(now)

    # Others

    def left(self, what: Left, reply: int, now: float) -> list[Action]:
        """What was to be done first of its kind for a reply has left us: the model's question, the synthesiser's words,
        or sound for the speaker."""
        turns = self._turns
        if turns.speaking.reply is not None and turns.speaking.reply.number == reply:
            turns.latency.reached(what, now)
        return self._done(now)

    def playback(self, event: wire.Playback, now: float) -> list[Action]:
        """What has left the speaker of a device of ours."""
        self._turns.speaking.told(event, now)
        return self._done(now)

    def say(self, text: str, now: float) -> list[Action]:
        """Say this, after what is being said. Raises Refused where too many wait already."""
        self._turns.speaking.announce(text)
        return self._done(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        return self._done(now)

    @property
    def next_at(self) -> float | None:
        """When `tick` is wanted at the latest."""
        return self._turns.next_at

    @property
    def turn(self) -> Turn:
        """Whose it is."""
        return self._turns.turn

    @property
    def unsaid(self) -> int:
        """How many things that were to be said nobody has heard anything of yet."""
        return self._turns.speaking.unsaid

    @property
    def lines(self) -> list[Line]:
        """All turns that are known, the newest last."""
        return list(self._turns.history.lines)

    def _done(self, now: float) -> list[Action]:
        self._now = max(self._now, now)
        turns = self._turns
        turns.advance(self._now)
        out = turns.out.copy()
        turns.out.clear()
        return out if turns.speaking.is_connected else [each for each in out if not isinstance(each, Tell | Sound)]


def _voice(name: str) -> tuple[str, str]:
    """As people know it, and as the synthesiser does."""
    found = voices.find(name)
    return found.name, found.voice
