"""Who may speak: the names that people choose (voices.yaml), and those that a synthesiser knows itself."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from procs.errors import Refused
from procs.wire.conversation import Instructions

DEFAULT = "Watercooler"
# Of a synthesiser's own: ours, a path on its server, or one that was made of somebody's recording.
_RAW = re.compile(r"(?:slt|rms|awb|kal|espeak:[A-Za-z0-9+_-]{1,60}|custom:[!-~]{1,200}|[!-~]{0,400}/[!-~]{0,400})")


_ENGLISH = re.compile(r"slt|rms|awb|kal|espeak:en.*")


class Character(NamedTuple):
    """A voice. `voice` is what the synthesiser is asked for, `instructions` what it does if nobody says otherwise."""

    name: str
    voice: str
    instructions: Instructions | None


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    voice: str
    instructions: Instructions


@functools.cache
def known() -> tuple[Character, ...]:
    """Those with a name."""
    data = yaml.safe_load(Path(__file__).with_name("voices.yaml").read_text(encoding="utf-8"))
    written = msgspec.convert(data, list[_Written])
    return tuple(Character(each.name, each.voice, each.instructions) for each in written)


def is_english(name: str) -> bool:
    """Whether it is one that we know, and speaks English first."""
    if its := next((each for each in known() if name in (each.name, each.voice)), None):
        return not (getattr(its.instructions, "language", "") or "").startswith("fr")
    return bool(_ENGLISH.fullmatch(name))


def find(name: str) -> Character:
    """Who speaks under this name; "": the default. Raises Refused, naming those that are known."""
    wanted = name or DEFAULT
    if found := next((each for each in known() if each.name == wanted), None):
        return found
    if _RAW.fullmatch(name):
        return Character(name, name, None)
    names = ", ".join(each.name for each in known())
    raise Refused(
        f"voice {name[:60]!r}: must be one of {names}, or the synthesiser's own (slt, espeak:fr, a path with a slash)"
    )
