"""Opus at 24 kHz mono, by libopus inside PyAV: samples (int16) to packets and back."""

from __future__ import annotations

from typing import Literal

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.error import FFmpegError
from numpy.typing import NDArray

from procs.errors import Refused
from procs.media.opuspackets import RATE as RATE
from procs.media.opuspackets import packet_samples as packet_samples

Samples = NDArray[np.int16]
LOOK_AHEAD = 156  # samples that an encoder holds back
_TAPS = 63


class Encoder:
    """Any number of samples in, whole packets out; the rest waits for more."""

    def __init__(self, bitrate: int = 24_000, frame_ms: Literal[20, 40] = 20) -> None:
        # Published peers encode for `audio`, too; `voip` costs three times as much and changes more.
        options = {"application": "audio", "frame_duration": str(frame_ms), "compression_level": "5"}
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate, codec.layout, codec.format = RATE, "mono", "s16"
        codec.bit_rate, codec.options = bitrate, options
        codec.open()
        self._codec = codec
        self.frame = RATE * frame_ms // 1000  # samples of a packet
        self._rest = np.zeros(0, np.int16)
        self._at = 0

    def encode(self, pcm: Samples) -> list[bytes]:
        """The packets that are full by now."""
        pcm = np.concatenate((self._rest, pcm)) if len(self._rest) else pcm
        whole = len(pcm) - len(pcm) % self.frame
        self._rest = pcm[whole:].copy()
        packets = []
        for start in range(0, whole, self.frame):
            packets += self._one(pcm[start : start + self.frame])
        return packets

    def flush(self) -> list[bytes]:
        """What waits, and what is in the encoder, filled up with silence. It may be used on."""
        return self.encode(np.zeros(LOOK_AHEAD - (len(self._rest) + LOOK_AHEAD) % -self.frame, np.int16))

    def _one(self, pcm: Samples) -> list[bytes]:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm)[None, :], "s16", "mono")
        frame.sample_rate, frame.pts = RATE, self._at
        self._at += self.frame
        return [bytes(packet) for packet in self._codec.encode(frame)]


class Decoder:
    """Packets in, samples out, exactly as many as `packet_samples` says."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "r")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate, codec.layout = 2 * RATE, "mono"
        codec.open()
        self._codec = codec
        self._halver = _Halver()

    def decode(self, packet: bytes) -> Samples:
        """One packet. Raises Refused for what is none; the next is decoded all the same."""
        samples = packet_samples(packet)
        try:
            frames = self._codec.decode(av.Packet(packet))
        except FFmpegError as error:
            raise Refused(f"not an Opus packet: {error.strerror}") from None
        sound = np.concatenate(
            [np.frombuffer(memoryview(frame.planes[0]), np.int16, frame.samples) for frame in frames]
        )
        if len(sound) != 2 * samples:
            raise Refused(f"an Opus packet of {samples} samples that decodes to {len(sound) // 2}")
        return self._halver.halve(sound)


class _Halver:
    """48 kHz, which is all that FFmpeg decodes Opus to, to 24 kHz. Every other tap of a half-band filter is zero, and
    the one in its middle is a half; it delays by 0.65 ms."""

    def __init__(self) -> None:
        offsets = np.arange(_TAPS) - _TAPS // 2
        taps = (np.sinc(offsets / 2) * np.kaiser(_TAPS, 6.0))[0::2]
        self._taps = (taps / taps.sum() / 2).astype(np.float32)
        self._before = np.zeros(_TAPS - 1, np.float32)

    def halve(self, pcm: Samples) -> Samples:
        """An even number of samples to half as many."""
        whole = np.concatenate((self._before, pcm.astype(np.float32)))
        self._before = whole[len(pcm) :]
        middle = whole[_TAPS // 2 :: 2][: len(pcm) // 2]
        halved = np.convolve(whole[0::2], self._taps, "valid") + middle / 2
        clipped: Samples = np.clip(np.rint(halved), -32768, 32767).astype(np.int16)
        return clipped
