"""What all tests share: programs they need, and one go2rtc for those that only watch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import rig


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing; with CI set that is a failure, since `make test` installs them."""
    for marker in item.iter_markers("needs"):
        missing = [program for program in marker.args if not shutil.which(program)]
        if missing and os.environ.get("CI"):
            pytest.fail(f"{missing[0]} is missing, and with CI set nothing may be skipped for that")
        if missing:
            pytest.skip(f"{missing[0]} is missing; sh scripts/setup_tests.sh says how to get it")


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory of this test's own, set for it and its children."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("PLANARIA_RUN_DIR", str(path))
    return path


@pytest.fixture(scope="module")
def streams() -> Iterator[rig.Go2rtc]:
    """go2rtc with ten small streams."""
    producer = {"width": 640, "height": 360, "fps": 30, "gop": 30, "bitrate": "2M"}
    with rig.go2rtc({"workers": 10, "producer": producer}) as running:
        yield running
