"""What others see of a session, and have of it: who the peer is, how it goes, its channels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from aiortc import RTCPeerConnection

from procs.agent.cargo import Cargo
from procs.agent.channel import Channel
from procs.agent.datagrams import Datagrams
from procs.agent.hand import Hand
from procs.agent.path import NoConnection, Path
from procs.agent.settings import AgentSettings
from procs.agent.transports import Transport, transport_of
from procs.agent.turns import Turns
from procs.errors import LinkLost

SILENT_S = 3.0  # of a peer that beats each second
DEAF_S = 15.0  # the same where something else comes, which may hold up what the peer says
State = Literal["new", "connecting", "connected", "waiting", "closed"]


class View:
    """Of a PeerSession, which fills it."""

    peer: str
    state: State = "new"
    why = ""  # it is not connected
    main: Channel
    datagrams: Datagrams
    connections = 0  # so far
    path: Path | None = None  # the connection of now
    _settings: AgentSettings
    _hand: Hand
    _cargo: Cargo
    _turns: Turns
    _connected_at = 0.0
    _transport: Transport | None = None

    @property
    def signed(self) -> bool:
        """Whether the peer is one of ours, and has proven who it is."""
        return self._cargo.signed

    @property
    def key(self) -> str:
        """By which the peer has proven it; "" for one that has not."""
        return self._hand.key if self.signed else ""

    @property
    def trusted(self) -> str:
        """By which it would be let in now; "" for none."""
        return self._hand.trusted

    @property
    def on_channel(self) -> Callable[[Channel], None]:
        """Called with each channel, beside the main one, that the peer opens."""
        return self._cargo.on_channel

    @on_channel.setter
    def on_channel(self, taker: Callable[[Channel], None]) -> None:
        self._cargo.on_channel = taker

    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self.state == "connected"

    @property
    def transport(self) -> Transport:
        """One of the mode that the settings say, on the main channel; a tun one with our packets beside it."""
        if self._transport is None:
            self._transport = transport_of(self._settings.mode, self.main, self.datagrams)
        return self._transport

    @property
    def pc(self) -> RTCPeerConnection | NoConnection:
        """The connection of now, as published; it is another after each loss."""
        return self.path.pc if self.path else NoConnection()

    @property
    def stats(self) -> dict[str, float]:
        """Figures of this session, over all its connections."""
        found: dict[str, float] = {"connections": self.connections, **self.datagrams.stats}
        if self.state == "connected":
            found["for_s"] = round(time.monotonic() - self._connected_at, 1)
        if round_trip_ms := self._cargo.control.round_trip_ms:
            found["round_trip_ms"] = round(round_trip_ms, 3)
        return found

    @property
    def peer_away(self) -> str:
        """Why the peer can do nothing with IP packets now, by its own word; "" where it can."""
        return self._cargo.control.peer_away

    def say_away(self, why: str) -> None:
        """Tell the peer the same of us, with each beat from now on."""
        self._cargo.control.away = why

    @property
    def is_calling(self) -> bool:
        """Whether it is to have a connection, and has none."""
        return self.state == "connecting" or (self.state in ("waiting", "new") and self._turns.is_waiting)

    @property
    def is_idle(self) -> bool:
        """Whether it only waits for the peer to call."""
        return self.state in ("waiting", "new") and not self._turns.is_waiting

    def silent_s(self, path: Path, now: float) -> float:
        """For how long nothing has come by it, if that is too long. Anybody can send to our port: what counts in the
        end is what the peer itself says."""
        if path.silent_s > SILENT_S:
            return SILENT_S
        return DEAF_S if now - max(self._connected_at, self._cargo.control.heard_at) > DEAF_S else 0.0

    def channel(self, label: str, **options: Any) -> Channel:
        """The channel of this label; ours to open if there is none yet. `options` as of aiortc's createDataChannel."""
        return self._cargo.channels.get(label, self.path if self.state == "connected" else None, options)

    async def opened(self, within_s: float | None = None) -> Channel:
        """Wait until the main channel is open. Raises LinkLost when it is not by then."""
        try:
            await self.main.opened(within_s)
        except LinkLost as error:
            raise LinkLost(f"no connection to {self.peer!r}: {self.why or error}") from None
        return self.main
