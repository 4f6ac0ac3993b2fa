"""The page in a browser at home watches a device in another home: straight, and by TURN once there is no other way."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests import nat
from tests.e2e import watch_rig
from tests.e2e.page_rig import Person
from tests.hub_rig import ADMIN_PASSWORD, Process
from tests.nat import Turn, World

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.needs("chromium", "turnserver", "nft", "ip", "nsenter"),
    pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not()),
]
# Between the two homes, which see each other by these addresses, nothing passes; both still have hub and TURN.
_CUT = """table inet cut {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ip saddr 203.0.113.31 ip daddr 203.0.113.41 drop
    ip saddr 203.0.113.41 ip daddr 203.0.113.31 drop
  }
}
"""


@pytest.fixture(scope="module")
def hub(world: World, turn: Turn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The hub between the homes."""
    with watch_rig.hub_in(world, turn, tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.mark.long
def test_a_way_that_closes_is_gone_around(
    world: World, hub: Process, far_browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nobody presses anything: the last picture stays until the next one comes by TURN."""
    with watch_rig.camera_in(world.device, hub, tmp_path_factory.mktemp("a device")) as camera:
        ann = Person(far_browser, f"http://127.0.0.1:{hub.port}")
        ann.go()
        ann.sign_in(ADMIN_PASSWORD)
        ann.view(camera.device_id)
        ann.press(f"Play {watch_rig.STREAM}")
        tile = ann.page.get_by_role("listitem").filter(has=ann.page.locator("video"))
        expect(tile).to_contain_text("direct")
        first = ann.frame_after()
        world.internet.rules(_CUT)
        expect(tile).to_contain_text("relayed")
        expect(tile.get_by_text("live", exact=True)).to_be_visible()
        later = ann.frame_after(first.code.frame)
        ann.frame_after(later.code.frame + 15)
        ann.close()
        assert ann.alarms == []
