"""Viewers of a stream that note when each picture arrived: RTSP, MP4 over HTTP, MSE over WebSocket. No decoding."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import BinaryIO, NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from procs.kinds import Address
from procs.media import annexb, sei

READ_LIMIT_S = 15.0
KEEPALIVE_S = 20.0  # go2rtc gives up on a client of RTSP that says nothing for a minute
STARTING_S = 2.0
_CODECS = "avc1.640029,avc1.64002A,avc1.640033,avc1.42E01E,avc1.4D401E"


class Arrival(NamedTuple):
    """One picture: CLOCK_MONOTONIC when its last byte was here, RTP time (RTSP only), and the stamp it carries."""

    at_ns: int
    rtp_time: int
    stamp: sei.Stamp | None


class Viewer(threading.Thread):
    """Reads until stopped; `ended` says why it is no longer connected ('' while it is)."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.arrivals: list[Arrival] = []
        self.ended = ""
        self._left = False

    def leave(self) -> None:
        """Close the connection at the next picture."""
        self._left = True

    def run(self) -> None:
        try:
            self.read()
            self.ended = "closed by the other side"
        except (OSError, ConnectionClosed, http.client.HTTPException) as error:
            self.ended = f"{type(error).__name__}: {error}"

    def read(self) -> None:
        """Connect and note arrivals."""
        raise NotImplementedError

    def seen(self, rtp_time: int = 0, stamp: sei.Stamp | None = None) -> None:
        """Note one picture."""
        if self._left:
            raise ConnectionAbortedError("left")
        self.arrivals.append(Arrival(time.monotonic_ns(), rtp_time, stamp))

    def gap_ms(self, since_ns: int) -> float | None:
        """The longest pause between two pictures of which the later came after since_ns; None before it is over."""
        times = [arrival.at_ns for arrival in self.arrivals]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times) if later > since_ns]
        return max(pauses) / 1e6 if len(pauses) > 2 else None


class RtspViewer(Viewer):
    """RTSP with RTP interleaved in its TCP connection (RFC 2326, RFC 6184)."""

    def __init__(self, rtsp: Address, stream: str) -> None:
        super().__init__(f"rtsp {stream}")
        self._rtsp, self._url = rtsp, f"rtsp://{rtsp}/{stream}"

    def read(self) -> None:
        deadline = time.monotonic() + STARTING_S
        while True:
            try:
                self._watch()
                return
            except ConnectionRefusedError:  # a go2rtc that has just started listens before it knows of exec:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _watch(self) -> None:
        with socket.create_connection((self._rtsp.host, self._rtsp.port), timeout=READ_LIMIT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rb") as file:
                self._play(connection, file)

    def _play(self, connection: socket.socket, file: BinaryIO) -> None:
        def ask(line: str, more: str = "") -> tuple[dict[str, str], bytes]:
            connection.sendall(f"{line} RTSP/1.0\r\nCSeq: 1\r\n{more}\r\n".encode())
            return _rtsp_answer(file)

        sdp = ask(f"DESCRIBE {self._url}", "Accept: application/sdp\r\n")[1].decode()
        control = re.findall(r"a=control:(\S+)", sdp.partition("m=video")[2])[0]
        track = control if control.startswith("rtsp://") else f"{self._url}/{control}"
        setup = ask(f"SETUP {track}", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")[0]
        session = setup["session"].partition(";")[0]
        # Not by the channel, which go2rtc chooses by the track's place in its description: sound may come first.
        pictures = int(re.findall(r"a=rtpmap:(\d+) H26", sdp)[0])
        about = f" {self._url} RTSP/1.0\r\nCSeq: 2\r\nSession: {session}\r\n\r\n"
        connection.sendall(f"PLAY{about}".encode())
        self._packets(file, pictures, lambda: connection.sendall(f"OPTIONS{about}".encode()))

    def _packets(self, file: BinaryIO, pictures: int, stay: Callable[[], None]) -> None:
        read = file.read
        stamp: sei.Stamp | None = None
        stayed_s = time.monotonic()
        while first := read(1):
            if time.monotonic() - stayed_s > KEEPALIVE_S:
                stayed_s = time.monotonic()
                stay()
            if first != b"$":  # an answer, between packets
                _rtsp_answer(file, first)
                continue
            _channel, length = struct.unpack(">BH", read(3))
            packet = read(length)
            if len(packet) < 12 or packet[1] & 0x7F != pictures:
                continue
            stamp = _stamp_of(packet[12:]) or stamp
            if packet[1] & 0x80:  # marker: the last packet of a picture
                self.seen(struct.unpack(">I", packet[4:8])[0], stamp)
                stamp = None


def _rtsp_answer(file: BinaryIO, head: bytes = b"") -> tuple[dict[str, str], bytes]:
    lines = [head + file.readline()]
    while (line := file.readline()) not in (b"\r\n", b""):
        lines.append(line)
    if b" 200 " not in lines[0]:
        raise ConnectionRefusedError(lines[0].decode(errors="replace").strip() or "connection closed")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.decode().partition(":") for line in lines[1:])}
    return headers, file.read(int(headers.get("content-length", 0)))


def _stamp_of(payload: bytes) -> sei.Stamp | None:
    """The stamp in an RTP payload: a NAL of its own, or one within a STAP-A (RFC 6184, 5.7.1)."""
    at = payload.find(sei.UUID)
    if at < 0:
        return None
    escaped = payload[at : at + 2 * sei.PAYLOAD_BYTES]  # more than enough for the bytes that escaping adds
    return sei.read_payload(annexb.unescape(escaped)[: sei.PAYLOAD_BYTES])


class Mp4Viewer(Viewer):
    """Fragmented MP4 over HTTP: one moof and mdat a picture."""

    def __init__(self, api: Address, stream: str) -> None:
        super().__init__(f"mp4 {stream}")
        self._api, self._path = api, f"/api/stream.mp4?src={stream}"

    def read(self) -> None:
        address = (self._api.host, self._api.port)
        with closing(http.client.HTTPConnection(*address, timeout=READ_LIMIT_S)) as connection:
            connection.request("GET", self._path)
            with connection.getresponse() as answer:
                if answer.status != 200:
                    raise ConnectionRefusedError(f"status {answer.status}: {answer.read(300)!r}")
                while head := answer.read(8):
                    size, kind = struct.unpack(">I4s", head)
                    body = answer.read(size - 8)
                    if kind == b"mdat":
                        self.seen(stamp=_stamp_of(body))


class MseViewer(Viewer):
    """go2rtc's WebSocket as its own player uses it: the first binary message is the init segment."""

    def __init__(self, api: Address, stream: str) -> None:
        super().__init__(f"mse {stream}")
        self._url = f"ws://{api}/api/ws?src={stream}"

    def read(self) -> None:
        with connect(self._url, max_size=None, open_timeout=READ_LIMIT_S) as socket_:
            socket_.send(json.dumps({"type": "mse", "value": _CODECS}))
            while True:
                message = socket_.recv(timeout=READ_LIMIT_S)
                if isinstance(message, bytes):
                    at = message.find(b"mdat")
                    if at >= 0:
                        self.seen(stamp=_stamp_of(message[at + 4 :]))
                elif json.loads(message).get("type") == "error":
                    raise ConnectionRefusedError(message)
