"""From one rate to another, piece by piece, by FFmpeg's resampler."""

from __future__ import annotations

import av
import numpy as np

from procs.audio_io.sound import Pcm


class Resampler:
    """One stream of sound. Where both rates are the same, it passes."""

    def __init__(self, was: int, wanted: int) -> None:
        self._was = was
        self._same = was == wanted
        self._graph = av.AudioResampler(format="s16", layout="mono", rate=wanted)

    def __call__(self, pcm: Pcm) -> Pcm:
        """What is there of it at the other rate."""
        if self._same:
            return pcm
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm)[None, :], format="s16", layout="mono")
        frame.sample_rate = self._was
        parts = [part.to_ndarray()[0] for part in self._graph.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)
