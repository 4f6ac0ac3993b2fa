"""The texts that a bot is told and says by itself, in English and French (texts/*.yaml)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import msgspec
import yaml


class Smalltalk(msgspec.Struct, forbid_unknown_fields=True):
    """Chat."""

    style: str
    time: str
    start: str
    starters: list[str]


class Quiz(msgspec.Struct, forbid_unknown_fields=True):
    """A quiz."""

    style: str
    question: str
    questions: list[tuple[str, str]]


class News(msgspec.Struct, forbid_unknown_fields=True):
    """Headlines."""

    style: str
    headline: str
    none: str


class Animals(msgspec.Struct, forbid_unknown_fields=True):
    """Twenty questions."""

    style: str
    easy: list[str]
    hard: list[str]


class Texts(msgspec.Struct, forbid_unknown_fields=True):
    """All of one language."""

    basics: str
    mistakes: str
    languages: dict[str, str]
    silence: str
    self: str
    unnamed: str
    wish: str
    smalltalk: Smalltalk
    quiz_show: Quiz
    news: News
    guess_animal: Animals
    unspoken: str
    go_on: str
    back: str
    sorry: str
    explanation: str = ""  # in English only


@functools.cache
def of(language: Literal["en", "fr"]) -> Texts:
    """Those of a language; read once."""
    path = Path(__file__).parent / "texts" / f"{language}.yaml"
    return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), Texts)
