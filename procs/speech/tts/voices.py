"""Names of voices, ours and the published ones, and what speaks them. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from procs.errors import Refused

FLITE = {"slt": "slt", "rms": "rms", "awb": "awb", "kal": "kal16"}  # kal itself has 8 kHz
_ESPEAK = re.compile(r"espeak:([a-z]{2,8}(?:-[a-z0-9]{1,8}){0,3})(\+[A-Za-z0-9_]{1,20})?")


class Voice(NamedTuple):
    """Who speaks."""

    program: str  # flite or espeak-ng
    name: str

    def __str__(self) -> str:
        return f"espeak:{self.name}" if self.program == "espeak-ng" else self.name.removesuffix("16")


DEFAULT = Voice("flite", FLITE["slt"])
_FRENCH = Voice("espeak-ng", "fr")
# Words in the paths of the published voices that say how they should sound; the first that is found decides.
_PUBLISHED = (
    ("fr", _FRENCH),
    ("developpeuse", Voice("espeak-ng", "fr+f3")),
    ("fabieng", _FRENCH),
    ("degaulle", _FRENCH),
    ("charles", _FRENCH),
    ("gertrude", Voice("flite", FLITE["awb"])),
    ("440565", Voice("flite", FLITE["awb"])),  # her recording; the next that of a quiz's host
    ("519189", Voice("flite", FLITE["rms"])),
    ("developer", Voice("flite", FLITE["rms"])),
    ("awkward", Voice("flite", FLITE["rms"])),
    ("male", Voice("flite", FLITE["rms"])),
    ("man", Voice("flite", FLITE["rms"])),
    ("p329", DEFAULT),
)


def is_ours(name: str) -> bool:
    """Whether a name says all of how it sounds; in the place of any other one of ours speaks."""
    return name in FLITE or name.startswith("espeak:")


def of(name: str) -> Voice:
    """The voice of a name: ours (slt, rms, awb, kal, espeak:fr, espeak:en-gb+f2), else, as the published server has it,
    a default one for a path that is not known here. Raises Refused for a language of espeak-ng's that is no name."""
    if name in FLITE:
        return Voice("flite", FLITE[name])
    if name.startswith("espeak:"):
        if not (match := _ESPEAK.fullmatch(name)):
            raise Refused(f"voice {name[:60]!r}: must be espeak:LANGUAGE or espeak:LANGUAGE+VARIANT, as espeak:fr+f2")
        return Voice("espeak-ng", match[1] + (match[2] or ""))
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return next((voice for word, voice in _PUBLISHED if word in words), DEFAULT)
