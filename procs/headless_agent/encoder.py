"""What turns pictures into access units, and how one is chosen: the first that really encodes the first picture."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import av

from procs.errors import EncoderFailed, NotHere, PlanariaError
from procs.headless_agent.options import Producer, missing_for
from procs.headless_agent.pictures import EglPictures, Pictures


class AccessUnit(NamedTuple):
    """One coded picture in Annex-B; keyframes carry SPS and PPS."""

    data: bytes
    is_keyframe: bool


class Picture(Protocol):
    """A picture that is drawn, and not taken anywhere yet."""

    def frame(self) -> av.VideoFrame:
        """It in our memory. Valid until the next is drawn."""


class Encoder(Protocol):
    """Pictures in, and one unit of each out: at once, or a few calls later if the encoder holds pictures back."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def bitrate(self) -> int:
        """Bits a second."""

    def encode(self, picture: Picture, index: int, *, keyframe: bool) -> Sequence[AccessUnit]:
        """The units that are ready, one for each picture in their order. `index` counts periods of 1/fps and only
        grows. The first picture's is ready at once. Raises EncoderFailed, and GpuLost."""

    def set_bitrate(self, bits_per_s: int) -> None:
        """Encode at another rate from the next picture on."""


Maker = tuple[str, Callable[[], Encoder]]  # name, and what opens it
SPARED_AFTER = 3  # failures in a row; a driver that crashes or hangs refuses nothing, and would be tried for ever


def open_encoder(chosen: Producer, pictures: Pictures, failures: int = 0) -> Encoder:
    """The encoder that the settings name; `auto` leaves the GPU's alone once so many runs in a row have failed."""
    from procs.headless_agent import libav

    if chosen.encoder == "ffmpeg":
        from procs.headless_agent import ffmpeg_child

        return ffmpeg_child.open_child(chosen, pictures.pixel_format)
    if chosen.encoder == "x264" or (chosen.encoder == "auto" and chosen.force_sw):
        return libav.X264(chosen, pictures.pixel_format)
    makers: list[Maker] = [
        ("nvenc", lambda: libav.Nvenc(chosen, pictures.pixel_format)),
        ("x264", lambda: libav.X264(chosen, pictures.pixel_format)),
    ]
    if isinstance(pictures, EglPictures):
        makers = [*_on_gpu(chosen, pictures), *makers]
    if chosen.encoder == "auto" and failures >= SPARED_AFTER:
        makers = [*((name, functools.partial(_spare, failures)) for name, _ in makers[:-1]), makers[-1]]
    return Choice([maker for maker in makers if chosen.encoder in ("auto", maker[0])])


def _spare(failures: int) -> Encoder:
    raise NotHere(f"not tried, since the last {failures} runs ended by themselves")


def _on_gpu(chosen: Producer, pictures: EglPictures) -> list[Maker]:
    """Those that take a picture where the GPU has drawn it. They and their libraries are imported when they are tried,
    where they may serve."""

    def need(name: str) -> None:
        if reason := missing_for(name):
            raise NotHere(reason)

    def nvenc_cuda() -> Encoder:
        need("nvenc-cuda")
        from procs.headless_agent.nvenc_cuda import NvencCuda

        return NvencCuda(chosen, pictures)

    def vpf() -> Encoder:
        need("vpf")
        from procs.headless_agent.vpf import Vpf

        return Vpf(chosen, pictures)

    return [("nvenc-cuda", nvenc_cuda), ("vpf", vpf)]


class Choice:
    """Encoders in the order of preference. A list of what a machine has says little (ffmpeg lists h264_nvenc where
    there is no GPU), so that one is taken which has encoded the first picture."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        self._makers = makers
        self._chosen: Encoder | None = None
        self._refusals: dict[str, list[str]] = {}  # reason: names of those that were preferred

    def encode(self, picture: Picture, index: int, *, keyframe: bool) -> Sequence[AccessUnit]:
        """As Encoder. Raises NotHere with every reason when none can encode the first picture."""
        if self._chosen:
            return self._chosen.encode(picture, index, keyframe=keyframe)
        for name, make in self._makers:
            try:
                encoder = make()
                units = encoder.encode(picture, index, keyframe=keyframe)
            except (NotHere, EncoderFailed) as error:
                self._refusals.setdefault(str(error), []).append(name)
                continue
            self._chosen = encoder
            return units
        raise NotHere(f"encoder {self.refusals}")

    @property
    def refusals(self) -> str:
        """Why none of those that were preferred is taken: "one, another: reason; a third: reason"."""
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in self._refusals.items())

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
