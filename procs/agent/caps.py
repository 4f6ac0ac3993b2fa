"""What an agent can do, as it says to another beside its signature. JSON as text, since it is signed byte by byte."""

from __future__ import annotations

from typing import Annotated

import msgspec

from procs.errors import Refused

Plane = Annotated[int, msgspec.Meta(ge=0, le=9)]
Address = Annotated[str, msgspec.Meta(max_length=64)]


class Caps(msgspec.Struct, frozen=True):
    """`planes`: on which it takes IP packets, the best one first; none: it wants none. `does`: what a command line is
    there for, such as chat or receive."""

    planes: Annotated[list[Plane], msgspec.Meta(max_length=8)] = []
    mtu: Annotated[int, msgspec.Meta(ge=576, le=65535)] = 1380
    vnet: bool = False
    packing: Annotated[int, msgspec.Meta(ge=0, le=9)] = 1
    addresses: Annotated[list[Address], msgspec.Meta(max_length=16)] = []
    restarts: Annotated[int, msgspec.Meta(ge=0)] = 0
    does: Annotated[str, msgspec.Meta(max_length=16)] = ""

    @property
    def text(self) -> str:
        """As it is sent and signed."""
        return msgspec.json.encode(self).decode()


def read(text: str) -> Caps:
    """What another has said. Raises Refused."""
    try:
        return msgspec.json.decode(text, type=Caps)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(f"caps: {error}"[:300]) from None
