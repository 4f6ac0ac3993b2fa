"""Standard input and output for an event loop. Each has a thread of its own that nothing waits for: a terminal or a
pipe may stand still for ever."""

from __future__ import annotations

import asyncio
import os
import queue
import threading

from procs.errors import OutputClosed

CHUNK = 64 * 1024
AHEAD = 8  # chunks that are read before they are wanted


class Stdin:
    """Bytes as they come. `is_terminal`: somebody types."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor, self._loop = descriptor, asyncio.get_running_loop()
        self._came: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self.is_terminal = os.isatty(descriptor)
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """What came next; b"" at the end, and from then on."""
        data = await self._came.get()
        self._room.release()
        if not data:
            self._came.put_nowait(b"")
        return data

    def _read(self) -> None:
        while True:
            self._room.acquire()
            try:
                data = os.read(self._descriptor, CHUNK)
            except OSError:  # closed, or a terminal that is gone
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._came.put_nowait, data)
            except RuntimeError:  # the loop has ended
                return
            if not data:
                return


class Lines:
    """Lines of text out of bytes, without their ends; the last may have none."""

    def __init__(self, source: Stdin) -> None:
        self._source, self._left, self._is_over = source, b"", False

    async def read(self) -> str | None:
        """The next one, None after the last."""
        while b"\n" not in self._left and not self._is_over:
            data = await self._source.read()
            self._is_over = not data
            self._left += data
        if not self._left:
            return None
        line, _, self._left = self._left.partition(b"\n")
        return line.decode(errors="replace").removesuffix("\r")


class Stdout:
    """Bytes, written in the order given."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor, self._loop = descriptor, asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._write, name="stdout", daemon=True).start()

    async def write(self, data: bytes) -> None:
        """Returns when it was taken. Raises OutputClosed."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.put((data, done))
        await done

    def _write(self) -> None:
        while True:
            data, done = self._waiting.get()
            error: OutputClosed | None = None
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError as reason:
                error = OutputClosed(f"standard output: {reason.strerror}")
            try:
                self._loop.call_soon_threadsafe(_finish, done, error)
            except RuntimeError:  # the loop has ended
                return


def _finish(done: asyncio.Future[None], error: OutputClosed | None) -> None:
    if done.done():
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)
