"""A PostgreSQL of a test's own, behind a socket. Ended by pid."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig import until


class Postgres:
    """A server of the test's own, behind a socket in a directory of its own."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has 107 characters
        self._as: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self.place, "postgres")
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = self.place / "data"
        made = [*self._as, "initdb", "--no-sync", "--auth=trust", "--username=planaria", "-D", str(data)]
        subprocess.run(made, check=True, capture_output=True, cwd="/")
        self._command = [*self._as, "postgres", "-D", str(data), "-k", str(self.place), "-h", "", "-F"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For DATABASE_URL."""
        return f"postgresql://planaria@/postgres?unix_sock={self.place}/.s.PGSQL.5432"

    def start(self) -> None:
        """Start it, and wait until it serves."""
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd="/")
        until(lambda: self.sql("SELECT 1"), 20)

    def sql(self, statement: str) -> str:
        """What psql says."""
        asked = ["psql", "-h", str(self.place), "-U", "planaria", "-At", "-c", statement, "postgres"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()

    def kill(self) -> None:
        """SIGKILL to all of it: its children notice."""
        if self._process:
            self._process.kill()
            self._process.wait()
            until(lambda: not (self.place / "data/postmaster.pid").exists() or not self.sql("SELECT 1"))


@contextmanager
def serving() -> Iterator[Postgres]:
    """One server, until the end of the block."""
    server = Postgres()
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.place, ignore_errors=True)
