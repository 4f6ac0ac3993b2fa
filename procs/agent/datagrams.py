"""IP packets of one session, over whatever carries them now: DTLS records (plane 2), a data channel of several packets
a message (1), or one packet a message for a peer that is not ours (0). It outlives the connections below it. Whoever
owns the UDP port of plane 3 gets the keys for it here, and carries those packets itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from aiortc import RTCDataChannel

from procs.agent.caps import Caps
from procs.agent.dtls import Dtls
from procs.agent.kept import Kept
from procs.agent.lane.keying import LABEL as KEYS
from procs.agent.lane.keying import SECRET_BYTES, Keying, Keys
from procs.agent.lane.way import Address
from procs.agent.packing import OPTIONS, Packing
from procs.agent.path import Path
from procs.agent.planes import LANE, PACKED, RECORDS, Planes
from procs.agent.records import Records

LABEL = "planaria-ip"  # of the channel of plane 1
HEARD_S = 1.5  # whom we have heard of in this time on the control channel lives


class Datagrams:
    """`on_packets(packets)` is called with what comes, on any plane. `on_keys(keys, remote)`: of plane 3, for the nonce
    of its owner (`lane`), and where the peer is, if the way leads by its port; at each change and each second.

    Without a connection nothing is taken but the last few packets (kept.py), which go out as soon as the other side is
    heard again.
    """

    def __init__(self, ours: Caps) -> None:
        self.on_packets: Callable[[Sequence[bytes]], object] = lambda packets: None
        self.on_keys: Callable[[Keys, Address | None], object] = lambda keys, remote: None
        self._ours = self._theirs = ours
        self._nonce = b""
        self._keying: Keying | None = None
        self._records: Records | None = None
        self._packing: Packing | None = None
        self._planes: Planes | None = None
        self._dtls: Dtls | None = None
        self._before = dict.fromkeys(_COUNTS, 0)  # of connections that have gone
        self._unreadable = 0  # the same
        self._refused = 0  # packets, while there was no connection
        self._kept = Kept()

    @property
    def plane(self) -> int:
        """The one that packets go out on."""
        return self._planes.plane if self._planes else 0

    @property
    def is_up(self) -> bool:
        """Whether packets go out."""
        return bool(self._below)

    @property
    def is_bound(self) -> bool:
        """Whether there is a channel for them."""
        return self._packing is not None

    @property
    def mtu(self) -> int:
        """Of a packet that goes through whole, on the plane of now."""
        below = self._below
        return min(self._ours.mtu, self._theirs.mtu, below.mtu) if below else self._ours.mtu

    @property
    def stats(self) -> dict[str, float]:
        """Counts of packets and bytes, over all connections and planes."""
        found = dict(self._before)
        for each in (self._records, self._packing):
            for name in _COUNTS if each else ():
                found[name] += getattr(each, name)
        falls = self._planes.falls if self._planes else 0
        return {**found, "refused": self._refused, "unreadable": self.unreadable, "falls": falls}

    @property
    def unreadable(self) -> int:
        """Datagrams that have come to our port and are nothing of the peer's; anybody can send such."""
        return self._unreadable + (self._dtls.unreadable if self._dtls else 0)

    def send(self, packets: Sequence[bytes]) -> int:
        """Send these, as many as there is room for; how many that was."""
        below = self._below
        if below is None:
            self._kept.add(packets, time.monotonic())
            self._refused += len(packets)
            return 0
        return below.send(packets)

    def lane(self, nonce: bytes) -> None:
        """Have keys of plane 3 for this nonce, with a peer that knows it. Whoever owns the port says it at each change,
        and may say it as often as it likes."""
        self._nonce = nonce
        if self._keying:
            self._keying.ours(nonce)

    @property
    def _below(self) -> Records | Packing | None:
        return self._records if self.plane == RECORDS else self._packing

    # For the session

    def bind(self, path: Path, theirs: Caps, *, is_opener: bool) -> None:
        """Use this connection to a peer of ours from now on; one side opens the channel of plane 1."""
        now = time.monotonic()
        self._theirs = theirs
        self._planes = Planes(self._ours.planes, theirs.planes, now)
        if RECORDS in self._ours.planes and RECORDS in theirs.planes:
            self._records = Records(path.dtls)
            self._dtls = self._records.dtls
            self._records.on_packets = self._take
            self._records.on_answer = self._answered
            if LANE in self._ours.planes and LANE in theirs.planes:
                self._agree(path, self._records)
        else:
            self.bind_plain(path)
            self._probe(now)
        if is_opener and PACKED in self._ours.planes and PACKED in theirs.planes:
            self.bind_channel(path.open(LABEL, **OPTIONS))

    def bind_plain(self, path: Path) -> None:
        """Nothing goes beside the channels of this connection."""
        self._dtls = path.quicken()

    def bind_channel(self, below: RTCDataChannel, *, packed: bool = True) -> None:
        """This carries plane 1, or 0 if it is not `packed`."""
        self._packing = Packing(below, packed=packed)
        self._packing.on_packets = self._take

    def unbind(self) -> None:
        """The connection has gone."""
        self._before = {name: int(self.stats[name]) for name in _COUNTS}
        self._unreadable = self.unreadable
        self._records = self._packing = self._planes = self._dtls = self._keying = None

    def beat(self, now: float, heard_at: float) -> None:
        """Probe and choose, a few times a second; `heard_at`: when the control channel has said something last."""
        if self._packing:
            self._packing.age(now)
        if self._planes is None or self._records is None:
            self._send_kept(now)
            return
        if now - heard_at < HEARD_S:
            self._planes.lives(heard_at)
        self._probe(now)
        self._planes.check(now)
        if self._keying:
            self._keying.tick(now)

    def _agree(self, path: Path, records: Records) -> None:
        """On the keys of plane 3."""
        dtls = records.dtls
        keying = self._keying = Keying(
            lambda context: dtls.export(KEYS, context, SECRET_BYTES), records.hello, dtls.role
        )
        keying.on_keys = lambda keys: self.on_keys(keys, path.remote_address if path.is_by_way else None)
        records.on_hello = keying.heard
        if self._nonce:
            keying.ours(self._nonce)

    def _probe(self, now: float) -> None:
        if self._planes and self._records and self._planes.must_probe(now):
            self._records.probe()

    def _answered(self) -> None:
        now = time.monotonic()
        if self._planes:
            self._planes.answered(now)
        self._send_kept(now)

    def _send_kept(self, now: float) -> None:
        if (below := self._below) and (packets := self._kept.taken(now)):
            self._refused -= below.send(packets)

    def _take(self, packets: Sequence[bytes]) -> None:
        self.on_packets(packets)


_COUNTS = ("sent", "received", "dropped", "sent_bytes", "received_bytes")
