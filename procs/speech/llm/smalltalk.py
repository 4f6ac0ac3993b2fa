"""Chatting about nothing much: a greeting, a few topics, and questions that keep the other one talking. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from procs.speech.llm.talk import Talk, has


class _Topic(NamedTuple):
    words: str  # a pattern of plain text
    replies: tuple[str, ...]


_GREETINGS = {
    "en": (
        "Hello! How is your day going?",
        "Hi there! What have you been up to today?",
        "Hello! Nice of you to drop in. What shall we talk about?",
        "Good to hear you! Did anything make you smile today?",
    ),
    "fr": (
        "Bonjour ! Comment se passe votre journée ?",
        "Bonjour ! Qu'avez-vous fait de beau aujourd'hui ?",
        "Bonjour ! Ça fait plaisir de vous entendre. De quoi parlons-nous ?",
    ),
}
_TOPICS = {
    "en": (
        _Topic(r"how are you|how do you do|hows it going|how is it going", (
            "I am fine, thank you: all my processes are running. And you?",
            "As well as a program can be. What about you?",
        )),
        _Topic(r"(?:tell|know|another|hear) .{0,20}joke|joke", (
            "Why did the process cross the road? Somebody had killed it, and it came back on the other side.",
            "I would tell you a joke about packets, but you might not get it.",
            "What do you call a clock that talks to itself? A time loop.",
        )),
        _Topic(r"weather|rain|raining|sunny|snow", (
            "I have no window and no forecast. What does it look like where you are?",
            "All I know of the weather is what people tell me. Do you like it warm or cold?",
        )),
        _Topic(r"what can you do|help me|can you help|how do you work", (
            "I can chat a little, ask you quiz questions, read headlines, or think of an animal for you to guess.",
            "Not much, and gladly: small talk, a quiz, and a guessing game.",
        )),
        _Topic(r"(?:turn|switch) (?:on|off)|lights?|timer|alarm", (
            "I am afraid that I can't switch anything. I can only talk about it.",
            "My rules have no hands: that is something for another program.",
        )),
        _Topic(r"thanks?|thank you", ("You are welcome!", "Any time!", "My pleasure.")),
        _Topic(r"music|song|sing|band|guitar|piano", (
            "Music, lovely. What did you listen to last?",
            "I would sing, but you have heard my voice. Do you play an instrument?",
        )),
        _Topic(r"food|eat|eating|cook|cooking|dinner|lunch|breakfast|hungry|pizza", (
            "I live on electricity, so tell me: what is the best thing you have eaten lately?",
            "Do you cook yourself, or do you let others do it?",
        )),
        _Topic(r"work|job|office|boss|school|study|studying", (
            "That sounds like a lot. What do you like best about it?",
            "And what would you do if you had the day off?",
        )),
        _Topic(r"dogs?|cats?|pets?|animals?", (
            "Animals are good company. Do you have one?",
            "If it could talk, what do you think it would complain about?",
        )),
        _Topic(r"book|read|reading|film|movie|watch|series", (
            "Would you recommend it to somebody who only knows rules?",
            "What was the last story that kept you up at night?",
        )),
        _Topic(r"travel|holiday|vacation|trip|beach|mountains?", (
            "I have only ever been on this machine. Where would you take me?",
            "Is it the journey that you like, or the being there?",
        )),
        _Topic(r"sport|football|tennis|run|running|swim|walk|walking|park", (
            "Good for you! How often do you get to do that?",
            "Fresh air is something I can only recommend. Do you go alone?",
        )),
        _Topic(r"sad|tired|ill|sick|bad|lonely|awful|terrible|stress(?:ed)?", (
            "I am sorry to hear that. Do you want to tell me what happened?",
            "That sounds hard. What usually does you good?",
        )),
        _Topic(r"good|great|fine|happy|well|wonderful|excellent|nice", (
            "I am glad to hear that! What was the best part?",
            "Lovely. May it stay that way.",
        )),
        _Topic(r"hello|hi|hey|good (?:morning|evening|afternoon)", (
            "Hello to you!", "Hi! I am all ears, or would be if I had any.",
        )),
        _Topic(r"my name is|i am called", ("Nice to meet you!", "A good name. I have only a number of a process.")),
    ),
    "fr": (
        _Topic(r"comment (?:ca va|vas tu|allez vous)|ca va", (
            "Je vais bien, merci : tous mes processus tournent. Et vous ?",
            "Aussi bien qu'un programme peut aller. Et de votre côté ?",
        )),
        _Topic(r"blague|histoire drole", (
            "Que fait un processus quand on le tue ? Il redémarre.",
            "J'ai une blague sur les paquets, mais vous risquez de ne pas la recevoir.",
        )),
        _Topic(r"temps|meteo|pluie|soleil|neige", (
            "Je n'ai pas de fenêtre. Quel temps fait-il chez vous ?",
            "Je ne sais de la météo que ce qu'on m'en dit. Vous préférez le chaud ou le froid ?",
        )),
        _Topic(r"que (?:sais|peux) tu faire|que pouvez vous faire|aide[rz]?", (
            "Je bavarde un peu, je pose des questions de quiz, et je pense à un animal qu'il faut deviner.",
            "Pas grand-chose, mais volontiers : bavarder, un quiz, une devinette.",
        )),
        _Topic(r"merci", ("Je vous en prie !", "Avec plaisir !", "De rien.")),
        _Topic(r"musique|chanson|chante[rz]?|guitare|piano", (
            "La musique, quelle bonne idée. Qu'avez-vous écouté récemment ?",
            "Je chanterais bien, mais vous connaissez ma voix. Vous jouez d'un instrument ?",
        )),
        _Topic(r"mange[rz]?|cuisine|diner|dejeuner|faim|pizza|fromage", (
            "Moi, je vis d'électricité. Quel est le meilleur plat que vous ayez mangé ces temps-ci ?",
            "Vous cuisinez vous-même ?",
        )),
        _Topic(r"travail|travaille[rz]?|bureau|ecole|etudes?", (
            "Cela fait beaucoup. Qu'est-ce qui vous y plaît le plus ?",
            "Et que feriez-vous d'un jour de congé ?",
        )),
        _Topic(r"chiens?|chats?|animal|animaux", ("Les animaux sont de bonne compagnie. En avez-vous un ?",)),
        _Topic(r"livre|lire|film|serie", ("Le conseilleriez-vous à quelqu'un qui ne connaît que des règles ?",)),
        _Topic(r"voyage[rz]?|vacances|plage|montagne", ("Je ne connais que cette machine. Où m'emmèneriez-vous ?",)),
        _Topic(r"triste|fatiguee?|malade|mal|seule?", (
            "J'en suis désolé. Voulez-vous me raconter ?",
            "Cela semble difficile. Qu'est-ce qui vous fait du bien d'habitude ?",
        )),
        _Topic(r"bien|super|content|contente|heureux|heureuse|genial", (
            "Cela me fait plaisir ! Quel a été le meilleur moment ?",
            "Parfait, que cela dure.",
        )),
        _Topic(r"bonjour|salut|bonsoir|coucou", ("Bonjour à vous !", "Salut ! Je suis tout ouïe.")),
    ),
}  # fmt: skip
_REMARKS = {
    "en": (
        "I see.",
        "That is interesting.",
        "Go on, I am listening.",
        "Fair enough.",
        "Good to know.",
        "Tell me more.",
    ),
    "fr": ("Je vois.", "C'est intéressant.", "Continuez, je vous écoute.", "D'accord.", "C'est bon à savoir."),
}
_QUESTIONS = {
    "en": (
        "How did you come to that?",
        "What is the best part of it?",
        "Have you always thought so?",
        "What would your friends say about it?",
        "When was the first time?",
        "What do you plan to do next?",
        "Is that something one can learn?",
        "Would you do it again?",
        "What surprised you most?",
        "And how does it make you feel?",
    ),
    "fr": (
        "Comment en êtes-vous arrivé là ?",
        "Qu'est-ce qui vous plaît le plus là-dedans ?",
        "Avez-vous toujours pensé cela ?",
        "Qu'en diraient vos amis ?",
        "C'était quand, la première fois ?",
        "Et que ferez-vous ensuite ?",
        "Est-ce que cela s'apprend ?",
        "Qu'est-ce qui vous a le plus surpris ?",
    ),
}
_JUST_HELLO = re.compile(r"(?:hello|hi|hey|bonjour|salut)(?: \w+){0,2}")
_CLOCK = {"en": r"what time|the time|what day|what date|todays date", "fr": r"quelle heure|quel jour|quelle date"}


def reply(talk: Talk) -> str:
    """The next thing to say."""
    if talk.is_opening and (not talk.asked or _JUST_HELLO.fullmatch(talk.asked)):
        return greeting(talk)
    return about(talk) or onward(talk)


def greeting(talk: Talk) -> str:
    """To begin with."""
    return talk.shuffled(_GREETINGS[talk.language], "greeting")[0]


def about(talk: Talk) -> str:
    """On a topic that the user's words touch; "" if there is none, or all has been said on it."""
    if talk.now and has(talk.asked, _CLOCK[talk.language]) and (told := talk.new([_clock(talk)])):
        return told
    topics = [topic for topic in _TOPICS[talk.language] if has(talk.asked, topic.words)]
    return next((said for topic in topics if (said := talk.new(topic.replies))), "")


def onward(talk: Talk) -> str:
    """A remark and a question, neither of them twice while there are others."""
    questions = talk.shuffled(_QUESTIONS[talk.language], "questions")
    remarks = talk.shuffled(_REMARKS[talk.language], "remarks")
    pairs = [f"{remark} {question}" for question in questions for remark in remarks]
    said = (talk.new(remarks), talk.new(questions))
    if all(said):
        return " ".join(said)
    return talk.new(pairs) or pairs[len(talk.turns) % len(pairs)]


def _clock(talk: Talk) -> str:
    assert talk.now
    if talk.language == "fr":
        return f"Il est {talk.now.hour} heures {talk.now.minute}, du moins là où je tourne."
    return f"It is {talk.now:%A}, and {talk.now.hour % 12 or 12}:{talk.now:%M} {talk.now:%p}, at least where I run."
