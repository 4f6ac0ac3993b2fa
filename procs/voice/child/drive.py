"""Drives a conversation: what comes in is told to it, and what it wants done is done. It knows the links, not who is
at their ends."""

from __future__ import annotations

import asyncio
import collections
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec

from procs import log
from procs.errors import Refused
from procs.messages.voice import Line, VoiceSpec
from procs.voice import onset, voices
from procs.voice.child import llm, stt, tts
from procs.voice.child.far_end import FarEnd, Frame, Heard
from procs.voice.child.figures import Figures
from procs.voice.child.sound import Microphone, Speaker
from procs.voice.child.tasks import spawn
from procs.voice.conversation import actions
from procs.voice.conversation.talk import Conversation
from procs.wire import realtime as wire
from procs.wire.conversation import Instructions, Session

_INSTRUCTIONS: msgspec.json.Decoder[Instructions] = msgspec.json.Decoder(Instructions)
_DETECTOR = onset.silero()  # loaded by the zygote: each child has a copy of its own, as fresh as this one
SOONEST_S = 0.002  # a conversation that always wants the next tick at once still lets others live


class Outside(Protocol):
    """Where things go that the conversation wants to be known."""

    def send(self, frame: Frame, *, sound: bool = False, sent: Callable[[], None] | None = None) -> bool:
        """To the other side, if there is one; `sent` is called once it has left us."""

    def keep(self, line: Line) -> None:
        """To the leader."""

    def leave(self, why: str) -> None:
        """The conversation is over."""

    def turned(self) -> None:
        """Whose turn it is has changed, or what was said."""


