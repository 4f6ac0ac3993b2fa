"""One running suite for all tests that do faults to a whole one: a producer of ours, a capture, and hooks in both."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

import pytest

from scripts import suite
from tests.clone import Clone
from tests.faults import faults
from tests.faults.subject import CAPTURE, SETTINGS, Subject, watched


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Skip what needs a disk of its own where nobody may mount one: in a container, say."""
    try:
        return (yield)
    except faults.CannotFault as why:
        if fixturedef.argname not in ("own_disk", "on_its_own_disk"):
            raise
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def hooked(clone: Clone) -> Iterator[Clone]:
    """The clone, set up with one stream and one capture, whose Pythons can be hung, can loop and leak; not up."""
    suite.kill_all(clone.root)
    clone.write_settings(**SETTINGS)
    with faults.hooks(clone.root):
        yield clone
        suite.kill_all(clone.root)
    clone.write_settings()


@pytest.fixture(scope="module")
def running(hooked: Clone) -> Iterator[Subject]:
    """That suite, up and watched."""
    with brought_up(hooked) as subject:
        yield subject


@contextlib.contextmanager
def brought_up(clone: Clone, **environ: str) -> Iterator[Subject]:
    """A clone's suite, up and watched; down at the end."""
    try:
        _up(clone, environ)
        with watched(clone, "omega-0", CAPTURE) as subject:
            yield subject
    finally:
        suite.kill_all(clone.root)


def _up(clone: Clone, environ: dict[str, str]) -> None:
    done = clone.cli("up", environ=environ)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def subject(hooked: Clone, running: Subject) -> Subject:
    """That suite, all well, whatever a test before has left of it."""
    return mended(running, hooked)


def mended(running: Subject, clone: Clone, **environ: str) -> Subject:
    """A suite with all well: started anew where it is not."""
    try:
        running.settle(5)
    except AssertionError:
        suite.kill_all(clone.root)
        _up(clone, environ)
        running.settle()
    return running
