"""Files on disk, for files.py: the one that is sent, and what has come of one.

What is not whole yet stands in the folder as a hidden file, named by peer, name, size and time of the original, so
that the next attempt finds it. A whole one gets its name, and the original's time, in one step, after it is on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from procs import locks
from procs.agent.files import CHUNK, Offered
from procs.errors import Refused

BLOCK = 1024 * 1024
KEPT_S = 7 * 86_400.0
MAX_NUMBER = 1000  # of files of one name


class FileSource:
    """A file that is sent."""

    def __init__(self, path: Path) -> None:
        """Raises Refused for what is no file that can be read."""
        try:
            if path.exists() and not path.is_file():
                raise Refused(f"{path}: is no file; tar makes one of a folder")
            self._file = path.open("rb")
            about = os.fstat(self._file.fileno())
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}") from None
        self._path, self.name, self.size, self.modified = path, path.name, about.st_size, about.st_mtime_ns
        self._digest = hashlib.sha256()
        self._at = 0

    def begin(self, at: int) -> str:
        """As files.Source."""
        self._file.seek(0)
        self._digest = hashlib.sha256()
        self._at = 0
        while self._at < at and (data := self._file.read(min(BLOCK, at - self._at))):
            self._digest.update(data)
            self._at += len(data)
        return self._digest.hexdigest()

    def read(self) -> bytes:
        """As files.Source."""
        try:
            data = self._file.read(CHUNK)
        except OSError as error:
            raise Refused(f"{self._path}: {error.strerror}") from None
        self._at += len(data)
        about = os.fstat(self._file.fileno())
        if (about.st_size, about.st_mtime_ns) != (self.size, self.modified) or (not data and self._at != self.size):
            raise Refused(f"{self._path}: has changed while it was sent")
        self._digest.update(data)
        return data

    def digest(self) -> str:
        """As files.Source."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """It is read no more."""
        self._file.close()


class FilePart:
    """A file that comes, or has come before. `is_whole`: under its name, whatever its content may be."""

    def __init__(self, folder: Path, peer: str, offered: Offered) -> None:
        """Raises Refused when there is no room, or another process takes the same file."""
        key = hashlib.sha256(f"{peer}\0{offered.name}\0{offered.size}\0{offered.modified}".encode()).hexdigest()[:32]
        self._folder, self._offered, self._hidden = folder, offered, folder / f".{key}.part"
        self.path = folder / _visible(offered.name)
        self.is_whole = self._is_there(self.path)
        try:
            self._descriptor = self._open()
            self.at, self._sha256 = _read_all(self._descriptor)
            free = os.statvfs(folder)
        except OSError as error:
            raise Refused(f"the receiver can't write it: {error.strerror}") from None
        if free.f_bavail * free.f_frsize < offered.size - self.at:
            if not self.at:
                self._hidden.unlink()
            self.close()
            raise Refused(f"there is no room for {offered.size} bytes")

    def _is_there(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            about = path.lstat()
            return (about.st_size, about.st_mtime_ns) == (self._offered.size, self._offered.modified)
        return False

    def _open(self) -> int:
        if self.is_whole:
            return os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        descriptor = locks.try_hold(self._hidden)
        if descriptor is None:
            raise Refused("another process is receiving it")
        return descriptor

    def digest(self) -> str:
        """As files.Part."""
        return str(self._sha256.hexdigest())

    def restart(self) -> None:
        """As files.Part."""
        if self.is_whole:  # another file of that name, size and time: it stays
            self.close()
            self.is_whole, self._descriptor = False, -1
            self._descriptor = self._open()
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.at, self._sha256 = 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        """As files.Part."""
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise Refused(f"the receiver can't write it: {error.strerror}") from None
        self._sha256.update(data)
        self.at += len(data)

    def finish(self) -> str:
        """As files.Part."""
        if not self.is_whole:
            try:
                os.fchmod(self._descriptor, 0o666 & ~_umask())
                os.utime(self._descriptor, ns=(self._offered.modified, self._offered.modified))
                os.fsync(self._descriptor)
                self.path = self._named()
                _sync(self._folder)
            except (OSError, OverflowError) as error:
                raise Refused(f"it can't be kept: {getattr(error, 'strerror', None) or error}") from None
            self.is_whole = True
        self.close()
        return self.path.name

    def _named(self) -> Path:
        """Its place, which nothing of that name had before."""
        name = Path(_visible(self._offered.name))
        for number in range(MAX_NUMBER):
            place = self._folder / (f"{name.stem} ({number}){name.suffix}" if number else name)
            try:
                os.link(self._hidden, place)
            except FileExistsError:
                continue
            self._hidden.unlink()
            return place
        raise Refused(f"there are {MAX_NUMBER} files of that name")

    def close(self) -> None:
        """Others may have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def forget_old(folder: Path, wall: float) -> None:
    """Remove what has come of files whose sender has not come back for KEPT_S. Who sends one has touched it since."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if re.fullmatch(r"\.[0-9a-f]{32}\.part", part.name) and wall - part.stat().st_mtime > KEPT_S:
                part.unlink()


def _visible(name: str) -> str:
    """The name of a file that others send: where somebody happens to be, a hidden one may be what a shell reads."""
    return f"_{name[1:]}" if name.startswith(".") else name


def _read_all(descriptor: int) -> tuple[int, Any]:
    """Length and digest of what is there; the next write goes behind it."""
    digest, at = hashlib.sha256(), 0
    os.lseek(descriptor, 0, os.SEEK_SET)
    while data := os.read(descriptor, BLOCK):
        digest.update(data)
        at += len(data)
    return at, digest


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fsync(descriptor)
    os.close(descriptor)
