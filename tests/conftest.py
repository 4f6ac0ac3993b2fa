"""What all tests share: programs and libraries they need, and one go2rtc for those that only watch."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from scripts import suite
from tests import rig
from tests.clone import Clone
from tests.examples import some_of

# Where the environment tells Python not to keep what it compiles, every process of ours that a test starts would
# compile all of it anew, and every worker all tests. (`make up` writes the bytecode, too.)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What is collected stays: to look through it for what does not costs each worker a second.
gc.disable()

# A busy machine says nothing of the code, and no time is asserted in a test.
hypothesis.settings.register_profile("planaria", deadline=None, max_examples=some_of(100))
hypothesis.settings.load_profile("planaria")


IN_TURN = ("e2e", "faults")  # the first keep the processors busy most of the time, the second wait


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Beside each other, let files that work and files that wait begin in turn. Both come before the short ones of
    unit tests, which fill the gaps at the end."""
    if not hasattr(config, "workerinput"):
        return
    folders: dict[str, dict[Path, None]] = {}
    for item in items:
        folders.setdefault(item.path.parent.name, {})[item.path] = None
    began = {
        path: (folder not in IN_TURN, place / len(paths) if folder in IN_TURN else 0.0)
        for folder, paths in folders.items()
        for place, path in enumerate(paths)
    }
    items.sort(key=lambda item: began[item.path])


def pytest_collection_finish() -> None:
    """From here on there is garbage."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a long test unless it is asked for, and one whose program or library is missing; with CI set that is a
    failure: `make test` installs them."""
    if item.get_closest_marker("long") and not os.environ.get("PLANARIA_LONG"):
        pytest.skip("is for make test LONG=1")
    for marker in item.iter_markers("needs"):
        missing = [name for name in marker.args if not _is_here(name)]
        if missing and os.environ.get("CI"):
            pytest.fail(f"{missing[0]} is missing, and with CI set nothing may be skipped for that")
        if missing:
            pytest.skip(f"{missing[0]} is missing; sh scripts/setup_tests.sh says how to get it")


def _is_here(name: str) -> bool:
    if ".so." not in name:
        return bool(shutil.which(name))
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory of this test's own, set for it and its children."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("PLANARIA_RUN_DIR", str(path))
    return path


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone in a directory with a blank in its name, ready to be brought up; ended, whatever happens. It has streams
    alone, since most tests of it start it again and again; those of the rest ask for `roles=EVERY_ROLE`."""
    made = Clone(tmp_path_factory.mktemp("a clone"))
    made.settings["roles"] = "streams"
    made.write_settings()
    made.install()
    suite.prepare_run_dir(made.root)
    yield made
    suite.kill_all(made.root)


@pytest.fixture
def down(clone: Clone) -> Iterator[Clone]:
    """The clone with nothing running; its settings are put back afterwards."""
    suite.kill_all(clone.root)
    yield clone
    suite.kill_all(clone.root)
    (clone.root / ".env").unlink(missing_ok=True)
    clone.write_settings()


@pytest.fixture(scope="module")
def streams() -> Iterator[rig.Go2rtc]:
    """go2rtc with ten small streams."""
    producer = {"width": 640, "height": 360, "fps": 30, "gop": 30, "bitrate": "2M"}
    with rig.go2rtc({"workers": 10, "producer": producer}) as running:
        yield running
