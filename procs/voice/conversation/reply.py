"""One thing that the bot says: text from a language model, or one that was given, through a synthesiser. Pure.

Words go to the synthesiser as soon as they are whole. If it fails, what has no sound yet goes to another session, once.
"""

from __future__ import annotations

from procs.voice.conversation.actions import Action, Ask, Speak, SpeakEnd, Tell
from procs.voice.conversation.playing import Playing, TimedWord
from procs.voice.conversation.words import Rechunker, covered, speakable
from procs.wire import realtime as wire

TRIES = 2  # of the model, until it says a word, and of the synthesiser
MOST_TEXT = 16_000  # characters: a model that never ends is ended


class Reply:
    """One. `ask`: what the model was asked; None: the text is given. `out`: where actions go."""

    def __init__(self, number: int, ask: Ask | None, voice: str, playing: Playing, out: list[Action]) -> None:
        self.number, self.ask, self.voice, self.playing = number, ask, voice, playing
        self.text = ""  # all of it
        self.sent: list[str] = []
        self.is_written = self.is_spoken = False  # no more comes of the model, of the synthesiser
        self.unspoken = ""  # what the synthesiser could not say
        self.response = 0  # how many response.created there were on this connection
        self.shown = 0  # words that were told as spoken
        self.line_from = 0  # words, from which on they belong to the present line
        self.has_ended = False  # response.audio.done was told
        self.moved_at = 0.0  # when anything came of it
        self._out = out
        self._rechunker = Rechunker()
        self._asked = self._opened = 1
        self._base_s = 0.0  # of the synthesiser's session, in the reply

    # The text

    def write(self, delta: str) -> None:
        """More of it."""
        for word in self._rechunker.feed(delta):
            self._send(word)
        if len(self.text) > MOST_TEXT:
            self.end_text()

    def end_text(self) -> None:
        """That was all of it."""
        if self.is_written:
            return
        for word in self._rechunker.end():
            self._send(word)
        self.is_written, self.is_spoken = True, self.is_spoken or not self.sent
        self._out += [Tell(wire.TextDone(text=self.text.strip())), SpeakEnd(self.number)]

    def _send(self, word: str) -> None:
        self.text += word
        self._out.append(Tell(wire.TextReady(delta=word)))
        if (plain := speakable(word)) and not self.unspoken:
            self.sent.append(plain)
            self._out.append(Speak(self.number, plain, self.voice))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say so far."""
        return not self.sent and self._rechunker.is_empty

    def ask_again(self) -> bool:
        """The model failed. Whether it was worth another try."""
        if self.ask is None or self.sent or self._asked >= TRIES:
            return False
        self._asked += 1
        self._rechunker = Rechunker()
        self._out.append(self.ask)
        return True

    # The sound

    def time(self, text: str, start_s: float, stop_s: float) -> None:
        """When a word is spoken."""
        latest = self.playing.words[-1].start_s if self.playing.words else 0.0
        start_s = max(self._base_s + start_s, latest)
        self.playing.words.append(TimedWord(text, start_s, max(start_s, self._base_s + stop_s)))

    def speak_again(self) -> bool:
        """The synthesiser failed. Whether it was worth another try: what has no sound yet goes to a new session."""
        whole = [word for word in self.playing.words if word.stop_s <= self.playing.end_s]
        self._base_s = self.playing.forget_from(whole[-1].stop_s if whole else 0.0)
        rest = self.sent[covered(self.sent, [word.text for word in self.playing.words]) :]
        self.shown = min(self.shown, len(self.playing.words))
        if self._opened >= TRIES or (self.is_written and not rest):
            self.unspoken, self.is_spoken = " ".join(rest), True
            return not rest
        self._opened += 1
        self._out += [Speak(self.number, word, self.voice) for word in rest]
        if self.is_written:
            self._out.append(SpeakEnd(self.number))
        return True

    # What was heard of it

    @property
    def is_made(self) -> bool:
        """Whether nothing more comes."""
        return self.is_written and self.is_spoken

    @property
    def is_heard(self) -> bool:
        """Whether all was heard."""
        return self.is_made and self.playing.is_heard

    def is_nearly_over(self, within_s: float) -> bool:
        """Whether less than this is left to be heard."""
        return self.is_made and self.playing.end_s - self.playing.heard_s <= within_s

    @property
    def heard(self) -> int:
        """How many words, from the first."""
        words, heard_s = self.playing.words, self.playing.heard_s
        if self.is_heard:
            return len(words)
        return next((at for at, word in enumerate(words) if word.start_s >= heard_s), len(words))

    def line(self, heard: int) -> str:
        """Those of them that belong to the present line. A synthesiser that tells of no words is believed to have said
        all."""
        if self.is_heard and not self.playing.words and self.playing.end_s:
            return self.text.strip()
        return " ".join(word.text for word in self.playing.words[self.line_from : heard])
