"""A brood: a leader, a zygote that it forks before it has a thread or a socket, and children that the zygote forks.

The zygote imports what children need, once, and has one thread and no event loop, so that forking it is safe and a
child is there in milliseconds. It does what the leader says over a socketpair, one message each:

leader -> zygote: `_Fork`, `_Kill`, `_Ping`
zygote -> leader: `_Pong` (also once it has imported all), `_Born`, `_Ended`

Whoever dies takes those below along, by the kernel's hand: the leader the zygote, the zygote its children. A zygote
that is gone or stands still ends the leader, which is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from procs import log, prctl
from procs.errors import PlanariaError, Refused, ZygoteLost

MAX_SPEC = 64 * 1024
READY_S = 30.0  # to import everything, on a busy machine
PING_S = 1.0
SILENCE_S = 3.0
_BUFFER = 1024 * 1024  # of forks that wait while it imports
_KEPT = 3  # descriptors of a child: stdin, stdout, stderr


class _Fork(msgspec.Struct, frozen=True, tag="fork"):
    id: str
    spec: bytes


class _Kill(msgspec.Struct, frozen=True, tag="kill"):
    id: str


class _Ping(msgspec.Struct, frozen=True, tag="ping"):
    pass


class _Pong(msgspec.Struct, frozen=True, tag="pong"):
    pass


class _Born(msgspec.Struct, frozen=True, tag="born"):
    id: str
    pid: int


class _Ended(msgspec.Struct, frozen=True, tag="ended"):
    id: str
    status: int  # exit code, or minus the signal that it died of


_encode = msgspec.msgpack.Encoder().encode
_ORDERS = msgspec.msgpack.Decoder(_Fork | _Kill | _Ping)
_REPORTS = msgspec.msgpack.Decoder(_Pong | _Born | _Ended)


class Brood:
    """The leader's end. Children have ids; the same one may be used again once its child has ended."""

    def __init__(self, sock: socket.socket, zygote: int) -> None:
        self._sock, self.zygote = sock, zygote
        self._heard_at = time.monotonic()
        self._is_ready = False

    def fork(self, child: str, spec: bytes) -> None:
        """Have a child born, which lives by `spec`. Raises ZygoteLost, and Refused for a spec that is too long."""
        if len(spec) > MAX_SPEC:
            raise Refused(f"a spec of {len(spec)} bytes is over the limit of {MAX_SPEC}")
        self._send(_Fork(child, spec))

    def kill(self, child: str) -> None:
        """Have a child ended, if it still lives: only its parent knows that its pid is not another's by now."""
        self._send(_Kill(child))

    async def watch(
        self, ready: Callable[[], None], born: Callable[[str, int], None], ended: Callable[[str, int], None]
    ) -> NoReturn:
        """Tell of children, for ever: (id, pid) and (id, exit code, or minus a signal). Raises ZygoteLost."""
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[None] = loop.create_future()

        def hear() -> None:
            try:
                for report in self._reports():
                    if isinstance(report, _Born):
                        born(report.id, report.pid)
                    elif isinstance(report, _Ended):
                        ended(report.id, report.status)
                    elif not self._is_ready:
                        self._is_ready = True
                        ready()
            except Exception as error:  # an error of whoever is told, too, is for the caller of `watch`
                loop.remove_reader(self._sock)
                if not lost.done():
                    lost.set_exception(error)

        loop.add_reader(self._sock, hear)
        while True:
            await asyncio.wait((lost,), timeout=PING_S)
            if lost.done():
                lost.result()
            silent_s = time.monotonic() - self._heard_at
            if silent_s > (SILENCE_S if self._is_ready else READY_S):
                raise ZygoteLost(f"the zygote has said nothing for {silent_s:.1f} s")
            self._send(_Ping())

    def _reports(self) -> list[_Pong | _Born | _Ended]:
        found: list[_Pong | _Born | _Ended] = []
        try:
            while data := self._sock.recv(MAX_SPEC):
                found.append(_REPORTS.decode(data))
                self._heard_at = time.monotonic()
        except BlockingIOError:
            return found
        except ConnectionResetError:  # killed with orders that it had not read
            pass
        raise ZygoteLost("the zygote is gone")

    def _send(self, order: _Fork | _Kill | _Ping) -> None:
        try:
            self._sock.send(_encode(order))
        except BlockingIOError:
            log.debug("the zygote is behind", order=type(order).__name__)
            if isinstance(order, _Fork):  # a ping that is missed, or a kill, comes again
                raise ZygoteLost("the zygote takes no more orders") from None
        except OSError as error:
            raise ZygoteLost(f"the zygote is gone: {error.strerror}") from None


