"""ZeroMQ between our processes: which endpoints there are, who binds them, and requests that survive a restart.

| endpoint                 | pattern          | binds             | connects       | carries          |
|--------------------------|------------------|-------------------|----------------|------------------|
| warden.heartbeat         | PULL <- PUSH     | warden            | every process  | see below        |
| warden.state             | ROUTER <- DEALER | warden            | see below      | Request -> Reply |
| headless_agent.N.control | ROUTER <- DEALER | producer N        | scripts/cli.py | Request -> Reply |
| ws_link.state            | ROUTER <- DEALER | ws_link           | scripts        | Request -> Reply |
| audio_io.state           | ROUTER <- DEALER | audio_io          | scripts        | Request -> Reply |
| voice.state              | ROUTER <- DEALER | voice             | hub, scripts   | Request -> Reply |
| ws_link.work             | ROUTER - DEALER  | ws_link           | each proxy     | see below        |
| ws_link.sessions         | ROUTER - DEALER  | ws_link           | webrtc_peer    | see below        |
| webrtc_peer.children     | ROUTER - DEALER  | webrtc_peer       | its children   | see below        |
| webrtc_peer.tunnels      | ROUTER - DEALER  | webrtc_peer       | its children   | see below        |
| tun_pump.packets         | ROUTER - DEALER  | tun_pump          | each tunnel    | see below        |
| voice.children           | ROUTER - DEALER  | voice             | its children   | see below        |

At warden.heartbeat every process says `Heartbeat`, webrtc_peer `Watching`, and tun_pump `TunnelState`.

The warden is asked how the suite is, and to restart a process of it, by scripts/cli.py, by ws_link for the hub of this
device, and by the hub for its own machine.

Both ways at ws_link.work a message is two frames, a struct of procs/messages and a raw body that may be empty: `Ready`,
`TicketWanted`, `JobDone` from a proxy, whose identity is its instance ("0", "1"), and `TicketGrant`, `TicketRefused`,
`Job` to it. Nothing there waits: what nobody takes now is dropped, and who misses an answer asks again.

At ws_link.sessions, in the same form, webrtc_peer (identity "webrtc_peer") says `SessionsReady`; both say `Signal`, and
`SignalTaken` for one of the other's. At webrtc_peer.children a child, whose identity is its session's id, says `Beat`,
`Signal`, `Takes`, `PacketsWanted`, `KeyframeWanted`, `RateWanted`; it is told `Signal`, `Source`, `Sent`; an encoder,
whose identity is its name, says `Encoding`, `Unit`, and is told `Unit`, `Keyframe`, `Bitrate`. At webrtc_peer.tunnels
one that has a session with another agent, whose id is its identity, says `TunnelBeat`, `AgentFrame`; it is told
`Signalling`, `AgentFrame`. Beside these, at webrtc_peer.ways, a child says `Way` to a datagram socket of the kernel's
own: ZeroMQ can't carry the sockets that go with it.

At tun_pump.packets whoever has a session for IP packets, a child of webrtc_peer, whose identity is the id of its peer,
says `PeerUp` or `PeerAway` each second and is told `PumpUp`; both say `Packets`, whose body holds several. By the same
way its ICE and DTLS use the UDP port of tun_pump: it says `Listening` and `Depart`, and is told `Arrive`; both say
`Reached`. How much may be on its way is counted in bytes (procs/agent/conduit.py). It says the keys of plane 3, too, as
`LaneKeys`.

At voice.children a child of the voice backend, whose identity is the id of its conversation, says `VoiceBeat`, `Line`,
`VoiceFigures`, `Outgoing`; it is told `SayWanted`, `MuteWanted`, `Incoming` (procs/messages/voice.py).

Sockets lie in run/bus (0700) as ipc:// only. LINGER 0, small high-water marks, a size limit on every reader, and
IMMEDIATE, so that a message to nobody fails at once instead of waiting in a queue. Never REQ/REP: a server that
dies between the two leaves the client waiting for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import msgspec
import zmq

from procs.errors import ConfigError, DeadlineExceeded, Refused
from procs.messages import MAX_BODY_BYTES, MAX_BYTES, decode, encode
from procs.messages.requests import Command, Reply, Request

if TYPE_CHECKING:
    import asyncio

    import zmq.asyncio

K = TypeVar("K", bound="zmq.Socket[Any]")
WARDEN_HEARTBEAT = "warden.heartbeat"
WARDEN_STATE = "warden.state"
WS_LINK_STATE = "ws_link.state"
AUDIO_IO_STATE = "audio_io.state"
VOICE_STATE = "voice.state"
WS_LINK_WORK = "ws_link.work"
WS_LINK_SESSIONS = "ws_link.sessions"
WEBRTC_PEER_CHILDREN = "webrtc_peer.children"
WEBRTC_PEER_WAYS = "webrtc_peer.ways"  # not ZeroMQ's
WEBRTC_PEER_TUNNELS = "webrtc_peer.tunnels"
TUN_PUMP_PACKETS = "tun_pump.packets"
VOICE_CHILDREN = "voice.children"
HIGH_WATER = 64  # messages; a frozen reader must not grow its writer
HIGHER_WATER = {
    WEBRTC_PEER_CHILDREN: 512,  # an encoder that joins gets seconds of a stream at once
    VOICE_CHILDREN: 512,  # a browser's frames wait until its child is there
}
EAGER = {TUN_PUMP_PACKETS}  # while its binder is away packets are lost
RESEND_S = 0.25  # an unanswered idempotent request goes out again this often
MAX_BESIDE = 16  # requests of one asynchronous responder at a time
MAX_SOCKET_PATH = 107  # sockaddr_un


def control_of(instance: str) -> str:
    """The endpoint at which one producer takes commands."""
    return f"headless_agent.{instance}.control"


def path(run_dir: Path, endpoint: str) -> Path:
    """Where the socket of an endpoint lies. Raises ConfigError where that is too long for a socket."""
    directory = run_dir / "bus"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)  # it may have been made by somebody less careful
    found = str(directory / endpoint)
    if len(found.encode()) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"PLANARIA_RUN_DIR={str(run_dir)!r}: too long for a socket: {len(found)} characters with {endpoint}, and"
            f" {MAX_SOCKET_PATH} are allowed; choose a shorter directory"
        )
    return directory / endpoint


def address(run_dir: Path, endpoint: str) -> str:
    """The ipc:// address of an endpoint. Raises ConfigError as `path` does."""
    return f"ipc://{path(run_dir, endpoint)}"


