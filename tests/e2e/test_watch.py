"""Watch sessions as they must be seen to work: from NAT to NAT, many viewers of one pull, processes killed meanwhile,
and viewers who go wrong in every way. The long forms: PLANARIA_LONG=1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests import nat
from tests.e2e import watch_rig
from tests.hub_rig import Process
from tests.nat import Turn, World

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.needs("chromium", "turnserver", "nft", "ip", "nsenter"),
    pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not()),
]
PUBLISHED = "pi-cam-001"


@pytest.fixture(scope="module")
def hub(world: World, turn: Turn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The hub between the homes; the tests run beside it."""
    with watch_rig.hub_in(world, turn, tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def token(hub: Process) -> str:
    """Of the hub's admin, whose devices all of these are."""
    return watch_rig.token_of(hub)


def plays(report: dict[str, Any]) -> bool:
    """Whether pixels moved."""
    frames = [frame for _, frame, _ in report["pictures"]]
    return len(frames) > 10 and all(later > earlier for earlier, later in pairwise(frames))


@pytest.mark.parametrize("symmetric", [False, True], ids=["direct", "relayed"])
def test_a_published_device_and_a_viewer_of_the_protocol_alone(
    world: World, hub: Process, token: str, *, symmetric: bool
) -> None:
    world.nat(symmetric=symmetric)
    with watch_rig.published(world.device, hub, PUBLISHED):
        report = watch_rig.report(watch_rig.minimal(world.viewer, hub, token, PUBLISHED))
    assert plays(report) and report["path"] == ("relayed" if symmetric else "direct"), report
