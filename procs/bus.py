"""ZeroMQ between our processes: which endpoints there are, who binds them, and how a message is sent.

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
IMMEDIATE, so that a message to nobody fails at once instead of waiting in a queue. Requests: procs/rpc.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
import zmq

from procs.errors import ConfigError, Refused
from procs.messages import MAX_BODY_BYTES, MAX_BYTES, encode

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
    return send_now(sock, [worker.encode(), *frames] if worker else frames)


def send_now(sock: zmq.asyncio.Socket, frames: list[bytes]) -> bool:
    """Send frames at once or not at all. Returns whether they went."""
    sent = sock.send_multipart(frames, flags=zmq.DONTWAIT)
    # With DONTWAIT the future is done when the call returns.
    return not isinstance(cast("asyncio.Future[None]", sent).exception(), zmq.ZMQError)


def send_one(sock: zmq.asyncio.Socket, message: msgspec.Struct) -> bool:
    """Send a message without a body, as `send_work` does."""
    return send_now(sock, [encode(message)])


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
