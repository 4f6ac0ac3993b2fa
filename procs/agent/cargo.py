"""What goes over the connections of one session: channels, IP packets, our own channel on which both sides beat."""

from __future__ import annotations

from collections.abc import Callable

from aiortc import RTCDataChannel

from procs.agent.caps import Caps
from procs.agent.channel import Channel
from procs.agent.channels import Channels
from procs.agent.control import Control
from procs.agent.datagrams import LABEL as PACKETS
from procs.agent.datagrams import Datagrams
from procs.agent.path import Path

CONTROL = "planaria"  # label of our own channel


class Cargo:
    """It outlives the connections. `signed`: the peer of this one is one of ours, as is known before it is there."""

    def __init__(self, main_label: str, can: Caps, *, is_smaller: bool) -> None:
        self.channels = Channels(main_label, is_smaller=is_smaller)
        self.main = self.channels.main
        self.control, self.datagrams = Control(), Datagrams(can)
        self.on_channel: Callable[[Channel], None] = lambda channel: None
        self._takes_packets, self.signed = bool(can.planes), False
        self.main.on("open", self._main_opened)

    def offered(self, path: Path) -> None:
        """We make the offer of this connection."""
        self.channels.open(path, also_main=True)

    def connected(self, path: Path, theirs: Caps, *, by_us: bool) -> None:
        """There it is; `by_us`: we had made the offer."""
        if not by_us:
            self.channels.open(path, also_main=False)
        elif self.signed:
            self.control.bind_channel(path.open(CONTROL))
        if self.signed:
            self.datagrams.bind(path, theirs, is_opener=by_us)
        else:
            self.datagrams.bind_plain(path)

    def opened(self, below: RTCDataChannel) -> None:
        """The peer has opened a channel."""
        all_ours: dict[str, Control | Datagrams] = {CONTROL: self.control, PACKETS: self.datagrams}
        ours = all_ours.get(below.label) if self.signed else None
        if ours and ours.is_bound:
            below.close()  # one of each is enough
        elif ours:
            ours.bind_channel(below)
        elif made := self.channels.take(below, is_published=not self.signed):
            self.on_channel(made)

    def beat(self, now: float) -> None:
        """A few times a second, while there is a connection."""
        self.control.beat(now)
        self.datagrams.beat(now, self.control.heard_at)

    def unbind(self) -> None:
        """The connection has gone."""
        self.control.unbind()
        self.datagrams.unbind()
        self.channels.unbind()

    def _main_opened(self) -> None:
        if self._takes_packets and self.main.below and not self.signed:  # a published agent's packets come on it
            self.datagrams.bind_channel(self.main.below, packed=False)
