"""Whose turn it is: when the user's is over, whether a voice interrupts the bot's, what a long silence means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from procs.messages.voice import Line
from procs.voice.conversation.actions import Action, FlushEars, Leave, Seen, Tell
from procs.voice.conversation.doubt import Doubt
from procs.voice.conversation.history import History
from procs.voice.conversation.latency import Latency
from procs.voice.conversation.listening import Listening
from procs.voice.conversation.prompts import Prompt
from procs.voice.conversation.reply import Reply
from procs.voice.conversation.speaking import Speaking
from procs.voice.conversation.words import SILENCE, is_goodbye
from procs.wire import realtime as wire

Turn = Literal["waiting_for_user", "user_speaking", "bot_speaking"]
GUARD_S = 3.0  # of sound, in which a canceller of echo may still let the bot be heard
SILENCE_S = 7.0
SILENCES = 3  # in a row, then nobody is there
HUMS_S = 15.0  # a voice for so long without a word is none
ANSWER_S = 1.0  # of sound that is left: who speaks now answers, and does not just nod
NEVER = float("inf")


class Turns:
    """The state of a conversation. `voice`: its name, and as the synthesiser knows it."""

    def __init__(self, lines: Sequence[Line], wall: Callable[[], datetime], voice: tuple[str, str]) -> None:
        self.out: list[Action] = []
        self.history = History(lines, wall, self.out)
        self.latency = Latency(self.out)
        self.speaking = Speaking(self.out, self.history, self.latency, self.debug)
        self.listening = Listening()
        self.doubt: Doubt | None = None
        self.prompt: Prompt | None = None
        self.voice = voice
        self.is_muted = False
        self.sound_s = 0.0  # of the microphone, on this connection
        self.voice_since: float | None = None
        self._is_watched = False  # somebody tells when voices begin and end
        self._silences = 0
        self._is_asleep = False  # after a goodbye, until somebody speaks
        self._silent_from = NEVER
        self.goes_on_with = ""  # for the model, once it has been said that the bot is back

    def attend(self, now: float) -> None:
        """From now on the user may be expected to say something."""
        if self._silent_from != NEVER:
            self._silent_from = now

    # What comes of the user

    def voice_began(self, now: float) -> None:
        """Somebody's voice, or something like it."""
        self.voice_since, self._is_watched = now, True
        if self.doubt is not None:
            self.doubt.goes_on()
        elif self.speaking.reply is not None and not self._is_guarded:
            self._begin_doubt(now, by_score=False)

    def voice_ended(self, now: float) -> None:
        """It is over."""
        self.voice_since = None
        self.attend(now)
        if self.doubt is not None:
            self._end_doubt(self.doubt, now)

    @property
    def _is_guarded(self) -> bool:
        return not self.speaking.ours and self.speaking.has_begun and self.sound_s < GUARD_S

    def scored(self, now: float) -> None:
        """There is a new score."""
        score = self.listening.score
        fell = score.fell()
        if self.doubt is not None:
            if self.doubt.by_score and self.doubt.mark is None and score.is_pause:
                self._end_doubt(self.doubt, now)
        elif self.speaking.reply is not None:
            if fell and (self.sound_s >= GUARD_S or not self.speaking.has_begun):
                self._begin_doubt(now, by_score=True)
        elif self.listening.is_speaking and self.listening.state == "open" and score.is_pause:
            self._end_turn(now)

    def word(self, text: str, now: float) -> None:
        """A word of somebody's."""
        self._silences, self._is_asleep, self._silent_from = 0, False, NEVER
        if not self._is_watched and self.listening.state != "flushing":
            self.latency.voice(now)
        if self.prompt is None:
            return
        if not self.speaking.has_begun:
            self._hear([*self._settle(), text], now)
            return
        self.listening.note(text, now)
        doubt = self.doubt or self._begin_doubt(now, by_score=self.voice_since is None)
        if doubt.hear(text):
            self._interrupt(now)

    def _settle(self) -> list[str]:
        """No more doubt, whatever comes of it. The words that were heard meanwhile."""
        doubt, self.doubt = self.doubt, None
        return doubt.words if doubt else []

    def _hear(self, words: Sequence[str], now: float) -> None:
        """Words of the user's turn. What nobody has heard of an answer to its first half is not wanted."""
        if self.speaking.reply is not None:
            self.speaking.withdraw()
        is_new = not self.listening.words
        for word in words:
            if self.listening.hear(word, now):
                self.out.append(Tell(wire.SpeechStarted()))
        if words:
            self.history.grow("user", self.listening.text, now, new=is_new)

    def _interrupt(self, now: float) -> None:
        words = self._settle()
        if self.speaking.interrupt(now):  # else the user goes on, as far as anybody can tell
            self.listening.forget()
        self._hear(words, now)

    # Doubt

    def _begin_doubt(self, now: float, *, by_score: bool) -> Doubt:
        self.doubt = Doubt(now, by_score=by_score)
        self.speaking.hold(now)
        return self.doubt

    def _end_doubt(self, doubt: Doubt, now: float) -> None:
        mark = self.listening.flush(now)
        doubt.ends(now, mark)
        self.out.append(FlushEars(mark))

    def _dispel(self, now: float) -> None:
        """It was nothing, or a nod. At the very end of what the bot says a nod is an answer."""
        reply = self.speaking.reply
        if self.doubt is not None and self.doubt.words and reply is not None and reply.is_nearly_over(ANSWER_S):
            self._interrupt(now)
            return
        if self.speaking.has_begun:
            self.out.append(Seen("planaria_voice_false_interruptions"))
        self._settle()
        self.speaking.go_on(now)

    # The end of the user's turn

    def _end_turn(self, now: float) -> None:
        self.out.append(Tell(wire.SpeechStopped()))
        self.latency.reached("pause", now)
        self.listening.state = "flushing"
        self.out.append(FlushEars(self.listening.flush(now)))

    def flushed(self, mark: int, now: float) -> None:
        """All that was said before this mark is known."""
        if mark != self.listening.mark:
            return
        self.listening.flushed()
        if self.doubt is not None and self.doubt.mark == mark:
            self._dispel(now)
        elif self.listening.state == "flushing":
            self._answer(now)

    def ears_lost(self, now: float) -> None:
        """The recogniser is gone: what was to be flushed never is."""
        self.listening.lost(now)
        if self.doubt is not None and self.doubt.mark is not None:
            self._dispel(now)
        elif self.listening.state == "flushing":
            self._answer(now)

    def _answer(self, now: float) -> None:
        self.latency.reached("flush", now)
        self.listening.state = "answered"
        self.history.grow("user", self.listening.text, now, final=True)
        self.ask(now)

    def ask(self, now: float, aside: str = "") -> None:
        """Have the bot say something. Somebody who speaks on is heard first."""
        if self.prompt is None:
            return
        self._silent_from = NEVER
        hums = self.voice_since is not None and now - self.voice_since >= HUMS_S
        messages = self.history.messages(self.prompt.system, aside)
        self.speaking.ask(messages, self.prompt.metadata, self.voice, now)
        if self.voice_since is not None and not hums and self.doubt is None:
            self._begin_doubt(now, by_score=False)

    # Time

    def advance(self, now: float) -> None:
        """All that is due."""
        if self.doubt is not None and now >= self.doubt.over_at:
            self._dispel(now)
        if now >= self._turn_over_at:
            self._answer(now) if self.listening.state == "flushing" else self._end_turn(now)
        self.speaking.advance(now)
        while (reply := self.speaking.finished) is not None:
            self._finished(reply, now)
            self.speaking.advance(now)
        if now >= self._waiting_at and self.speaking.next(self.voice, now):
            self._silent_from = NEVER
            self.speaking.advance(now)
        if now >= self._silence_at:
            self._silence(now)

    def _finished(self, reply: Reply, now: float) -> None:
        self.speaking.finished = None
        if words := self._settle():
            self.speaking.is_held = False
            self.listening.forget()
            self._hear(words, now)
            return
        self.speaking.is_held = False
        if self.listening.state == "answered":
            self.listening.forget()
        self._silent_from = now
        if reply.ask is None:
            aside, self.goes_on_with = self.goes_on_with, ""
            if aside:
                self.ask(now, aside)
            return
        if is_goodbye(reply.text):
            self._sleep("goodbye")
        elif self._silences >= SILENCES:
            self._sleep("nobody answers")

    def _sleep(self, why: str) -> None:
        self._silences, self._is_asleep = 0, True
        self.out.append(Leave(why))

    def _silence(self, now: float) -> None:
        """Nobody has said anything for long."""
        self._silences += 1
        self.listening.forget()
        self.out.append(Tell(wire.SpeechStopped()))
        self.history.grow("user", SILENCE, now, new=True, final=True)
        self.ask(now)

    @property
    def _silence_at(self) -> float:
        if self._is_asleep or self.is_muted or self.voice_since is not None or not self.speaking.is_connected:
            return NEVER
        return self._silent_from + SILENCE_S if self.turn == "waiting_for_user" else NEVER

    @property
    def _waiting_at(self) -> float:
        """When what waits may be said."""
        if self.turn != "waiting_for_user" or not self.speaking.is_waiting:
            return NEVER
        return float("-inf") if self.voice_since is None else self.voice_since + HUMS_S

    @property
    def _turn_over_at(self) -> float:
        return NEVER if self.speaking.reply is not None else self.listening.over_at(self.voice_since)

    @property
    def next_at(self) -> float | None:
        """When `advance` is wanted."""
        times = [self._silence_at, self._turn_over_at, self._waiting_at, self.speaking.next_at or NEVER]
        if self.doubt is not None:
            times.append(self.doubt.over_at)
        soonest = min(times)
        return None if soonest == NEVER else soonest

    @property
    def turn(self) -> Turn:
        """Whose it is."""
        if self.speaking.reply is not None:
            return "bot_speaking"
        return "user_speaking" if self.listening.is_speaking else "waiting_for_user"

    def debug(self) -> dict[str, Any]:
        """For who looks into it."""
        return {
            "conversation_state": self.turn,
            "tts_voice": self.voice[1],
            "stt_pause_prediction": round(self.listening.score.value, 4),
            "timing": {name: round(share, 4) for name, share in self.latency.last.items()},
        }
