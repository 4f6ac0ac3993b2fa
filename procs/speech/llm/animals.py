"""Thinks of an animal, first an easy one and then a hard one, and answers with yes and no. Pure: all it knows is in the
conversation, and in a table."""

from __future__ import annotations

from typing import NamedTuple

from procs.speech.llm import smalltalk
from procs.speech.llm.talk import Talk, has, mentions, plain

TRIES = 20


class _Feature(NamedTuple):
    """Something one may ask for."""

    words: dict[str, str]  # patterns of plain text
    yes: dict[str, str]
    no: dict[str, str]


def _feature(en: str, en_yes: str, en_no: str, fr: str, fr_yes: str, fr_no: str) -> _Feature:
    return _Feature({"en": en, "fr": fr}, {"en": en_yes, "fr": fr_yes}, {"en": en_no, "fr": fr_no})


_FEATURES = {
    "fly": _feature(
        r"fly|flies|flying|wings?", "it can fly", "it does not fly",
        r"vole|voler|ailes?", "il vole", "il ne vole pas"),
    "water": _feature(
        r"swims?|swimming|water|sea|ocean|river|fish", "it lives in the water", "it does not live in the water",
        r"nage|nager|eau|mer|ocean|riviere|poisson", "il vit dans l'eau", "il ne vit pas dans l'eau"),
    "fur": _feature(
        r"fur|hair|hairy|furry|mammal", "it has fur", "it has no fur",
        r"poils?|fourrure|mammifere", "il a des poils", "il n'a pas de poils"),
    "feathers": _feature(
        r"feathers?|bird|beak", "it has feathers", "it has no feathers",
        r"plumes?|oiseau|bec", "il a des plumes", "il n'a pas de plumes"),
    "eggs": _feature(
        r"eggs?", "it lays eggs", "it lays no eggs",
        r"oeufs?", "il pond des œufs", "il ne pond pas d'œufs"),
    "four legs": _feature(
        r"(?:four|4|for) legs|four feet|legs", "it has four legs", "it does not have four legs",
        r"(?:quatre|4) pattes|pattes", "il a quatre pattes", "il n'a pas quatre pattes"),
    "meat": _feature(
        r"meat|hunts?|predator|carnivore|dangerous|bites?", "it eats other animals", "it does not eat other animals",
        r"viande|chasse|carnivore|dangereux", "il mange d'autres animaux", "il ne mange pas d'autres animaux"),
    "pet": _feature(
        r"pets?|at home|house|with people|farm|domestic", "people keep it", "people don't keep it as a rule",
        r"maison|ferme|domestique", "on le garde chez soi ou à la ferme", "on ne le garde pas chez soi"),
    "big": _feature(
        r"big|bigger|large|larger|huge|heavy|tall", "it is bigger than a person", "it is not bigger than a person",
        r"gros|grand|grande|enorme|lourd", "il est plus grand qu'un humain", "il n'est pas plus grand qu'un humain"),
    "small": _feature(
        r"small|smaller|tiny|little", "it is smaller than a cat", "it is not smaller than a cat",
        r"petit|petite|minuscule", "il est plus petit qu'un chat", "il n'est pas plus petit qu'un chat"),
    "pattern": _feature(
        r"stripes?|spots?|striped|spotted|pattern", "it has a pattern", "it has one colour, more or less",
        r"rayures?|taches?|raye|motif", "il a un motif", "il est d'une seule couleur, ou presque"),
    "africa": _feature(
        r"africa|savannah?|hot country", "it lives in Africa", "it does not come from Africa",
        r"afrique|savane", "il vit en Afrique", "il ne vient pas d'Afrique"),
    "night": _feature(
        r"night|nocturnal|dark", "it is awake at night", "it sleeps at night",
        r"nuit|nocturne", "il vit la nuit", "il dort la nuit"),
}  # fmt: skip


class _Animal(NamedTuple):
    name: dict[str, str]
    traits: frozenset[str]


def _animal(en: str, fr: str, *traits: str) -> _Animal:
    return _Animal({"en": en, "fr": fr}, frozenset(traits))


