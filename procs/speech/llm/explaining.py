"""What a voice system like this one does, in English. Pure."""

from __future__ import annotations

from procs.speech.llm import smalltalk
from procs.speech.llm.talk import Talk, has

_OPENING = (
    "Hello! You are talking to a voice system of three parts: one listens, one thinks and one speaks. Ask me how any of"
    " them works."
)
_PARTS = (
    (
        r"listen|listens|hear|hears|understand|recogni[sz]e|speech to text|stt|microphone|ears?",
        (
            "What you say travels as small packets of sound to a recogniser, which writes while you still talk.",
            "The recogniser also tells how likely you are to have finished, so that I don't answer into your pause.",
        ),
    ),
    (
        r"think|thinks|model|llm|brain|answer|answers|intelligent|smart",
        (
            "The part that thinks gets your words as text and answers in text. Here that is me, a list of rules; any"
            " language model with the usual interface can take my place.",
            "As it is only text in between, any language model can be given a voice that way, with all that it knows.",
        ),
    ),
    (
        r"speak|speaks|talk|voice|voices|sound|text to speech|tts|say",
        (
            "The part that speaks begins as soon as the first words of an answer are there, and does not wait for the"
            " last.",
            "Each word comes with the time at which it is spoken, so that the system knows what you have really heard.",
        ),
    ),
    (
        r"interrupt|interrupts|stop|cut",
        ("You may interrupt me at any time. I then forget what you have not heard of my answer.",),
    ),
    (
        r"fast|quick|slow|delay|latency|wait",
        ("Most of what you wait for is the pause that tells that you are done. The rest is some tenths of a second.",),
    ),
)
_MORE = (
    "The microphone and the speaker may be far away from the three parts: the system calls them up by itself.",
    "If one of the parts dies in the middle of a sentence, it is started again, and we talk on.",
    "The three parts know nothing of each other, so each can be replaced, or run on another machine.",
)


def reply(talk: Talk) -> str:
    """The next thing to say."""
    if talk.is_opening:
        return _OPENING
    asked = [options for words, options in _PARTS if has(talk.asked, words)]
    others = [options for _, options in _PARTS if options not in asked]
    return next((said for options in [*asked, _MORE, *others] if (said := talk.new(options))), "") or smalltalk.reply(
        talk
    )
