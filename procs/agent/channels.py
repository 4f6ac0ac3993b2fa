"""The channels of one session, by label, and who opens which on the next connection. The main one is there from the
start and is opened by whoever makes the offer; each other one by the side that has asked for it first."""

from __future__ import annotations

from typing import Any

from aiortc import RTCDataChannel

from procs.agent.channel import Channel
from procs.agent.path import Path

MAX_CHANNELS = 64


class Channels:
    """`is_smaller`: our id is smaller than the peer's; where both sides have opened the same, ours is the one used."""

    def __init__(self, main_label: str, *, is_smaller: bool) -> None:
        self.main = Channel(main_label)
        self._is_smaller = is_smaller
        self._known = {main_label: self.main}
        self._ours: set[str] = set()

    def get(self, label: str, path: Path | None, options: dict[str, Any]) -> Channel:
        """The channel of this label; from now on ours to open, if there is none, and at once if there is a way."""
        found = self._known.get(label)
        if found is None or found.readyState == "closed":
            found = self._known[label] = Channel(label, **options)
            self._ours.add(label)
            if path:
                found.bind(path.open(label, **options))
        return found

    def open(self, path: Path, *, also_main: bool) -> None:
        """Open what is ours to open on this connection."""
        # The main one first: a published peer takes the first that it sees for it.
        others = [label for label in self._known if label in self._ours and label != self.main.label]
        for label in [self.main.label, *others] if also_main else others:
            if (channel := self._known[label]).readyState != "closed":
                channel.bind(path.open(label, **channel.options))

    def take(self, below: RTCDataChannel, *, is_published: bool) -> Channel | None:
        """The peer has opened this; the channel that it makes, if it is a new one."""
        # A peer with another label in its settings has one channel all the same.
        is_main = below.label == self.main.label or (is_published and self.main.readyState != "open")
        known = self.main if is_main else self._known.get(below.label)
        if known and known.readyState != "closed":
            is_twice = known is not self.main and below.label in self._ours
            known.bind(below, is_preferred=not (is_twice and self._is_smaller))
            return None
        if len(self._known) >= MAX_CHANNELS:
            below.close()
            return None
        found = self._known[below.label] = Channel(below.label)
        found.bind(below)
        return found

    def unbind(self) -> None:
        """The connection has gone."""
        for channel in self._known.values():
            channel.unbind()

    def end(self) -> None:
        """All are over."""
        for channel in self._known.values():
            channel.end()
