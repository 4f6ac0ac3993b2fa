"""Who an agent is, and whom it knows: its key, the keys of its peers, and signatures under offers and answers.

A session description holds the fingerprint of its writer's DTLS certificate. So who signs it says whom the connection
will be with, and the signalling server, through which it comes, can't put itself between. A peer's key is pinned when
it is first seen (trust first-use), or somebody has to approve it before (trust approved); with another key than the
one that is pinned nobody gets in, nor without any.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import NamedTuple, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from procs import locks, log
from procs.errors import ConfigError, Refused
from procs.wire.envelope import Id, timestamp
from procs.wire.signal import Auth, Described, Key, Offer

T = TypeVar("T")
FOLDER = "agent"  # in the run directory
KEY_BYTES = 32
KEY_SHAPE = "a key of 44 characters, as `cli.py peers` shows it at its owner's"
MAX_PEERS = 10_000
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


# What is kept


class Pin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A peer's key, and since when we have it."""

    key: Key
    since: str = ""
    approved: bool = False  # by a person
    met: bool = False  # there was a connection with whoever has it: it was not just a name that somebody has made up


class _Peers(msgspec.Struct):
    peers: dict[Id, Pin] = {}


def is_key(text: str) -> bool:
    """Whether this can be somebody's public key."""
    return _is(text, Key)


def refuse_unnamed(peer: str) -> None:
    """Raise ConfigError for what can't be an agent's name: msgspec writes it, and reads it no more."""
    if not _is(peer, Id):
        raise ConfigError(f"{peer!r}: must be 1 to 128 characters of an AGENT_ID")


def _is(text: str, kind: object) -> bool:
    with contextlib.suppress(msgspec.ValidationError):
        msgspec.convert(text, kind)
        return True
    return False


class Peers:
    """Whom we know, in a file that several processes read and write. What `pin` has returned from is on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "peers.json"

    def all(self) -> dict[str, Pin]:
        """Every peer by its id. Raises ConfigError for a file that can't be read: who is in it can't be told."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Peers).peers
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeError) as error:
            raise ConfigError(
                f"{self.path}: cannot be read ({error}), so no peer is known any more; mend it, or remove it"
            ) from None

    def pin(self, peer: str, key: str, *, approved: bool = False) -> Pin:
        """Keep a key for a peer, unless there is one; returns the one there is. Raises Refused, ConfigError."""
        refuse_unnamed(peer)
        if not is_key(key):
            raise ConfigError(f"{key!r}: must be {KEY_SHAPE}")

        def change(known: dict[str, Pin]) -> Pin:
            if peer not in known and len(known) >= MAX_PEERS:
                self._make_room(known)
            if peer not in known or approved:
                known[peer] = Pin(key, timestamp(), approved)
            return known[peer]

        return self._change(change)

    def met(self, peer: str) -> None:
        """There is a connection with it: it stays known, however many others come. Raises ConfigError."""

        def change(known: dict[str, Pin]) -> None:
            if pin := known.get(peer):
                known[peer] = msgspec.structs.replace(pin, met=True)

        if (pin := self.all().get(peer)) and not pin.met:
            self._change(change)

    def forget(self, peer: str) -> bool:
        """The next key that comes is a first one. Whether there was any."""
        return self._change(lambda known: known.pop(peer, None) is not None)

    def _change(self, change: Callable[[dict[str, Pin]], T]) -> T:
        lock = locks.hold(self.path.with_suffix(".lock"))
        try:
            known = self.all()
            before = dict(known)
            found = change(known)
            if known != before:
                _write(self.path, msgspec.json.format(msgspec.json.encode(_Peers(known))) + b"\n")
            return found
        finally:
            os.close(lock)

    def _make_room(self, known: dict[str, Pin]) -> None:
        """Whoever runs the server can make up names and keys without end."""
        names = [peer for peer, pin in known.items() if not pin.met and not pin.approved]
        if not names:
            raise Refused(f"{MAX_PEERS} peers are known already ({self.path})")
        del known[min(names, key=lambda peer: known[peer].since)]


def folder_in(run_dir: Path) -> Path:
    """Where key and peers are, made for us alone. Raises ConfigError."""
    folder = run_dir / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


def own_key(folder: Path) -> Ed25519PrivateKey:
    """The key of this machine's agents, made at the first need. Raises ConfigError for one that can't be used."""
    path = folder / "key"
    try:
        if not path.exists():
            fresh = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw())
            lock = locks.hold(path.with_suffix(".lock"))
            try:
                if not path.exists():  # made by another process meanwhile
                    _write(path, fresh + b"\n")
            finally:
                os.close(lock)
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: can be read by others, who may have it by now: remove it for a new one")
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be used: {error.strerror}") from None
    except ValueError:
        raise ConfigError(
            f"{path}: is no key of {KEY_BYTES} bytes in base64; without it, this is another agent"
        ) from None


def _write(path: Path, data: bytes) -> None:
    """As a whole or not at all; we hold its lock."""
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)  # of one that was killed
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(beside, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fsync(directory)
    os.close(directory)


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
        known = self._known(peer)
        if frame.auth is None:
            self._refuse_unsigned(peer, known)
            return False
        verify(frame, frame.auth, offer_sdp)
        if known is None:
            if self._trust.rule == "approved":
                raise Refused(
                    f"{peer!r} is not approved at {self._me!r}, where cli.py peers --approve {quote(peer)}"
                    f" {frame.auth.key} does it"
                )
            known = self.peers.pin(peer, frame.auth.key).key
            log.info("met a peer for the first time: its key is kept", peer=peer, key=known)
        if known != frame.auth.key:
            raise Refused(
                f"{peer!r} HAS ANOTHER KEY: {frame.auth.key}, and was known by {known} at {self._me!r}. Somebody may be"
                f" in its place; if it is a new one of its own: cli.py peers --forget {quote(peer)}, at {self._me!r}"
            )
        return True

    def met(self, peer: str) -> None:
        """There is a connection with this peer, who has signed for it."""
        try:
            self.peers.met(peer)
        except (ConfigError, OSError) as error:  # the connection is as good
            log.warning("it can't be kept that a peer was met", peer=peer, why=str(error))

    def _known(self, peer: str) -> str | None:
        if key := self._trust.known.get(peer):
            return key
        try:
            pin = self.peers.all().get(peer)
        except ConfigError as error:  # while it can't be read nobody gets in
            raise Refused(str(error)) from None
        return pin.key if pin else None

    def _refuse_unsigned(self, peer: str, known: str | None) -> None:
        """Raise Refused, but for who may be one of the published agents."""
        if known is not None:
            raise Refused(f"{peer!r} signs nothing, and is known by its key {known}")
        if not self._trust.allow_unsigned:
            raise Refused(f"{peer!r} signs nothing; PLANARIA_ALLOW_UNSIGNED=1 lets such agents in")
