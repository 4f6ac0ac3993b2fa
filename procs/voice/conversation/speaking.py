"""What the bot says: the reply of now, those that wait, and how they reach the speaker and the history. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from procs.errors import Refused
from procs.voice.conversation.actions import Action, Ask, Drop, Seen, Sound, Tell
from procs.voice.conversation.history import History
from procs.voice.conversation.latency import Latency
from procs.voice.conversation.playing import Playing
from procs.voice.conversation.reply import Reply
from procs.voice.conversation.words import CUT
from procs.wire import realtime as wire
from procs.wire.conversation import ChatMessage, Outputs, Response

MOST_WAITING = 8  # announcements
STUCK_S = 45.0  # without anything of a reply: longer than all that is waited for
FIRST_TEMPERATURE, TEMPERATURE = 0.7, 0.3


class Speaking:
    """The bot's side. `out`: where actions go. `debug`: what is shown to who looks into the conversation."""

    def __init__(
        self, out: list[Action], history: History, latency: Latency, debug: Callable[[], dict[str, Any]]
    ) -> None:
        self._out, self._history, self._latency, self._debug = out, history, latency, debug
        self._back = ""
        self.ours = self.is_connected = self.is_held = False
        self.reply: Reply | None = None
        self.finished: Reply | None = None  # that was heard to its end just now
        self._waiting: deque[str | Reply] = deque()  # to be said next
        self._count = self._responses = self._asked = 0
        self._cut: tuple[Reply, int] | None = None  # what was interrupted last, and its line
        self._paused_at: float | None = None

    # Something to say

    def ask(self, messages: list[ChatMessage], metadata: dict[str, Any], voice: tuple[str, str], now: float) -> None:
        """Have the model reply. `voice`: its name, and as the synthesiser knows it."""
        self._count += 1
        temperature = TEMPERATURE if self._asked else FIRST_TEMPERATURE
        self._asked += 1
        ask = Ask(self._count, messages, temperature, metadata)
        self._out.append(ask)
        self._start(Reply(self._count, ask, voice[1], self._playing(), self._out), voice[0], now)

    def announce(self, text: str, *, first: bool = False) -> None:
        """Say this as soon as nothing else is said. Raises Refused."""
        if len(self._waiting) >= MOST_WAITING and not first:
            raise Refused(f"{MOST_WAITING} announcements wait already")
        self._waiting.insert(0 if first else len(self._waiting), text)

    def next(self, voice: tuple[str, str], now: float) -> bool:
        """Begin with what waits, if there is any."""
        if self.reply is not None or not self._waiting or not self.is_connected:
            return False
        waiting = self._waiting.popleft()
        if isinstance(waiting, Reply):
            self._start(waiting, voice[0], now)
            return True
        self._count += 1
        reply = Reply(self._count, None, voice[1], self._playing(), self._out)
        self._start(reply, voice[0], now)
        reply.write(waiting)
        reply.end_text()
        return True

    def _playing(self) -> Playing:
        return Playing(ours=self.ours)

    def _start(self, reply: Reply, voice: str, now: float) -> None:
        self.reply, reply.moved_at = reply, now
        self._tell_created(voice)
        if self.is_held:
            reply.playing.hold(now)

    def _tell_created(self, voice: str) -> None:
        self._responses += 1
        if self.reply is not None:
            self.reply.response = self._responses
        shown = Response(voice=voice, chat_history=self._history.spoken)
        self._out.append(Tell(wire.ResponseCreated(response=shown)))

    # How it goes

    def of(self, number: int, now: float) -> Reply | None:
        """The reply of this number, if anybody wants it still; something came of it."""
        known = [self.reply, *(each for each in self._waiting if isinstance(each, Reply))]
        reply = next((each for each in known if each is not None and each.number == number), None)
        if reply is not None:
            reply.moved_at = now
        return reply

    @property
    def is_waiting(self) -> bool:
        """Whether something could be said next, if there is somebody to hear it."""
        return bool(self._waiting) and self.is_connected

    @property
    def unsaid(self) -> int:
        """How many announcements nobody has heard a word of. What was said in between of our own accord is none."""
        waiting = [each for each in self._waiting if isinstance(each, str)]
        if self.reply is not None and self.reply.ask is None and not self.reply.shown:
            waiting.append(self.reply.text)
        return sum(text != self._back for text in waiting)

    @property
    def has_begun(self) -> bool:
        """Whether something of the reply was handed out: from then on it is interrupted, and not made longer."""
        return self.reply is not None and (self.reply.playing.has_begun or self.reply.line_from > 0)

    def advance(self, now: float) -> None:
        """Hand out what is due, tell the words that are spoken, and come to the end."""
        reply = self.reply
        if reply is None or not self.is_connected:
            return
        begun = reply.playing.has_begun
        for pcm in reply.playing.advance(now):
            self._out.append(Sound(reply.number, pcm, not begun))
            if not begun:
                self._out.append(Seen("planaria_voice_replies"))
            begun = True
        if now - reply.moved_at > STUCK_S and not reply.is_made:
            self._out += [self._warning("a reply got stuck"), Drop(reply.number)]
            reply.is_written = reply.is_spoken = True
        self._show(reply, now)
        if reply.is_made and not reply.has_ended and (reply.is_heard or (self.ours and reply.playing.is_out)):
            self._end(reply)
        if reply.is_heard:
            self._finish(reply, now)

    def _show(self, reply: Reply, now: float) -> None:
        heard = reply.heard
        for word in reply.playing.words[reply.shown : heard]:
            self._out.append(Tell(wire.TextDelta(delta=word.text)))
            reply.moved_at = now
        if heard > reply.shown:
            reply.shown = heard
            self._history.grow("assistant", reply.line(heard), now)

    def _end(self, reply: Reply) -> None:
        reply.has_ended = True
        outputs = Outputs(chat_history=self._history.spoken, debug_dict=self._debug())
        self._out += [Tell(wire.AdditionalOutputs(args=outputs)), Tell(wire.AudioDone())]

    def _finish(self, reply: Reply, now: float) -> None:
        if text := reply.line(reply.shown) + reply.unspoken:
            self._history.grow("assistant", text, now, final=True)
        self.reply, self.finished = None, reply

    def _warning(self, why: str) -> Tell:
        return Tell(wire.Error(error=wire.Problem(type="warning", message=why[:500])))

    def model_failed(self, reply: Reply, why: str, sorry: str) -> None:
        """Once more, or something to say instead."""
        if reply.is_written or reply.ask_again():
            return
        self._out.append(self._warning(f"the language model failed: {why}"))
        if not reply.sent:
            reply.write(sorry)
        reply.end_text()

    def voice_failed(self, reply: Reply, why: str, unspoken: str) -> None:
        """Once more, or the rest is not spoken."""
        if reply.speak_again():
            return
        self._out.append(self._warning(f"the synthesiser failed: {why}"))
        if not reply.is_written:
            reply.end_text()
            self._out.append(Drop(reply.number))
        rest = unspoken.format(text=reply.unspoken)
        reply.unspoken = f" {rest}" if reply.playing.words else rest

    # Somebody speaks

    def hold(self, now: float) -> None:
        """Stand still: somebody may want to interrupt."""
        self.is_held = True
        if self.reply is None:
            return
        if self.ours and self.has_begun:
            self._out.append(Tell(wire.Pause()))
            self._paused_at = now
        self.reply.playing.hold(now)

    def go_on(self, now: float) -> None:
        """Nobody does."""
        self.is_held = False
        if self.reply is None:
            return
        if self.ours and self.has_begun:
            self._out.append(Tell(wire.Resume()))
        self.reply.playing.go_on(now)

    def interrupt(self, now: float) -> bool:
        """Somebody does: only what was heard has been said. Whether that is anything."""
        reply, self.reply, self.is_held = self.reply, None, False
        if reply is None:
            return False
        reply.playing.hold(now)
        reply.playing.close()
        if text := reply.line(reply.heard):
            self._cut = (reply, self._history.grow("assistant", text + CUT, now, final=True))
        if self.ours:
            self._out.append(Tell(wire.Flush()))
        self._out += [Tell(wire.Interrupted()), Drop(reply.number), Seen("planaria_voice_interruptions")]
        self._forget_suspended()
        return bool(text)

    def withdraw(self) -> None:
        """What nobody has heard anything of is not wanted any more. An announcement waits again."""
        reply, self.reply, self.is_held = self.reply, None, False
        if reply is None:
            return
        self._out.append(Drop(reply.number))
        self._forget_suspended()
        if reply.ask is None and reply.text != self._back:
            self._waiting.appendleft(reply.text)

    def _forget_suspended(self) -> None:
        for each in [each for each in self._waiting if isinstance(each, Reply)]:
            self._waiting.remove(each)
            self._out.append(Drop(each.number))

    def told(self, event: wire.Playback, now: float) -> None:
        """How far a device of ours is."""
        if event.state == "paused" and self._paused_at is not None:
            self._out.append(Seen("planaria_voice_onset_to_paused_seconds", now - self._paused_at))
            self._paused_at = None
        if self.reply is not None and self.reply.response == event.response:
            self.reply.playing.told(event, now)
        elif self._cut is not None and self._cut[0].response == event.response and event.state == "flushed":
            (reply, number), self._cut = self._cut, None
            reply.playing.told(event, now)
            if text := reply.line(reply.heard):
                self._history.correct(number, text + CUT)

    # The connection

    def lost(self, now: float) -> None:
        """Nothing is heard any more."""
        self.is_connected = self.is_held = False
        self._cut = self._paused_at = None
        if self.reply is not None:
            self.reply.playing.hold(now)

    def begin(self, *, ours: bool, back: str, voice: str, now: float) -> None:
        """There is a speaker. What it has heard nothing of is said again, after an apology if it was in the middle."""
        self.ours, self.is_connected, self._responses, self._back = ours, True, 0, back
        reply = self.reply
        for each in (reply, *(each for each in self._waiting if isinstance(each, Reply))):
            if each is not None:
                each.playing.ours = ours
                each.playing.again()
        if reply is None:
            return
        reply.moved_at = now
        if reply.text == back or reply.shown <= reply.line_from:
            self._tell_created(voice)
            return
        self._history.grow("assistant", reply.line(reply.shown) + CUT, now, final=True)
        reply.line_from = reply.shown = reply.heard
        self.reply = None
        self._waiting.extendleft((reply, back))  # each goes before the other

    @property
    def next_at(self) -> float | None:
        """When `advance` is wanted."""
        reply = self.reply
        if reply is None or not self.is_connected:
            return None
        times = [reply.playing.next_at]
        if reply.shown < len(reply.playing.words):
            times.append(reply.playing.heard_at(reply.playing.words[reply.shown].start_s))
        if reply.is_made:
            times.append(reply.playing.heard_at(reply.playing.end_s))
        else:
            times.append(reply.moved_at + STUCK_S + 0.001)
        return min((each for each in times if each is not None), default=None)