def _socket(context: zmq.Context[K], kind: int, max_bytes: int = MAX_BYTES, high_water: int = HIGH_WATER) -> K:
    sock = context.socket(kind)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.SNDHWM, high_water)
    sock.setsockopt(zmq.RCVHWM, high_water)
    sock.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    sock.setsockopt(zmq.IMMEDIATE, 1)
    sock.setsockopt(zmq.RECONNECT_IVL, 10)  # ms; a killed binder is back within tens of ms
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
    return sock


def binder(context: zmq.Context[K], kind: int, run_dir: Path, endpoint: str) -> K:
    """A bound socket. A stale file of a dead binder is no obstacle; a living one is silently cut off, so whoever
    binds holds a lock of the same name first."""
    sock = _socket(context, kind)
    sock.bind(address(run_dir, endpoint))
    return sock


def connector(context: zmq.Context[K], kind: int, run_dir: Path, endpoint: str) -> K:
    """A connected socket; the binder need not be there yet."""
    sock = _socket(context, kind)
    sock.connect(address(run_dir, endpoint))
    return sock


def work_binder(context: zmq.Context[K], run_dir: Path, endpoint: str = WS_LINK_WORK) -> K:
    """The end of those of two frames that all others meet at. One that was killed and is back takes its name over at
    once."""
    sock = _socket(context, zmq.ROUTER, MAX_BODY_BYTES, HIGHER_WATER.get(endpoint, HIGH_WATER))
    sock.setsockopt(zmq.ROUTER_HANDOVER, 1)
    sock.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that sending to a worker that is gone fails, and is not silent
    sock.bind(address(run_dir, endpoint))
    return sock


def work_connector(context: zmq.Context[K], run_dir: Path, worker: str, endpoint: str = WS_LINK_WORK) -> K:
    """The other end, under a name; who binds need not be there yet."""
    sock = _socket(context, zmq.DEALER, MAX_BODY_BYTES, HIGHER_WATER.get(endpoint, HIGH_WATER))
    sock.setsockopt(zmq.IDENTITY, worker.encode())
    if endpoint in EAGER:
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 0)  # as often as at first, however long it takes
    sock.connect(address(run_dir, endpoint))
    return sock


