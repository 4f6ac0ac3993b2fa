"""The process that encodes one stream anew, once for all viewers who take nothing of what it has.

A child as those of sessions are: forked from the zygote, fed by the leader over the same bus, and gone with it. Its
leader ends it when nobody needs it, or when it says nothing for a while. What comes too late is left out, so that
nothing queues up on a machine that is too slow for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import zmq

from procs import bus, log
from procs.errors import PlanariaError, Refused
from procs.messages import encode
from procs.messages.requests import Bitrate, Keyframe
from procs.messages.watch import EncoderSpec, Encoding, Unit, decode_to_encoder
from procs.webrtc_peer.codecs import KINDS

BEAT_S = 1.0
AT_ONCE = 256  # units taken from the bus before they are encoded
NICE = 5  # what is passed on as it is comes first
Made = tuple[Unit, bytes]


class Encodes(Protocol):
    """What makes units of units."""

    skipped: int

    def put(self, units: list[Made]) -> Iterator[Made]:
        """What comes out when these go in."""

    def ask_keyframe(self) -> None:
        """Make the next picture one."""

    def set_bitrate(self, bits_per_s: int) -> None:
        """Spend so much from now on."""


def live(spec: EncoderSpec) -> NoReturn:
    """Be the encoder of this spec until somebody ends it."""
    code = 1
    try:
        os.nice(NICE)
        _Encoder(spec).run()
    except PlanariaError as error:
        log.error(str(error), encoder=spec.name)
        code = error.exit_code
    except Exception as error:  # a crash is an exit, and the leader starts another
        log.error(f"unforeseen {type(error).__name__}: {error}", trace=True, encoder=spec.name)
    os._exit(code)


def _encodes(codec: str) -> Encodes:
    # Here: each needs a part of libav only, and nobody else any of it.
    if KINDS[codec] == "audio":
        from procs.webrtc_peer.encode_sound import Sound

        return Sound(cast(Any, codec))
    from procs.webrtc_peer.encode_picture import Picture

    return Picture()


class _Encoder:
    """One socket, one loop."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sock = bus.work_connector(context, Path(spec.run_dir), spec.name, bus.WEBRTC_PEER_CHILDREN)
        self._encodes = _encodes(spec.codec)
        self._made = 0
        self._beat_at = float("-inf")

    def run(self) -> NoReturn:
        """For ever. Raises what ends it."""
        while True:
            now = time.monotonic()
            if now - self._beat_at >= BEAT_S:
                self._beat_at = now
                beat = Encoding(self._spec.name, os.getpid(), self._made, self._encodes.skipped)
                self._send(beat, b"")
            if self._sock.poll(int(1000 * max(0.0, self._beat_at + BEAT_S - now))):
                for unit, data in self._encodes.put(list(self._come())):
                    self._made += 1
                    self._send(unit, data)

    def _come(self) -> Iterator[Made]:
        """The units that are there."""
        for _ in range(AT_ONCE):
            try:
                message, body = self._sock.recv_multipart(zmq.NOBLOCK)
                told = decode_to_encoder(message)
            except zmq.Again:
                return
            except (Refused, ValueError) as error:
                log.warning("malformed bus message", why=str(error), encoder=self._spec.name)
                continue
            if isinstance(told, Unit):
                yield told, body
            elif isinstance(told, Keyframe):
                self._encodes.ask_keyframe()
            elif isinstance(told, Bitrate):
                self._encodes.set_bitrate(told.bits_per_s)

    def _send(self, message: Unit | Encoding, body: bytes) -> None:
        try:
            self._sock.send_multipart([encode(message), body], zmq.NOBLOCK)
        except zmq.Again:
            log.debug("the leader takes nothing", encoder=self._spec.name)
