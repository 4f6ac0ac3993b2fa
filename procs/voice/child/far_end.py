"""What is said with the other side, a device or a browser: frames in, packets and events out, and the other way. Pure.

A device of ours says and is told more (planaria.*), and sound is binary frames; with a published one, and with a
browser, it is base64 of Ogg-Opus, two packets of 20 ms a page. What is wrong is counted and left out: the link lives.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from procs.errors import Refused
from procs.media.ogg import OggReader, OggWriter
from procs.media.opuspackets import packet_samples
from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio, parse_audio

PACKETS_A_PAGE = 2
MAX_LOST = 2 * wire.RATE  # samples: a timestamp further off is no loss; something was begun anew
_WRAP = 1 << 32
_OURS_ONLY = wire.Pause | wire.Resume | wire.Flush | wire.Mute | wire.Volume


class Heard(NamedTuple):
    """One packet of the microphone."""

    packet: bytes
    lost: int  # samples that are missing right before it


class Wrong(NamedTuple):
    """What was not taken, and why."""

    why: str


Event = wire.FromDevice | wire.FromBrowser
Took = Heard | Wrong | Event
Frame = str | bytes


class FarEnd:
    """One connection. `browser`: the other side is one, and speaks as published. `serial`: of the Ogg stream to it."""

    def __init__(self, *, ours: bool, browser: bool, serial: int) -> None:
        self.is_ours, self._is_browser = ours, browser
        # A browser that comes back may begin with pages of its last stream. A device may not send the beginning again.
        self._reader, self._writer = OggReader(gated=browser), OggWriter(serial)
        self._page: list[bytes] = []
        self._seq = self._sent = 0  # packets, samples to the other side
        self._expected: int | None = None  # timestamp of the next packet from it

    def received(self, frame: Frame) -> list[Took]:
        """What is in a frame of the other side's."""
        try:
            return self._sound(frame) if isinstance(frame, bytes) else self._event(frame)
        except Refused as reason:
            return [Wrong(str(reason))]

    def _sound(self, data: bytes) -> list[Took]:
        if not self.is_ours:
            raise Refused("a binary frame, which the published protocol does not have")
        frame = parse_audio(data)
        samples = packet_samples(frame.packet)
        lost = 0 if self._expected is None else (frame.timestamp - self._expected) % _WRAP
        self._expected = (frame.timestamp + samples) % _WRAP
        return [Heard(frame.packet, lost if lost <= MAX_LOST else 0)]

    def _event(self, text: str) -> list[Took]:
        event = wire.decode(text, wire.FROM_BROWSER) if self._is_browser else wire.decode(text, wire.FROM_DEVICE)
        return self._pages(event.audio) if isinstance(event, wire.Append) else [event]

    def _pages(self, data: bytes) -> list[Took]:
        before = self._reader.bad_bytes + self._reader.bad_packets
        found: list[Took] = [
            Heard(packet, gap if gap <= MAX_LOST else 0) for packet, _, gap, _ in self._reader.feed(data)
        ]
        if self._reader.bad_bytes + self._reader.bad_packets > before:
            found.append(Wrong("input_audio_buffer.append: not all of it is Ogg pages with whole Opus packets"))
        return found

    def event(self, event: wire.Event) -> list[Frame]:
        """An event for the other side. Raises Refused for one that is too large."""
        if isinstance(event, _OURS_ONLY) and not self.is_ours:
            return []
        return [wire.encode(event)]

    def sound(self, packets: Iterable[bytes], *, first: bool) -> list[Frame]:
        """The next packets for its speaker; `first`: a response begins with them."""
        frames: list[Frame] = []
        for packet in packets:
            if self.is_ours:
                frames.append(pack_audio(AudioFrame(packet, self._seq, self._sent, first)))
                self._seq, first = self._seq + 1, False
            else:
                frames += self._paged(packet)
            self._sent += packet_samples(packet)
        return frames

    def _paged(self, packet: bytes) -> list[Frame]:
        self._page.append(packet)
        return self.rest() if len(self._page) == PACKETS_A_PAGE else []

    def rest(self) -> list[Frame]:
        """What waits for a whole page."""
        page, self._page = self._page, []
        return [wire.encode(wire.AudioDelta(delta=self._writer.write(page)))] if page else []

    def drop(self) -> None:
        """Forget that."""
        self._page = []