def send_work(sock: zmq.asyncio.Socket, message: msgspec.Struct, body: bytes = b"", *, worker: str = "") -> bool:
    """Send a message and its body, at once or not at all; who binds names the worker. Returns whether it went.

    Raises Refused when it is larger than the other side takes.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Refused(f"a body of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}")
    frames = [encode(message), body]
    return _send_now(sock, [worker.encode(), *frames] if worker else frames)


def _send_now(sock: zmq.asyncio.Socket, frames: list[bytes]) -> bool:
    sent = sock.send_multipart(frames, flags=zmq.DONTWAIT)
    # With DONTWAIT the future is done when the call returns.
    return not isinstance(cast("asyncio.Future[None]", sent).exception(), zmq.ZMQError)


def send_one(sock: zmq.asyncio.Socket, message: msgspec.Struct) -> bool:
    """Send a message without a body, as `send_work` does."""
    return _send_now(sock, [encode(message)])


async def receive_work(sock: zmq.asyncio.Socket) -> tuple[str, bytes, bytes]:
    """Wait for a message: (worker, or "" at one; message, to be decoded; body). Others than that are left out."""
    while True:
        frames = await sock.recv_multipart()
        if sock.type == zmq.DEALER:
            frames.insert(0, b"")
        if len(frames) == 3:
            return frames[0].decode(errors="replace"), frames[1], frames[2]


def now_ms() -> int:
    """This machine's monotonic clock, as deadlines on the bus use it."""
    return time.monotonic_ns() // 1_000_000


