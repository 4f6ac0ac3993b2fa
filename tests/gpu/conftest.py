"""One reason for all of these tests where there is no GPU."""

from __future__ import annotations

import pytest

from tests.gpu import stage


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if reason := stage.why_not():
        pytest.skip(f"no GPU path here: {reason}")
