"""Reads the headlines that it was given, one at a time. Pure."""

from __future__ import annotations

from procs.speech.llm import smalltalk
from procs.speech.llm.talk import Talk, has

_NONE = {
    "en": "I am sorry, I have no news today: nobody has given me any. Shall we just chat?",
    "fr": "Désolé, je n'ai pas d'actualités aujourd'hui : personne ne m'en a donné. On bavarde ?",
}
_FIRST = {"en": "Here is what is in the news.", "fr": "Voici ce qu'il y a aux nouvelles."}
_NEXT = {
    "en": ("Next one.", "Here is another.", "And then there is this.", "Also in the news.", "Something else."),
    "fr": ("La suite.", "En voici une autre.", "Et puis ceci.", "Autre chose."),
}
_MORE = {
    "en": ("Shall I go on?", "What do you make of it?", "Another one?", "Do you want to hear more?"),
    "fr": ("Je continue ?", "Qu'en pensez-vous ?", "Une autre ?", "Vous en voulez encore ?"),
}
_THAT_WAS_ALL = {
    "en": "Those were all the headlines that I have. What else is new with you?",
    "fr": "C'étaient tous mes titres. Et chez vous, quoi de neuf ?",
}
_NO = {"en": r"no|nope|stop|enough|no thanks", "fr": r"non|stop|assez|ca suffit"}


def reply(talk: Talk) -> str:
    """The next thing to say."""
    language = talk.language
    if not talk.headlines:
        return _NONE[language] if talk.is_opening else smalltalk.reply(talk)
    headline = talk.new(talk.headlines)
    if not headline:
        return talk.new([_THAT_WAS_ALL[language]]) or smalltalk.reply(talk)
    if not talk.is_opening and has(talk.asked, _NO[language]):
        return smalltalk.reply(talk)
    said = _FIRST[language] if talk.is_opening else talk.new(_NEXT[language])
    end = "" if headline.endswith((".", "!", "?")) else "."
    return " ".join(filter(None, [said, headline + end, talk.new(_MORE[language])]))
