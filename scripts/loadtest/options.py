"""Load-test a voice backend as so many people in browsers would: by the published protocol (/v1/realtime) alone, ours
or any other that speaks it.

  scripts/loadtest_voice.py                                                one user, one conversation, here
  scripts/loadtest_voice.py --n-workers 4 --n-conversations 12
  scripts/loadtest_voice.py --server-url wss://voice.example.org/api --key-file key
  scripts/loadtest_voice.py --audio-dir recorded --json > found.json       what is said: WAV files; cough.wav is a cough
  scripts/loadtest_voice.py --turns 6 --without barge-in,cough,reconnect   as the published one

Each user hears the greeting, asks --turns questions, speaks over a reply, coughs during another, and connects again.
Figures are in seconds (--json) or ms. Speech begins and ends with the pages of sound that were sent then.
  stt_latency             begin of speech to the first word of the transcript
  vad_latency             end of speech to response.created
  llm_latency             response.created to the first word of the reply
  tts_start_latency       that word to the first sound
  tts_realtime_factor     seconds of sound by the seconds in which they came
  end_of_speech_to_sound  what one waits for, but for the network's way and the player's buffer
  barge_in_quiet          begin of speech over the bot to the last sound that came of its reply
  barge_in_told           the same to unmute.interrupted_by_vad, which may wait for the first words
  barge_in_sound_after    sound that came after that
  cough_gap               longest wait for sound in the rest of a reply that went on after a cough
  reconnect               begin of a new connection to session.updated
  late                    how late this program itself sent, at worst in a conversation
A conversation is OK if it came to its end, with a reply to each question that sounded to its end. A certificate of
your own: SSL_CERT_FILE. Progress goes to stderr.

exit codes: 0 all conversations were OK, 1 some were not, 2 a wrong option or key, 3 flite is missing, 8 the backend
says that it is not healthy, 11 nobody answers there
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from procs.errors import ConfigError
from procs.flags import command_line

LEFT_OUT = ("barge-in", "cough", "reconnect")
# The replies of the first are long enough to be spoken over.
INSTRUCTIONS = ("unmute_explanation", "smalltalk", "quiz_show", "guess_animal", "news")
MOST = 1000


def number(text: str) -> int:
    """A count of something."""
    if not text.isdigit() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST}")
    return int(text)


def left_out(text: str) -> frozenset[str]:
    """What users are not to do."""
    names = frozenset(text.split(","))
    if wrong := sorted(names - {*LEFT_OUT}):
        raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: must be some of {','.join(LEFT_OUT)}")
    return names


def options(argv: Sequence[str]) -> argparse.Namespace:
    """What the command line says. Raises ConfigError."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = command_line("loadtest_voice", " ".join(head.split()), rest)
    parser.add_argument("--server-url", metavar="URL", default="ws://127.0.0.1:8010", help="default %(default)s")
    parser.add_argument("--n-workers", metavar="N", type=number, default=1, help="users at once (default 1)")
    parser.add_argument("--n-conversations", metavar="N", type=number, help="in all (default: one for each user)")
    parser.add_argument("--turns", metavar="N", type=number, default=3, help="questions in each (default 3)")
    parser.add_argument("--without", metavar="WHAT", type=left_out, default=frozenset(), help=",".join(LEFT_OUT))
    parser.add_argument(
        "--audio-dir", metavar="FOLDER", type=Path, help="WAV files to be said (default: made by flite)"
    )
    parser.add_argument("--voice", help="the bot's (default: the first that the backend lists)")
    parser.add_argument("--instructions", choices=INSTRUCTIONS, default=INSTRUCTIONS[0], help="default %(default)s")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="holds what the backend wants to be shown")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, for programs")
    return parser.parse_args(list(argv))


def key_of(file: Path | None) -> str:
    """What to show. Raises ConfigError."""
    try:
        key = file.read_text().strip() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--key-file={str(file)!r}: cannot be read: {error}") from None
    if file and not (key.isascii() and key.isprintable() and key):
        raise ConfigError(f"--key-file={str(file)!r}: must hold one line of printable ASCII")
    return key
