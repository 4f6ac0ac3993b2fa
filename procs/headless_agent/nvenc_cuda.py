"""h264_nvenc of NV12 that a shader has packed and CUDA has mapped: no picture leaves the GPU, and none is held back."""

from __future__ import annotations

from procs.errors import NotHere
from procs.headless_agent.encoder import AccessUnit, Picture
from procs.headless_agent.options import Producer, missing_for
from procs.headless_agent.pictures import EglPictures


class NvencCuda:
    """As Encoder. Raises NotHere without a driver, or where no CUDA device draws the pictures."""

    name = "nvenc-cuda"

    def __init__(self, chosen: Producer, pictures: EglPictures) -> None:
        if reason := missing_for(self.name):
            raise NotHere(reason)
        raise NotHere("not built yet")

    bitrate = 0

    def encode(self, picture: Picture, index: int, *, keyframe: bool) -> list[AccessUnit]:
        """As Encoder; its unit at once."""
        raise NotImplementedError

    def set_bitrate(self, bits_per_s: int) -> None:
        """Encode at another rate from the next picture on."""
        raise NotImplementedError
