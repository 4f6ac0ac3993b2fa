"""What turns a picture into an access unit, and how one is chosen: the first that really encodes the first picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import av

from procs.errors import EncoderFailed, NotHere, PlanariaError
from procs.headless_agent.options import Producer


class AccessUnit(NamedTuple):
    """One coded picture in Annex-B; keyframes carry SPS and PPS."""

    data: bytes
    is_keyframe: bool


class Encoder(Protocol):
    """One picture in, one access unit out."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def bitrate(self) -> int:
        """Bits a second."""

    def encode(self, picture: av.VideoFrame, index: int, *, keyframe: bool) -> AccessUnit:
        """The access unit of one picture. `index` counts periods of 1/fps and only grows. Raises EncoderFailed."""

    def set_bitrate(self, bits_per_s: int) -> None:
        """Encode at another rate from the next picture on."""


Maker = tuple[str, Callable[[], Encoder]]  # name, and what opens it


def open_encoder(chosen: Producer, pixel_format: str) -> Encoder:
    """The encoder that the settings name."""
    from procs.headless_agent import libav

    if chosen.encoder == "x264" or (chosen.encoder == "auto" and chosen.force_sw):
        return libav.X264(chosen, pixel_format)
    if chosen.encoder == "ffmpeg":
        from procs.headless_agent import ffmpeg_child

        return ffmpeg_child.open_child(chosen, pixel_format)
    nvenc: Maker = ("nvenc", lambda: libav.Nvenc(chosen, pixel_format))
    return Choice([nvenc] if chosen.encoder == "nvenc" else [nvenc, ("x264", lambda: libav.X264(chosen, pixel_format))])


class Choice:
    """Encoders in the order of preference. A list of what a machine has says little (ffmpeg lists h264_nvenc where
    there is no GPU), so that one is taken which has encoded the first picture."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        self._makers = makers
        self._chosen: Encoder | None = None
        self.refusals: list[str] = []  # "encoder: why not", of those that were preferred

    def encode(self, picture: av.VideoFrame, index: int, *, keyframe: bool) -> AccessUnit:
        """As Encoder. Raises NotHere with every reason when none can encode the first picture."""
        if self._chosen:
            return self._chosen.encode(picture, index, keyframe=keyframe)
        for name, make in self._makers:
            try:
                encoder = make()
                unit = encoder.encode(picture, index, keyframe=keyframe)
            except (NotHere, EncoderFailed) as error:
                self.refusals.append(f"{name}: {error}")
                continue
            self._chosen = encoder
            return unit
        raise NotHere(f"encoder {'; '.join(self.refusals)}")

    def set_bitrate(self, bits_per_s: int) -> None:
        """As Encoder."""
        self._encoder.set_bitrate(bits_per_s)

    @property
    def name(self) -> str:
        """The chosen one's."""
        return self._encoder.name

    @property
    def bitrate(self) -> int:
        """The chosen one's."""
        return self._encoder.bitrate

    @property
    def _encoder(self) -> Encoder:
        if not self._chosen:
            raise PlanariaError("no encoder is chosen before the first picture")
        return self._chosen
