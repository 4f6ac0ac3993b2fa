"""What tests of pages share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests import nat
from tests.e2e.chromium import chromium
from tests.nat import Turn, World


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Hub, TURN server and two homes."""
    with nat.world() as made:
        yield made


@pytest.fixture(scope="module")
def turn(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turn]:
    """Its coturn."""
    with nat.turn(world.turn, tmp_path_factory.mktemp("turn")) as running:
        yield running


@pytest.fixture(scope="module")
def far_browser(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium in the viewer's home."""
    program = world.viewer.wrapper(tmp_path_factory.mktemp("browser"), str(shutil.which("chromium")))
    with chromium(str(program)) as browser:
        yield browser
