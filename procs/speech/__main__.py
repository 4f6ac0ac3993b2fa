"""python -m procs.speech stt|tts|llm: one of the three, until killed."""

import sys

from procs import brood, life
from procs.speech import options, shell

if __name__ == "__main__":
    WHICH = options.which(sys.argv[1:])
    BROOD = brood.hatch("speech_stt", "procs.speech.stt.birth", "live") if WHICH == "stt" else None
    life.run(
        f"speech_{WHICH}" if WHICH else "speech",
        options.load,
        lambda settings, alive: shell.serve(WHICH, settings, alive, BROOD),
    )
