"""An agent: its connection to the signalling server, and a session with each peer.

client = SignalingClient(settings)
core = AgentCore(settings, client)
await core.start()
session = await core.connect_to("bob")
channel = await session.opened(20)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from procs import log
from procs.agent.caps import Caps
from procs.agent.channel import Channel
from procs.agent.identity import Identity, Trust
from procs.agent.keyring import folder_in
from procs.agent.lane.way import Way
from procs.agent.planes import PACKED, RECORDS
from procs.agent.session import PeerSession
from procs.agent.settings import AgentSettings
from procs.agent.signaling import SignalingClient
from procs.errors import LinkLost
from procs.settings import run_dir
from procs.wire.signal import Error, Offer, Routed

MAX_SESSIONS = 256


class AgentCore:
    """Everybody who calls is answered. `on_session` is called with each session that a peer begins, `on_channel` with
    each main channel as it opens, and again each time that it was lost and is back. Without an identity it has that of
    this machine's agents, in the run directory. `way`: to a UDP port that all sessions share."""

    def __init__(
        self,
        settings: AgentSettings,
        signaling: SignalingClient,
        identity: Identity | None = None,
        *,
        can: Caps | None = None,
        way: Way | None = None,
    ) -> None:
        self.settings, self.signaling, self._way = settings, signaling, way
        self._identity, self._can = identity or own_identity(settings), can or _can(settings)
        self._sessions: dict[str, PeerSession] = {}
        self._task: asyncio.Task[None] | None = None
        self.on_session: Callable[[PeerSession], Any] = lambda session: None
        self.on_channel: Callable[[str, Channel], Any] = lambda peer, channel: None
        self.why = ""  # it has ended

    async def start(self, within_s: float | None = 0.0) -> None:
        """Answer and call from now on. Waits for the server for so long; raises LinkLost when it is not there by then,
        unless it was not to be waited for. It goes on being tried."""
        if self._task is None:
            self.signaling.on_connected = self._signalling_is_back
            self.signaling.is_awaited = lambda: any(each.is_calling for each in self._sessions.values())
            self._task = asyncio.create_task(self._hear(), name="agent")
        self.signaling.begin()
        if within_s != 0.0:
            await self.signaling.connect(within_s)

    async def stop(self) -> None:
        """Say goodbye to everybody. Nothing depends on it."""
        await asyncio.gather(*(session.close() for session in self._sessions.values()))
        await self.signaling.close()
        if self._task:
            self._task.cancel()

    async def connect_to(self, peer: str) -> PeerSession:
        """Call a peer, and call it again whenever it is lost. Does not wait for it: `session.opened` does."""
        session = self._session(peer)
        session.offer()
        return session

    def get_session(self, peer: str) -> PeerSession | None:
        """What we have with that peer."""
        return self._sessions.get(peer)

    def get_all_sessions(self) -> dict[str, PeerSession]:
        """All of them, by peer."""
        return dict(self._sessions)

    def get_channel(self, peer: str) -> Channel | None:
        """The main channel to that peer, while it is open."""
        session = self._sessions.get(peer)
        return session.main if session and session.main.readyState == "open" else None

    async def wait_for_shutdown(self) -> None:
        """Wait until it is stopped. Raises LinkLost when somebody else registers under our name."""
        if self._task:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def _session(self, peer: str) -> PeerSession:
        found = self._sessions.get(peer)
        if found and found.state != "closed":
            return found
        if len(self._sessions) >= MAX_SESSIONS:
            self._forget()
        made = PeerSession(
            self.settings.agent_id,
            peer,
            self.settings,
            self._identity,
            self.signaling.post,
            can=self._can,
            can_send=lambda: self.signaling.is_connected,
            way=self._way,
        )
        self._sessions[peer] = made
        made.main.on("open", lambda: self.on_channel(peer, made.main))
        return made

    def _forget(self) -> None:
        """End sessions that nobody calls any more; strangers make some. Raises LinkLost when all are alive."""
        idle = [peer for peer, each in self._sessions.items() if each.state == "closed" or each.is_idle]
        for peer in idle:
            self._sessions.pop(peer).end("nobody has called for long")
        if not idle:
            raise LinkLost(f"there are {MAX_SESSIONS} sessions already")

    async def _hear(self) -> None:
        while True:
            frame = await self.signaling.take()
            if isinstance(frame, Error):
                self._failed(frame)
            elif isinstance(frame, Routed):
                self._said(frame)

    def _said(self, frame: Routed) -> None:
        known = self._sessions.get(frame.sender)
        if isinstance(frame, Offer) and (known is None or known.state == "closed"):
            try:
                known = self._session(frame.sender)
            except LinkLost as error:
                log.warning("an offer is refused", peer=frame.sender, why=str(error))
                return
            self.on_session(known)
        if known:
            known.take(frame)

    def _failed(self, error: Error) -> None:
        """What the server could not do; one that does not say about whom means whom we are calling."""
        about = [error.sender] if error.sender else list(self._sessions)
        told = [self._sessions[peer] for peer in about if peer in self._sessions]
        for session in told:
            session.take(error)
        if not told:
            log.warning("the signalling server says", error=error.error)

    def _signalling_is_back(self) -> None:
        for session in self._sessions.values():
            session.signalling_is_back()


def _can(settings: AgentSettings) -> Caps:
    return Caps(planes=[RECORDS, PACKED] if settings.mode == "tun" else [])


def own_identity(settings: AgentSettings) -> Identity:
    """Of an agent of this machine. Raises ConfigError."""
    trust = Trust(settings.trust, settings.allow_unsigned)
    return Identity(settings.agent_id, folder_in(run_dir()), trust)
