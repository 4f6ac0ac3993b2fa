"""The DTLS session of a connection, with many records a step, both ways, for whatever runs over it.

aiortc decrypts, answers and sends one datagram after the other, and asks OpenSSL three times for each. Here all that
has arrived is decrypted together, what is sent in one turn of the event loop leaves in as few system calls as it can,
and SCTP acknowledges every second packet, as RFC 9260 (6.2) has it. Handshakes, alerts and media stay with aiortc.
Private names of aiortc 1.16, aioice 0.13 and pyOpenSSL 26 are used here and, of the first two, in ice.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from aiortc import RTCDtlsTransport
from aiortc.rtcsctptransport import RTCSctpTransport
from OpenSSL import SSL

from procs.agent.udp import BatchTransport

DATAGRAMS_A_STEP = 256
PACKETS_A_SACK = 2
_RECORD = b"\x17\xfe\xfd"  # of application data, in DTLS 1.2
_NOTHING = b"\xff"  # a datagram of no protocol
_HEAD = 13  # of a record: type, version, epoch and number, length
# OpenSSL reads up to 16 KiB at a time, and would lose the record that lies across the border.
_GROUP_BYTES = 15_000
_MAX_RECORD = 1 << 14
_OUT_BYTES = 1 << 16
_SSL: Any = getattr(SSL, "_lib")  # noqa: B009
_FFI: Any = getattr(SSL, "_ffi")  # noqa: B009


class Dtls:
    """Takes over one connected RTCDtlsTransport. What it carries beside SCTP goes to `on_other`."""

    def __init__(self, transport: RTCDtlsTransport, on_other: Callable[[list[bytes]], None]) -> None:
        if transport.state != "connected":
            raise ConnectionError("there is no DTLS session yet")
        self._transport, self._on_other = transport, on_other
        self._connection = transport.transport._connection
        self._session: Any = transport._ssl
        self._left: deque[bytes] = deque()  # datagrams that are aiortc's
        self._text, self._out = _FFI.new("char[]", _MAX_RECORD), _FFI.new("char[]", _OUT_BYTES)
        self._channels: list[bytes] = []  # packets of SCTP
        self._acks: _Acks | None = None
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self.dropped = 0  # datagrams: no path, or no room
        self._unreadable = 0
        transport.transport._recv = self._receive
        transport._send_data = self._send_data  # type: ignore[method-assign]
        transport._write_ssl = self._write_ssl  # type: ignore[method-assign]
        self._connection._queue.put_nowait((_NOTHING, 1))  # aiortc is waiting where it always has, for the last time
        for each in self._connection._protocols:
            if isinstance(each.transport, BatchTransport):
                each.transport.on_records = self._came

    @property
    def unreadable(self) -> int:
        """Datagrams that have come and are nothing: no STUN and no DTLS, forged, damaged, or here a second time."""
        sockets = [each.transport for each in self._connection._protocols]
        return self._unreadable + sum(each.unreadable for each in sockets if isinstance(each, BatchTransport))

    @property
    def role(self) -> str:
        """Ours in the handshake: client or server."""
        return str(self._transport._role)

    def export(self, label: bytes, context: bytes, size: int) -> bytes:
        """Keying material of this session for other uses (RFC 5705); the other side has the same."""
        found: bytes = self._session.export_keying_material(label, size, context)
        return found

    # --- out ------------------------------------------------------------------------------------------

    def write(self, texts: Sequence[bytes], *, ahead: bool = False) -> int:
        """Send each as a record, now. How many went out, or wait for a socket that is full for a moment, or for their
        turn at a relay; `ahead` of those."""
        if self._transport.state != "connected":
            self.dropped += len(texts)
            return 0
        try:
            self._encrypt(texts)
        except SSL.Error:  # an alert of the other side has ended it, as aiortc is about to find out
            self.dropped += len(texts)
            return 0
        return len(texts) - self._flush(ahead=ahead)

    def _encrypt(self, texts: Sequence[bytes]) -> None:
        write, session = _SSL.SSL_write, self._session._ssl
        for text in texts:
            if (done := write(session, text, len(text))) <= 0:
                self._session._raise_ssl_error(session, done)

    async def _send_data(self, data: bytes) -> None:
        """In the place of RTCDtlsTransport._send_data."""
        if self._transport.state != "connected":
            raise ConnectionError("the DTLS session has ended")
        try:
            self._encrypt([data])
        except SSL.Error as error:
            raise ConnectionError(f"the DTLS session has ended: {error}") from None
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    async def _write_ssl(self) -> None:
        """In the place of RTCDtlsTransport._write_ssl, which would cut records in two."""
        self._flush()

    def _flush(self, *, ahead: bool = False) -> int:
        """Hand all records over; how many could not be."""
        self._flushing, lost = False, 0
        pair = self._connection._nominated.get(1)
        for run, step in runs(self._pending()):
            transport: Any = pair.protocol.transport if pair else None  # ours, whatever it is
            if pair and ahead:
                for start in range(0, len(run), step):
                    transport.sendto(run[start : start + step], pair.remote_addr)
            else:
                lost += -(-len(run) // step) - (transport.send_cut(run, step, pair.remote_addr) if pair else 0)
        self.dropped += lost
        return lost

    def _pending(self) -> bytes:
        """All that OpenSSL has for us."""
        parts: list[bytes] = []
        size = _OUT_BYTES
        while size == _OUT_BYTES:
            size = _SSL.BIO_read(self._session._from_ssl, self._out, _OUT_BYTES)
            if size > 0:
                parts.append(_FFI.buffer(self._out, size)[:])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- in -------------------------------------------------------------------------------------------

    async def _receive(self) -> bytes:
        """In the place of RTCIceTransport._recv: aiortc gets what is its own. There is no media."""
        while not self._left:
            datagrams = [await self._connection.recv()]
            queue = self._connection._queue
            while not queue.empty() and len(datagrams) < DATAGRAMS_A_STEP:
                item = queue.get_nowait()
                if item is None:  # the end: it is for the next one who asks
                    queue.put_nowait(None)
                    break
                datagrams.append(item[0])
            self._take(datagrams)
            if self._channels and self._acks:
                packets, self._channels = self._channels, []
                await self._acks.take(packets)
        return self._left.popleft()

    def _came(self, records: list[bytes]) -> None:
        """From our own sockets, past aioice."""
        self._take(records)
        # A sign of life for those who watch for one (ice.py), and what wakes `_receive`.
        self._connection.data_received(_NOTHING, 1)

    def _take(self, datagrams: list[bytes]) -> None:
        acks = self._association()
        other: list[bytes] = []
        for text in self._decrypted(datagrams):
            (self._channels if acks and text[:2] == acks.port else other).append(text)
        if other:
            self._on_other(other)

    def _decrypted(self, datagrams: list[bytes]) -> list[bytes]:
        texts: list[bytes] = []
        group: list[bytes] = []
        room = _GROUP_BYTES
        for datagram in datagrams:
            size = len(datagram)
            # One whole record; what lies about its length would hide those that come after it.
            if datagram[:3] != _RECORD or size < _HEAD or size != _HEAD + (datagram[11] << 8 | datagram[12]):
                if is_dtls(datagram):
                    self._left.append(datagram)
                elif datagram is not _NOTHING:
                    self._unreadable += 1
                continue
            if size > room:
                self._open(group, texts)
                group, room = [], _GROUP_BYTES
            group.append(datagram)
            room -= size
        self._open(group, texts)
        return texts

    def _open(self, group: list[bytes], texts: list[bytes]) -> None:
        """Decrypt these. What is forged, or comes a second time, gives nothing."""
        if not group:
            return
        session, text, before = self._session._ssl, self._text, len(texts)
        joined = b"".join(group)
        _SSL.BIO_write(self._session._into_ssl, joined, len(joined))
        while (size := _SSL.SSL_read(session, text, _MAX_RECORD)) > 0:
            texts.append(_FFI.buffer(text, size)[:])
        _SSL.ERR_clear_error()
        self._unreadable += max(0, len(group) - (len(texts) - before))

    def _association(self) -> _Acks | None:
        receiver = self._transport._data_receiver
        if not isinstance(receiver, RTCSctpTransport):
            return None
        if self._acks is None or self._acks.association is not receiver:
            self._acks = _Acks(receiver)
        return self._acks


class _Acks:
    """Has an SCTP association acknowledge every second packet of those that came together, and the last at once."""

    def __init__(self, association: RTCSctpTransport) -> None:
        self.association = association
        self.port = (association._remote_port or 0).to_bytes(2, "big")  # where each of its packets begins
        self._send = association._send_sack
        self._more, self._held = False, 0
        association._send_sack = self._sack  # type: ignore[method-assign]

    async def take(self, packets: list[bytes]) -> None:
        """Hand these over."""
        self._more = True
        try:
            for packet in packets:
                await self.association._handle_data(packet)
        finally:
            self._more = False
        if self.association._sack_needed:
            await self._sack()

    async def _sack(self) -> None:
        self._held += 1
        # Who misses something is told at once: losses are found by counting acknowledgements.
        if self._more and self._held < PACKETS_A_SACK and not self.association._sack_misordered:
            return
        self._held = 0
        await self._send()


def is_dtls(datagram: bytes) -> bool:
    """Whether it is made of whole records of DTLS, of whatever kind."""
    at, size = 0, len(datagram)
    while at + _HEAD <= size and 20 <= datagram[at] < 64:
        at += _HEAD + (datagram[at + 11] << 8 | datagram[at + 12])
    return at == size > 0


def runs(records: bytes) -> list[tuple[bytes, int]]:
    """Records that lie behind each other, cut into what can leave together: equal sizes, the last maybe shorter."""
    found: list[tuple[bytes, int]] = []
    start = at = step = 0
    while at < len(records):
        size = _HEAD + (records[at + 11] << 8 | records[at + 12])
        if size > step or (at - start) % step:
            if at > start:
                found.append((records[start:at], step))
            start, step = at, size
        at += size
    if at > start:
        found.append((records[start:at] if start else records, step))
    return found
