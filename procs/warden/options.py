"""What the warden is told. `make up` writes it to run/warden.json, out of planaria.yaml and the environment."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from procs import settings
from procs.flags import command_line
from procs.kinds import ADDRESS, TEXT, Address, Kind, seconds
from procs.settings import Layers, option
from procs.warden.limits import LIMITS

NAME = "warden.json"
MEMORY_MB = range(16, 1_000_001)


def _ceilings(text: str) -> dict[str, int]:
    pairs = [word.partition("=") for word in text.split(",") if word]
    for program, _, value in pairs:
        if program not in LIMITS or not re.fullmatch(r"[0-9]{1,7}", value) or int(value) not in MEMORY_MB:
            raise ValueError
    return {program: int(value) * 1_000_000 for program, _, value in pairs}


# Program -> bytes; written program=MB,...
CEILINGS = Kind(_ceilings, f"{' or '.join(sorted(LIMITS))}, with megabytes from {MEMORY_MB[0]} to {MEMORY_MB[-1]}")


class Warden(settings.Settings):
    """Settings of the warden."""

    metrics: Address = option(Address("127.0.0.1", 9464), ADDRESS, help="where Prometheus finds its metrics")
    api: Address = option(Address("127.0.0.1", 1984), ADDRESS, help="go2rtc's API")
    username: str = option("", TEXT, help="of go2rtc's API")
    password: str = option("", TEXT, help="of go2rtc's API", secret=True)
    stall_limit_s: float = option(10.0, seconds(0.1, 3600), help="for how long a capture's command may be silent")
    memory: Mapping[str, int] | None = option(None, CEILINGS, help="ceilings, program=MB,...")


def load() -> Warden:
    """Settings of this process. Raises ConfigError."""
    parser = command_line("warden", "Finds what hangs.", "  supervisord starts it, as supervisord.conf says")
    parser.parse_args(sys.argv[1:])
    path = settings.run_dir() / NAME
    return settings.load(Warden, Layers(document=settings.written(path, is_needed=True), document_name=str(path)))
