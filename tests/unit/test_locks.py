"""The locked requirements may meet in one .venv: they agree, and say what pyproject.toml asks for."""

from __future__ import annotations

import itertools
import re
import tomllib

from procs.settings import ROOT

LOCKS = sorted(path.name for path in ROOT.glob("requirements*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def pinned(lock: str) -> dict[str, dict[str, set[str]]]:
    """By package: each pin, with the machines that it is for, and the checksums of its files."""
    found: dict[str, dict[str, set[str]]] = {}
    for pin, hashes in re.findall(r"^(\S.*==.*?) \\\n((?: +--hash=\S+.*\n)+)", (ROOT / lock).read_text(), re.M):
        found.setdefault(re.split("==", pin)[0], {})[pin] = set(re.findall(r"sha256:(\w{64})", hashes))
    return found


def test_all_of_them_are_read() -> None:
    assert [f"requirements{each}.txt" for each in ("-cuda", "-dev", "-voice", "")] == LOCKS
    assert all({"av", "pyzmq"} <= pinned(lock).keys() for lock in LOCKS)


def test_what_is_in_two_locks_is_the_same_in_both() -> None:
    for one, other in itertools.combinations(LOCKS, 2):
        first, second = pinned(one), pinned(other)
        assert {name for name in first.keys() & second.keys() if first[name] != second[name]} == set(), (
            f"{one}, {other}"
        )


def test_each_has_what_the_core_has_and_dev_has_all_of_voice() -> None:
    for lock in LOCKS:
        assert pinned("requirements.txt").keys() <= pinned(lock).keys(), lock
    assert pinned("requirements-voice.txt").keys() <= pinned("requirements-dev.txt").keys()


def test_what_egl_needs_comes_with_the_core_and_tests_run_on_the_cuda_bindings_that_are_installed() -> None:
    assert set(EXTRAS["egl"]) <= set(PROJECT["project"]["dependencies"])
    for_cuda = {each for each in PROJECT["dependency-groups"]["dev"] if each.startswith(("cuda-", "pynvvideocodec"))}
    assert len(for_cuda) == 2 and for_cuda <= set(EXTRAS["cuda"])