def hatch(program: str, module: str, name: str) -> Brood:
    """Fork the zygote; to be called in `__main__` before there is a thread, a socket or an event loop. It imports
    `module`, whose function `name` is the life of a child: it takes the bytes of its spec and runs with nothing open
    but stdin to stderr. What both need is best imported before, once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    leader = os.getpid()
    log.configure(program)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _end_with(lambda: _Zygote(theirs, leader).live(module, name))
    theirs.close()
    ours.setblocking(False)
    return Brood(ours, pid)


class _Zygote:
    """The life of the zygote."""

    def __init__(self, sock: socket.socket, leader: int) -> None:
        self._sock, self._leader = sock, leader
        self._poll = select.poll()
        self._children: dict[int, tuple[str, int]] = {}  # pidfd, readable once it has ended -> id, pid

    def live(self, module: str, name: str) -> None:
        os.environ.pop("SUPERVISOR_ENABLED", None)  # these two are about the leader and its parent
        os.environ.pop("PLANARIA_PARENT", None)
        prctl.bind_to_parent(self._leader)
        gc.disable()  # a quarter of the time that imports take would go into looking for garbage that they do not make
        self._be = getattr(importlib.import_module(module), name)
        gc.freeze()  # a collection in a child would copy every page of what is shared
        gc.enable()
        self._poll.register(self._sock, select.POLLIN)
        self._report(_Pong())
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._collect(descriptor)
                else:
                    self._obey()

    def _obey(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionResetError):  # it is gone, and has not read what we told it last
            data = self._sock.recv(2 * MAX_SPEC)
        if not data:
            os._exit(0)  # the leader is gone, and the kernel is about to tell us
        order = _ORDERS.decode(data)
        if isinstance(order, _Ping):
            self._report(_Pong())
        elif isinstance(order, _Fork):
            self._fork(order)
        else:
            for descriptor, (child, _) in self._children.items():
                if child == order.id:
                    _kill(descriptor)

    def _fork(self, order: _Fork) -> None:
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            _end_with(lambda: self._become_child(order.spec, zygote))
        descriptor = os.pidfd_open(pid)
        self._children[descriptor] = order.id, pid
        self._poll.register(descriptor, select.POLLIN)
        self._report(_Born(order.id, pid))

    def _become_child(self, spec: bytes, zygote: int) -> None:
        prctl.bind_to_parent(zygote)
        os.closerange(_KEPT, max(map(int, os.listdir("/proc/self/fd"))) + 1)
        self._sock.detach()  # closed already: what is opened next may get its number
        self._be(spec)

    def _collect(self, descriptor: int) -> None:
        child, pid = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        self._report(_Ended(child, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))

    def _report(self, report: _Pong | _Born | _Ended) -> None:
        try:
            self._sock.send(_encode(report))
        except ConnectionError:
            os._exit(0)  # as above


def _kill(pidfd: int) -> None:
    import signal  # here: most zygotes never need it

    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, prctl.SIGKILL)


def _end_with(work: Callable[[], None]) -> NoReturn:
    """Do that as the whole rest of a forked process: nothing of what its parent would do after it."""
    code = 1
    try:
        work()
        code = 0
    except PlanariaError as error:
        log.error(str(error))
        code = error.exit_code
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # nothing may get out of here
        log.error(f"unforeseen {type(error).__name__}: {error}", trace=True)
    finally:
        os._exit(code)
