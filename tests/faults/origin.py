"""An upstream of ours for tests: a process whose every byte is known beforehand, and that counts all it was asked.

It is never killed, so what it has noted is what has happened. Some of its answers are no good, on purpose.

/file/BYTES      with ETag, Content-Length and ranges        /slow?s=N        answered after so long
/chunked/BYTES   without any of these                        /endless         never ends
POST /count?n=ID notes the id, durably, and answers it       /drip/BYTES      a byte a second
POST /upload     answers length and SHA-256                  /bomb            gzip that unpacks to BOMB_BYTES
/echo            the header fields that came                 /bad/KIND        what breaks HTTP
/pictures        MJPEG, ten pictures a second
/seen            how often what was asked, as JSON; the ids that were noted are in the file that it was given
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from procs.settings import ROOT
from tests.rig import free_port, until

PIECE = 64 * 1024
ENDLESS_PAUSE_S, PICTURE_S = 0.02, 0.1
PICTURE = "ffmpeg -v error -y -f lavfi -i testsrc2=size=320x180 -frames:v 1 -f mjpeg"
BOMB_BYTES = 128 * 1024 * 1024
INJECTED = b"X-Injected: yes"
LENGTH = b"Content-Length: 2\r\n"
BAD = {
    "bare_cr": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-A: a\r" + INJECTED + b"\r\n\r\nok",
    "bare_lf": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-A: a\n" + INJECTED + b"\r\n\r\nok",
    "nul": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-A: a\0b\r\n\r\nok",
    "folded": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-A: a\r\n " + INJECTED + b"\r\n\r\nok",
    "blank_in_name": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X A: a\r\n\r\nok",
    "no_colon": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"Nothing\r\n\r\nok",
    "two_lengths": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"Content-Length: 3\r\n\r\nok!",
    "negative_length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "length_and_chunked": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "bad_chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    "huge_header": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-A: " + b"a" * 1_000_000 + b"\r\n\r\nok",
    "many_headers": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-A: a\r\n" * 5000 + b"\r\nok",
    "no_http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "status": b"HTTP/1.1 1000 Many\r\n" + LENGTH + b"\r\nok",
    "nothing": b"",
}  # fmt: skip


def content(size: int) -> bytes:
    """The bytes of the file of this size: each eight of them say where they stand, so nothing can be left out, come
    twice or be mixed up unseen."""
    return array.array("Q", range(size << 24, (size << 24) + size // 8 + 1)).tobytes()[:size]


class Asked(NamedTuple):
    """One request. `lower`: the header fields by their names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def lower(self) -> dict[str, str]:
        """Header fields by lower-case name."""
        return {name.lower(): value for name, value in self.fields}


