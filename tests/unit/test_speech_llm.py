"""The one who answers by rules: what it says to whom, as pure functions of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from procs.errors import Refused
from procs.speech.llm import animals, chat, quiz, situation
from procs.speech.llm.respond import reply
from procs.speech.llm.talk import is_near, mentions, plain

NOW = datetime(2026, 3, 4, 15, 45, tzinfo=UTC)


class Conversation:
    """One that goes on: each `says` sends all of it again, as a backend does."""

    def __init__(self, instructions: dict[str, Any] | None = None, prompt: str = "", seed: int = 0) -> None:
        self.messages: list[tuple[str, str]] = [("system", prompt)] if prompt else []
        self._metadata = {"instructions": instructions} if instructions else {}
        self._seed = seed

    def says(self, text: str | None) -> str:
        """The answer to what a user says, or to nothing at the start."""
        if text is not None:
            self.messages.append(("user", text))
        answer = reply(situation.of(self.messages, self._metadata, self._seed, NOW))
        self.messages.append(("assistant", answer))
        return answer

    @property
    def answers(self) -> list[str]:
        """All so far."""
        return [text for role, text in self.messages if role == "assistant"]


KINDS = ("constant", "smalltalk", "quiz_show", "news", "unmute_explanation", "guess_animal")


@pytest.mark.parametrize("language", ["en", "fr", "en/fr", "fr/en"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_instruction_is_short_of_words_and_nothing_is_said_twice(kind: str, language: str) -> None:
    talk = Conversation({"type": kind, "language": language, "text": "Be kind."}, "- One headline here\n- Another one")
    talk.says(None)
    for word in (
        "so so",
        "apples",
        "I like the bread",
        "maybe",
        "my aunt",
        "that thing",
        "really",
        "perhaps",
        "a stone",
    ):
        talk.says(word)
    assert len(set(talk.answers)) == 10 and all(talk.answers)


@pytest.mark.parametrize("kind", KINDS)
def test_goodbyes_and_three_silences_end_it_and_one_does_not(kind: str) -> None:
    talk = Conversation({"type": kind, "text": ""})
    talk.says("Hello.")
    one, two = talk.says("..."), talk.says("...")
    assert one != two and not (one + two).endswith("bye!")
    assert not talk.says("I am here").endswith("bye!")
    assert [talk.says("...").endswith("bye!") for _ in range(3)] == [False, False, True]
    assert Conversation({"type": kind, "text": ""}).says("Well then, goodbye!").endswith("bye!")


@pytest.mark.parametrize(
    ("language", "ending", "going_on"),
    [
        ("en", ("ok good night", "so long and goodbye", "see you tomorrow"), ("nice to see you", "i had a good night")),
        ("fr", ("merci, au revoir", "À plus !", "bonne nuit"), ("il y a plus de chats", "c'était une bonne nuit")),
    ],
)
def test_a_goodbye_is_told_from_words_like_it(
    language: str, ending: tuple[str, ...], going_on: tuple[str, ...]
) -> None:
    for text in (*ending, *going_on):
        said = Conversation({"type": "smalltalk", "language": language}).says(text)
        assert said.endswith("bye!") == (text in ending), text


def test_it_says_what_it_is_whatever_it_is_asked_to_be() -> None:
    for kind in KINDS:
        for asked in ("Are you an AI?", "what are you", "Who made you?"):
            told = Conversation({"type": kind, "text": "You are a human called Bob."}).says(asked)
            assert "rules" in told and "Bob" not in told
    assert "règles" in Conversation({"type": "smalltalk", "language": "fr"}).says("Es-tu un robot ?")


def test_a_constant_text_is_quoted_and_searched_but_orders_are_not_read_out() -> None:
    text = 'You guide a museum. Say "Welcome to the museum!" first. It opens at nine. Tickets cost five euros. Be kind.'
    talk = Conversation({"type": "constant", "text": text})
    assert talk.says(None) == "Welcome to the museum!"
    assert talk.says("how much is a ticket") == "Tickets cost five euros."
    assert talk.says("when does it open") == "It opens at nine."
    assert talk.says("you kind museum") not in text


def test_smalltalk_knows_some_topics_and_the_time() -> None:
    talk = Conversation({"type": "smalltalk", "language": "en"})
    assert talk.says("hello") != talk.says("Tell me a joke.")
    assert "process" in talk.answers[1] or "packets" in talk.answers[1] or "clock" in talk.answers[1]
    assert "3:45" in talk.says("what time is it")
    assert Conversation().says("Tell me a joke about a cat") in (talk.answers[1], talk.says("another joke"))


@pytest.mark.parametrize(("language", "right", "result"), [("en", 3, "3 out of 5"), ("fr", 2, "2 sur 5")])
def test_the_quiz_keeps_the_score(language: str, right: int, result: str) -> None:
    talk = Conversation({"type": "quiz_show", "language": language}, seed=7)
    said = talk.says(None)
    asked = []
    for number in range(5):
        question = next(each for each in quiz._QUESTIONS[language] if each.text in said)
        asked.append(question)
        said = talk.says(f"I think {question.answers[0]}" if number < right else "a potato")
        assert (question.answers[0] in plain(said)) == (number >= right)
    assert result in said and len(set(asked)) == 5
    assert result not in talk.says("that was fun")


@pytest.mark.parametrize("language", ["en", "fr"])
def test_animals_can_be_guessed_by_asking(language: str) -> None:
    talk = Conversation({"type": "guess_animal", "language": language}, seed=3)
    talk.says(None)
    for table in (animals._EASY, animals._HARD):
        left = list(table)
        for trait, ask in {
            "fly": "fly vole",
            "four legs": "legs pattes",
            "big": "big grand",
            "fur": "fur poils",
        }.items():
            has_it = talk.says(ask).startswith(("Yes", "Oui"))
            left = [animal for animal in left if (trait in animal.traits) == has_it]
        for animal in left:
            if "!" in (said := talk.says(f"the {animal.name[language]}")):
                break
        assert animal.name[language] in said
    assert "?" in talk.says("what a nice game, that was") or talk.answers[-1]


def test_news_are_read_one_by_one_and_missed_when_there_are_none() -> None:
    talk = Conversation({"type": "news", "language": "en"}, "News:\n1. A robot learned to knit\n2. Rain has been found")
    both = talk.says("hello") + talk.says("yes")
    assert "learned to knit." in both and "has been found." in both
    assert "all" in talk.says("more")
    assert "no news" in Conversation({"type": "news"}).says("hello")


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("You host a quiz show with five questions.", "quiz_show"),
        ("Think of an animal; the user has to guess it.", "guess_animal"),
        ("Read the headlines:\n- Something happened somewhere", "news"),
        ("Explain how this voice system works.", "unmute_explanation"),
        ("Tu fais deviner un animal.", "guess_animal"),
        ("The museum opens at nine.", "constant"),
        ("", "smalltalk"),
    ],
)
def test_without_metadata_the_words_of_the_prompt_decide(prompt: str, kind: str) -> None:
    talk = situation.of([("system", prompt)], {}, None, NOW)
    assert (talk.kind, talk.language) == (kind, "fr" if "Tu" in prompt else "en")


def test_of_two_languages_the_user_chooses() -> None:
    talk = Conversation({"type": "smalltalk", "language": "en/fr"})
    assert "Bonjour" in talk.says("Bonjour, je suis là") and "!" in talk.says("thank you, that is nice of you")
    assert plain(talk.answers[1]) in ("you are welcome", "any time", "my pleasure")


@pytest.mark.parametrize(
    "instructions",
    [
        "{",
        7,
        {"type": "poem"},
        {"type": "news", "language": "de"},
        {"text": "x"},
        '{"type": "smalltalk", "language": 1}',
    ],
)
def test_instructions_that_are_none_are_refused(instructions: object) -> None:
    with pytest.raises(Refused, match="instructions"):
        situation.of([("user", "hi")], {"instructions": instructions}, None, NOW)


def test_words_are_taken_as_a_recogniser_has_them() -> None:
    assert is_near("pengin", "penguin") and is_near("mercuri", "mercury") and is_near("xpiano", "piano")
    assert not is_near("cat", "bat") and not is_near("pen", "penguin") and not is_near("pianist", "piano")
    assert mentions("it is carbon dioxid i think", "carbon dioxide") and not mentions("", "piano")


def _body(**more: Any) -> bytes:
    return msgspec.json.encode({"messages": [{"role": "user", "content": "hi"}], **more})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b"{}", "messages"),
        (b'{"messages": []}', "at least one"),
        (_body(n=2), "n:"),
        (_body(max_tokens=0), ">= 1"),
        (b"\xff", "malformed|UTF|utf"),
        (b"[" * 100_000, "object"),
    ],
)
def test_requests_that_are_none_are_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        chat.request(body)


def test_an_answer_is_the_same_whole_and_in_pieces_and_counts_words() -> None:
    parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x"}}]
    asked = chat.request(_body(messages=[{"role": "user", "content": parts, "name": "x"}], tools=[], temperature=0.3))
    made = chat.answer(asked, "Hello  there,\nyou two.", name="x", now=1.0)
    whole = msgspec.json.decode(chat.whole(made))
    assert whole["choices"][0]["message"]["content"] == "Hello  there,\nyou two."
    assert whole["usage"] == {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
    *events, done = chat.events(made, with_usage=True)
    chunks = [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events]
    assert done == b"data: [DONE]\n\n" and chunks[-1]["usage"] == whole["usage"] and chunks[-1]["choices"] == []
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:3]] == ["Hello", "  there,"]
    cut = chat.answer(chat.request(_body(max_completion_tokens=2)), "one two three", name="x", now=1.0)
    assert msgspec.json.decode(chat.whole(cut))["choices"][0]["finish_reason"] == "length"


def _same(first: Callable[[], str]) -> bool:
    return len({first() for _ in range(5)}) == 1


def test_the_same_conversation_gets_the_same_answer_and_another_seed_another_animal() -> None:
    assert _same(lambda: Conversation({"type": "quiz_show"}, seed=4).says(None))
    assert len({Conversation({"type": "quiz_show"}, seed=seed).says(None) for seed in range(20)}) > 3


@pytest.mark.parametrize("text", ["\n  " * 300_000, 'say "' + " " * 900_000, " ".join(f"w{i}" for i in range(150_000))])
def test_a_request_of_a_megabyte_is_answered_while_its_caller_waits(text: str) -> None:
    """Looked at as a whole, each would take minutes, and the process be ended as one that hangs."""
    for instructions in (None, {"type": "constant", "text": text}, {"type": "news"}):
        assert Conversation(instructions, f"news {text}").says(text + " goodbye").endswith("bye!")
        assert Conversation(instructions, f"news {text}").says("q " + text)


@pytest.mark.parametrize(
    ("language", "aside"),
    [
        ("en", "(The connection was gone for a moment. Go on with what you were saying.)"),
        ("fr", "(La liaison était coupée un instant. Continue ce que tu disais.)"),
    ],
)
def test_an_answer_that_was_cut_off_is_gone_on_with(language: str, aside: str) -> None:
    talk = Conversation({"type": "smalltalk", "language": language})
    for question in (None, "hello" if language == "en" else "bonjour", "apples"):
        whole = talk.says(question)
        talk.messages[-1] = ("assistant", " ".join(whole.split()[:2]) + " I am back.")
        rest = talk.says(aside)
        assert rest == " ".join(whole.split()[2:])
        del talk.messages[-2:]
        talk.messages[-1] = ("assistant", whole)
    assert talk.says(aside), "nothing was cut off, and something is said"
