"""The road of NVIDIA's own libraries: CV-CUDA makes NV12 of what OpenGL has drawn, PyNvVideoCodec encodes it.

No picture leaves the GPU, and nothing waits for it. PyNvVideoCodec 2.2 holds HELD pictures back whatever it is told,
50 ms at 60 fps, so nvenc-cuda is preferred. EndEncode drains it, but tells NVENC that the stream has ended: what that
does to the next picture's type and bits nobody has written down. It is therefore asked once, of an encoder that has
encoded the first picture to prove itself, and another one goes on.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from procs.errors import EncoderFailed, GpuLost, NotHere
from procs.headless_agent.cuda import Gpu
from procs.headless_agent.cvcuda_nv12 import Nv12, check
from procs.headless_agent.device_frame import DeviceFrame
from procs.headless_agent.dlpack import Exporter
from procs.headless_agent.encoder import AccessUnit, Picture
from procs.headless_agent.options import NO_LIBRARY, NO_NVENC, NO_SESSION, Producer
from procs.headless_agent.pictures import EglPictures
from procs.media import annexb

HELD = 3
_KEYFRAME = 2 | 4  # NV_ENC_PIC_FLAG_FORCEIDR | NV_ENC_PIC_FLAG_OUTPUT_SPSPPS
_CUDA_ERROR = re.compile(r"\bCUDA_ERROR_\w+")
_TUNING = {"ll": "low_latency", "ull": "ultra_low_latency"}
# NV_ENC_ERR_NO_ENCODE_DEVICE, _UNSUPPORTED_DEVICE, _OUT_OF_MEMORY
_REFUSALS = {1: NO_NVENC, 2: NO_NVENC, 10: NO_SESSION}

# PyNvVideoCodec can label a stream with the full range only, so that it labels none. As libav.py has it.
_TAGS = "h264_metadata=" + ":".join(
    f"{name}={value}"
    for name, value in {
        "video_full_range_flag": 0,
        "colour_primaries": 1,
        "transfer_characteristics": 1,
        "matrix_coefficients": 1,
    }.items()
)


class Vpf:
    """As Encoder. Raises NotHere without a driver of ours, or where no CUDA device draws the pictures."""

    name = "vpf"

    def __init__(self, chosen: Producer, pictures: EglPictures) -> None:
        self._chosen, self.bitrate = chosen, chosen.bitrate
        self._tags = BitStreamFilterContext(_TAGS, "h264")
        self._gpu = Gpu()
        with ExitStack() as refused:  # then another encoder may be tried
            refused.callback(self._gpu.release)
            self._session = _Session(chosen, self._gpu)
            refused.callback(self._session.release)
            check(self._gpu)
            self._scene = Nv12(self._gpu, pictures.target)
            self._frame = DeviceFrame(self._gpu, pictures, HELD)
            refused.pop_all()
        self._places = self._frame.scene()
        self._input = _Input(self._frame.memory, self._gpu.ordinal)

    def encode(self, picture: Picture, index: int, *, keyframe: bool) -> list[AccessUnit]:
        """As Encoder; its unit three pictures later, but for the first. `picture` is the one that CV-CUDA converts."""
        if self._gpu.is_serving:
            return self._drawn(keyframe)
        try:
            units = [*self._drawn(keyframe), *map(self._tagged, self._session.end())]
            if len(units) != 1:
                raise EncoderFailed(f"PyNvVideoCodec made {len(units)} units of the first picture")
            self._session.release()  # before the next is opened: there may be but one left
            self._session = _Session(self._chosen, self._gpu)
        except (NotHere, EncoderFailed):
            self._session.release()
            self._gpu.release()
            raise
        self._gpu.is_serving = True
        return units

    def _drawn(self, keyframe: bool) -> list[AccessUnit]:
        converted = self._scene.convert()
        for part in self._places:
            self._gpu.copy(converted, part)
        self._frame.write()
        return [self._tagged(unit) for unit in self._session.encode(self._input, keyframe=keyframe)]

    def _tagged(self, unit: bytes) -> AccessUnit:
        is_keyframe = annexb.is_keyframe(unit)
        if is_keyframe:  # only these have an SPS
            try:
                (packet,) = self._tags.filter(av.Packet(unit))
            except (av.FFmpegError, ValueError) as error:
                raise EncoderFailed(f"PyNvVideoCodec's keyframe is not as we expect: {error}") from None
            unit = bytes(packet)
        return AccessUnit(unit, is_keyframe)

    def set_bitrate(self, bits_per_s: int) -> None:
        """Encode at another rate from the next picture on."""
        self._chosen, self.bitrate = self._chosen.but(bitrate=bits_per_s), bits_per_s
        self._session.set_bitrate(bits_per_s, self._chosen.vbv_bits)


class _Input(Exporter):
    """Device memory as PyNvVideoCodec takes it."""

    def cuda(self) -> _Input:
        """By this it knows that a picture is on the GPU."""
        return self


class _Session:
    """One encoder of PyNvVideoCodec, in our context and stream."""

    def __init__(self, chosen: Producer, gpu: Gpu) -> None:
        self._gpu = gpu
        logging.getLogger("PyNvVideoCodec").disabled = True  # it tells of versions, in front of our own first line
        try:
            library: Any = importlib.import_module("PyNvVideoCodec")
        except (ImportError, RuntimeError) as error:
            if "libnvidia-encode.so.1: cannot open" in str(error):
                raise NotHere(NO_LIBRARY) from None
            raise NotHere(f"PyNvVideoCodec does not load: {str(error).strip().splitlines()[0]}") from None
        self._errors = (library.PyNvVCException, RuntimeError, ValueError, TypeError)
        with self._failing("open"):
            self._encoder = library.CreateEncoder(chosen.width, chosen.height, "NV12", False, **_options(chosen, gpu))
        self._held = 0

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Of what goes wrong, tell the GPU's failure from the encoder's."""
        try:
            yield
        except self._errors as error:
            if self._gpu.is_serving:
                if cause := _CUDA_ERROR.search(str(error)):
                    raise GpuLost(f"CUDA: {cause[0]} in PyNvVideoCodec") from None
                self._gpu.wait()
            raise EncoderFailed(_reason(what, str(error))) from None

    def encode(self, picture: _Input, *, keyframe: bool) -> list[bytes]:
        """The units that are ready, oldest first."""
        with self._failing("encode"):
            units = self._encoder.Encode(picture, _KEYFRAME if keyframe else 0)
        self._held += 1 - len(units)
        if self._held > HELD:
            raise EncoderFailed(f"PyNvVideoCodec holds {self._held} pictures back, not {HELD}")
        return [bytes(unit["data"]) for unit in units]

    def end(self) -> list[bytes]:
        """The units of all pictures that are held back; it takes no more."""
        with self._failing("encode"):
            return [bytes(unit["data"]) for unit in self._encoder.EndEncode()]

    def release(self) -> None:
        """Close it now, whoever still holds us, such as an exception. Nothing else may be asked then."""
        self._encoder = None

    def set_bitrate(self, bits_per_s: int, vbv_bits: int) -> None:
        """From the next picture on."""
        with self._failing("change its rate"):
            wanted = self._encoder.GetEncodeReconfigureParams()
            wanted.averageBitrate = wanted.maxBitRate = bits_per_s
            wanted.vbvBufferSize = vbv_bits
            if not self._encoder.Reconfigure(wanted):
                raise EncoderFailed(f"PyNvVideoCodec takes no {bits_per_s} bit/s")


