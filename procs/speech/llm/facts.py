"""A text of the one who set us up. Rules can't do as it says; they say the sentence of it that the user's words are
about, and what is written in quotes after "say" at first. Pure."""

from __future__ import annotations

import re

from procs.speech.llm import smalltalk
from procs.speech.llm.talk import Talk, has, is_near, plain, sentences

_QUOTED = re.compile(
    r"\b(?:say|greet|answer|reply|respond|begin|start|dis|dites|r[ée]ponds?)\b[^.\"“«]{0,40}[\"“«]([^\"”»]{1,500})[\"”»]",
    re.IGNORECASE,
)
_ORDERS = (  # to the one who answers: not to be read to the user
    r"you|your|youre|never|always|dont|do not|be|speak|answer|reply|respond|use|keep|avoid|if|when|please|make|act"
    r"|pretend|say|greet|begin|start|tu|vous|ton|votre|ne|sois|soyez|parle|parlez|reponds|repondez|si|quand|evite"
)
_EMPTY_WORDS = (
    "a an the is are was were am be do does did can could will would i you he she it we they me my your his her its our"
    " their this that these those what which who whom whose when where why how and or but not no yes of in on at to for"
    " from with by about as there please tell much many le la les un une des du de et ou est sont je tu il elle nous"
    " vous que qui quoi quel quelle quand comment pourquoi dans sur avec pour ce cette ces mon ma mes"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())
_MOST_ASKED = 60  # words of the user's, each of which is compared with all of the text
_ENOUGH = 0.5  # of the words that the user has asked with


def reply(talk: Talk) -> str:
    """The next thing to say."""
    quoted = talk.new(filter(None, map(str.strip, _QUOTED.findall(talk.text))))
    if quoted and talk.is_opening:
        return quoted
    return talk.new(_about(talk)) or smalltalk.reply(talk)


def _about(talk: Talk) -> list[str]:
    """Sentences of the text that are about what the user has asked, the best first."""
    asked = {word for word in talk.asked.split()[-_MOST_ASKED:] if word not in _EMPTY}
    ranked = []
    for sentence in sentences(talk.text):
        words = plain(sentence).split()
        if asked and not has(" ".join(words[:1]), _ORDERS):
            share = sum(any(_is_alike(word, other) for other in words) for word in asked) / len(asked)
            ranked.append((share, sentence))
    return [sentence for share, sentence in sorted(ranked, key=lambda each: -each[0]) if share >= _ENOUGH]


def _is_alike(word: str, other: str) -> bool:
    """Whether one is the other, or its plural or the like."""
    return is_near(word, other) or (min(len(word), len(other)) >= 4 and word[:4] == other[:4])
