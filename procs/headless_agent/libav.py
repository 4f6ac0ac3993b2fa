"""H.264 in this process by PyAV: libx264 on the CPU, h264_nvenc on NVIDIA's GPUs. One picture in, one unit out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

import av
import av.logging
from av.video.frame import PictureType

from procs.errors import EncoderFailed, NotHere
from procs.headless_agent.encoder import AccessUnit, Picture
from procs.headless_agent.options import NO_LIBRARY, NO_NVENC, NO_SESSION, Producer, no_nvidia_driver

_BT709, _BT601 = 1, 6  # ITU-T H.273, tables 2 to 4; 6 is SMPTE 170M
_LIMITED_RANGE = 1
_CUDA_ERROR = re.compile(r"(cu\w+)\(.* failed -> (CUDA_ERROR_\w+): (.+)")  # in its words, told as cuda.py does
_REFUSALS = {  # libav's words for what we say better
    "no encode device (1)": NO_NVENC,
    "unsupported device (2)": NO_NVENC,
    "OpenEncodeSessionEx failed: out of memory (10)": NO_SESSION,
    "Cannot load libnvidia-encode.so.1": NO_LIBRARY,  # it goes on to say that the driver is too old
}


class Libav:
    """Constant bit rate with a small buffer: only then do both take another rate while they run."""

    name = ""
    kind = ""  # for reasons: those of a kind often have the same, which is then said once
    codec: Literal["libx264", "h264_nvenc"]

    def __init__(self, chosen: Producer, pixel_format: str) -> None:
        self._chosen, self._pixel_format = chosen, pixel_format
        self._context = self._open(chosen)
        self.bitrate = chosen.bitrate

    def _options(self, chosen: Producer) -> dict[str, str]:
        raise NotImplementedError

    def _open(self, chosen: Producer) -> av.VideoCodecContext:
        context = self._configured(chosen)
        with self._opening():
            context.open()
        return context

    def _configured(self, chosen: Producer) -> av.VideoCodecContext:
        context = av.VideoCodecContext.create(self.codec, "w")
        context.width, context.height, context.pix_fmt = chosen.width, chosen.height, self._pixel_format
        context.time_base, context.framerate = Fraction(1, chosen.fps), Fraction(chosen.fps, 1)
        context.gop_size, context.max_b_frames = chosen.gop, 0
        context.bit_rate = chosen.bitrate
        matrix = _BT709 if chosen.is_bt709 else _BT601
        context.color_range, context.colorspace = _LIMITED_RANGE, matrix
        context.color_primaries, context.color_trc = matrix, matrix
        context.options = {
            **self._options(chosen),
            "maxrate": str(chosen.bitrate),
            "bufsize": str(chosen.vbv_bits),
            "forced-idr": "1",
        }
        return context

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """While the codec opens, raise EncoderFailed with libav's own words, and NotHere where we have better ones."""
        av.logging.set_level(av.logging.ERROR)  # only so does it say more than a number
        av.logging.set_skip_repeated(False)  # what it told the encoder before is a reason for this one, too
        said: list[tuple[int, str, str]] = []
        try:
            with av.logging.Capture() as said:  # else it is logged as well, in front of our own first line
                yield
        except (av.FFmpegError, ValueError) as error:
            words = "".join(message for _, _, message in said)  # one line may come in parts
            for refusal, known in _REFUSALS.items():
                if refusal in words:
                    raise NotHere(known) from None
            if cuda := _CUDA_ERROR.search(words):
                raise NotHere("CUDA: {1} at {0}: {2}".format(*cuda.groups())) from None
            told = getattr(error, "strerror", None) or str(error)  # a str() has every option in it
            reason = next(filter(None, map(str.strip, reversed(words.split("\n")))), told)
            size = f"{self._chosen.width}x{self._chosen.height}"
            raise EncoderFailed(f"{self.kind} does not open at {size}: {reason}") from None
        finally:
            av.logging.set_level(None)

    @contextlib.contextmanager
    def _encoding(self, index: int) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(f"{self.name} failed at picture {index}: {error}") from None

    def encode(self, picture: Picture, index: int, *, keyframe: bool) -> list[AccessUnit]:
        """As Encoder; its unit at once."""
        return [self._unit(picture.frame(), index, keyframe)]

    def _unit(self, frame: av.VideoFrame, index: int, keyframe: bool) -> AccessUnit:
        frame.pts = index
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        with self._encoding(index) if self._context.is_open else self._opening():
            packets = self._context.encode(frame)
        if len(packets) != 1:
            raise EncoderFailed(
                f"{self.name} gave {len(packets)} units for picture {index}, not 1: it holds pictures back"
            )
        return AccessUnit(bytes(packets[0]), packets[0].is_keyframe)

    def set_bitrate(self, bits_per_s: int) -> None:
        """Encode at another rate from the next picture on; with a keyframe, from one that is opened anew, where this
        one can't go so high."""
        if not self._reaches(bits_per_s):
            self._chosen = self._chosen.but(bitrate=bits_per_s)
            del self._context  # before the next is opened: there may be but one left
            self._context = self._open(self._chosen)
        self._context.bit_rate = self.bitrate = bits_per_s

    def _reaches(self, bits_per_s: int) -> bool:
        return bits_per_s <= self._chosen.bitrate  # the one it was opened at


class X264(Libav):
    """libx264, zero delay."""

    name, kind, codec = "x264", "x264", "libx264"

    def _options(self, chosen: Producer) -> dict[str, str]:
        return {
            "preset": chosen.x264_preset,
            "tune": chosen.x264_tune,
            "threads": str(chosen.threads),
            "sc_threshold": "0",  # keyframes come when they are due or asked for, and never else
        }


class Nvenc(Libav):
    """h264_nvenc from pictures in host memory, zero delay. Raises NotHere without a driver."""

    name, kind, codec = "nvenc", "nvenc", "h264_nvenc"

    def __init__(self, chosen: Producer, pixel_format: str) -> None:
        if missing := no_nvidia_driver():
            raise NotHere(missing)
        super().__init__(chosen, pixel_format)

    def _options(self, chosen: Producer) -> dict[str, str]:
        return {
            "preset": chosen.nvenc_preset,
            "tune": chosen.nvenc_tune,
            "rc": chosen.nvenc_rc,
            "delay": "0",  # else the first picture comes out with the second
            "zerolatency": "1",
        }

    def _reaches(self, bits_per_s: int) -> bool:
        """Libav tells it another rate, but neither another maximum, which is that of vbr, nor another buffer, which a
        picture has to fit into."""
        if self._chosen.nvenc_rc == "cbr":
            return bits_per_s <= self._chosen.vbv_bits * self._chosen.fps
        return super()._reaches(bits_per_s)
