"""What a chat request asks for: its turns, and an instruction in its metadata or, failing that, in the words of its
system prompt. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from procs.errors import Refused
from procs.speech.llm.talk import Talk, Turn, has, plain

LANGUAGES = ("en", "fr", "en/fr", "fr/en")
_MOST_HEADLINES = 20
MOST_OF_PROMPT = 16_000  # characters: what rules look at in a request takes them well under a second, whatever it is
MOST_OF_TURN = 2_000  # of each its end, where a question or a goodbye is
# The first that its words are found for decides.
_BY_WORDS = (
    ("quiz_show", "quiz|quizz|jeu de questions"),
    (
        "guess_animal",
        "(?:guess|think)[a-z ]{0,60} animal|animal[a-z ]{0,60} (?:guess|devine[rz]?)|devine[rz]?[a-z ]{0,60} animal",
    ),
    ("news", "news|headlines?|actualites?|gros titres"),
    ("unmute_explanation", "explain (?:unmute|how this)|unmute works"),
    ("smalltalk", "small ?talk|chat about|bavarder"),
)
_KINDS = ("constant", *(kind for kind, _ in _BY_WORDS))
_FRENCH_WORDS = (
    "je tu il elle nous vous est suis es sont le la les un une des du de et ou ne pas que qui quoi quel quelle comment"
    " pourquoi bonjour merci oui non avec pour dans sur mon ton mes cest jai au revoir parle aime ca va"
)
_ENGLISH_WORDS = (
    "i you he she we they is am are the a an and or not that who what which how why hello thanks thank yes no with for"
    " in on my your its im do does can tell of to it me have has was"
)
_FRENCH, _ENGLISH = frozenset(_FRENCH_WORDS.split()), frozenset(_ENGLISH_WORDS.split())


class _Instructions(msgspec.Struct):
    type: str
    language: str | None = None
    text: str | None = None


def of(messages: Sequence[tuple[str, str]], metadata: Mapping[str, Any], seed: int | None, now: datetime) -> Talk:
    """The conversation of a request: (role, text) each. Raises Refused for an instruction that is none."""
    prompt = "\n".join(text for role, text in messages if role in ("system", "developer"))[:MOST_OF_PROMPT]
    turns = [Turn(role == "user", text[-MOST_OF_TURN:]) for role, text in messages if role in ("user", "assistant")]
    told = _told(metadata.get("instructions"))
    kind = told.type if told else _kind(prompt)
    language = (told and told.language) or _language_of_prompt(prompt)
    return Talk(
        turns=turns,
        language=_spoken(language, turns),
        kind=kind,
        text=(told.text or "")[:MOST_OF_PROMPT] if told else prompt,
        headlines=_headlines(prompt) if kind == "news" else (),
        seed=zlib.crc32(prompt.encode()) + (seed or 0),
        now=now,
    )


def _told(instructions: Any) -> _Instructions | None:
    """Metadata may hold an object or, as OpenAI wants it, its JSON."""
    if instructions is None:
        return None
    try:
        if isinstance(instructions, str):
            told = msgspec.json.decode(instructions, type=_Instructions)
        else:
            told = msgspec.convert(instructions, _Instructions)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"metadata.instructions: {error}"[:300]) from None
    if told.type not in _KINDS:
        raise Refused(f"metadata.instructions.type: must be one of {', '.join(_KINDS)}")
    if told.language is not None and told.language not in LANGUAGES:
        raise Refused(f"metadata.instructions.language: must be one of {', '.join(LANGUAGES)}")
    return told


def _kind(prompt: str) -> str:
    words = plain(prompt)
    return next((kind for kind, pattern in _BY_WORDS if has(words, pattern)), "constant" if words else "smalltalk")


def _language_of_prompt(prompt: str) -> str:
    """That in which it is written, if it is French; else both, as the user speaks."""
    return "fr/en" if _is_french(prompt) else "en/fr"


def _spoken(language: str, turns: Sequence[Turn]) -> str:
    """Of two, that of the user's last words that tell."""
    if "/" in language:
        for turn in reversed(turns):
            if turn.is_user and (french := _is_french(turn.text)) is not None:
                return "fr" if french else "en"
    return language[:2]


def _is_french(text: str) -> bool | None:
    """None for a text that does not tell."""
    words = plain(text).split()
    french, english = sum(word in _FRENCH for word in words), sum(word in _ENGLISH for word in words)
    return None if french == english else french > english


def _headlines(prompt: str) -> list[str]:
    """The lines of a list."""
    found = re.findall(r"^[ \t]*(?:[-*\u2022]|[0-9]{1,2}[.)])[ \t]+(\S.{5,200})$", prompt, re.MULTILINE)
    return [each.strip() for each in found[:_MOST_HEADLINES]]
