"""People use a device through the hub, and do not notice that whoever carries their requests is killed each second.

WALL_S=60 makes each of the two runs take that many seconds; -s shows the counts. Each is killed once; with LONG=1,
twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.clone import Clone
from tests.faults.wall import GETS_PER_S, Ground, Tally, crowd, kill_in_turn, walled
from tests.rig import until

DEVICE = ("ws_link", "proxy_0", "proxy_1", "go2rtc")
ALL = ("ws_link", "proxy_0", "proxy_1", "hub", "go2rtc")
SECONDS, TURNS = int(os.environ.get("WALL_S", "0")), 2 if os.environ.get("PLANARIA_LONG") else 1
DEVICE_KILLS, ALL_KILLS = SECONDS or TURNS * len(DEVICE), SECONDS or TURNS * len(ALL)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def ground(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The suite with hub, device and an upstream of ours."""
    with walled(clone, tmp_path_factory.mktemp("wall")) as found:
        yield found


def used_while_killed(ground: Ground, names: tuple[str, ...], kills: int, label: str) -> Tally:
    """Eight clients, while one of these is killed each second; then all is as it was."""
    until(ground.is_whole, 20)
    with crowd(ground, label) as tally:
        kill_in_turn(ground, tally, names, kills)
    counted = ground.origin.counted()
    print(f"\n{label}: {tally.text(counted)}")
    assert tally.broken_promises(counted) == []
    assert set(tally.kills) == set(names) and sum(tally.kills.values()) == kills
    assert tally.gets >= 0.1 * GETS_PER_S * kills, "they did ask"
    assert [outcome for outcome, _ in tally.posts.values()].count("done") >= 0.5 * len(tally.posts) > 0
    until(ground.is_whole, 20)
    ground.works()
    return tally


def test_a_crowd_does_not_notice_kills_on_the_device(ground: Ground) -> None:
    tally = used_while_killed(ground, DEVICE, DEVICE_KILLS, "device")
    assert tally.resent == 0, "no client had to send a GET again"


def test_a_crowd_gets_all_it_wants_while_the_hub_is_killed_too(ground: Ground) -> None:
    used_while_killed(ground, ALL, ALL_KILLS, "all")


def test_no_id_was_ever_counted_twice(ground: Ground) -> None:
    counted = ground.origin.counted()
    assert counted and max(counted.values()) == 1