def _options(chosen: Producer, gpu: Gpu) -> dict[str, object]:
    """It ignores keys that it does not know, and values only warn or crash, so all of them are among ours."""
    return {
        "gpu_id": gpu.ordinal,
        "cudacontext": int(gpu.ask("cuCtxGetCurrent")),
        "cudastream": gpu.stream,
        "codec": "h264",
        "preset": chosen.nvenc_preset.upper(),
        "tuning_info": _TUNING[chosen.nvenc_tune],
        "rc": chosen.nvenc_rc,
        "fps": chosen.fps,
        "gop": chosen.gop,
        "bf": 0,
        "bitrate": chosen.bitrate,
        "maxbitrate": chosen.bitrate,
        "vbvbufsize": chosen.vbv_bits,
    }


def _reason(what: str, error: str) -> str:
    """One short line of an error: they have several, with a code, NVIDIA's expression and its source files."""
    code, call = re.search(r"Error code : (\d+)", error), re.search(r"\bnvEnc\w+", error)
    if code and call:
        if call[0] == "nvEncOpenEncodeSessionEx" and int(code[1]) in _REFUSALS:
            return _REFUSALS[int(code[1])]
        return f"PyNvVideoCodec does not {what}: error {code[1]} of {call[0]}"
    cause = _CUDA_ERROR.search(error) or re.search(r"(?<=Error Type : ).+", error) or re.search(r"\S.*", error)
    return f"PyNvVideoCodec does not {what}: {cause[0] if cause else 'it does not say why'}"