class Responder:
    """Answers requests at one endpoint. `refused` counts messages that were not taken, `expired` those too late."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], run_dir: Path, endpoint: str) -> None:
        self._sock = binder(context, zmq.ROUTER, run_dir, endpoint)
        self.refused = 0
        self.expired = 0

    def wait_with(self, poller: zmq.Poller) -> None:
        """Have a poller of the caller's wake up for requests, too; `serve` is then called in each turn, without a
        wait."""
        poller.register(self._sock, zmq.POLLIN)

    def serve(self, handle: Callable[[Command], Reply | None], wait_s: float) -> bool:
        """Wait for one request and answer it with what `handle` gives (None: plain ok; Refused: its reason).

        Returns False if none came within wait_s.
        """
        if not self._sock.poll(int(wait_s * 1000)):
            return False
        frames = self._sock.recv_multipart()
        try:
            request = _request(frames)
        except Refused as reason:
            self.refused += 1
            self._answer(frames[0], Reply(id=0, ok=False, reason=str(reason)))
            return True
        if request.deadline_ms < now_ms():
            self.expired += 1  # whoever asked has given up: a stale command must not act
            return True
        try:
            reply = handle(request.body) or Reply(id=request.id, ok=True)
        except Refused as reason:
            self.refused += 1
            reply = Reply(id=request.id, ok=False, reason=str(reason))
        self._answer(frames[0], Reply(id=request.id, ok=reply.ok, reason=reply.reason, body=reply.body))
        return True

    def _answer(self, to: bytes, reply: Reply) -> None:
        with contextlib.suppress(zmq.Again):  # the asker's queue is full or it is gone; its deadline tells it
            self._sock.send_multipart([to, _whole(reply)], flags=zmq.DONTWAIT)


def _request(frames: Sequence[bytes]) -> Request:
    if len(frames) != 2:
        raise Refused(f"a request is one frame, not {len(frames) - 1}")
    return decode(frames[1], Request)


def _whole(reply: Reply) -> bytes:
    try:
        return encode(reply)
    except Refused as reason:  # too long: whoever asked is to hear of it, and the next one is to be answered
        return encode(Reply(id=reply.id, ok=False, reason=str(reason)))


async def respond(sock: zmq.asyncio.Socket, handle: Callable[[Command], Awaitable[Reply | None]]) -> NoReturn:
    """As Responder, at a bound ROUTER in an asyncio loop: requests are handled beside each other, MAX_BESIDE at most;
    others are left unanswered, for their askers to send again."""
    import asyncio  # here: a producer, which has no event loop, need not pay for it

    async def answer(to: bytes, request: Request) -> None:
        try:
            reply = await handle(request.body) or Reply(id=request.id, ok=True)
        except Refused as reason:
            reply = Reply(id=request.id, ok=False, reason=str(reason))
        data = _whole(Reply(id=request.id, ok=reply.ok, reason=reply.reason, body=reply.body))
        _send_now(sock, [to, data])

    async with asyncio.TaskGroup() as group:
        beside: set[asyncio.Task[None]] = set()
        while True:
            frames = await sock.recv_multipart()
            try:
                request = _request(frames)
            except Refused as reason:
                _send_now(sock, [frames[0], _whole(Reply(id=0, ok=False, reason=str(reason)))])
                continue
            if request.deadline_ms >= now_ms() and len(beside) < MAX_BESIDE:
                task = group.create_task(answer(frames[0], request))
                beside.add(task)
                task.add_done_callback(beside.discard)


class Requester:
    """Asks one endpoint. Usable as a context manager; not shared between threads."""

    def __init__(self, run_dir: Path, endpoint: str, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self._endpoint = endpoint
        self._sock = connector(context or zmq.Context.instance(), zmq.DEALER, run_dir, endpoint)
        # Ids of one asker never repeat, also not after its restart: a late reply can't be taken for another's.
        self._ids = itertools.count(int.from_bytes(os.urandom(6), "big") << 8)

    def __enter__(self) -> Requester:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def ask(self, body: Command, *, within_s: float = 2.0, idempotent: bool = True) -> Reply:
        """Send a command and return its reply. An idempotent one is sent again while the other side restarts.

        Raises DeadlineExceeded, and Refused when the other side did not take it.
        """
        deadline = now_ms() + int(within_s * 1000)
        request = Request(id=next(self._ids), deadline_ms=deadline, idempotent=idempotent, body=body)
        data, sent = encode(request), False
        while (left := deadline - now_ms()) > 0:
            if not sent or idempotent:
                sent = self._send(data, left) or sent
            reply = self._reply_to(request.id, min(left, int(RESEND_S * 1000)))
            if reply and not reply.ok:
                raise Refused(f"{self._endpoint}: {reply.reason}")
            if reply:
                return reply
        what = "no answer" if sent else "nobody there"
        raise DeadlineExceeded(f"{self._endpoint}: {what} within {within_s:g} s", retry=idempotent or not sent)

    def _send(self, data: bytes, left_ms: int) -> bool:
        if not self._sock.poll(min(left_ms, int(RESEND_S * 1000)), zmq.POLLOUT):
            return False
        try:
            self._sock.send(data, flags=zmq.DONTWAIT)
        except zmq.Again:  # the peer died between poll and send
            return False
        return True

    def _reply_to(self, request_id: int, wait_ms: int) -> Reply | None:
        until = now_ms() + wait_ms
        while (left := until - now_ms()) >= 0:
            if not self._sock.poll(left):
                return None
            reply = decode(self._sock.recv(), Reply)
            if reply.id in (request_id, 0):  # 0: refused before its id could be read
                return reply
        return None


async def ask(
    context: zmq.asyncio.Context,
    run_dir: Path,
    endpoint: str,
    body: Command,
    *,
    within_s: float = 2.0,
    idempotent: bool = True,
) -> Reply:
    """As Requester.ask in an asyncio loop. Raises DeadlineExceeded, Refused."""
    deadline = now_ms() + int(within_s * 1000)
    request_id = int.from_bytes(os.urandom(7), "big")
    data, sent = encode(Request(id=request_id, deadline_ms=deadline, idempotent=idempotent, body=body)), False
    sock = _socket(context, zmq.DEALER)
    sock.connect(address(run_dir, endpoint))
    poll = cast("Callable[[int, int], Awaitable[int]]", sock.poll)  # its stub is that of Poller.poll
    try:
        while (left_ms := deadline - now_ms()) > 0:
            wait_ms = min(left_ms, int(RESEND_S * 1000))
            if (idempotent or not sent) and await poll(wait_ms, zmq.POLLOUT):
                sent = _send_now(sock, [data]) or sent
            if await poll(wait_ms, zmq.POLLIN):
                reply = decode(await sock.recv(), Reply)
                if not reply.ok:
                    raise Refused(reply.reason)
                return reply
    finally:
        sock.close()
    raise DeadlineExceeded(f"{endpoint}: no answer within {within_s:g} s", retry=idempotent or not sent)
