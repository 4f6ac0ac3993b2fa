"""What a conversation wants done. `reply` counts what the bot says, from 1, in all of one child's life: who does it
drops what belongs to a reply that was dropped."""

from __future__ import annotations

from typing import Any, NamedTuple

from procs.messages.voice import Line
from procs.wire import moshi, realtime
from procs.wire.conversation import ChatMessage


class Ask(NamedTuple):
    """Ask the language model; its words come back as `llm_word`, its end as `llm_done` or `llm_failed`."""

    reply: int
    messages: list[ChatMessage]
    temperature: float
    metadata: dict[str, Any]  # instructions, for models that know them


class Speak(NamedTuple):
    """Whole words for the synthesiser. The first of a reply opens its session."""

    reply: int
    text: str
    voice: str  # as the synthesiser knows it


class SpeakEnd(NamedTuple):
    """No more words of this reply."""

    reply: int


class Drop(NamedTuple):
    """Nobody wants this reply any more: end its request and its session."""

    reply: int


class FlushEars(NamedTuple):
    """Have the recogniser end what it hears: silence after what was heard, and this mark."""

    mark: int


class Sound(NamedTuple):
    """Samples (int16, 24 kHz) for the speaker, now; `first` of their response."""

    reply: int
    pcm: moshi.Samples
    first: bool


class Tell(NamedTuple):
    """An event for the device or the browser. What only ours know (Pause, Resume, Flush, ...) is made for ours only."""

    event: realtime.Event


class Keep(NamedTuple):
    """A turn for the store and for who looks on."""

    line: Line


class Seen(NamedTuple):
    """A figure, by its published name."""

    name: str
    value: float = 1.0


class Leave(NamedTuple):
    """The conversation is over: close."""

    why: str


Action = Ask | Speak | SpeakEnd | Drop | FlushEars | Sound | Tell | Keep | Seen | Leave
