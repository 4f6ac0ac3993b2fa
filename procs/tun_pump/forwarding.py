"""Forwarding by the kernel: switched on where peers are to reach beyond this machine, and off again where we did that.

What there was is written down before it is changed, so that it is known whoever is killed. That counts as long as this
machine is up and in this network namespace: elsewhere it is not we who have switched anything on.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from procs import log
from procs.errors import NotHere

MADE = "tun_pump.forwarding"  # in run/
_SYS = Path("/proc/sys/net")
_ALL = {4: _SYS / "ipv4/ip_forward", 6: _SYS / "ipv6/conf/all/forwarding"}
Was = dict[int, list[str]]  # version of IP -> the interfaces that forwarded by themselves, where not all did


def apply(versions: set[int], wanting: str, run_dir: Path) -> None:
    """Have these versions of IP forwarded, as these keys want it, and of the others none that we have switched on.
    Raises NotHere."""
    was = _read(run_dir / MADE)
    for version in sorted(was.keys() - versions):
        _put_back(version, was.pop(version))
        _write(run_dir / MADE, was)
    for version in sorted(versions):
        try:
            if not _is_on(_ALL[version]):
                _write(run_dir / MADE, was := was | {version: _alone(version)})
                _ALL[version].write_text("1")
                log.info("this machine forwards from now on", by=str(_ALL[version]))
        except OSError as error:
            raise NotHere(f"{wanting}: {_ALL[version]}: {error.strerror}; have root set it to 1") from None


def _put_back(version: int, alone: list[str]) -> None:
    path = _ALL[version]
    try:
        if not _is_on(path):
            return  # somebody was faster
        path.write_text("0")
        for name in alone:
            with contextlib.suppress(FileNotFoundError):
                _of(version, name).write_text("1")
    except OSError as error:
        raise NotHere(f"{path}: {error.strerror}; we have switched it on: have root set it to 0") from None
    log.info("this machine forwards no longer", by=str(path))


def _alone(version: int) -> list[str]:
    names = [path.parent.name for path in _of(version, "lo").parent.parent.glob("*/forwarding")]
    return sorted(name for name in names if name != "all" and _is_on(_of(version, name)))


def _of(version: int, interface: str) -> Path:
    return _SYS / f"ipv{version}/conf" / interface / "forwarding"


def _is_on(path: Path) -> bool:
    return path.read_text().strip() != "0"


def _read(made: Path) -> Was:
    lines = made.read_text().splitlines() if made.exists() else []
    if not lines or lines[0] != _here():
        return {}
    return {int(version): names for version, *names in map(str.split, lines[1:])}


def _write(made: Path, was: Was) -> None:
    """Whole or not at all."""
    if not was:
        made.unlink()
        return
    beside = made.with_suffix(".new")
    beside.write_text("\n".join([_here(), *(" ".join([str(version), *names]) for version, names in was.items())]))
    os.replace(beside, made)


def _here() -> str:
    """This boot, and this network namespace."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.stat('/proc/thread-self/ns/net').st_ino}"
