"""A stage for one conversation: a clock that is moved by hand, a user who speaks and coughs, a recogniser, a language
model, a synthesiser and a speaker, none of them real. Nothing happens but by the conversation's own wishes, so a
deadline that it forgets to ask for is missed here, too.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from procs.messages.voice import Line
from procs.voice.conversation.actions import (
    Action,
    Ask,
    Drop,
    FlushEars,
    Keep,
    Leave,
    Seen,
    Sound,
    Speak,
    SpeakEnd,
    Tell,
)
from procs.voice.conversation.latency import Left
from procs.voice.conversation.talk import Conversation
from procs.wire import realtime as wire
from procs.wire.conversation import Instructions, Smalltalk

RATE = 24_000
WORD_S = 0.3  # of all that is said
ONSET_S, OFFSET_S = 0.1, 0.25  # until a voice's edges are noticed
DELAY_S = 0.5  # of the recogniser
STEP_S = 0.08
FLUSH_S = 0.2
LLM_S, TTS_S = 0.1, 0.1  # until their first word
ASKED_S, SPOKEN_S, SENT_S = 0.01, 0.02, 0.04  # until what is to be done has left
SPEAKER_S = 0.06  # from a packet to the ear
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


class Stage:
    """One performance. `bot`: what the model says, reply by reply; an exception is a failure, and the last goes on and
    on. `at_end`: the recogniser tells words only when an utterance is over. `mute_speaker`: a device of ours that tells
    nothing of how far it is."""

    def __init__(
        self,
        bot: Sequence[str | Exception] = ("Hello there.",),
        *,
        ours: bool = True,
        instructions: Instructions | None = None,
        silent: bool = False,
        lines: Sequence[Line] = (),
        voice: str = "Watercooler",
        at_end: bool = False,
        mute_speaker: bool = False,
        headlines: Sequence[str] | None = None,
    ) -> None:
        self.now = 1000.0
        self._queue: list[tuple[float, int, Callable[[], list[Action]]]] = []
        self._serial = itertools.count()
        self.bot = list(bot)
        self.ours, self.at_end = ours, at_end
        self.log: list[tuple[float, Action]] = []
        self.asked: list[Ask] = []
        self.spoken: list[tuple[int, str]] = []  # what the synthesiser was given
        self.tts_fails_after: list[int] = []  # words, for the next sessions
        self.hears_flush = True
        self._dropped: set[int] = set()
        self._sessions: dict[int, _Session] = {}
        self.speaker = _Speaker(self, tells=ours and not mute_speaker)
        self._unheard: list[tuple[float, str, float]] = []  # words that the recogniser has not told: when, which, start
        self._voice_until = -1e9
        self._steps = False
        self._began = self.now
        self.talk = Conversation(
            instructions=None if silent else instructions or Smalltalk(),
            voice=voice,
            lines=lines,
            ours=ours,
            seed=7,
            llm_name="parrot",
            now=self.now,
            wall=lambda: MIDNIGHT + timedelta(seconds=self.now),
            headlines=headlines,
        )

    # The clock

    def later(self, seconds: float, what: Callable[[], list[Action] | None]) -> None:
        """Then."""
        heapq.heappush(self._queue, (self.now + seconds, next(self._serial), lambda: what() or []))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        for _ in range(100_000):
            wanted = self.talk.next_at
            event_at = self._queue[0][0] if self._queue else end + 1
            if min(event_at, wanted if wanted is not None else end + 1) > end:
                self.now = end
                return
            if wanted is not None and wanted < event_at:
                self.now = max(self.now, wanted)
                self.do(self.talk.tick(self.now))
            else:
                self.now, _, what = heapq.heappop(self._queue)
                self.do(what())
        raise AssertionError(f"it spins at {self.now}: next_at {self.talk.next_at}")

    def do(self, actions: list[Action]) -> None:
        """What the conversation wants."""
        for action in actions:
            self.log.append((self.now, action))
            match action:
                case Ask(reply):
                    self._leaves("asked", reply, ASKED_S)
                    self._ask(action)
                case Speak(reply, text, _):
                    self._leaves("spoken", reply, SPOKEN_S)
                    self.spoken.append((reply, text))
                    self._session(reply).speak(text)
                case SpeakEnd(reply):
                    self._session(reply).end()
                case Drop(reply):
                    self._dropped.add(reply)
                case FlushEars(mark):
                    self._flush(mark)
                case Sound(reply, pcm, first):
                    if first:
                        self._leaves("sent", reply, SENT_S)
                    self.speaker.play(pcm, first=first)
                case Tell(event):
                    self.speaker.told(event)

    # The bot's parts

    def _leaves(self, what: Left, reply: int, seconds: float) -> None:
        self.later(seconds, lambda: self.talk.left(what, reply, self.now))

    def _ask(self, ask: Ask) -> None:
        self.asked.append(ask)
        said = self.bot.pop(0) if len(self.bot) > 1 else self.bot[0]
        number = ask.reply
        if isinstance(said, Exception):
            why = str(said)
            self.later(LLM_S, lambda: self.talk.llm_failed(number, why, self.now))
            return
        for at, piece in enumerate(said[start : start + 3] for start in range(0, len(said), 3)):
            self.later(LLM_S + at * 0.002, self._writes(number, piece))
        self.later(LLM_S + len(said) * 0.002, lambda: self.talk.llm_done(number, self.now))

    def _writes(self, number: int, piece: str) -> Callable[[], list[Action]]:
        return lambda: self.talk.llm_word(number, piece, self.now)

    def _session(self, number: int) -> _Session:
        if number not in self._sessions:
            self._sessions[number] = _Session(self, number)
        return self._sessions[number]

    def session_over(self, number: int) -> None:
        """The synthesiser's."""
        del self._sessions[number]

    def break_off(self, number: int) -> None:
        """The synthesiser's session says nothing more."""
        self._sessions.pop(number).over = True

    def wants(self, number: int) -> bool:
        """Whether a reply was not dropped."""
        return number not in self._dropped

    # The user

    def begin(self, seconds: float = 0.0) -> None:
        """Connect, and run on."""
        self.speaker.connect()
        self.do(self.talk.begin(self.now))
        self.run(seconds)

    def lose(self) -> None:
        """The connection."""
        self.speaker.connect()
        self.do(self.talk.lost(self.now))

    def says(self, text: str, *, after: float = 0.0) -> None:
        """The user does, some time from now; each word is heard when it is over."""
        words = text.split()
        self.later(after, lambda: self._begins(words))

    def coughs(self, seconds: float = 0.3, *, after: float = 0.0) -> None:
        """A voice without a word."""
        self.later(after, lambda: self._voice(seconds))

    def _begins(self, words: list[str]) -> None:
        self._voice(len(words) * WORD_S)
        end = self.now + len(words) * WORD_S
        for at, word in enumerate(words):
            start = self.now + at * WORD_S
            tells = end + OFFSET_S + DELAY_S if self.at_end else start + WORD_S + DELAY_S
            entry = (tells, word, start - self._began)
            self._unheard.append(entry)
            self.later(tells - self.now, lambda entry=entry: self._tell(entry))  # type: ignore[misc]

    def _voice(self, seconds: float) -> None:
        self._voice_until = max(self._voice_until, self.now + seconds)
        self.later(ONSET_S, lambda: self.talk.voice_heard(True, self.now))
        self.later(seconds + OFFSET_S, self._falls_silent)
        if not self._steps:
            self._steps = True
            self._step()

    def _falls_silent(self) -> list[Action]:
        return self.talk.voice_heard(False, self.now) if self.now >= self._voice_until else []

    def _step(self) -> list[Action]:
        self.later(STEP_S, self._step)
        silent = self.now - self._voice_until - DELAY_S
        first = self.talk.sound_heard(STEP_S, self.now)
        return first + self.talk.step(0.95 if silent > 0 else 0.05, self.now)

    def listens(self) -> None:
        """The recogniser is connected all the time."""
        if not self._steps:
            self._steps = True
            self.later(STEP_S, self._step)

    def _tell(self, entry: tuple[float, str, float]) -> list[Action]:
        if entry not in self._unheard:
            return []
        self._unheard.remove(entry)
        _, word, start = entry
        return self.talk.word(word, start, self.now) + self.talk.end_word(start + WORD_S, self.now)

    def _flush(self, mark: int) -> None:
        if self.hears_flush:
            self.later(FLUSH_S, lambda: self._flushed(mark))

    def _flushed(self, mark: int) -> list[Action]:
        known = [each for each in self._unheard if each[2] + self._began + WORD_S <= self.now]
        told = [action for each in known for action in self._tell(each)]
        return told + self.talk.flushed(mark, self.now)

    # What happened

    @property
    def dialogue(self) -> list[str]:
        """The lines, as one reads them."""
        who = {"user": "user", "assistant": "bot"}
        return [f"{who[line.role]}: {line.text}" for line in self.talk.lines]

    @property
    def told(self) -> list[str]:
        """Types of the events, runs of sound and of text as one."""
        types = [
            "sound" if isinstance(action, Sound) else str(type(action.event).__struct_config__.tag)
            for _, action in self.log
            if isinstance(action, Tell | Sound)
        ]
        return [name for name, _ in itertools.groupby(types)]

    def events(self, kind: type[Any]) -> list[Any]:
        """Those of a type that were told."""
        return [action.event for _, action in self.log if isinstance(action, Tell) and isinstance(action.event, kind)]

    def at(self, kind: type[Any]) -> list[float]:
        """When those actions, or events, were."""
        return [
            when
            for when, action in self.log
            if isinstance(action, kind) or (isinstance(action, Tell) and isinstance(action.event, kind))
        ]

    def seen(self, name: str) -> list[float]:
        """The figures of a name."""
        return [action.value for _, action in self.log if isinstance(action, Seen) and action.name == name]

    @property
    def left(self) -> list[str]:
        """Why it wanted to leave."""
        return [action.why for _, action in self.log if isinstance(action, Leave)]

    @property
    def kept(self) -> list[Line]:
        """What was kept, in its order."""
        return [action.line for _, action in self.log if isinstance(action, Keep)]


