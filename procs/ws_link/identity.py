"""Who this device is: made once, and kept in run/device.json. Durable before anybody hears of it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from procs import locks
from procs.errors import ConfigError

FILE = "device.json"


class Identity(msgspec.Struct, frozen=True):
    """Id, secret, and the instance that tells this installation from a copy with the same two."""

    device_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    secret: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    instance: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]

    def __repr__(self) -> str:
        return f"Identity(device_id={self.device_id!r}, ...)"


def load(run_dir: Path, device_id: str = "", secret: str = "") -> Identity:
    """The identity in the file, which is made if it is not there; a given id or secret stands in for its own.

    Raises ConfigError if the file is there and can't be used: a new identity would need pairing again, so that is for
    a person to decide.
    """
    path = run_dir / FILE
    lock = locks.hold(run_dir / "device.lock")  # two that start at once must not make two
    try:
        kept = _read(path) if path.exists() else _made(path, device_id, secret)
    finally:
        os.close(lock)
    return Identity(device_id or kept.device_id, secret or kept.secret, kept.instance)


def _read(path: Path) -> Identity:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except (OSError, msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(f"{path}: cannot be used: {error}; without it, this becomes a new device") from None


def _made(path: Path, device_id: str, secret: str) -> Identity:
    made = Identity(
        device_id or f"planaria-{secrets.token_hex(6)}", secret or secrets.token_urlsafe(32), secrets.token_hex(8)
    )
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)  # of one that was killed; we have the lock
    try:
        _write(temporary, msgspec.json.encode(made) + b"\n")
        os.replace(temporary, path)
        _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    return made


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
