"""The small internet of tests/nat.py is what it says: go2rtc's own WebRTC plays in Chromium from NAT to NAT, directly
through cone NATs and by coturn alone through symmetric ones."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from procs import proc
from procs.settings import ROOT
from tests import nat, rig
from tests.e2e import player
from tests.nat import Turn, World
from tests.rig import until

pytestmark = [
    pytest.mark.needs("chromium", "turnserver", "nft", "ip", "nsenter"),
    pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not()),
]


@pytest.mark.parametrize("symmetric", [False, True], ids=["cone", "symmetric"])
def test_go2rtcs_own_webrtc_plays_from_nat_to_nat(
    world: World, turn: Turn, far_browser: Browser, *, symmetric: bool
) -> None:
    world.nat(symmetric=symmetric)
    username, credential = turn.credentials()
    servers: list[dict[str, Any]] = [
        {"urls": [turn.stun_url]},
        {"urls": [turn.url], "username": username, "credential": credential},
    ]
    page = far_browser.new_page()
    player.remember(page)
    page.goto("about:blank")
    with ExitStack() as stack:
        stack.enter_context(world.device.entered())
        producer = {"width": 320, "height": 180, "fps": 30}
        webrtc = {"listen": ":8555", "candidates": [], "ice_servers": servers}
        go2rtc = stack.enter_context(rig.go2rtc({"workers": 1, "producer": producer}, webrtc=webrtc))
        player.answer(page, asked(go2rtc, player.offer(page, servers)))
        until(lambda: len({picture.code.frame for picture in player.pictures(page)}) > 10, 20, 0.05)
        said = until(lambda: player.stats(page))
    page.close()
    assert player.path_of(said) == ("relayed" if symmetric else "direct"), said
    assert said["codec"] == "video/H264"


def asked(go2rtc: rig.Go2rtc, offer: str) -> str:
    """The answer of go2rtc's own WebRTC."""
    with closing(http.client.HTTPConnection(go2rtc.api.host, go2rtc.api.port, timeout=20)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/api/webrtc?src=omega-0", player.asked_go2rtc(offer), headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return str(json.loads(body)["sdp"])


def test_nothing_is_left_of_a_world(tmp_path: Path) -> None:
    """Neither a process nor an interface, and it was never to be seen from here."""
    here = Path("/proc/net/dev").read_text().splitlines()[2:]
    with nat.world() as world, nat.turn(world.turn, tmp_path):
        holders = [place.holder.pid for place in world.places]
        assert [line.split(":")[0] for line in Path("/proc/net/dev").read_text().splitlines()[2:]] == [
            line.split(":")[0] for line in here
        ]
    assert not any(Path(f"/proc/{pid}").exists() for pid in holders)


def test_a_world_ends_with_whoever_made_it() -> None:
    """However that ends: a run of tests that is killed leaves no namespaces behind."""
    program = (
        "import time\nfrom tests import nat\nmade = nat.World()\n"
        "print(*[place.holder.pid for place in made.places], flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout
        holders = [int(pid) for pid in maker.stdout.readline().split()]
        assert len(holders) == 7
        maker.kill()
    until(lambda: not any(proc.is_alive(pid) for pid in holders))