class _Session:
    """Of the synthesiser: each word is 0.3 s of sound, which is its number; ten times as fast as it is heard."""

    def __init__(self, stage: Stage, number: int) -> None:
        self._stage, self._number = stage, number
        self._words = self._due = 0
        self._ready_at = stage.now + TTS_S
        self._fails_after = stage.tts_fails_after.pop(0) if stage.tts_fails_after else -1
        self.over = False

    def speak(self, text: str) -> None:
        """One word."""
        self._due += 1
        at = max(self._ready_at, self._stage.now) + WORD_S / 10
        self._ready_at = at
        self._stage.later(at - self._stage.now, lambda: self._made(text))

    def end(self) -> None:
        """That was all."""
        self._stage.later(max(self._ready_at - self._stage.now, 0.0) + 0.001, self._ended)

    def _made(self, text: str) -> list[Action]:
        stage = self._stage
        if self.over or not stage.wants(self._number):
            return []
        if self._words == self._fails_after:
            self.over = True
            stage.session_over(self._number)
            return stage.talk.tts_failed(self._number, "it broke", stage.now)
        start = self._words * WORD_S
        self._words += 1
        stage.speaker.made.append(text)
        done = stage.talk.tts_word(self._number, text, start, start + WORD_S, stage.now)
        sound = np.full(round(WORD_S * RATE), len(stage.speaker.made), np.int16)
        return done + stage.talk.tts_sound(self._number, sound, stage.now)

    def _ended(self) -> list[Action]:
        if self.over or not self._stage.wants(self._number):
            return []
        self.over = True
        self._stage.session_over(self._number)
        return self._stage.talk.tts_done(self._number, self._stage.now)


