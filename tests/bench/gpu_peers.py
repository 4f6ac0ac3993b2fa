"""What else brings an OpenGL picture to NV12 or to NVENC: PyNvVideoCodec as its samples use it, and GStreamer.

python -m tests.bench.gpu_peers PICTURES: encode by our road and by PyNvVideoCodec's, in turn, as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

from procs.errors import EncoderFailed, NotHere
from procs.headless_agent.convert import Packer
from procs.headless_agent.cuda import Gpu, Texture
from procs.headless_agent.device_frame import DeviceFrame
from procs.headless_agent.dlpack import Exporter
from procs.headless_agent.options import Producer
from procs.headless_agent.pictures import EglPictures
from procs.settings import ROOT
from tests import rig
from tests.bench.measure import Result, median, percentile, say

SIZE = 1280, 720
GST_WARM = 60  # pictures in which it starts
LIMIT_S = 120
# The window `egl-device` needs no display; NV12 stays on the GPU.
GST = (
    "gst-launch-1.0 -q gltestsrc num-buffers={} ! video/x-raw(memory:GLMemory),width=1280,height=720 ! glcolorconvert"
    " ! video/x-raw(memory:GLMemory),format=NV12,texture-target=2D ! fakesink sync=false"
)
SAMPLE = {"codec": "h264", "preset": "P1", "tuning_info": "ultra_low_latency", "rc": "cbr", "fps": 60, "bf": 0}


class Nv12(Exporter):
    """A picture in CUDA memory, as PyNvVideoCodec takes one."""

    def cuda(self) -> Nv12:
        """As the samples' frames have it."""
        return self


class PyNvVideoCodec:
    """As its samples have it: an encoder with a stream of its own, and a picture that is done before it is given."""

    def __init__(self, pictures: EglPictures) -> None:
        try:
            library: Any = importlib.import_module("PyNvVideoCodec")
        except (ImportError, RuntimeError) as error:
            raise NotHere(f"PyNvVideoCodec: {_first_line(error)}") from None
        self._gpu = Gpu()
        self._packer, self._frame = Packer(pictures.target), DeviceFrame(self._gpu, pictures)
        self._texture, self._input = (
            Texture(self._gpu, self._packer.target),
            Nv12(self._frame.memory, self._gpu.ordinal),
        )
        try:
            self._encoder = library.CreateEncoder(*SIZE, "NV12", False, bitrate=6_000_000, **SAMPLE)
        except Exception as error:  # its own class, known only once it is imported
            raise NotHere(f"PyNvVideoCodec: {_first_line(error)}") from None

    def encode(self) -> None:
        """One picture."""
        self._packer.draw()
        self._texture.copy(*self._frame.scene())
        self._frame.write()
        self._gpu.wait()
        self._encoder.Encode(self._input)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def encoders(count: int) -> dict[str, Any]:
    """{road: [ms of each picture]} of ours and the peer's, in turn; or why they can't be had."""
    from procs.headless_agent.nvenc_cuda import NvencCuda

    chosen = Producer(renderer="egl", width=SIZE[0], height=SIZE[1])
    pictures = EglPictures(chosen)
    try:
        ours, theirs = NvencCuda(chosen, pictures), PyNvVideoCodec(pictures)
        pictures.draw(0, 0)
        ours.encode(pictures, 0, keyframe=False)
    except (NotHere, EncoderFailed) as error:
        return {"absent": str(error)}
    spent: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(1, count + 1):
        for road, encode in (
            ("nvenc_cuda", lambda index=number: ours.encode(pictures, index, keyframe=False)),
            ("pynvvideocodec", theirs.encode),
        ):
            began = time.perf_counter()
            pictures.draw(number, time.time_ns())
            encode()
            spent[road].append(1000 * (time.perf_counter() - began))
    return spent


def measure(result: Result, pictures: int) -> None:
    """Both peers, where they are."""
    _encoders(result, pictures)
    _gstreamer(result, pictures)


def _encoders(result: Result, pictures: int) -> None:
    say("encoders on the GPU")
    command = [sys.executable, "-m", "tests.bench.gpu_peers", str(pictures)]
    done = subprocess.run(
        command, cwd=ROOT, env=rig.clean_environ(), stdout=subprocess.PIPE, timeout=LIMIT_S, check=False
    )
    found: dict[str, Any] = {"absent": f"it ended with exit code {done.returncode}"}
    if done.returncode == 0:
        found = json.loads(done.stdout.splitlines()[-1])
    if reason := found.get("absent"):
        result.peers["pynvvideocodec"] = f"absent: {reason}"
        return
    result.peers["pynvvideocodec"] = (
        "Encode() of our NV12 in CUDA memory by an encoder with a stream of its own, as in its samples"
    )
    for road, times in found.items():
        result.figures[f"{road}_ms"] = round(median(times), 3)
        result.figures[f"{road}_ms_p99"] = round(percentile(times, 0.99), 3)
    result.ratio("nvenc_cuda_vs_pynvvideocodec", found["nvenc_cuda"], found["pynvvideocodec"])


def _gstreamer(result: Result, pictures: int) -> None:
    if not shutil.which("gst-launch-1.0"):
        result.peers["gstreamer"] = "absent: gst-launch-1.0 is not installed"
        return
    say("GStreamer's road from OpenGL to NV12")
    try:
        first, all_of_it = (_gst_s(count) for count in (GST_WARM, GST_WARM + pictures))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace").strip()
        result.peers["gstreamer"] = f"absent: {said.splitlines()[0] if said else error}"
        return
    result.peers["gstreamer"] = GST.format("N")
    result.figures["gst_nv12_ms"] = round(1000 * (all_of_it - first) / pictures, 3)


def _gst_s(pictures: int) -> float:
    environ = {**os.environ, "GST_GL_PLATFORM": "egl", "GST_GL_WINDOW": "egl-device"}
    began = time.monotonic()
    subprocess.run(GST.format(pictures).split(), env=environ, capture_output=True, timeout=LIMIT_S, check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    print(json.dumps(encoders(int(sys.argv[1]))), flush=True)
