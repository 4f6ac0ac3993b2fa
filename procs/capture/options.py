"""What a capture can be told. The command comes after `--`."""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from procs import settings
from procs.environment import from_environment
from procs.errors import ConfigError
from procs.flags import command_line, parse_flags, plain_flags
from procs.kinds import NAME, PATH, SWITCH, one_of, seconds, whole
from procs.settings import Layers, option

EXAMPLES = """\
  python -m procs.capture -- ffmpeg -v error -f v4l2 -i /dev/video0 -c:v libx264 -tune zerolatency -f mpegts pipe:1
  python -m procs.capture --fifo temp/streams/omega-0.ts -- sh -c 'wf-recorder ... | ffmpeg ...'
  python -m procs.capture --input h264 --fps 60 -- my-encoder --annex-b > a.ts

exit codes: 2 bad option, 3 the command can't be run, 4 no first picture, 5 reader blocked, 6 reader gone,
7 the command ended, stood still, or wrote something else, 1 anything else"""


class Capture(settings.Settings):
    """One command and where its pictures go."""

    name: str = option("", NAME, help="what log lines call it; default: made from the FIFO or the command")
    fifo: Path | None = option(None, PATH, help="feed this FIFO for ever, made if need be; default: write to stdout")
    input: str = option("auto", one_of("auto", "h264", "mpegts"), help="what the command writes")
    fps: int = option(0, whole(0, 240), help="pictures a second of bare H.264; 0: stamped as they come")
    raw: bool = option(False, SWITCH, help="the command's stdout as it is; only guard it")
    first_frame_limit_s: float = option(
        15.0, seconds(0.001, 600), env=("PLANARIA_FIRST_FRAME_LIMIT_S",), help="no picture by then: exit 4"
    )
    stall_limit_s: float = option(
        10.0, seconds(0.1, 3600), env=("PLANARIA_CAPTURE_STALL_LIMIT_S",), help="no byte for so long: exit 7"
    )
    stdout_limit_s: float = option(
        10.0, seconds(0.1, 600), env=("PLANARIA_STDOUT_LIMIT_S",), help="reader blocked for so long: exit 5"
    )
    command: tuple[str, ...] = ()

    def instance(self) -> str:
        """What tells this copy from others, for the lock above all: one writer a FIFO, whatever it is called."""
        if self.fifo:
            path = self.fifo.resolve()
            return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', path.name)[:40]}-{zlib.crc32(os.fsencode(path)):08x}"
        return self.name or f"{zlib.crc32(repr(self.command).encode()):08x}"

    def title(self) -> str:
        """What log lines call it."""
        return self.name or (self.fifo.name if self.fifo else os.path.basename(self.command[0]))

    def is_alone(self) -> bool:
        """Whether there may be one such process only."""
        return self.fifo is not None


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Capture:
    """Settings of this process. Raises ConfigError."""
    own, command = _parted(list(sys.argv[1:] if argv is None else argv))
    flags = plain_flags(Capture, own)
    if flags is None:
        parser = command_line("capture", "The pictures of any command, as MPEG-TS for go2rtc.", EXAMPLES)
        parser.usage = "python -m procs.capture [OPTION ...] -- COMMAND [ARGUMENT ...]"
        flags = parse_flags(parser, Capture, own)
    environment, env_file = from_environment(os.environ if environ is None else environ)
    chosen = settings.load(Capture, Layers(flags, environment, env_file)).but(command=command)
    if not command or not command[0]:
        raise ConfigError("no command: it comes after --; capture --help has examples")
    if chosen.raw and chosen.fifo:
        raise ConfigError("--raw hands stdout on as it is: it can't go with --fifo")
    return chosen


def _parted(argv: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Our options, and the command after the first `--`."""
    if "--" not in argv:
        return argv, ()
    at = argv.index("--")
    return argv[:at], tuple(argv[at + 1 :])
