"""Who an agent is, and whom it knows: its key, the keys of its peers, and signatures under offers and answers.

A session description holds the fingerprint of its writer's DTLS certificate. So who signs it says whom the connection
will be with, and the signalling server, through which it comes, can't put itself between. A peer's key is pinned when
it is first seen (trust first-use), or somebody has to approve it before (trust approved); with another key than the
one that is pinned nobody gets in, nor without any, and with one that was revoked nobody under any name.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from procs import log
from procs.agent.keyring import Book, Peers, own_key
from procs.errors import ConfigError, Refused
from procs.wire.signal import Auth, Described, Offer

_HEADING = "planaria-signal-1"


# Signatures


def signed_text(frame: Described, caps: str, offer_sdp: str = "") -> bytes:
    """What is signed of an offer; of an answer, with the offer that it answers. No line but the last, which is JSON,
    can hold a line's end."""
    if isinstance(frame, Offer):
        kind, described = "offer", [_digest(frame.sdp)]
    else:
        kind, described = "answer", [_digest(frame.sdp), _digest(offer_sdp)]
    return "\n".join([_HEADING, kind, frame.sender, frame.to, frame.session, *described, caps]).encode()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def public_key(private: Ed25519PrivateKey) -> str:
    """What others know us by."""
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


def sign(private: Ed25519PrivateKey, frame: Described, caps: str, offer_sdp: str = "") -> Described:
    """The frame with who wrote it and what it can do."""
    signature = base64.b64encode(private.sign(signed_text(frame, caps, offer_sdp))).decode()
    return msgspec.structs.replace(frame, auth=Auth(public_key(private), signature, caps))


def verify(frame: Described, auth: Auth, offer_sdp: str = "") -> None:
    """Raise Refused unless whoever has this key wrote this frame."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(auth.key))
        key.verify(base64.b64decode(auth.signature), signed_text(frame, auth.caps, offer_sdp))
    except (InvalidSignature, ValueError):
        raise Refused(f"the signature of {frame.sender!r} is wrong: somebody has changed what it said") from None


# Who we are


class Trust(NamedTuple):
    """Whom to let in. `known`: keys by peer that the settings name, which count more than the file."""

    rule: str = "first-use"  # or "approved"
    allow_unsigned: bool = False
    known: Mapping[str, str] = {}


FIRST_USE = Trust()


class Identity:
    """One agent's, for its sessions. Raises ConfigError."""

    def __init__(self, me: str, folder: Path, trust: Trust = FIRST_USE) -> None:
        self._me, self._trust = me, trust
        self._private, self.peers = own_key(folder), Peers(folder)
        self._last = Book()

    @property
    def key(self) -> str:
        """What others know us by."""
        return public_key(self._private)

    def signed(self, frame: Described, caps: str, offer_sdp: str = "") -> Described:
        """The frame with our signature in it."""
        return sign(self._private, frame, caps, offer_sdp)

    def check(self, frame: Described, offer_sdp: str = "") -> bool:
        """Whether it is signed, by whom it says. Raises Refused for a wrong signature or key, and for none where one
        has to be."""
        peer = frame.sender
        if frame.to != self._me:
            raise Refused(f"what {peer!r} says is for {frame.to!r}")
        try:
            book = self.peers.book()
        except ConfigError as error:  # while it can't be read nobody gets in
            raise Refused(str(error)) from None
        known = self._known(peer, book)
        if frame.auth is None:
            self._refuse_unsigned(peer, known)
            return False
        verify(frame, frame.auth, offer_sdp)
        key = frame.auth.key
        if key in book.revoked:
            raise Refused(f"{peer!r} has a key that was revoked at {self._me!r}: {key}")
        if known is None:
            if self._trust.rule == "approved":
                raise Refused(f"{peer!r} is not approved at {self._me!r}, where {_approving(peer, key)} does it")
            known = self.peers.pin(peer, key).key
            log.info("met a peer for the first time: its key is kept", peer=peer, key=known)
        if known != key and known in book.revoked:
            raise Refused(
                f"{peer!r} has a new key, {key}, and its old one was revoked at {self._me!r}, where this one has to be"
                f" approved: {_approving(peer, key)}"
            )
        if known != key:
            raise Refused(f"{peer!r} HAS ANOTHER KEY: {key}, {self._unlike(peer, known)}")
        return True

    def trusted(self, peer: str) -> str:
        """The key by which this peer is let in now, "" if there is none. While the file can't be read it is as it was
        last: what is there already stays."""
        with contextlib.suppress(ConfigError):
            self._last = self.peers.book()
        known = self._known(peer, self._last)
        return known if known and known not in self._last.revoked else ""

    def why_not(self, peer: str, key: str) -> str:
        """Why a connection of this peer, which has come by this key, has to end; "" while it is as good as ever."""
        trusted = self.trusted(peer)
        if trusted == key:
            return ""
        if key in self._last.revoked:
            return "its key was revoked"
        return "its key was replaced by another" if trusted else "its key is not known any more"

    def met(self, peer: str) -> None:
        """There is a connection with this peer, who has signed for it."""
        try:
            self.peers.met(peer)
        except (ConfigError, OSError) as error:  # the connection is as good
            log.warning("it can't be kept that a peer was met", peer=peer, why=str(error))

    def _unlike(self, peer: str, known: str) -> str:
        """What its key differs from, and what to do where it is a new one of its own. Both sides read it."""
        at = f"at {self._me!r}"
        if self._trust.known.get(peer):
            return (
                f"which differs from key: in planaria.yaml (tunnel: peers: {peer}) {at}, {known}. Somebody may be in"
                f" its place; if it is its own: write it there, and make up, {at}"
            )
        return (
            f"and was known by {known} {at}. Somebody may be in its place; if it is a new one of its own:"
            f" cli.py peers --forget {quote(peer)}, {at}"
        )

    def _known(self, peer: str, book: Book) -> str | None:
        pin = book.peers.get(peer)
        return self._trust.known.get(peer) or (pin.key if pin else None)

    def _refuse_unsigned(self, peer: str, known: str | None) -> None:
        """Raise Refused, but for who may be one of the published agents."""
        if known is not None:
            raise Refused(f"{peer!r} signs nothing, and is known by its key {known}")
        if not self._trust.allow_unsigned:
            raise Refused(f"{peer!r} signs nothing; PLANARIA_ALLOW_UNSIGNED=1 lets such agents in")


def _approving(peer: str, key: str) -> str:
    return f"cli.py peers --approve {quote(peer)} {key}"
