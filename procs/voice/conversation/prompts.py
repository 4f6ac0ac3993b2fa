"""Instructions into what a language model is told. What is drawn by lot is drawn once a conversation. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from procs.voice.conversation import texts
from procs.voice.conversation.texts import Texts
from procs.wire.conversation import Constant, Explanation, GuessAnimal, Instructions, News, QuizShow, Smalltalk

QUESTIONS = 5
HEADLINES = 10
MOST_OF_HEADLINE = 200  # characters


class Prompt:
    """What one bot is told."""

    def __init__(
        self,
        instructions: Instructions,
        *,
        llm_name: str,
        seed: int,
        time: datetime,
        headlines: Sequence[str] | None,
    ) -> None:
        language = _language(instructions)
        self.texts = texts.of("fr" if language.startswith("fr") else "en")
        self.metadata: dict[str, Any] = {"instructions": msgspec.to_builtins(instructions)}
        told = self.texts
        wish = _wish(instructions, told, random.Random(seed), time, headlines)
        self.system = "\n".join(
            part.strip()
            for part in (
                told.basics,
                told.languages[language],
                told.mistakes,
                told.self.format(model=llm_name or told.unnamed),
                told.silence,
                told.wish,
                wish,
            )
        )


def _language(instructions: Instructions) -> str:
    if isinstance(instructions, Explanation):
        return "en"
    return instructions.language or "en/fr"


def _wish(
    instructions: Instructions,
    told: Texts,
    chance: random.Random,
    time: datetime,
    headlines: Sequence[str] | None,
) -> str:
    match instructions:
        case Constant(text=text):
            return text
        case Explanation():
            return told.explanation
        case QuizShow():
            return _quiz(told, chance)
        case GuessAnimal():
            game = told.guess_animal
            return game.style.format(easy=chance.choice(game.easy), hard=chance.choice(game.hard))
        case News() if headlines:
            return _news(told, chance, headlines)
        case News():
            return f"{told.news.none.strip()}\n{_smalltalk(told, chance, time)}"
        case Smalltalk():
            return _smalltalk(told, chance, time)


def _smalltalk(told: Texts, chance: random.Random, time: datetime) -> str:
    chat = told.smalltalk
    shown = chat.time.format(time=time.strftime("%Y-%m-%d, %H:%M %Z").strip())
    return "\n".join((chat.style.strip(), shown, chat.start.format(starter=chance.choice(chat.starters))))


def _quiz(told: Texts, chance: random.Random) -> str:
    quiz = told.quiz_show
    drawn = chance.sample(quiz.questions, QUESTIONS)
    asked = (
        quiz.question.format(number=number, question=question, answer=answer)
        for number, (question, answer) in enumerate(drawn, 1)
    )
    return "\n".join((quiz.style.strip(), *asked))


def _news(told: Texts, chance: random.Random, headlines: Sequence[str]) -> str:
    drawn = chance.sample(list(headlines), min(HEADLINES, len(headlines)))
    lines = (told.news.headline.format(headline=" ".join(each.split())[:MOST_OF_HEADLINE]) for each in drawn)
    return "\n".join((told.news.style.strip(), *lines))
