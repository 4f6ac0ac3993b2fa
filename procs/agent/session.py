"""All that one agent has with one other: it outlives the connections between them, and the signalling server.

One task does everything in turn: frames of the peer, what its connection (path.py) says, and what has become late.
When a connection dies the side with the smaller id offers another; if both do, its offer is the one that counts.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable

from aiortc import RTCDataChannel

from procs import log
from procs.agent.caps import Caps
from procs.agent.cargo import Cargo
from procs.agent.hand import NO_CAPS, Hand
from procs.agent.identity import Identity
from procs.agent.lane.way import Way
from procs.agent.path import Path
from procs.agent.settings import AgentSettings
from procs.agent.turns import Turns
from procs.agent.view import State, View
from procs.agent.words import late, left
from procs.errors import Refused
from procs.wire.signal import Answer, Error, Frame, Offer, Routed, Trickle

TRY_S = 20.0  # from an offer to a connection
LOOK_S = 0.25
MAX_WAITING = 256  # frames
MAX_SEEN = 256
NO_SERVER = "no connection to the signalling server"
SERVER_LOST = "signalling was lost"


class PeerSession(View):
    """`send(frame)` takes a frame for the peer, and says whether it went. Made where an event loop runs.

    `on_state(session)` is called at each change of `state`; `can_send()`: whether frames go out now; `keep`: a peer
    that says goodbye is called again; `way`: to a UDP port that all sessions share.
    """

    def __init__(
        self,
        me: str,
        peer: str,
        settings: AgentSettings,
        identity: Identity,
        send: Callable[[Frame], bool],
        *,
        can: Caps = NO_CAPS,
        can_send: Callable[[], bool] = lambda: True,
        keep: bool = False,
        way: Way | None = None,
    ) -> None:
        self.me, self.peer, self._settings, self._way = me, peer, settings, way
        self._send, self._can_send = send, can_send
        self._hand = Hand(me, peer, identity, can)
        self._turns = Turns(is_smaller=me < peer, keep=keep)
        self._cargo = Cargo(settings.data_channel_label, can, is_smaller=me < peer)
        self.main, self.datagrams = self._cargo.main, self._cargo.datagrams
        self.on_state: Callable[[PeerSession], None] = lambda session: None
        self.caps = NO_CAPS  # of the peer
        self._id = ""  # of the negotiation
        self._offer: Offer | None = None  # ours, that waits for its answer
        self._answer: Answer | None = None  # ours, to the offer of this id
        self._is_back = False  # signalling is
        self._goodbye: str | None = None  # the peer has said it, by way of the server
        self._seen: deque[str] = deque(maxlen=MAX_SEEN)  # negotiations that the peer has begun
        self._warned, self._told = ("", ""), ""  # of last; what is tried again and again need not be told as often
        self._inbox: asyncio.Queue[Routed | Error | None] = asyncio.Queue(MAX_WAITING)
        self._closing: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run(), name=f"session {peer}")

    # What others do with it

    def offer(self) -> None:
        """Call the peer, and call it again whenever it is lost."""
        self._turns.want()
        self._wake()

    def take(self, frame: Routed | Error) -> None:
        """What the peer says by way of the signalling server, or the server of the peer."""
        if not self._inbox.full():  # else it is lost, as it may be on its way; each try has its own time
            self._inbox.put_nowait(frame)

    def signalling_is_back(self) -> None:
        """Frames go out again. What was on its way may not have arrived."""
        self._is_back = True
        self._wake()

    async def close(self, why: str = "") -> None:
        """It is over, and the peer is told."""
        if self.state != "closed":
            self._send(self._hand.bye(self._id, why))
            self.end(why or "we have closed it")
        if self._closing:
            await asyncio.wait(self._closing)

    # The one task

    async def _run(self) -> None:
        while self.state != "closed":
            try:
                async with asyncio.timeout(LOOK_S):
                    frame = await self._inbox.get()
            except TimeoutError:
                frame = None
            try:
                if frame is not None:
                    await self._heard(frame)
                await self._look(time.monotonic())
            except Refused as reason:
                self._warn("refused", str(reason))
                self._lost(str(reason))
            except Exception as error:  # aiortc's, in the middle of something: the next connection is a new one
                log.warning("a connection failed", peer=self.peer, why=f"{type(error).__name__}: {error}")
                self._lost(f"{type(error).__name__}: {error}")

    async def _heard(self, frame: Routed | Error) -> None:
        if isinstance(frame, Offer):
            await self._offered(frame)
        elif isinstance(frame, Answer):
            await self._answered(frame)
        elif isinstance(frame, Error):
            if self._offer and frame.session in ("", self._id):
                self._lost(frame.error)
        elif frame.session in (self._id, "") and (frame.session or not self.signed):
            if isinstance(frame, Trickle):
                if self.path and frame.candidate:
                    self.path.add_candidate(frame.candidate.candidate)
            elif self.is_connected() and self.signed:
                self._goodbye = frame.why  # anybody on the way could have said so: it counts once the connection ends
            else:
                self._left(frame.why)

    async def _look(self, now: float) -> None:
        """What the connection has become, and what is late."""
        if self._is_back:
            self._is_back = False
            self._begin_again()
        path = self.path
        if path is None:
            if self._turns.is_due(now):
                await self._call()
        elif path.state in ("failed", "closed"):
            self._lost("the connection has ended" if self.state == "connected" else "no way to the peer was found")
        elif path.state == "connected":
            if why := self._hand.why_not():
                log.warning("a peer's connection is ended", peer=self.peer, why=why)
                self._lost(why)
            elif self.state != "connected":
                self._connected(path)
            elif self.signed and (silent_s := self.silent_s(path, now)):
                self._lost(f"nothing from the peer for {silent_s:g} s")
            else:
                self._cargo.beat(now)
                if path.straighten(now):
                    log.info("another way to a peer", peer=self.peer, path=path.kind, at=path.remote)
        elif now - path.began_at > TRY_S:
            has_answer = self._offer is None
            self._lost(late(TRY_S, self._settings.ice_servers) if has_answer else f"no answer within {TRY_S:g} s")

    # Negotiation

    async def _call(self) -> None:
        """Offer."""
        self._turns.begun()
        if not self._can_send():  # nothing is built for it: without a server that would go on for as long as it lasts
            self._lost(NO_SERVER)
            return
        self._id = secrets.token_hex(8)
        self._cargo.signed = False
        path = self.path = self._new_path()
        self._cargo.offered(path)
        self._offer = offer = self._hand.offer(await path.offer(), self._id, self.connections)
        self._become("connecting", "")
        if not self._send(offer):
            self._lost(NO_SERVER)
            return
        path.gather()

    def _begin_again(self) -> None:
        """Frames go out again: call now, and anew where nobody has answered our offer."""
        if self.state == "connecting" and self._offer:
            self._drop()
            self._turns.want()
            self._become("waiting", SERVER_LOST)
        self._turns.now()

    async def _offered(self, offer: Offer) -> None:
        """Answer, unless our own offer counts more."""
        if offer.session and offer.session == self._id and self._answer:
            self._send(self._answer)  # it was lost
            return
        if offer.session in self._seen:
            return  # somebody on the way says again what the peer has said long ago
        if self._offer and self._turns.is_smaller:
            self._send(self._offer)  # theirs may come from a new life of the peer, which has not seen it
            return
        try:
            signed, theirs = self._hand.read(offer)
        except Refused as reason:  # and what there is between us, which others may want to end, goes on
            self._warn("an offer is refused", str(reason))
            self._send(self._hand.bye(offer.session, str(reason)))
            return
        self._drop()
        self._turns.begun()
        self._id, self._cargo.signed, self.caps = offer.session, signed, theirs
        path = self.path = self._new_path()
        self._become("connecting", "")
        sdp = await path.answer(offer.sdp)
        self._answer = answer = self._hand.answer(sdp, offer, self.connections, signed=signed)
        if not self._send(answer):
            self._lost(NO_SERVER)
            return
        self._seen += [offer.session] if offer.session else []
        path.gather()

    async def _answered(self, answer: Answer) -> None:
        offer, path = self._offer, self.path
        if not offer or not path or answer.session not in (self._id, ""):
            return  # it is too late
        try:
            self._cargo.signed, self.caps = self._hand.read(answer, offer.sdp)
        except Refused as reason:
            self._send(self._hand.bye(self._id, str(reason)))  # or it would wait for us, and never know why
            raise
        self._offer = None
        await path.accept(answer.sdp)

    def _new_path(self) -> Path:
        negotiation = self._id

        def found(text: str | None) -> None:
            if negotiation == self._id:
                self._send(self._hand.candidate(text, negotiation))

        def channel(below: RTCDataChannel) -> None:
            if path is self.path:
                self._cargo.opened(below)

        path = Path(self._settings, self._wake, found, channel, self._way)
        return path

    def _connected(self, path: Path) -> None:
        self.connections += 1
        self._connected_at = time.monotonic()
        self._turns.connected()
        self._told = ""
        if self.signed:
            self._hand.met()
        log.info("connected to a peer", peer=self.peer, path=path.kind, at=path.remote, signed=self.signed)
        self._cargo.connected(path, self.caps, by_us=self._answer is None)
        self._become("connected", "")

    # Ends

    def _left(self, why: str) -> None:
        """The peer has said goodbye, or it will not have what we have offered."""
        text = f"the peer refuses: {why}" if why and self._offer else left(why)
        if self._turns.keep:
            self._lost(text)
        else:
            self.end(text)

    def _lost(self, why: str) -> None:
        """The connection has gone, or did not come to be: another one is to be had."""
        goodbye, self._goodbye = self._goodbye, None
        if self.state == "closed":
            return
        if goodbye is not None and not self._turns.keep:
            self.end(left(goodbye))
            return
        (log.debug if why == self._told else log.info)("no connection to a peer", peer=self.peer, why=why)
        self._told = why
        self._drop()
        self._turns.lost(time.monotonic())
        self._become("waiting", why)

    def end(self, why: str) -> None:
        """It is over, and the peer is not told."""
        self._drop()
        self._become("closed", why)
        self._cargo.channels.end()
        if asyncio.current_task() is not self._task:
            self._task.cancel()  # it may be in the middle of an offer, whose connection has just been closed

    def _drop(self) -> None:
        """This connection is nobody's any more."""
        path, self.path, self._offer, self._answer = self.path, None, None, None
        self._cargo.unbind()
        if path:
            task = asyncio.create_task(path.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _become(self, state: State, why: str) -> None:
        self.why = why
        if self.state != state:
            self.state = state
            self.on_state(self)

    def _warn(self, event: str, why: str) -> None:
        (log.debug if (event, why) == self._warned else log.warning)(event, peer=self.peer, why=why)
        self._warned = (event, why)

    def _wake(self) -> None:
        if not self._inbox.full():
            self._inbox.put_nowait(None)
