"""What the bot is told and tells by itself: texts, prompts, voices, words, and messages for a model."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from procs.errors import Refused
from procs.messages.voice import Line
from procs.speech.llm import situation
from procs.speech.tts import voices as synthesisers
from procs.voice import voices
from procs.voice.conversation import texts
from procs.voice.conversation.actions import Action
from procs.voice.conversation.history import BUDGET, HELLO, History
from procs.voice.conversation.prompts import QUESTIONS, Prompt
from procs.voice.conversation.words import Rechunker, are_nods, covered, is_goodbye, speakable
from procs.wire.conversation import (
    ChatMessage,
    Constant,
    Explanation,
    GuessAnimal,
    Instructions,
    Language,
    News,
    QuizShow,
    Smalltalk,
)

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
PUBLISHED = ["Watercooler", "Quiz show", "Gertrude", "Dev (news)", "Explanation", "Charles", "Développeuse", "Fabieng"]
KINDS: list[Instructions] = [
    Constant("Sing."),
    Smalltalk(),
    GuessAnimal(),
    QuizShow(),
    News(),
    Explanation(),
]


def prompt(instructions: Instructions, seed: int = 1, headlines: list[str] | None = None) -> Prompt:
    return Prompt(instructions, llm_name="parrot-7", seed=seed, time=NOON, headlines=headlines)


# Prompts


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_prompt_is_whole_and_leaves_room_for_the_conversation(kind: Instructions) -> None:
    made = prompt(kind, headlines=["A headline that says something"])
    assert "{" not in made.system and "parrot-7" in made.system and "bye" in made.system
    assert len(made.system) < BUDGET / 2
    assert made.metadata["instructions"]["type"] == msgspec.to_builtins(kind)["type"]


@pytest.mark.parametrize("language", ["en", "fr", "en/fr", "fr/en"])
@pytest.mark.parametrize("kind", [Smalltalk, GuessAnimal, QuizShow, News])
def test_a_prompt_says_which_languages_are_spoken(kind: type[Smalltalk], language: Language) -> None:
    made = prompt(kind(language))
    told = texts.of("fr" if language.startswith("fr") else "en")
    assert made.texts is told and told.languages[language] in made.system


def test_without_a_language_both_are_spoken() -> None:
    assert texts.of("en").languages["en/fr"] in prompt(Smalltalk()).system


@pytest.mark.parametrize("kind", [Smalltalk(), GuessAnimal(), QuizShow("fr")])
def test_what_is_drawn_by_lot_is_drawn_once_a_conversation(kind: Instructions) -> None:
    assert prompt(kind, 7).system == prompt(kind, 7).system
    assert len({prompt(kind, seed).system for seed in range(20)}) > 3


def test_a_quiz_has_five_different_questions_with_their_answers() -> None:
    asked = [line for line in prompt(QuizShow()).system.splitlines() if line.startswith("Question ")]
    assert len(set(asked)) == QUESTIONS and all("Answer: " in line for line in asked)


def test_headlines_are_lines_of_a_list_and_at_most_ten() -> None:
    made = prompt(News(), headlines=[f"Headline number {n}\nof many" for n in range(30)])
    lines = [line for line in made.system.splitlines() if line.startswith("- ")]
    assert len(lines) == 10 and all(line.endswith("of many") for line in lines)


def test_without_headlines_it_is_small_talk_with_an_apology() -> None:
    made = prompt(News()).system
    assert "could not be fetched" in made and "It is 2026-01-01, 12:00" in made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_embedded_model_understands_what_it_is_asked(kind: Instructions) -> None:
    made = prompt(kind)
    talk = situation.of([("system", made.system), ("user", HELLO)], made.metadata, 1, NOON)
    assert talk.kind == made.metadata["instructions"]["type"]


@pytest.mark.parametrize("language", ["en", "fr"])
def test_starters_and_questions_are_enough_and_different(language: str) -> None:
    told = texts.of("fr" if language == "fr" else "en")
    for each in (told.smalltalk.starters, told.quiz_show.questions, told.guess_animal.easy, told.guess_animal.hard):
        assert len(each) >= 9 and len({str(one) for one in each}) == len(each)


# Voices


def test_who_writes_no_blank_or_nothing_else_is_read_once() -> None:
    """And not from each of its characters on, which would take minutes."""
    for character in "x ":
        chunker = Rechunker()
        found = [word for _ in range(12) for word in chunker.feed(character * 50_000)]
        assert "".join(found) == ("x" * 600_000 if character == "x" else "")
        assert chunker.feed(" and so ") == [" and", " so"]


def test_the_published_names_are_known() -> None:
    assert [each.name for each in voices.known()] == PUBLISHED
    assert voices.find("") == voices.find("Watercooler")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_named_voice_is_one_that_the_embedded_synthesiser_takes(name: str) -> None:
    found = voices.find(name)
    assert found.instructions is not None and synthesisers.of(found.voice)


@pytest.mark.parametrize("raw", ["slt", "espeak:fr", "espeak:en-gb+f2", "some/where.wav", "custom:1b2c"])
def test_a_synthesisers_own_voice_passes(raw: str) -> None:
    assert voices.find(raw) == (raw, raw, None)


@pytest.mark.parametrize("name", ["Bob", "watercooler", "slt2", "espeak:", "a b/c", "custom:", "x" * 900 + "/"])
def test_an_unknown_voice_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(Refused, match="must be one of Watercooler, Quiz show") as refused:
        voices.find(name)
    assert len(str(refused.value)) < 300


# Words


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_text_in_any_pieces_is_the_same_words(size: int) -> None:
    text = "  foo bar,  baz\nqux! "
    chunker = Rechunker()
    words = [word for at in range(0, len(text), size) for word in chunker.feed(text[at : at + size])]
    assert [*words, *chunker.end()] == [" foo", " bar,", " baz", " qux!"] and chunker.is_empty


def test_a_word_without_end_is_cut() -> None:
    chunker = Rechunker()
    words = [word for _ in range(100) for word in chunker.feed("x" * 30)]
    assert len("".join([*words, *chunker.end()])) == 3000 and max(map(len, words)) < 300


@pytest.mark.parametrize(
    ("word", "spoken"), [("*bold*", "bold"), (" “it’s”", '"it\'s"'), (" ** ", ""), ("`x_y`", "xy")]
)
def test_what_is_written_and_not_spoken_is_left_out(word: str, spoken: str) -> None:
    assert speakable(word) == spoken


@pytest.mark.parametrize("said", ["uh huh", "Uh-huh.", "mm", "Yeah", "OK!", "ok ok", "d'accord", "Ah oui"])
def test_a_nod(said: str) -> None:
    assert are_nods(said.split())


@pytest.mark.parametrize("said", ["ok stop", "no", "yeah but", "oui mais", "ok ok ok ok ok", "what"])
def test_no_nod(said: str) -> None:
    assert not are_nods(said.split())


@pytest.mark.parametrize("text", ["Bye!", "So long, goodbye.", "Bye-bye!", "Bon, au revoir !", "Good bye…"])
def test_a_goodbye(text: str) -> None:
    assert is_goodbye(text)


@pytest.mark.parametrize("text", ["Bye is what I never say", "goodbyes", "rugby", "", "Lullaby."])
def test_no_goodbye(text: str) -> None:
    assert not is_goodbye(text)


def test_words_are_found_again_however_a_synthesiser_cuts_them() -> None:
    sent = ["Hello,", "twenty-one", "- ", "people!"]
    assert covered(sent, []) == 0
    assert covered(sent, ["hello"]) == 1
    assert covered(sent, ["hello", "twenty", "one"]) == 2
    assert covered(sent, ["hello", "twenty", "one", "people"]) == 4


# Messages


def history(*turns: tuple[str, str]) -> History:
    roles = {"user": "user", "bot": "assistant"}
    lines = [
        msgspec.convert({"type": "line", "number": n, "role": roles[who], "text": text, "final": True}, Line)
        for n, (who, text) in enumerate(turns, 1)
    ]
    out: list[Action] = []
    return History(lines, lambda: NOON, out)


def messages(*turns: tuple[str, str]) -> list[tuple[str, str]]:
    return [(each.role[0], each.content) for each in history(*turns).messages("be kind")[1:]]


def test_a_lone_prompt_is_followed_by_a_hello() -> None:
    assert history().messages("be kind") == [ChatMessage("system", "be kind"), ChatMessage("user", HELLO)]


def test_messages_are_cleaned_up() -> None:
    turns = (("bot", "Hi."), ("bot", "—"), ("user", "..."), ("user", "... one"), ("user", "two"), ("bot", "Well—"))
    assert messages(*turns) == [("u", HELLO), ("a", "Hi."), ("u", "one two"), ("a", "Well")]


def test_a_silence_that_nobody_broke_stays() -> None:
    assert messages(("bot", "Hi."), ("user", "...")) == [("u", HELLO), ("a", "Hi."), ("u", "...")]


def test_one_turn_that_is_too_long_is_cut_to_its_end() -> None:
    last = history(("bot", "Hi."), ("user", "x" * 15_000 + " and this?")).messages("be kind")[-1]
    assert last.content.endswith("and this?") and len(last.content) <= BUDGET


def test_a_prompt_of_any_length_stays_whole() -> None:
    made = history(("bot", "Hi."), ("user", "well?")).messages("p" * 60_000)
    assert len(made[0].content) == 60_000 and made[-1].content == "well?"
