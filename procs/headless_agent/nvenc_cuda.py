"""h264_nvenc of NV12 that a shader has packed and CUDA has mapped: no picture leaves the GPU, and none is held back."""

from __future__ import annotations

import av
from av.video.frame import CudaContext

from procs.errors import EncoderFailed, NotHere
from procs.headless_agent.convert import Packer
from procs.headless_agent.cuda import Gpu, Texture
from procs.headless_agent.device_frame import DeviceFrame
from procs.headless_agent.dlpack import capsule
from procs.headless_agent.encoder import AccessUnit, Picture
from procs.headless_agent.libav import Nvenc
from procs.headless_agent.options import Producer
from procs.headless_agent.pictures import EglPictures


class NvencCuda(Nvenc):
    """As Encoder. Raises NotHere without a driver of ours, or where no CUDA device draws the pictures."""

    name = "nvenc-cuda"

    def __init__(self, chosen: Producer, pictures: EglPictures) -> None:
        super().__init__(chosen, "cuda")
        self._gpu = Gpu()
        try:
            self._packer = Packer(pictures.target)
            self._texture = Texture(self._gpu, self._packer.target)
            self._picture = DeviceFrame(self._gpu, pictures)
            self._scene = self._picture.scene()
            with self._opening():
                self._frame = _frame_of(self._picture, self._gpu)
        except (NotHere, EncoderFailed):
            self._gpu.release()
            raise

    def _open(self, chosen: Producer) -> av.VideoCodecContext:
        return self._configured(chosen)  # it opens with the first picture, which brings its hw_frames_ctx

    def encode(self, picture: Picture, index: int, *, keyframe: bool) -> list[AccessUnit]:
        """As Encoder; its unit at once. `picture` is the one that the shader packs."""
        if self._gpu.is_serving:
            return [self._drawn(index, keyframe)]
        try:
            unit = self._drawn(index, keyframe)
        except (NotHere, EncoderFailed):
            del self._frame, self._context  # libav's parts of it go before the device does
            self._gpu.release()
            raise
        self._gpu.is_serving = True
        return [unit]

    def _drawn(self, index: int, keyframe: bool) -> AccessUnit:
        self._packer.draw()
        self._texture.copy(*self._scene)
        self._picture.write()
        return self._unit(self._frame, index, keyframe)


def _frame_of(picture: DeviceFrame, gpu: Gpu) -> av.VideoFrame:
    """The picture for libav. One frame serves for all: a unit comes out before the next picture goes in.

    libav is told of device 0 whatever the ordinal is: PyAV takes a stream of no other, and with the context that is
    current in this thread the number is only a name.
    """
    luma_rows = picture.memory.rows * 2 // 3
    luma = picture.memory._replace(rows=luma_rows)
    chroma = picture.memory._replace(
        address=luma.address + luma_rows * luma.pitch, rows=picture.memory.rows - luma_rows
    )
    context = CudaContext(device_id=0, primary_ctx=False, current_ctx=True, cuda_stream=gpu.stream)
    return av.VideoFrame.from_dlpack((capsule(luma, 0), capsule(chroma, 0)), format="nv12", cuda_context=context)
