"""The leader's end of the ways to all viewers: which their children have found, and what is sent there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from pathlib import Path

from procs import bus, log
from procs.errors import Refused
from procs.messages import MAX_BYTES
from procs.messages.watch import PacketsWanted, Sent, Unit, Way, decode_way
from procs.webrtc_peer import srtp
from procs.webrtc_peer.gate import Gate
from procs.webrtc_peer.sender import Sender

MAX_KINDS = 2  # pictures and sound


class Outlets:
    """Of all sessions. `is_open(session)`: that there is one; `joined(session)`: it can be sent something, as it says
    again and again; `broken(session, why)`: nothing can be sent there any more."""

    def __init__(
        self,
        run_dir: Path,
        is_open: Callable[[str], bool],
        joined: Callable[[str], None],
        broken: Callable[[str, str], None],
    ) -> None:
        self._is_open, self._joined, self._broken = is_open, joined, broken
        self._senders: dict[str, dict[str, Sender]] = {}  # session -> kind -> its sender
        path = bus.path(run_dir, bus.WEBRTC_PEER_WAYS)
        path.unlink(missing_ok=True)  # of one that was killed
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind(str(path))
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._hear)

    def push(self, session_id: str, unit: Unit, data: bytes) -> bool:
        """Send this. False when the session needs a keyframe."""
        sender = self._senders.get(session_id, {}).get(unit.kind)
        return sender is None or sender.push(unit, data)

    def again(self, wanted: PacketsWanted) -> None:
        """Send packets again."""
        if sender := self._senders.get(wanted.session_id, {}).get(wanted.kind):
            sender.send_again(wanted)

    def sent(self, session_id: str) -> list[Sent]:
        """What a session has been sent, of each kind."""
        return [sender.sent for sender in self._senders.get(session_id, {}).values()]

    def close(self, session_id: str) -> None:
        """A session is over."""
        for sender in self._senders.pop(session_id, {}).values():
            sender.close()

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self.sock, MAX_BYTES, MAX_KINDS, socket.MSG_CMSG_CLOEXEC)
                left = [socket.socket(fileno=each) for each in descriptors]
                try:
                    self._take(decode_way(data), left)
                except Refused as reason:
                    log.warning("malformed bus message", reason=str(reason))
                finally:
                    for sock in left:
                        sock.close()

    def _take(self, way: Way, sockets: list[socket.socket]) -> None:
        """Take of the sockets what is used."""
        if len(sockets) != len(way.media):
            raise Refused(f"{len(sockets)} sockets for {len(way.media)} kinds of media")
        if not self._is_open(way.session_id):
            return  # it has just ended
        senders = self._senders.setdefault(way.session_id, {})
        for rtp in way.media:
            known = senders.get(rtp.kind)
            if known and known.key == rtp.key:
                known.move(Gate(sockets.pop(0), rtp.to))
                continue
            if known:  # of a session of the same name, which ended just before this one began
                known.close()
            cipher, gate = srtp.session(rtp.profile, rtp.key), Gate(sockets.pop(0), rtp.to)
            senders[rtp.kind] = Sender(rtp, cipher, gate, functools.partial(self._broken, way.session_id))
        self._joined(way.session_id)