_EASY = (
    _animal("dog", "chien", "fur", "four legs", "meat", "pet"),
    _animal("cow", "vache", "fur", "four legs", "pet", "big", "pattern"),
    _animal("elephant", "éléphant", "four legs", "big", "africa"),
    _animal("lion", "lion", "fur", "four legs", "meat", "big", "africa"),
    _animal("zebra", "zèbre", "fur", "four legs", "big", "pattern", "africa"),
    _animal("chicken", "poule", "feathers", "eggs", "pet", "fly"),
    _animal("frog", "grenouille", "water", "eggs", "four legs", "small"),
    _animal("mouse", "souris", "fur", "four legs", "small", "night"),
)
_HARD = (
    _animal("owl", "hibou", "fly", "feathers", "eggs", "meat", "night"),
    _animal("penguin", "manchot", "feathers", "eggs", "water", "meat"),
    _animal("hedgehog", "hérisson", "four legs", "small", "night", "meat"),
    _animal("octopus", "pieuvre", "water", "eggs", "meat"),
    _animal("bat", "chauve-souris", "fly", "fur", "small", "night"),
    _animal("crocodile", "crocodile", "water", "eggs", "four legs", "meat", "big", "africa"),
    _animal("ladybird", "coccinelle", "fly", "eggs", "small", "pattern", "meat"),
    _animal("platypus", "ornithorynque", "water", "fur", "eggs", "four legs", "meat", "night"),
)
_OPENING = {
    "en": "I am thinking of an animal, and you guess it. Ask me things that I can answer with yes or no.",
    "fr": "Je pense à un animal, et vous le devinez. Posez-moi des questions auxquelles je réponds par oui ou par non.",
}
_FOUND = {"en": "Yes, it is the {}! Well done.", "fr": "Oui, c'est ça : {} ! Bravo."}
_TOLD = {"en": "It was the {}.", "fr": "C'était : {}."}
_SECOND = {
    "en": "Now I have thought of a harder one. Go ahead.",
    "fr": "J'en ai choisi un plus difficile. À vous.",
}
_OVER = {
    "en": "That was my last animal, thank you for playing!",
    "fr": "C'était mon dernier animal, merci d'avoir joué !",
}
_NOT_THAT = {"en": "No, it is not the {}.", "fr": "Non, ce n'est pas ça : {}."}
_GIVES_UP = {
    "en": r"give up|tell me|what is it|no idea|i dont know",
    "fr": r"donne ma langue|abandonne|dis moi|je ne sais pas",
}
_HINT = {"en": r"hint|clue|help", "fr": r"indice|aide"}
_HINTED = {"en": "A hint: {}.", "fr": "Un indice : {}."}
_UNKNOWN = {
    "en": (
        "That is hard to say. You could ask whether it can fly.",
        "I can't answer that with yes or no. Is it size that you want to know, or where it lives?",
        "Hm, my rules don't know. Try what it eats, or whether it has fur.",
        "Ask me something else, such as whether it lays eggs. Or say: hint.",
    ),
    "fr": (
        "C'est difficile à dire. Demandez-moi par exemple s'il vole.",
        "Je ne peux pas répondre par oui ou non. Sa taille, peut-être, ou là où il vit ?",
        "Mes règles ne le savent pas. Demandez ce qu'il mange, ou s'il a des poils.",
        "Posez-moi une autre question, ou dites : indice.",
    ),
}
_LEFT = {
    "en": "I can't say. Ask something else, you have {} questions left.",
    "fr": "Je ne saurais dire. Autre chose ? Il vous reste {} questions.",
}
_YES, _NO = {"en": "Yes, {}.", "fr": "Oui, {}."}, {"en": "No, {}.", "fr": "Non, {}."}


def reply(talk: Talk) -> str:
    """The next thing to say."""
    if talk.is_opening:
        return _OPENING[talk.language]
    chosen = [talk.chance(salt).choice(animals) for salt, animals in (("easy", _EASY), ("hard", _HARD))]
    past = [any(_ends_with(talk, said, animal) for said in talk.said) for animal in chosen]
    if all(past):
        return smalltalk.reply(talk)
    return _play(talk, chosen[sum(past)], is_last=any(past))


def _play(talk: Talk, animal: _Animal, *, is_last: bool) -> str:
    language, asked = talk.language, talk.asked
    after = (_OVER if is_last else _SECOND)[language]
    name = animal.name[language]
    if mentions(asked, plain(name)):
        return f"{_FOUND[language].format(name)} {after}"
    if has(asked, _GIVES_UP[language]) or _count(talk) > _tries(is_last):
        return f"{_TOLD[language].format(name)} {after}"
    if has(asked, _HINT[language]):
        hints = [_HINTED[language].format(_FEATURES[trait].yes[language]) for trait in sorted(animal.traits)]
        return talk.new(hints) or hints[-1]
    if other := next((each for each in (*_EASY, *_HARD) if mentions(asked, plain(each.name[language]))), None):
        return _NOT_THAT[language].format(other.name[language])
    for trait, feature in _FEATURES.items():
        if has(asked, feature.words[language]):
            if trait in animal.traits:
                return _YES[language].format(feature.yes[language])
            return _NO[language].format(feature.no[language])
    return talk.new(_UNKNOWN[language]) or _LEFT[language].format(_tries(is_last) - _count(talk))


def _tries(is_last: bool) -> int:
    return TRIES * (2 if is_last else 1)


def _count(talk: Talk) -> int:
    return sum(turn.is_user for turn in talk.turns)


def _ends_with(talk: Talk, said: str, animal: _Animal) -> bool:
    """Whether we have named it: found, or told."""
    name = animal.name[talk.language]
    return any(plain(form[talk.language].format(name)) in said for form in (_FOUND, _TOLD))
