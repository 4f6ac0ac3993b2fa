"""The place of a FIFO in the file system: made if there is nothing, refused if there is something else."""

from __future__ import annotations

import os
import stat

from procs.errors import ConfigError

_KINDS = {
    stat.S_IFREG: "a regular file", stat.S_IFDIR: "a directory", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def make(path: str | os.PathLike[str]) -> None:
    """See to it that there is a FIFO, for this user only where we make it. Raises ConfigError; touches nothing else."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"FIFO {os.fspath(path)!r}: cannot be made: {error.strerror}") from None
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        what = "is a symbolic link to nothing" if os.path.islink(path) else error.strerror
        raise ConfigError(f"FIFO {os.fspath(path)!r}: {what}") from None
    if not stat.S_ISFIFO(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise ConfigError(f"FIFO {os.fspath(path)!r}: is {kind}; move it away, or give another path")
