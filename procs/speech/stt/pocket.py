"""pocketsphinx with the English model that its wheel carries, as a recogniser of one utterance after another.

Left to itself it carries the average of the sound, and of noise, over from one utterance to the next, and what it hears
depends on what it has heard before. Here each utterance begins with the same average, that of three of flite's voices
over ten sentences (others than those of the tests); with the decoder's own those were misunderstood twice as often, and
loudness matters little.
"""

from __future__ import annotations

from collections.abc import Iterator

from pocketsphinx import Decoder

RATE = 16_000
_AVERAGE = "51.0,4.3,9.4,25.1,3.1,0.9,5.7,-5.2,-4.3,-4.6,6.9,2.9,2.1"  # cepstral mean
_FRAME_S = 0.01
# What the language model says counts a little less than its makers have it (6.5 and 8.5), for it was not made from
# commands and questions: two words in a hundred fewer were wrong.
_WEIGHTS = {"lw": 5.5, "fwdflatlw": 7.5}
# What is unlikely is followed no further once so much is left that is likelier (30,000 by default): a quarter less of a
# processor for a second of speech, and as many words of flite's slt and rms were right.
_LIMITS = {"maxhmmpf": 3000}


class Pocket:
    """The recogniser. Loading takes 0.3 s and 100 MB, which processes forked from this one share."""

    def __init__(self) -> None:
        self._decoder = Decoder(samprate=RATE, loglevel="FATAL", **_WEIGHTS, **_LIMITS)

    def begin(self) -> None:
        """An utterance begins."""
        self._decoder.reinit_feat()  # what it has taken for noise so far is forgotten, too
        self._decoder.set_cmn(_AVERAGE)
        self._decoder.start_utt()

    def take(self, sound: bytes) -> None:
        """More of it, int16 at 16 kHz."""
        self._decoder.process_raw(sound, False, False)

    def end(self) -> None:
        """It has ended. Takes about 0.1 s, and `segments` are better afterwards."""
        self._decoder.end_utt()

    def segments(self) -> Iterator[tuple[str, float, float]]:
        """The best guess so far: words, silences and noises, with start and end in seconds of the utterance."""
        for segment in self._decoder.seg() or ():
            yield segment.word, segment.start_frame * _FRAME_S, (segment.end_frame + 1) * _FRAME_S
