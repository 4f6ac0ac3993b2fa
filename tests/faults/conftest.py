"""One running suite for all tests that do faults to a whole one: a producer of ours, a capture, and hooks in both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts import suite
from tests.clone import Clone
from tests.faults import faults
from tests.faults.subject import CAPTURE, COMMAND, Subject, watched


@pytest.fixture(scope="package")
def hooked(clone: Clone) -> Iterator[Clone]:
    """The clone, set up with one stream and one capture, whose Pythons can be hung, can loop and leak; not up."""
    suite.kill_all(clone.root)
    clone.write_settings(workers=1, captures={CAPTURE: COMMAND})
    with faults.hooks(clone.root):
        yield clone
        suite.kill_all(clone.root)
    clone.write_settings()


@pytest.fixture(scope="module")
def subject(hooked: Clone) -> Iterator[Subject]:
    """That suite, up and watched."""
    done = hooked.make("up")
    assert done.returncode == 0, done.stderr
    with watched(hooked, "omega-0", CAPTURE) as running:
        yield running
    suite.kill_all(hooked.root)
