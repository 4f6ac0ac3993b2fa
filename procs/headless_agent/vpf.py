"""The road of NVIDIA's own libraries: CV-CUDA makes NV12 of what OpenGL has drawn, PyNvVideoCodec encodes it."""

from __future__ import annotations

from procs.errors import NotHere
from procs.headless_agent.encoder import AccessUnit, Picture
from procs.headless_agent.options import Producer, missing_for
from procs.headless_agent.pictures import EglPictures


class Vpf:
    """As Encoder. Raises NotHere without a driver, or where no CUDA device draws the pictures."""

    name = "vpf"

    def __init__(self, chosen: Producer, pictures: EglPictures) -> None:
        if reason := missing_for(self.name):
            raise NotHere(reason)
        raise NotHere("not built yet")

    bitrate = 0

    def encode(self, picture: Picture, index: int, *, keyframe: bool) -> list[AccessUnit]:
        """As Encoder; its unit three pictures later, but for the first."""
        raise NotImplementedError

    def set_bitrate(self, bits_per_s: int) -> None:
        """Encode at another rate from the next picture on."""
        raise NotImplementedError
