"""What a conversation with a bot is and has come to, as events (procs/wire/realtime.py) carry it: its session, with the
instructions of the bot, what has been said, and what is being said. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from procs.wire.scalars import Word

MAX_TEXT = 64 * 1024  # characters

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Language = Literal["en", "fr", "en/fr", "fr/en"]


class Constant(msgspec.Struct, frozen=True, tag="constant", omit_defaults=True):
    """Instructions in the caller's own words."""

    text: Text
    language: Language | None = None


class Smalltalk(msgspec.Struct, frozen=True, tag="smalltalk", omit_defaults=True):
    """Chat; the usual."""

    language: Language | None = None


class GuessAnimal(msgspec.Struct, frozen=True, tag="guess_animal", omit_defaults=True):
    """Twenty questions."""

    language: Language | None = None


class QuizShow(msgspec.Struct, frozen=True, tag="quiz_show", omit_defaults=True):
    """A host who asks five questions."""

    language: Language | None = None


class News(msgspec.Struct, frozen=True, tag="news", omit_defaults=True):
    """Talk about headlines."""

    language: Language | None = None


class Explanation(msgspec.Struct, frozen=True, tag="unmute_explanation"):
    """Explain the system itself, in English."""


Instructions = Constant | Smalltalk | GuessAnimal | QuizShow | News | Explanation


class Session(msgspec.Struct, frozen=True):
    """How a conversation is to be. A bot says nothing before it has had instructions once."""

    allow_recording: bool
    instructions: Instructions | None = None
    voice: Text | None = None


class ChatMessage(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Word
    content: Text


History = Annotated[list[ChatMessage], msgspec.Meta(max_length=10_000)]


class Response(msgspec.Struct, frozen=True):
    """What the bot begins to say."""

    status: Word = "in_progress"  # no other is ever sent
    voice: Text | None = None
    chat_history: History = []
    object: Word = "realtime.response"


class Outputs(msgspec.Struct, frozen=True):
    """How the backend sees the conversation, for who looks into it."""

    chat_history: History = []
    debug_dict: dict[str, Any] = {}
    debug_plot_data: list[Any] = []
