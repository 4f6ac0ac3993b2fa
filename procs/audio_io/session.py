"""What is said with one backend: events and packets in, actions out. Pure; the clock is an argument.

A backend of ours is told more (planaria.*) and gets sound in binary frames; a published one gets the published events
only, and sound as base64 of Ogg-Opus, two packets of 20 ms a page as browsers do. What is wrong is refused, counted,
and told to a backend of ours; the link lives.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import NamedTuple

from procs.audio_io.sound import Cursor, SoundState
from procs.errors import Refused
from procs.media.ogg import OggReader, OggWriter
from procs.media.opuspackets import packet_samples
from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio, parse_audio

TOLD_EVERY_S = 0.2  # how far a response is, while it plays
PACKETS_A_PAGE = 2
ERRORS_A_SECOND = 5  # told to the other side: rubbish must not be answered by a flood


class Send(NamedTuple):
    """A frame to the backend."""

    frame: str | bytes


class Play(NamedTuple):
    """An Opus packet for the speaker, as Sound.play has it."""

    packet: bytes
    response: int
    timestamp: int
    first: bool


class Finish(NamedTuple):
    """No more sound of this response."""


class Wrong(NamedTuple):
    """What was not taken, for the log."""

    why: str


Order = wire.Pause | wire.Resume | wire.Flush | wire.Mute | wire.Volume
Action = Send | Play | Finish | Wrong | Order


class Session:
    """One connection. `ours`: the subprotocol is. `serial`: of the Ogg stream that a published backend gets."""

    def __init__(self, *, ours: bool, serial: int) -> None:
        self.is_ours = ours
        self._before = self.responses = 0
        self._writer, self._reader = OggWriter(serial), OggReader()
        self._page: list[bytes] = []
        self._seq = self._sent = 0  # packets, samples of the microphone
        self._gap = True
        self._first = True
        self._played = 0  # samples of a published backend
        self._told: Cursor | None = None
        self._told_at = 0.0
        self._told_state: SoundState | None = None
        self._errors = collections.deque[float](maxlen=ERRORS_A_SECOND)
        self.refused = collections.Counter[str]()
        self.voice = ""

    def begin(self, name: str, state: SoundState, before: int) -> list[Send]:
        """What is said first. `before`: how many responses there were in earlier connections, since the sound knows
        each by its number."""
        self._before = self.responses = before
        if not self.is_ours:
            return []
        hello = wire.Hello(
            name=name, echo=state.echo, muted=state.muted, wake=state.wake, output_ms=float(state.output_ms)
        )
        return [self._event(hello), *self._state(state)]

    def microphone(self, packet: bytes, samples: int) -> list[Send]:
        """The next packet of it."""
        at, self._sent = self._sent, self._sent + samples
        if self.is_ours:
            frame = AudioFrame(packet, self._seq, at, self._gap)
            self._seq, self._gap = self._seq + 1, False
            return [Send(pack_audio(frame))]
        self._page.append(packet)
        if len(self._page) < PACKETS_A_PAGE:
            return []
        page, self._page = self._writer.write(self._page), []
        return [self._event(wire.Append(audio=page))]

    def skipped(self, samples: int) -> None:
        """So much of the microphone was not sent, since the backend does not read."""
        self._sent += samples
        self._gap = True

    def received(self, frame: str | bytes, now: float) -> Iterator[Action]:
        """What a frame of the backend's asks for. Nothing of it raises."""
        try:
            yield from self._sound(frame) if isinstance(frame, bytes) else self._heard(frame)
        except Refused as reason:
            yield from self.refuse(reason, now)

    def refuse(self, reason: Refused, now: float) -> Iterator[Action]:
        """Count what was not taken, and say so to who understands it."""
        self.refused["unknown type" if isinstance(reason, wire.UnknownType) else "malformed"] += 1
        yield Wrong(str(reason))
        if self.is_ours and not (len(self._errors) == ERRORS_A_SECOND and now - self._errors[0] < 1.0):
            self._errors.append(now)
            yield self._event(wire.Error(error=wire.Problem(type="invalid_request_error", message=str(reason))))

    def _sound(self, data: bytes) -> Iterator[Action]:
        if not self.is_ours:
            raise Refused("a binary frame, which the published protocol does not have")
        frame = parse_audio(data)
        packet_samples(frame.packet)
        yield self._play(frame.packet, frame.timestamp, first=frame.first)

    def _heard(self, text: str) -> Iterator[Action]:
        event = wire.decode(text, wire.FROM_BACKEND)
        if isinstance(event, wire.AudioDelta):
            yield from self._pages(event.delta)
        elif isinstance(event, wire.ResponseCreated):
            self.responses += 1
            self._first = True
        elif isinstance(event, wire.AudioDone):
            yield Finish()
        elif isinstance(event, wire.Interrupted):
            yield wire.Flush()
        elif isinstance(event, wire.SessionUpdate):
            self.voice = event.session.voice or ""
        elif isinstance(event, Order):
            yield event

    def _pages(self, data: bytes) -> Iterator[Action]:
        before = self._reader.bad_bytes + self._reader.bad_packets
        for packet, _, gap, _ in self._reader.feed(data):
            at = self._played + gap
            self._played = at + packet_samples(packet)
            yield self._play(packet, at, first=False)
        if self._reader.bad_bytes + self._reader.bad_packets > before:
            raise Refused("response.audio.delta: not all of it is Ogg pages with whole Opus packets")

    def _play(self, packet: bytes, timestamp: int, *, first: bool) -> Play:
        first, self._first = first or self._first, False
        return Play(packet, self.responses, timestamp & 0xFFFF_FFFF, first)

    def looked(self, cursor: Cursor, state: SoundState, now: float) -> list[Send]:
        """What a backend of ours is to be told of the speaker and of us."""
        if not self.is_ours:
            return []
        return [*self._playback(cursor, now), *self._state(state)]

    def _playback(self, cursor: Cursor, now: float) -> list[Send]:
        before = self._told
        changed = before is None or (before.response, before.state) != (cursor.response, cursor.state)
        due = cursor.state == "playing" and now - self._told_at >= TOLD_EVERY_S
        if cursor.response <= self._before or not (changed or due):
            return []
        self._told, self._told_at = cursor, now
        told = wire.Playback(
            response=cursor.response - self._before,
            state=cursor.state,
            heard_ms=float(cursor.heard_ms),
            buffered_ms=float(cursor.buffered_ms),
        )
        return [self._event(told)]

    def _state(self, state: SoundState) -> list[Send]:
        before, self._told_state = self._told_state, state
        if before and _shown(before) == _shown(state):
            return []
        muted, awake, microphone, speaker = _shown(state)
        return [self._event(wire.State(muted=muted, awake=awake, microphone=microphone, speaker=speaker))]

    def _event(self, event: wire.Event) -> Send:
        return Send(wire.encode(event))


def _shown(state: SoundState) -> tuple[bool, bool, str, str]:
    return state.muted, state.awake, state.microphone, state.speaker
