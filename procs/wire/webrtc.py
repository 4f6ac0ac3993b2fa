"""What WebRTC has two sides tell each other, as browsers write it: descriptions, candidates, and ICE servers. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec

from procs.wire.scalars import Secret, Text

Sdp = Annotated[str, msgspec.Meta(max_length=256 * 1024)]


class SessionDescription(msgspec.Struct, frozen=True):
    """An offer or an answer, as browsers write it."""

    type: Annotated[str, msgspec.Meta(pattern=r"^(?:offer|answer|pranswer|rollback)\Z")]
    sdp: Sdp


class Candidate(msgspec.Struct, frozen=True, rename="camel"):
    """One ICE candidate, as browsers write it."""

    candidate: Annotated[str, msgspec.Meta(max_length=2048)]
    sdp_mid: Text | None = None
    sdp_m_line_index: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    username_fragment: Text | msgspec.UnsetType | None = msgspec.UNSET


class IceServer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One STUN or TURN server, as browsers take it."""

    urls: Text | Annotated[list[Text], msgspec.Meta(max_length=32)]
    username: Text | None = None
    credential: Secret | None = None
    credential_type: Text | None = None

    def __repr__(self) -> str:
        return f"IceServer(urls={self.urls!r}, ...)"


IceServers = Annotated[list[IceServer], msgspec.Meta(max_length=32)]
