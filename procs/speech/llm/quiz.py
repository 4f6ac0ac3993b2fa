"""A host who asks five questions and keeps the score. Pure: all it knows is in the conversation."""

from __future__ import annotations

from typing import NamedTuple

from procs.speech.llm import smalltalk
from procs.speech.llm.talk import SILENCE, Talk, has, mentions, plain

ROUND = 5


class _Question(NamedTuple):
    text: str
    answers: tuple[str, ...]  # plain; the first is told


_QUESTIONS = {
    "en": (
        _Question("How many legs does a spider have?", ("eight", "8")),
        _Question("Which planet is closest to the sun?", ("mercury",)),
        _Question("What do bees make?", ("honey", "wax")),
        _Question("In which country is the city of Lisbon?", ("portugal",)),
        _Question("What is frozen water called?", ("ice", "snow")),
        _Question("How many days does a leap year have?", ("three hundred and sixty six", "366")),
        _Question("Which animal is known for building dams?", ("beaver",)),
        _Question("What colour do you get from blue and yellow?", ("green",)),
        _Question("Which instrument has eighty eight keys?", ("piano",)),
        _Question("What is the opposite of north?", ("south",)),
        _Question("How many strings does a violin have?", ("four", "4", "for")),
        _Question("Which bird can't fly and lives in the Antarctic?", ("penguin", "penguins")),
        _Question("What gas do plants take from the air?", ("carbon dioxide", "co2")),
        _Question("Which month has the fewest days?", ("february",)),
    ),
    "fr": (
        _Question("Combien de pattes a une araignée ?", ("huit", "8")),
        _Question("Quelle planète est la plus proche du soleil ?", ("mercure",)),
        _Question("Que fabriquent les abeilles ?", ("miel", "cire")),
        _Question("Dans quel pays se trouve Lisbonne ?", ("portugal",)),
        _Question("Comment appelle-t-on l'eau gelée ?", ("glace", "neige")),
        _Question("Quel animal construit des barrages ?", ("castor",)),
        _Question("Quelle couleur donnent le bleu et le jaune ?", ("vert",)),
        _Question("Quel instrument a quatre-vingt-huit touches ?", ("piano",)),
        _Question("Quel est le contraire du nord ?", ("sud",)),
        _Question("Combien de cordes a un violon ?", ("quatre", "4")),
        _Question("Quel mois a le moins de jours ?", ("fevrier",)),
    ),
}  # fmt: skip
_WELCOME = {
    "en": "Welcome to the quiz! Five questions, no prize, and no mercy. Here is the first.",
    "fr": "Bienvenue au quiz ! Cinq questions, rien à gagner, et pas de pitié. Voici la première.",
}
_RIGHT = {
    "en": ("That is right!", "Correct!", "Yes, well done!", "Exactly!", "Right again, I am impressed."),
    "fr": ("C'est juste !", "Exact !", "Oui, bravo !", "Parfaitement !", "Encore juste, je suis impressionné."),
}
_WRONG = {
    "en": (
        "No, the answer is {}.",
        "Sorry, it is {}.",
        "Not quite: {}.",
        "I was looking for {}.",
        "It would have been {}.",
    ),
    "fr": ("Non, la réponse est {}.", "Désolé, c'est {}.", "Pas tout à fait : {}.", "J'attendais {}.", "C'était {}."),
}
_NEXT = {
    "en": ("Next question.", "Now this one.", "Here comes another.", "The last one."),
    "fr": ("Question suivante.", "Et celle-ci.", "En voici une autre.", "La dernière."),
}
_RESULT = {
    "en": "That makes {right} out of {all}. There is no prize, but you may be proud of it. Thank you for playing!",
    "fr": "Cela fait {right} sur {all}. Il n'y a rien à gagner, mais soyez-en fier. Merci d'avoir joué !",
}
_AGAIN = {"en": r"again|repeat|pardon|say that|what was the question", "fr": r"repete[rz]?|encore|pardon|la question"}
_ONCE_MORE = {"en": "The question was:", "fr": "La question était :"}


def reply(talk: Talk) -> str:
    """The next thing to say."""
    language = talk.language
    asked = _asked(talk)
    if not asked:
        return f"{_WELCOME[language]} {_draw(talk, []).text}"
    last = asked[-1]
    if _is_over(talk):
        return smalltalk.reply(talk)
    if has(talk.asked, _AGAIN[language]) and not _is_right(last, talk.asked):
        return f"{_ONCE_MORE[language]} {last.text}"
    verdict = talk.new(_RIGHT[language]) if _is_right(last, talk.asked) else ""
    if not verdict:
        options = [each.format(last.answers[0]) for each in _WRONG[language]]
        verdict = _RIGHT[language][0] if _is_right(last, talk.asked) else talk.new(options) or options[0]
    if len(asked) < ROUND:
        return f"{verdict} {_NEXT[language][len(asked) - 1]} {_draw(talk, asked).text}"
    return f"{verdict} " + _RESULT[language].format(right=_score(talk), all=ROUND)


def _asked(talk: Talk) -> list[_Question]:
    """The questions so far, in order."""
    found: list[_Question] = []
    for said in talk.said:
        found += [each for each in _QUESTIONS[talk.language] if plain(each.text) in said and each not in found]
    return found


def _draw(talk: Talk, asked: list[_Question]) -> _Question:
    questions = _QUESTIONS[talk.language]
    order = talk.chance("quiz").sample(questions, len(questions))
    return next(each for each in order if each not in asked)


def _score(talk: Talk) -> int:
    """How many were answered well: each by what the user said last before the next."""
    right, pending, answer = 0, None, ""
    for turn in talk.turns:
        if turn.is_user:
            answer = plain(turn.text) if turn.text.strip() != SILENCE else answer
            continue
        new = next((each for each in _QUESTIONS[talk.language] if plain(each.text) in plain(turn.text)), pending)
        if new is not pending:
            right += pending is not None and _is_right(pending, answer)
            pending, answer = new, ""
    return right + (pending is not None and _is_right(pending, answer))


def _is_right(question: _Question, answer: str) -> bool:
    return any(mentions(answer, each) for each in question.answers)


def _is_over(talk: Talk) -> bool:
    ending = plain(_RESULT[talk.language].partition(". ")[2])
    return any(ending in said for said in talk.said)
