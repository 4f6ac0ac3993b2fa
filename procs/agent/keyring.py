"""What an agent keeps: its own key, the keys by which it knows its peers, and those that it will never take again."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from procs import locks
from procs.errors import ConfigError, Refused
from procs.wire.envelope import timestamp
from procs.wire.scalars import Id
from procs.wire.signal import Key

T = TypeVar("T")
FOLDER = "agent"  # in the run directory
KEY_BYTES = 32
KEY_SHAPE = "a key of 44 characters, as `cli.py peers` shows it at its owner's"
MAX_PEERS = 10_000


class Pin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A peer's key, and since when we have it."""

    key: Key
    since: str = ""
    approved: bool = False  # by a person
    met: bool = False  # there was a connection with whoever has it: it was not just a name that somebody has made up


class Revoked(msgspec.Struct, frozen=True):
    """A key that nobody gets in by, under any name."""

    since: str
    peer: str = ""  # who had it, if that was known


class Book(msgspec.Struct):
    """All that is kept of others."""

    peers: dict[Id, Pin] = {}
    revoked: dict[Key, Revoked] = {}


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
    """Whom we know, in a file that several processes read and write. What changes it has returned from is on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "peers.json"
        self._seen: tuple[int, int, int] | None = None  # which file was read last; each change makes another one
        self._book = Book()

    def book(self) -> Book:
        """As it is now, to be read only. Raises ConfigError for a file that can't be read: who is in it can't be
        told."""
        try:
            its = self.path.stat()
        except FileNotFoundError:
            self._seen, self._book = None, Book()
        except OSError as error:
            raise self._unreadable(error) from None
        else:
            if self._seen != (now := (its.st_mtime_ns, its.st_ino, its.st_size)):
                self._book = self._read()
                self._seen = now
        return self._book

    def all(self) -> dict[str, Pin]:
        """Every peer by its id. Raises ConfigError."""
        return self.book().peers

    def pin(self, peer: str, key: str, *, approved: bool = False) -> Pin:
        """Keep a key for a peer, unless there is one; returns the one there is. A person who approves of one that was
        revoked has changed his mind. Raises Refused, ConfigError."""
        refuse_unnamed(peer)
        if not is_key(key):
            raise ConfigError(f"{key!r}: must be {KEY_SHAPE}")

        def change(book: Book) -> Pin:
            known = book.peers
            if approved:
                book.revoked.pop(key, None)
            elif key in book.revoked:
                raise Refused(f"the key of {peer!r} was revoked")
            if peer not in known and len(known) >= MAX_PEERS:
                self._make_room(known)
            if peer not in known or approved:
                known[peer] = Pin(key, timestamp(), approved)
            return known[peer]

        return self._change(change)

    def met(self, peer: str) -> None:
        """There is a connection with it: it stays known, however many others come. Raises ConfigError."""

        def change(book: Book) -> None:
            if pin := book.peers.get(peer):
                book.peers[peer] = msgspec.structs.replace(pin, met=True)

        if (pin := self.all().get(peer)) and not pin.met:
            self._change(change)

    def forget(self, peer: str) -> bool:
        """The next key that comes is a first one. Whether there was any."""
        return self._change(lambda book: book.peers.pop(peer, None) is not None)

    def revoke(self, who: str) -> bool:
        """Never take this key again, or the one of this peer, whose next one then has to be approved. False for who is
        neither known nor a key."""

        def change(book: Book) -> bool:
            pin = book.peers.get(who)
            if pin is None and not is_key(who):
                return False
            key = pin.key if pin else who
            had = who if pin else next((peer for peer, its in book.peers.items() if its.key == key), "")
            book.revoked.setdefault(key, Revoked(timestamp(), had))
            return True

        return self._change(change)

    def _read(self) -> Book:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Book)
        except FileNotFoundError:
            return Book()
        except (OSError, msgspec.DecodeError, UnicodeError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"{self.path}: cannot be read ({error}), so no peer is known any more; mend it, or remove it"
        )

    def _change(self, change: Callable[[Book], T]) -> T:
        lock = locks.hold(self.path.with_suffix(".lock"))
        try:
            book = self._read()
            before = msgspec.json.encode(book)
            found = change(book)
            if (now := msgspec.json.encode(book)) != before:
                _write(self.path, msgspec.json.format(now) + b"\n")
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
