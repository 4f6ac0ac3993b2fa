"""Agents on machines of their own, by the command line that people use."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from procs.settings import ROOT
from tests import hub_rig
from tests.hub_rig import Process
from tests.rig import clean_environ, until

ALONE = (*hub_rig.HUB, "--only", "signal")
LIMIT_S = 60.0


@dataclass
class Machine:
    """Somebody's, with a run directory of its own below `place`; `inside` begins a command that runs in its network."""

    hub: Process
    place: Path
    name: str
    inside: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)

    def start(
        self,
        *words: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        environ: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Run the command line. Its stderr is in `said`."""
        run_dir = self.place / self.name
        run_dir.mkdir(exist_ok=True)
        settings = {"AGENT_ID": self.name, "SIGNALING_URL": self.hub.ws("/ws/signal"), "PLANARIA_RUN_DIR": str(run_dir)}
        with (run_dir / "said").open("ab") as said:
            command = [*self.inside, sys.executable, "scripts/cli.py", *words]
            environment = clean_environ(**(settings | self.environ | (environ or {})))
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=stdin, stdout=stdout, stderr=said)

    def run(self, *words: str, data: bytes | None = None, environ: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Until it ends: exit code and standard output."""
        with ended(
            self.start(*words, stdin=subprocess.DEVNULL if data is None else subprocess.PIPE, environ=environ)
        ) as its:
            out, _ = its.communicate(data, timeout=LIMIT_S)
            return its.returncode, out

    @contextlib.contextmanager
    def listening(self, *words: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
        """Run it, once its agent is at the server."""
        (self.place / self.name).mkdir(exist_ok=True)
        (self.place / self.name / "said").write_bytes(b"")
        with ended(self.start(*words, stdin=stdin)) as its:
            until(lambda: b"* " in (self.place / self.name / "said").read_bytes(), LIMIT_S)
            yield its

    @property
    def said(self) -> str:
        """What all of its runs have told."""
        return (self.place / self.name / "said").read_text()


@contextlib.contextmanager
def ended(its: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards."""
    try:
        yield its
    finally:
        its.kill()
        its.wait()
        for pipe in (its.stdin, its.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