class _Speaker:
    """Plays 20 ms at a time. `tells`: how far it is, as devices of ours do."""

    def __init__(self, stage: Stage, *, tells: bool) -> None:
        self._stage, self.tells = stage, tells
        self.made: list[str] = []  # words by the number that is their sound
        self.ear: list[tuple[float, int]] = []  # when which word was heard: each 20 ms of it
        self.most_s = 0.0  # that ever waited
        self.connect()

    def connect(self) -> None:
        """A new one, which knows nothing."""
        self._waits: list[int] = []  # 20 ms each
        self._response = 0
        self._heard_s = self._reported_at = 0.0
        self._state, self._finished, self._running = "done", True, False
        self._number = getattr(self, "_number", 0) + 1

    @property
    def words(self) -> str:
        """All that was heard, even if only in part."""
        numbers = [number for number, _ in itertools.groupby(word for _, word in self.ear)]
        return " ".join(self.made[number - 1] for number in numbers if number)

    @property
    def seconds(self) -> float:
        """So much was heard."""
        return len(self.ear) * 0.02

    def told(self, event: wire.Event) -> None:
        """An event."""
        match event:
            case wire.ResponseCreated():
                self._response += 1
                self._heard_s, self._finished = 0.0, False
            case wire.AudioDone():
                self._finished = True
            case wire.Pause():
                self._state = "paused"
                self._report()
            case wire.Resume():
                self._state = "playing"
                self._report()
            case wire.Flush():
                self._waits, self._state = [], "flushed"
                self._report()
            case wire.Interrupted():
                self._waits = self._waits if self._stage.ours else []

    def play(self, pcm: Any, *, first: bool) -> None:
        """Sound."""
        self._waits += [int(pcm[at]) for at in range(0, len(pcm), 480)]
        self.most_s = max(self.most_s, len(self._waits) * 0.02)
        if self._state in ("done", "flushed"):
            self._state = "playing"
            self._stage.later(SPEAKER_S, self._report)
        if not self._running:
            self._running = True
            self._stage.later(SPEAKER_S, self._plays(self._number))

    def _plays(self, number: int) -> Callable[[], None]:
        def play() -> None:
            if number != self._number:
                return
            if self._state == "playing" and self._waits:
                self.ear.append((self._stage.now, self._waits.pop(0)))
                self._heard_s += 0.02
                if self._stage.now - self._reported_at >= 0.2:
                    self._report()
            if self._state == "playing" and not self._waits and self._finished:
                self._state = "done"
                self._report()
            self._running = bool(self._waits)
            if self._running:
                self._stage.later(0.02, play)

        return play

    def _report(self) -> None:
        if not self.tells:
            return
        self._reported_at = self._stage.now
        state: Any = self._state
        told = wire.Playback(
            response=self._response,
            state=state,
            heard_ms=self._heard_s * 1000,
            buffered_ms=len(self._waits) * 20.0,
        )
        self._stage.later(0.001, lambda: self._stage.talk.playback(told, self._stage.now))
