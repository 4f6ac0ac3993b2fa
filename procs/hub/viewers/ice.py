"""What viewer and device may use to find each other: STUN and TURN servers, with credentials that coturn takes by
itself (its REST scheme: use-auth-secret), so that no account has to be kept anywhere. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from procs.wire.webrtc import IceServer

TTL_S = 86_400


def servers(stun: Sequence[str], turn: Sequence[str], secret: str, name: str, now: float) -> list[IceServer]:
    """Those servers, for `name`. `now` is by time.time: the end of the credentials is written in them."""
    found = [IceServer(urls=url) for url in stun]
    if turn:
        username = f"{int(now) + TTL_S}:{name}"
        found.append(IceServer(list(turn), username, credential(secret, username), "password"))
    return found


def credential(secret: str, username: str) -> str:
    """What coturn, which has the same secret, takes as this name's password."""
    return base64.b64encode(hmac.digest(secret.encode(), username.encode(), hashlib.sha1)).decode()
