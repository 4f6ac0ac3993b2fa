"""`make test`: what failed beside others is tried alone, and what fails each time has failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from procs.settings import ROOT
from tests import again
from tests.rig import clean_environ

PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist.plugin"}  # the others cost a start 0.3 s
# Each fails so many times, in its call or when it is taken down.
TESTS = """
from pathlib import Path
import pytest

def fails(name, times):
    path = Path(name)
    count = int(path.read_text()) if path.exists() else 0
    path.write_text(str(count + 1))
    assert count >= times

@pytest.fixture
def taken_down():
    yield
    fails("down", 2)

def test_well(): pass
def test_once(): fails("once", 1)
def test_down(taken_down): pass
def test_always(): fails("always", 9)
"""


def test_what_fails_is_tried_twice_more_and_alone(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    before = tmp_path / again.LAST_FAILED  # of a run of other tests, which says nothing of this one
    before.parent.mkdir(parents=True)
    before.write_text('{"test_other.py::test_gone": true}')
    done = subprocess.run(
        [sys.executable, "-m", "tests.again", "0", "-q"],
        cwd=tmp_path,
        env=clean_environ(PYTHONPATH=str(ROOT), **PLUGINS),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == again.FAILED
    assert [(tmp_path / name).read_text() for name in ("once", "down", "always")] == ["2", "3", "3"]
    assert "test_gone" not in done.stdout
    assert done.stdout.splitlines()[-3:] == [
        "test_some.py::test_always failed 3 times, and never passed",
        "test_some.py::test_down failed 2 times, then passed alone",
        "test_some.py::test_once failed 1 time, then passed alone",
    ]


@pytest.mark.parametrize(
    ("codes", "runs"), [([0], 1), ([1, 0], 2), ([1, 1, 0], 3), ([1, 1, 1], 3), ([2], 1), ([1, 5], 2)]
)
def test_the_last_run_decides(codes: list[int], runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def run(words: list[str]) -> int:
        seen.append(words)
        return codes[len(seen) - 1]

    monkeypatch.setattr(again, "_pytest", run)
    assert again.main("3", "some/path") == codes[-1]
    assert len(seen) == runs and all(words[-1] == "some/path" for words in seen)
    assert [("-n" in words, "--last-failed" in words) for words in seen] == [(True, False)] + [(False, True)] * (
        runs - 1
    )
