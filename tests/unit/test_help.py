"""--help of what installs more than `make up` does: nothing is installed for it, where nothing is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from procs.settings import ROOT
from tests.rig import clean_environ

PUBLISHED = ("remote_device_server.py", "start_autoconnect.sh", "loadtest_voice.py")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new one, without .venv, in which an installation fails."""
    root = tmp_path_factory.mktemp("new")
    for name in ("procs", "scripts"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "scripts/bootstrap.sh").write_text("echo installing >&2; exit 9\n")
    (root / "bin").mkdir()
    bare = root / "bin/python3"  # without the libraries of whoever runs this
    bare.write_text(f'#!/bin/sh\nexec {Path(sys.base_prefix) / "bin/python3"} -S -B "$@"\n')
    bare.chmod(0o755)
    return root


@pytest.mark.parametrize("name", PUBLISHED)
def test_help_needs_nothing_installed(checkout: Path, name: str) -> None:
    path = f"{checkout}/bin:{clean_environ()['PATH']}"
    done = subprocess.run(
        [checkout / "scripts" / name, "--help"],
        env=clean_environ(PATH=path),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ") and "exit codes:" in done.stdout
    assert not (checkout / ".venv").exists()
