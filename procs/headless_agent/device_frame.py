"""A whole picture as NV12 in CUDA memory: the scene's rows come from the GPU, those of the overlay from us."""

from __future__ import annotations

from procs.headless_agent.cuda import Gpu, Memory, Part
from procs.headless_agent.pictures import EglPictures


class DeviceFrame:
    """NV12: `memory` has height * 3 / 2 rows of width bytes, luma first, then U and V in turn."""

    memory: Memory

    def __init__(self, gpu: Gpu, pictures: EglPictures) -> None:
        raise NotImplementedError

    def scene(self, top: int = 0) -> tuple[Part, Part]:
        """Where luma and chroma of the scene belong, of a source whose luma rows begin at row `top` and whose chroma
        rows follow them."""
        raise NotImplementedError

    def write(self) -> None:
        """Upload the overlay of the picture that was drawn last, in the stream."""
        raise NotImplementedError