class Server:
    """All connections. `folder`: where ids of POST /count go, and the picture lies."""

    def __init__(self, folder: Path) -> None:
        self._notes = os.open(folder / "counted", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._picture = (folder / "picture.jpeg").read_bytes()
        self._seen: Counter[str] = Counter()
        self._bomb = b""
        self._bare: dict[str, Callable[[Asked, asyncio.StreamWriter, str], Awaitable[None]]] = {
            "file": self._file, "chunked": self._chunked, "count": self._count, "upload": self._upload,
            "slow": self._slow, "endless": self._endless, "drip": self._drip, "echo": self._echo,
            "bomb": self._bombed, "bad": self._bad, "seen": self._tell,
            "pictures": self._pictures,
        }  # fmt: skip

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while asked := await _asked(reader):
                name, _, rest = asked.path[1:].partition("/")
                self._seen[f"{asked.method} /{name}"] += 1
                if name not in self._bare:
                    await _answer(writer, b"no such thing", status="404 Not Found")
                else:
                    await self._bare[name](asked, writer, rest)
        writer.close()

    async def _file(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        data, tag = content(int(rest)), f'"{rest}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.lower.get("range", ""))
        if wanted and asked.lower.get("if-range", tag) == tag:
            at = int(wanted[1])
            fields = {"ETag": tag, "Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}"}
            await _answer(writer, data[at:], fields, status="206 Partial Content")
        else:
            await _answer(writer, data, {"ETag": tag, "Accept-Ranges": "bytes"}, is_head=asked.method == "HEAD")

    async def _chunked(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        data = content(int(rest))
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _count(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        if asked.method == "POST":
            os.write(self._notes, asked.query["n"].encode() + b"\n")
            os.fsync(self._notes)
        await _answer(writer, asked.query["n"].encode())

    async def _upload(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        found = {"bytes": len(asked.body), "sha256": hashlib.sha256(asked.body).hexdigest()}
        await _answer(writer, json.dumps(found).encode())

    async def _slow(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        await asyncio.sleep(float(asked.query["s"]))
        await _answer(writer, b"at last")

    async def _endless(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%s\r\n" % (PIECE, bytes(PIECE)))
            await writer.drain()
            await asyncio.sleep(ENDLESS_PAUSE_S)

    async def _drip(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(rest))
        for at in range(int(rest)):
            writer.write(b"%d" % (at % 10))
            await writer.drain()
            await asyncio.sleep(1)

    async def _echo(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        await _answer(writer, json.dumps(asked.fields).encode())

    async def _bombed(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        self._bomb = self._bomb or bomb()
        await _answer(writer, self._bomb, {"Content-Encoding": "gzip"})

    async def _bad(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        writer.write(BAD[rest])
        await writer.drain()
        writer.close()

    async def _pictures(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(self._picture)
        while True:
            writer.write(part + self._picture + b"\r\n")
            await writer.drain()
            await asyncio.sleep(PICTURE_S)

    async def _tell(self, asked: Asked, writer: asyncio.StreamWriter, rest: str) -> None:
        await _answer(writer, json.dumps(self._seen).encode())


def bomb() -> bytes:
    """The same each time."""
    press = zlib.compressobj(6, wbits=31)
    block = bytes(1024 * 1024)
    return b"".join([*(press.compress(block) for _ in range(BOMB_BYTES // len(block))), press.flush()])


async def _asked(reader: asyncio.StreamReader) -> Asked | None:
    line = (await reader.readline()).decode("latin-1").split()
    if len(line) != 3:
        return None
    fields = []
    while (raw := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = raw.decode("latin-1").partition(":")
        fields.append((name, value.strip()))
    path, _, query = line[1].partition("?")
    asked = Asked(line[0], path, dict(pair.partition("=")[::2] for pair in query.split("&")), fields, b"")
    if "chunked" in asked.lower.get("transfer-encoding", ""):
        return asked._replace(body=await _chunks(reader))
    return asked._replace(body=await reader.readexactly(int(asked.lower.get("content-length", "0"))))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = []
    while size := int(await reader.readline(), 16):
        found.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(found)


async def _answer(
    writer: asyncio.StreamWriter,
    data: bytes,
    fields: dict[str, str] | None = None,
    *,
    status: str = "200 OK",
    is_head: bool = False,
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{lines}\r\n".encode())
    if not is_head:
        writer.write(data)
    await writer.drain()


class Origin:
    """The process, for as long as a `with` block lasts."""

    def __init__(self, folder: Path) -> None:
        self.port, self._notes = free_port(), folder / "counted"
        subprocess.run([*PICTURE.split(), str(folder / "picture.jpeg")], check=True, timeout=60)
        command = [sys.executable, "-m", "tests.faults.origin", str(self.port), str(folder)]
        self._process = subprocess.Popen(command, cwd=ROOT)

    def __enter__(self) -> Origin:
        until(self._serves)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _serves(self) -> bool:
        with contextlib.suppress(OSError):
            self.seen()
            return True
        return False

    def seen(self) -> dict[str, int]:
        """How often it was asked what, such as "GET /file"."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", "/seen")
            found: dict[str, int] = json.loads(connection.getresponse().read())
            return found

    def counted(self) -> Counter[str]:
        """How often each id was noted."""
        return Counter(self._notes.read_text().split())


async def _main(port: int, folder: Path) -> None:
    server = Server(folder)
    async with await asyncio.start_server(server.serve, "127.0.0.1", port, limit=2**20) as listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), Path(sys.argv[2])))
