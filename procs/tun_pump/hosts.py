"""Names for peers: a block in a hosts file, with NAME.planaria for each that has an address of its own, and for us.

All else in the file stays byte for byte. Blocks of several suites are told apart by their run directories.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from procs import log
from procs.agent.network import Tunnel
from procs.errors import NotHere

DOMAIN = "planaria"
MADE = "tun_pump.hosts"  # in run/: the file that has a block of ours, which outlives us
LOCK_S = 5.0
_KEY = "hosts: under tunnel: in planaria.yaml"
_REMEDY = "name a file that is there and that we may write, as root may /etc/hosts, or leave hosts: out"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,240}}$){_LABEL}(?:\.{_LABEL})*")


# Pure


def block(tunnel: Tunnel, run_dir: Path) -> bytes:
    """What is to stand there; b"" for nothing."""
    begin, end = _marks(run_dir)
    lines = [f"{address} {name}.{DOMAIN}" for name, address in _named(tunnel)]
    return b"\n".join([begin, *(line.encode() for line in lines), end, b""]) if lines else b""


def changed(text: bytes, ours: bytes, run_dir: Path) -> bytes:
    """The file with this block in it, where the last one stood, or at its end; b"" for none."""
    begin, end = map(re.escape, _marks(run_dir))
    # A last line without an end gets one with our block, which is left out at the end of the block in turn.
    pattern = re.compile(rb"(?m)^%b\n(?:(?!%b$).*\n)*?%b(?:\n|\Z)" % (begin, begin, end))
    match = pattern.search(text)
    if match and not match[0].endswith(b"\n"):
        return text[: match.start()] + ours.removesuffix(b"\n") if ours else text[: match.start()].removesuffix(b"\n")
    if match:
        return text[: match.start()] + ours + text[match.end() :]
    if ours and text and not text.endswith(b"\n"):
        return text + b"\n" + ours.removesuffix(b"\n")
    return text + ours


def unnamed(tunnel: Tunnel) -> list[str]:
    """Peers whose names can't be those of hosts, or are those of others, too."""
    lower = [peer.lower() for peer in _ours(tunnel)]
    return [peer for peer in _ours(tunnel) if not _NAME.fullmatch(peer) or lower.count(peer.lower()) > 1]


def _ours(tunnel: Tunnel) -> dict[str, list[str]]:
    """Addresses by name: those of peers that are one host's, and our own."""
    found = {
        peer: [str(each.network_address) for each in networks if each.num_addresses == 1]
        for peer, networks in tunnel.allowed.items()
    }
    return ({tunnel.name: [str(address.ip) for address in tunnel.address]} if tunnel.name else {}) | found


def _named(tunnel: Tunnel) -> Iterator[tuple[str, str]]:
    without = unnamed(tunnel)
    for name, addresses in _ours(tunnel).items():
        if name not in without:
            yield from ((name, address) for address in addresses)


def _marks(run_dir: Path) -> tuple[bytes, bytes]:
    whose = os.fsencode(run_dir.resolve()).replace(b"\n", b"?")
    return b"# planaria %b: begin (made anew at each start)" % whose, b"# planaria %b: end" % whose


# The file


def apply(tunnel: Tunnel, run_dir: Path) -> None:
    """Have the names that are wanted, and none that were. Raises NotHere."""
    made = run_dir / MADE
    before = Path(os.fsdecode(made.read_bytes())) if made.exists() else None
    wanted = Path(os.path.realpath(tunnel.hosts)) if tunnel.hosts else None
    if before and before != wanted:
        _put(before, b"", run_dir)
    if wanted:
        made.write_bytes(os.fsencode(wanted))
        _put(wanted, block(tunnel, run_dir), run_dir)
        for peer in unnamed(tunnel):
            log.warning("a name that no host can have, or two have, is left out of the hosts file", peer=peer)
    elif before:
        made.unlink()


def _put(path: Path, ours: bytes, run_dir: Path) -> None:
    try:
        with os.fdopen(_locked(path), "r+b", buffering=0) as its:
            text = its.read()
            if (now := changed(text, ours, run_dir)) != text:
                _write(path, its.fileno(), text, now)
    except FileNotFoundError as error:
        if ours:
            raise NotHere(f"{_KEY}: {path}: {error.strerror}; {_REMEDY}") from None
    except OSError as error:
        raise NotHere(f"{_KEY}: {path}: cannot be written: {error.strerror}; {_REMEDY}") from None


def _locked(path: Path) -> int:
    """The file as it is now, for as long as no other suite changes it."""
    until = time.monotonic() + LOCK_S
    while True:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except BlockingIOError:
            pass
        os.close(file)
        if time.monotonic() > until:
            raise TimeoutError(errno.ETIMEDOUT, "somebody else holds it")
        time.sleep(0.01)


def _write(path: Path, file: int, text: bytes, now: bytes) -> None:
    """Another file in its place; where something is mounted over it, or nothing can be beside it, the same file."""
    beside = path.with_name(f".{path.name}.planaria")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()  # of one that was killed
        _copy(beside, file, now)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        # In one write, in which what becomes too much is blank: whoever is killed between leaves nothing torn.
        all_ = now.ljust(len(text), b"\n")
        if os.pwrite(file, all_, 0) < len(all_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        os.ftruncate(file, len(now))
        os.fsync(file)


def _copy(beside: Path, file: int, now: bytes) -> None:
    """Of the same owner, rights and labels."""
    its = os.fstat(file)
    made = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(made, "wb") as out:
        os.fchown(made, its.st_uid, its.st_gid)
        os.fchmod(made, its.st_mode & 0o7777)
        with contextlib.suppress(OSError):  # a file system without labels
            for name in os.listxattr(file):
                os.setxattr(made, name, os.getxattr(file, name))
        out.write(now)
        out.flush()
        os.fsync(made)
