"""A disk of a folder's own that fills up, gets slow, or can't be written to. Needs root and a loop device."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.faults.faults import CannotFault

_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h
SLOW_S, QUICK_S = 0.25, 0.05
_COMMAND_LIMIT_S = 20.0


def _command(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=_COMMAND_LIMIT_S)


@contextlib.contextmanager
def disk(folder: Path, megabytes: int = 32) -> Iterator[Path]:
    """An empty file system in the place of a folder, whose content is back afterwards."""
    with tempfile.TemporaryDirectory(prefix="planaria-disk-") as directory:
        image = Path(directory) / "image"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        try:
            _command("mkfs.ext4", "-q", "-m", "0", "-N", "512", image)
            _command("mount", "-o", "loop", image, folder)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            raise CannotFault(f"no disk can be mounted here: {error}") from None
        try:
            os.chmod(folder, 0o700)
            yield folder
        finally:
            _command("umount", "-l", folder)  # lazily: a process that is still dying must not keep it


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Not one more block can be had where a folder lies. Only for a folder on a `disk` of its own."""
    assert os.path.ismount(folder), f"{folder} shares its disk with others"
    filler = folder / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        block = bytes(1 << 20)
        while len(block) >= 512:  # by ever smaller pieces, until nothing fits
            try:
                os.write(descriptor, block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                block = block[: len(block) // 2]
        os.fsync(descriptor)
        yield
    finally:
        os.close(descriptor)
        filler.unlink()


@contextlib.contextmanager
def slow_disk(folder: Path) -> Iterator[None]:
    """Whoever writes there waits up to a quarter of a second, in a state in which nobody can be killed."""
    assert os.path.ismount(folder), f"{folder} shares its disk with others"
    descriptor = os.open(folder, os.O_RDONLY)
    over = threading.Event()

    def freeze_and_thaw() -> None:
        while not over.is_set():
            fcntl.ioctl(descriptor, _FIFREEZE, 0)
            try:
                over.wait(SLOW_S)
            finally:
                fcntl.ioctl(descriptor, _FITHAW, 0)
            over.wait(QUICK_S)

    thread = threading.Thread(target=freeze_and_thaw)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.close(descriptor)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in a folder can be made, changed or removed, by root either: each file and folder is immutable. (A busy
    file system can't be mounted read-only.)"""
    found = [path for path in folder.rglob("*") if path.is_dir() or path.is_file()]
    paths = [folder, *sorted(path for path in found if not path.is_symlink())]
    try:
        for path in paths:  # folders first: no file can come up behind us
            _immutable("+i", path)
        yield
    finally:
        for path in paths:
            _immutable("-i", path)


def _immutable(change: str, path: Path) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):
        _command("chattr", change, path)
        return
    assert not path.exists() or not path.is_file(), f"chattr {change} {path} failed"
