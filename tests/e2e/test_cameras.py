"""The README's examples of cameras: each is run as it stands there, but for the device, which is not here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from procs.settings import ROOT
from tests import rig
from tests.decoding import frames_of
from tests.rig import until
from tests.viewers import RtspViewer

# A camera that shows black, then ever brighter grey, and is unplugged after two seconds.
CV2 = """
class Picture(bytearray):
    shape = (180, 320, 3)
    tobytes = bytearray.copy

class VideoCapture:
    def __init__(self, device):
        assert device == 0
        self.count = 0

    def read(self):
        self.count += 1
        return self.count <= 60, Picture([self.count * 4 % 256] * 320 * 180 * 3)
"""


def examples() -> dict[str, str]:
    """The commands and addresses of the section, by what they are of."""
    section = (ROOT / "README.md").read_text().partition("\n### A camera\n")[2].partition("\n### ")[0]
    found = {}
    for block in re.findall(r"```yaml\n(.*?)```", section, re.S):
        document = yaml.safe_load(block)
        (where,) = document
        found[str(document[where]["camera"]).partition(" ")[0].partition(":")[0]] = str(document[where]["camera"])
    return found


def opencv(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """The script beside a cv2 of ours."""
    environ = rig.clean_environ(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)]))
    command = [sys.executable, "scripts/opencv_camera.py", *words]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, timeout=60, check=False)


def test_each_kind_is_there() -> None:
    assert examples().keys() == {"ffmpeg", "rtsp", ".venv/bin/python"}


@pytest.mark.needs("ffmpeg")
def test_a_camera_of_video4linux_and_one_of_the_network() -> None:
    """ffmpeg's test pictures are in the place of the first; that one is the second."""
    theirs = examples()["ffmpeg"]
    assert " -f v4l2 " in theirs and " -i /dev/video0 " in theirs
    made = re.sub(r"-f v4l2 .*?-i /dev/video0", "-re -f lavfi -i testsrc2=size=320x180:rate=30", theirs)
    wrapper = f"exec:{ROOT}/scripts/go2rtc_exec_mpegts.sh -- {made}"
    with rig.go2rtc({"workers": 0}, sources={"camera": wrapper}) as camera:
        address = re.sub(r"rtsp://.*", camera.stream("camera"), examples()["rtsp"])
        with rig.go2rtc({"workers": 0, "sources": {"camera": address}}) as running:
            viewer = RtspViewer(running.rtsp, "camera")
            viewer.start()
            until(lambda: len(viewer.arrivals) > 20, 30)
            viewer.leave()


def test_what_opencv_sees(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(CV2)
    _, script, *words = examples()[".venv/bin/python"].split()
    assert script == "scripts/opencv_camera.py"
    done = opencv(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, b"")
    pictures = list(frames_of(done.stdout))
    assert [(each.width, each.height) for each in pictures] == [(320, 180)] * 60
    brightness = [bytes(each.planes[0])[0] for each in pictures]
    assert brightness == sorted(brightness) and brightness[-1] > brightness[0] + 100


def test_without_opencv_or_a_camera_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError")
    done = opencv(tmp_path)
    assert done.returncode == 3 and b"pip install opencv-python" in done.stderr
    (tmp_path / "cv2.py").write_text(CV2.replace("<= 60", "<= 0"))
    done = opencv(tmp_path)
    assert done.returncode == 3 and done.stderr.startswith(b"opencv_camera: --device 0: ")
