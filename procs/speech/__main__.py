"""python -m procs.speech stt|tts|llm: one of the three, until killed."""

import sys

from procs import life
from procs.speech import needs, options

if __name__ == "__main__":
    WHICH = options.which(sys.argv[1:])
    BROOD = None
    if WHICH == "stt" and not needs.missing(WHICH):
        from procs import brood

        BROOD = brood.hatch("speech_stt", "procs.speech.stt.birth", "live")
    life.run(
        f"speech_{WHICH}" if WHICH else "speech",
        options.load,
        lambda settings, alive: needs.serve(WHICH, settings, alive, BROOD),
    )
