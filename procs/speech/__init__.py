"""Speech services behind the published protocols and ports: stt hears, tts speaks, llm answers by rules. Three programs
of one room, which know nothing of each other; nothing is downloaded at run time."""
