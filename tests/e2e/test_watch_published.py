"""A device and a viewer written from the published protocol alone watch each other through our hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from procs.settings import ROOT
from tests import hub_rig
from tests.hub_rig import Process

DEVICE = "pi-cam-001"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub that takes the published ways, with a published device of its admin's."""
    with hub_rig.process(tmp_path_factory.mktemp("hub"), PLANARIA_COMPAT="1") as running:
        command = [sys.executable, "-m", "tests.device_published", f"http://127.0.0.1:{running.port}", DEVICE]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as device:
            assert device.stdout
            assert device.stdout.readline() == "online\n"
            hub_rig.paired(running, running.admin, DEVICE)
            yield running
            device.kill()


def watched(hub: Process, device: str, *flags: str) -> dict[str, Any]:
    """What the minimal viewer reports."""
    command = [sys.executable, "-m", "tests.viewer_minimal", f"http://127.0.0.1:{hub.port}", device, *flags]
    done = subprocess.run(
        [*command, f"--token={hub.admin.token}"], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_published_device_and_a_viewer_from_the_protocol_alone(hub: Process) -> None:
    report = watched(hub, DEVICE, "--pictures", "20")
    assert (report["error"], report["ended"], report["path"]) == ("", "", "direct"), report
    frames = [frame for _, frame, _ in report["pictures"]]
    assert len(frames) >= 20 and all(later > earlier for earlier, later in pairwise(frames)), "pixels move"


def test_no_such_device(hub: Process) -> None:
    assert watched(hub, "nowhere")["error"] == "Device not found"