class Drive:
    """One conversation with its links."""

    def __init__(
        self,
        spec: VoiceSpec,
        model: llm.LanguageModel,
        figures: Figures,
        outside: Outside,
        headlines: Sequence[str] | None,
    ) -> None:
        """Raises Refused for a voice that nobody knows."""
        self._figures, self._outside, self._model = figures, outside, model
        self._onset = onset.Onset(_DETECTOR) if _DETECTOR else None
        self.recogniser = stt.Recogniser(spec.services, figures, self._from_stt, always=self._onset is None)
        self.synthesiser = tts.Synthesiser(spec.services, figures, self._from_tts)
        self._voice = voices.find(spec.voice).voice
        self._conversation = Conversation(
            instructions=instructions_of(spec),
            voice=spec.voice,
            lines=spec.history,
            ours=False,
            seed=zlib.crc32(spec.id.encode()),
            llm_name=model.model,
            now=time.monotonic(),
            wall=lambda: datetime.now().astimezone(),
            headlines=headlines,
        )
        self._far: FarEnd | None = None
        self._microphone = Microphone()
        self._speaker = Speaker()
        self._is_first = False  # what is encoded next begins a response
        self._unsent: int | None = None  # the reply, of which nothing was sent yet
        self.is_muted = spec.muted
        self._to_do = collections.deque[actions.Action]()
        self._is_doing = False
        self._tick: asyncio.TimerHandle | None = None
        self._announced = 0
        self._shown: tuple[str, int] = ("", 0)
        self._hearing = spawn(self.recogniser.run())

    @property
    def turn(self) -> str:
        """Whose it is."""
        return self._conversation.turn

    @property
    def said(self) -> int:
        """How much of what was to be said was begun with, or is not going to be said."""
        return self._announced - self._conversation.unsaid

    # The other side

    def begin(self, far: FarEnd) -> None:
        """There is a connection."""
        self._far, self._microphone = far, Microphone()
        self._speaker.drop()
        self._conversation.ours = far.is_ours
        self._do(self._conversation.muted(self.is_muted, time.monotonic()))
        self._do(self._conversation.begin(time.monotonic()))

    def lost(self) -> None:
        """There is none any more."""
        self._far = None
        self._speaker.drop()
        self.recogniser.voice(False)
        self._do(self._conversation.lost(time.monotonic()))

    def heard(self, heard: Heard) -> None:
        """A packet of the microphone. Raises Refused for what is none."""
        pcm = self._microphone.decode(heard.packet, heard.lost)
        if self.is_muted:
            pcm[:] = 0
        now = time.monotonic()
        self.recogniser.hear(pcm)
        self._do(self._conversation.sound_heard(len(pcm) / wire.RATE, now))
        for is_voice in self._onset.feed(pcm) if self._onset else ():
            self.recogniser.voice(is_voice)
            self._do(self._conversation.voice_heard(is_voice, now))

    def playback(self, event: wire.Playback) -> None:
        """What a device of ours has played."""
        self._do(self._conversation.playback(event, time.monotonic()))

    def update(self, session: Session, headlines: Sequence[str] | None) -> None:
        """A browser says how it is to be. Raises Refused for a voice that nobody knows."""
        voice = voices.find(session.voice).voice if session.voice else self._voice
        now = time.monotonic()
        wanted = self._conversation.update(session.instructions, session.voice, now, headlines)
        self._voice = voice
        self._tell(wire.SessionUpdated(session=session))
        self._do(wanted)

    def say(self, text: str) -> None:
        """Somebody wants this said. Raises Refused."""
        self._announced += 1
        self._do(self._conversation.say(text, time.monotonic()))

    def mute(self, muted: bool) -> None:
        """Hear nothing, or again."""
        self.is_muted = muted
        self._do(self._conversation.muted(muted, time.monotonic()))

    # The services

    def _from_stt(self, told: stt.Told) -> None:
        conversation, now = self._conversation, time.monotonic()
        match told:
            case stt.Word():
                self._do(conversation.word(told.text, told.start_s, now))
            case stt.EndWord():
                self._do(conversation.end_word(told.stop_s, now))
            case stt.Pause():
                self._do(conversation.step(told.score, now))
            case stt.Flushed():
                self._do(conversation.flushed(told.mark, now))
            case stt.Lost():
                self._do(conversation.ears_lost(now))

    def _from_tts(self, told: tts.Told) -> None:
        conversation, now = self._conversation, time.monotonic()
        match told:
            case tts.Spoken():
                self._do(conversation.left("spoken", told.reply, told.at))
            case tts.Word():
                self._do(conversation.tts_word(told.reply, told.text, told.start_s, told.stop_s, now))
            case tts.Sound():
                self._do(conversation.tts_sound(told.reply, told.pcm, told.at))
            case tts.Done():
                self._do(conversation.tts_done(told.reply, now))
            case tts.Failed():
                self._do(conversation.tts_failed(told.reply, told.why, now))

    def from_llm(self, told: llm.Told) -> None:
        """What the language model says."""
        conversation, now = self._conversation, time.monotonic()
        match told:
            case llm.Asked():
                self._do(conversation.left("asked", told.reply, now))
            case llm.Word():
                self._do(conversation.llm_word(told.reply, told.delta, now))
            case llm.Done():
                self._do(conversation.llm_done(told.reply, now))
            case llm.Failed():
                self._do(conversation.llm_failed(told.reply, told.why, now))

    # What it wants

    def _do(self, wanted: Iterable[actions.Action]) -> None:
        """In this order, also where doing one leads to others."""
        self._to_do.extend(wanted)
        if self._is_doing:
            return
        self._is_doing = True
        while self._to_do:
            self._do_one(self._to_do.popleft())
        self._is_doing = False
        self._schedule()
        if (shown := (self.turn, self.said)) != self._shown:
            self._shown = shown
            self._outside.turned()

    def _do_one(self, action: actions.Action) -> None:
        match action:
            case actions.Ask():
                self._model.ask(action)
                self.synthesiser.prepare(action.reply, self._voice)
            case actions.Speak():
                self._voice = action.voice
                self.synthesiser.speak(action.reply, action.text, action.voice)
            case actions.SpeakEnd():
                self.synthesiser.end(action.reply)
            case actions.Drop():
                self._model.drop(action.reply)
                self.synthesiser.drop(action.reply)
            case actions.FlushEars():
                self.recogniser.flush(action.mark)
            case actions.Sound():
                self._sound(action)
            case actions.Tell():
                self._tell(action.event)
            case actions.Keep():
                self._outside.keep(action.line)
            case actions.Seen():
                self._figures.add(action.name, action.value)
            case actions.Leave():
                self._outside.leave(action.why)

    def _sound(self, sound: actions.Sound) -> None:
        if self._far is None:
            return
        if sound.first:
            self._is_first, self._unsent = True, sound.reply
        packets = self._speaker.encode(sound.pcm)
        if packets:
            self._send(self._far.sound(packets, first=self._is_first))
            self._is_first = False

    def _tell(self, event: wire.Event) -> None:
        if self._far is None:
            return
        if isinstance(event, wire.Flush | wire.Interrupted):
            self._speaker.drop()
            self._far.drop()
        elif isinstance(event, wire.AudioDone):
            self._send(self._far.sound(self._speaker.end(), first=self._is_first) + self._far.rest())
            self._is_first = False
        try:
            frames = self._far.event(event)
        except Refused as reason:
            log.warning("not said to the other side", why=str(reason))
            return
        for frame in frames:
            self._outside.send(frame)

    def _send(self, frames: list[Frame]) -> None:
        for frame in frames:
            reply, self._unsent = self._unsent, None
            if not self._outside.send(frame, sound=True, sent=None if reply is None else partial(self._sent, reply)):
                log.warning("sound was dropped: the other side does not read")

    def _sent(self, reply: int) -> None:
        """The first of a reply's sound has left us."""
        self._do(self._conversation.left("sent", reply, time.monotonic()))

    def _schedule(self) -> None:
        if self._tick:
            self._tick.cancel()
            self._tick = None
        at = self._conversation.next_at
        if at is not None and self._far is not None:
            wait_s = max(SOONEST_S, at - time.monotonic())
            self._tick = asyncio.get_running_loop().call_later(wait_s, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self._do(self._conversation.tick(time.monotonic()))


def instructions_of(spec: VoiceSpec) -> Instructions | None:
    """Those of a spec. Raises Refused."""
    if not spec.instructions:
        return None
    try:
        return _INSTRUCTIONS.decode(spec.instructions)
    except msgspec.DecodeError as error:
        raise Refused(f"instructions: {error}"[:300]) from None
