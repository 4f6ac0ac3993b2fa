"""What messages are made of: plain values, each with its limits."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Instance = Annotated[str, msgspec.Meta(max_length=64)]
ProcessName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # as the warden has it
MAX_REASON = 500
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
PayloadType = Annotated[int, msgspec.Meta(ge=0, le=127)]
Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Bits = Annotated[int, msgspec.Meta(ge=10_000, le=200_000_000)]
Text = Annotated[str, msgspec.Meta(max_length=2000)]
Rid = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_SESSION_ID = r"^[!-~]{1,128}\Z"  # it is an identity on the bus, too
SessionId = Annotated[str, msgspec.Meta(pattern=_SESSION_ID)]
EncoderName = Annotated[str, msgspec.Meta(pattern=r"^encoder \d{1,18}\Z")]  # on the bus; a session can't have it
Method = Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
Target = Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]
Status = Annotated[int, msgspec.Meta(ge=100, le=599)]
Headers = Annotated[list[tuple[str, str]], msgspec.Meta(max_length=256)]  # in order; a name may come twice
StreamName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Figure = Annotated[float, msgspec.Meta(ge=0, le=1e18)]  # and so neither infinite nor NaN
Where = Annotated[str, msgspec.Meta(max_length=100)]  # an address and a port


def is_session_id(text: str) -> bool:
    """Whether it can be the id of a session on the bus."""
    return bool(re.match(_SESSION_ID, text))
