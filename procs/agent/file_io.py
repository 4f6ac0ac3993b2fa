"""Files on channels: the sending and the receiving side of files.py, over a channel that may be lost and come back."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from procs.agent.channel import Channel
from procs.agent.file_disk import FilePart, FileSource
from procs.agent.files import WINDOW, Message, Offered, Receiving, Sending, decode, encode
from procs.errors import LinkLost, Refused

ANSWER_S = 60.0  # of the other side; it may have to read what it has
TRIES = 3  # of a file that did not come as it was sent


class Sent:
    """What has become of a file that was sent."""

    def __init__(self, sending: Sending, source: FileSource, took_s: float) -> None:
        self.name, self.sha256, self.size = sending.name, source.digest(), source.size
        self.resumed_at, self.took_s = sending.resumed_at, took_s


class Outbox:
    """Sends files over one channel, one after the other."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._heard: asyncio.Queue[Message | None] = asyncio.Queue()  # None: the connection was lost
        channel.on("message", self._take)
        channel.on("lost", lambda: self._heard.put_nowait(None))
        channel.on("close", lambda: self._heard.put_nowait(None))

    async def send(
        self, path: Path, *, patience_s: float = ANSWER_S, progress: Callable[[Sending], None] = lambda _: None
    ) -> Sent:
        """Send a file, however often the channel is lost meanwhile, for as long as it comes back within `patience_s`.
        Raises LinkLost, and Refused when one of the sides will not have it."""
        with contextlib.closing(FileSource(path)) as source:
            return await self._send(source, patience_s, progress)

    async def _send(self, source: FileSource, patience_s: float, progress: Callable[[Sending], None]) -> Sent:
        began = time.monotonic()
        for _ in range(TRIES):
            sending = Sending(secrets.token_hex(8), source)
            while sending.state not in ("done", "failed"):
                await self._channel.opened(patience_s)
                with contextlib.suppress(LinkLost):
                    await self._attempt(sending, progress)
            if sending.state == "done":
                return Sent(sending, source, time.monotonic() - began)
            if not sending.may_repeat:
                break
        raise Refused(sending.why)

    def _take(self, data: str | bytes) -> None:
        if isinstance(data, str):
            with contextlib.suppress(Refused):  # of a kind that we don't know
                self._heard.put_nowait(decode(data))

    async def _attempt(self, sending: Sending, progress: Callable[[Sending], None]) -> None:
        """Over one connection, until it is done or failed. Raises LinkLost, Refused."""
        while not self._heard.empty():  # of the connection before
            self._heard.get_nowait()
        self._channel.send(encode(sending.offer()))
        while sending.state not in ("done", "failed"):
            is_ours = sending.state == "sending" and sending.at - sending.got < WINDOW
            if is_ours and self._heard.empty():
                await self._send_more(sending)
            else:
                for answer in await asyncio.to_thread(sending.take, await self._next()):
                    self._channel.send(encode(answer))
                progress(sending)

    async def _send_more(self, sending: Sending) -> None:
        try:
            what = sending.next()
        except Refused as reason:
            self._channel.send(encode(sending.failed(str(reason))))
            raise
        self._channel.send(what if isinstance(what, bytes) else encode(what))
        await self._channel.room()

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(ANSWER_S):
                message = await self._heard.get()
        except TimeoutError:
            raise Refused("the receiver does not answer") from None
        if message is None:
            raise LinkLost("the connection was lost")
        return message


class Inbox:
    """Receives files of one peer over one channel into a folder. `on_progress(offered, at)` now and then,
    `on_file(path, offered, sha256)` with each that is whole."""

    def __init__(
        self,
        channel: Channel,
        peer: str,
        folder: Path,
        on_file: Callable[[Path, Offered, str], None],
        on_progress: Callable[[Offered, int], None] = lambda offered, at: None,
    ) -> None:
        self._channel, self._peer, self._folder = channel, peer, folder
        self._on_file, self._on_progress = on_file, on_progress
        self._part: FilePart | None = None
        self._receiving = Receiving(self._opened)
        self._came: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._waiting = 0  # bytes
        channel.on("message", self._take)
        self._task = asyncio.create_task(self._work(), name=f"files of {peer}")
        channel.on("close", self._task.cancel)  # nobody else would end it

    def _opened(self, offered: Offered) -> FilePart:
        if self._part:
            self._part.close()
        self._part = FilePart(self._folder, self._peer, offered)
        return self._part

    def _take(self, data: str | bytes) -> None:
        self._waiting += len(data)
        if self._waiting > 4 * WINDOW:  # nobody sends so who waits for what we say
            self._channel.close()
        self._came.put_nowait(data)

    async def _work(self) -> None:
        """Disks are slow: in a thread, while the loop keeps the connection alive."""
        while True:
            data = await self._came.get()
            offered, part = self._receiving.offered, self._part
            said = await asyncio.to_thread(self._answers, data)
            self._waiting -= len(data)
            with contextlib.suppress(LinkLost):  # it will offer again
                for each in said:
                    self._channel.send(encode(each))
            if said and offered and part:
                self._on_progress(offered, part.at)
                if part.is_whole and self._receiving.offered is None:
                    self._on_file(part.path, offered, part.digest())

    def _answers(self, data: str | bytes) -> list[Message]:
        if isinstance(data, bytes):
            return self._receiving.take_data(data)
        try:
            return self._receiving.take(decode(data))
        except Refused:
            return []  # of a kind that we don't know
