"""The one who answers: rules, and no model of a language. Pure: the same conversation gets the same answer.

It says what it is when it is asked, says nothing twice as long as it has something else to say, and ends with "bye!"
once the user has said goodbye, or nothing three times.
"""

from __future__ import annotations

from procs.speech.llm import animals, explaining, facts, news, quiz, smalltalk
from procs.speech.llm.talk import END, Talk, has, plain

_MODES = {
    "constant": facts.reply,
    "smalltalk": smalltalk.reply,
    "quiz_show": quiz.reply,
    "news": news.reply,
    "unmute_explanation": explaining.reply,
    "guess_animal": animals.reply,
}
SILENCES = 3
_GOODBYE = {  # words that are nothing else; others only alone: "nice to see you" is no goodbye, nor is "il y a plus"
    "en": r"good ?bye|bye|farewell|see you (?:later|soon|tomorrow|next time)|i (?:have|must|need) to go now|i must go|"
    r"^(?:(?:ok|okay|well|so|then|and|thanks|thank you) )*(?:see you|good ?night|i have to go)$",
    "fr": r"au revoir|a bientot|a demain|adieu|bye|ciao|je dois y aller|"
    r"^(?:(?:bon|ben|alors|et|merci|ok) )*(?:a plus|a plus tard|bonne nuit|bonne soiree|salut a tous)$",
}
_FAREWELLS = {
    "en": ("It was nice to talk to you, bye!", "Take care, and come back soon, bye!"),
    "fr": ("C'était un plaisir de parler avec vous, bye!", "Prenez soin de vous et à bientôt, bye!"),
}
_NOBODY = {
    "en": "It seems that nobody is there any more. I will be here when you come back, bye!",
    "fr": "Il semble qu'il n'y ait plus personne. Je serai là quand vous reviendrez, bye!",
}
_STILL_THERE = {
    "en": ("Are you still there?", "I can't hear you. Is the microphone on?", "Hello? I am listening."),
    "fr": ("Vous êtes toujours là ?", "Je ne vous entends pas. Le micro est-il allumé ?", "Allô ? Je vous écoute."),
}
_GO_ON = {"en": r"go on with what you were saying", "fr": r"(?:continue|continuez) ce que (?:tu disais|vous disiez)"}
_WHAT = {
    "en": r"(?:who|what) (?:are|r) you|are you (?:an? )?(?:ai|robot|human|person|machine|computer|bot|real|chatgpt|"
    r"language model|artificial intelligence|model)|(?:who|what) (?:made|built|created) you|which model|what model|"
    r"whats your model|are you a real",
    "fr": r"(?:qui|quoi) (?:es tu|etes vous)|(?:tu es|vous etes|es tu|etes vous) (?:un |une )?(?:ia|robot|humaine?|"
    r"machine|ordinateur|intelligence artificielle|personne)|qui (?:ta|vous a) (?:fait|cree)e?|quel modele",
}
_SELF = {
    "en": (
        "I am planaria-rules: a short list of rules and no language model, so don't expect too much.",
        "A small program. I look for words that I know and answer by rules; whoever set me up can put a real model in"
        " my place.",
        "Still the same rules as before, called planaria-rules. No person, and no artificial intelligence either.",
    ),
    "fr": (
        "Je suis planaria-rules : une petite liste de règles, pas un modèle de langue, alors soyez indulgent.",
        "Un petit programme. Je cherche les mots que je connais et je réponds par des règles ; on peut mettre un vrai"
        " modèle à ma place.",
        "Toujours les mêmes règles, planaria-rules. Ni une personne, ni une intelligence artificielle.",
    ),
}


def reply(talk: Talk) -> str:
    """The next thing to say; never empty."""
    if talk.kind == "unmute_explanation":
        talk = talk._replace(language="en")  # as published
    asked, language = talk.asked, talk.language
    if has(asked, _GO_ON[language]) and (rest := _rest(talk)):
        return rest
    if talk.silences >= SILENCES:
        return _NOBODY[language]
    if has(asked, _GOODBYE[language]) or asked.endswith(END.rstrip("!")):
        return talk.new(_FAREWELLS[language]) or _FAREWELLS[language][0]
    if talk.silences and not talk.is_opening:
        return talk.new(_STILL_THERE[language]) or _STILL_THERE[language][0]
    if has(asked, _WHAT[language]) and (said := talk.new(_SELF[language])):
        return said
    return _MODES[talk.kind](talk)


def _rest(talk: Talk) -> str:
    """What is left of the answer that was cut off: of that to the user's turn before this one, the words that were not
    said since. "" where all of them were."""
    last = next((at for at in range(len(talk.turns) - 2, -1, -1) if talk.turns[at].is_user), -1)
    whole = reply(talk._replace(turns=talk.turns[: last + 1])).split()
    said = plain(" ".join(turn.text for turn in talk.turns[last + 1 : -1])).split()
    while whole and plain(whole[0]) in ("", *said[:1]):
        said = said[len(plain(whole.pop(0)).split()) :]
    return " ".join(whole)
