"""A checkout of its own for tests that run `make up` as a person does."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from procs import proc
from procs.settings import ROOT
from scripts import suite
from tests.rig import clean_environ, free_port

_BEING_WRITTEN = shutil.ignore_patterns("*.pyc.*")
EVERY_ROLE = "hub device streams"
_FIRST_LINE = b"#!" + bytes(ROOT / ".venv/bin/python") + b"\n"
# As pip writes it where there is a blank in the path.
_FIRST_LINES = b"#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n" % bytes(ROOT / ".venv/bin/python")


class Clone:
    """A checkout of its own, with ports of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        self.api, self.rtsp, self.webrtc, self.metrics, self.hub = (f"127.0.0.1:{free_port()}" for _ in range(5))
        self.settings: dict[str, object] = {"producer": {"width": 320, "height": 180, "fps": 30}}
        self.write_settings()

    def install(self, locked: str = "requirements.txt") -> None:
        """Give it what `make up` would install and fetch, as links to ours: that takes a second, not half a minute."""
        link_venv(self.root, locked=locked)
        link_compiled(self.root)
        if (ROOT / "go2rtc/bin").is_dir():
            shutil.copytree(ROOT / "go2rtc/bin", self.root / "go2rtc/bin", copy_function=_link)

    def write_settings(self, **more: object) -> None:
        """planaria.yaml with the ports, the common settings, and more."""
        ports = {"api": self.api, "rtsp": self.rtsp, "webrtc": self.webrtc, "metrics": self.metrics}
        document = {**ports, "hub": {"listen": self.hub}, **self.settings, **more}
        (self.root / "planaria.yaml").write_text(yaml.safe_dump(document))

    def make(self, target: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a make target in it."""
        return self.run("make", "--no-print-directory", target, environ=environ)

    def cli(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run scripts/cli.py in it; its exit code is not changed by make."""
        return self.run(".venv/bin/python", "scripts/cli.py", *words, environ=environ)

    def run(self, *command: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run any command in its root."""
        return subprocess.run(
            command,
            cwd=self.root,
            env=clean_environ(**(environ or {})),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def stream(self, name: str) -> str:
        """The RTSP address of a stream."""
        return f"rtsp://{self.rtsp}/{name}"

    def supervised(self) -> list[int]:
        """Pids of supervisord and of all that it says it runs; with no viewer there should be nothing else."""
        return sorted([proc.supervisord(self.root), *(p.pid for p in suite.processes(self.root) if p.pid)])

    def living(self) -> list[int]:
        """Pids of its processes."""
        return proc.marked(self.root)


def link_compiled(root: Path) -> None:
    """Give a copy of ours the bytecode of our own code, as links to ours. It holds as long as the copy's files have the
    times and sizes of ours."""
    for path in (path for folder in ("procs", "scripts") for path in (ROOT / folder).rglob("__pycache__")):
        shutil.copytree(path, root / path.relative_to(ROOT), copy_function=_link, ignore=_BEING_WRITTEN)


def link_venv(root: Path, place: Path | None = None, locked: str = "requirements.txt") -> None:
    """Make `root`/.venv of links to ours, with what `locked` names and nothing that only tests need. `place`: what its
    checkout is called, where that is not `root`."""
    unwanted = _not_named(locked)

    def ignored(folder: str, names: list[str]) -> set[str]:
        return _BEING_WRITTEN(folder, names) | (unwanted if os.path.basename(folder) == "site-packages" else set())

    shutil.copytree(ROOT / ".venv", root / ".venv", symlinks=True, copy_function=_link, ignore=ignored)
    # These say where their checkout is.
    venv = root / ".venv"
    for path in [venv / "pyvenv.cfg", venv / "stamp", *venv.glob("bin/*"), *venv.glob("lib/*/*/planaria.pth")]:
        data, mode = path.read_bytes(), path.stat().st_mode
        if not path.is_symlink() and bytes(ROOT) in data:
            path.unlink()  # it is a link to ours
            data = data.replace(_FIRST_LINE, _FIRST_LINES)
            path.write_bytes(data.replace(bytes(ROOT), bytes(place or root)))
            path.chmod(mode)


@functools.cache
def _not_named(locked: str) -> set[str]:
    """What lies in site-packages and belongs to nothing that is locked there, nor to what a new .venv has."""
    named = re.findall(r"^([\w.-]+)==", (ROOT / locked).read_text(), re.M)
    wanted = {_plain(name) for name in (*named, "pip", "setuptools")}
    ours, others = set[str](), set[str]()
    for each in importlib.metadata.distributions():
        files = (each.read_text("RECORD") or "").splitlines()  # `each.files` makes paths of all 20,000
        found = ours if _plain(each.name) in wanted else others
        found.update(re.split("[/,]", file, maxsplit=1)[0] for file in files)
    return others - ours


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of error that are neither progress nor make's own."""
    return [line for line in done.stderr.splitlines() if line.startswith("planaria: ")]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
