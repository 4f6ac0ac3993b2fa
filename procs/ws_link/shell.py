"""The process: a connection to the hub that is made again whenever it is lost, and a look at go2rtc now and then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import zmq.asyncio

from procs import log, proc
from procs.errors import Refused
from procs.wire import challenge
from procs.ws_link import hub_http, identity, jobs, streams
from procs.ws_link.desk import Desk
from procs.ws_link.link import (
    PACE,
    REPLACED,
    Answered,
    Asked,
    Connected,
    End,
    Event,
    Noted,
    Pace,
    Paired,
    RestartAsked,
    Retry,
    Send,
    Session,
    Signalled,
    SuiteWatched,
    Unanswerable,
)
from procs.ws_link.options import Link
from procs.ws_link.state import State
from procs.ws_link.suite import Suite
from procs.ws_link.uplink import Uplink
from procs.ws_link.watching import Watching

CLOSE_LIMIT_S = 1.0
LOOK_S = 2.0
LOOK_LIMIT_S = 2.0
LOOK_MAX_BYTES = 4 * 1024 * 1024
TICK_S = 0.2
IN_A_ROW = 16  # frames that may be taken before others get their turn
HAS_SUITE = proc.MARK in os.environ  # a ws_link that somebody runs by hand, or scripts/agent.py, has no warden
REFUSING = (1008, 401, 403)  # close codes and statuses of a hub that does not want this device
_TCP = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),  # ms: what was sent is acknowledged by then, or it is dead
)


async def serve(settings: Link, run_dir: Path, serving: Callable[[], None], pace: Pace = PACE) -> None:
    """Be the link, for ever. `serving` is called once the bus can be used; the hub may be away."""
    if settings.verbose:
        log.configure("ws_link", debug=True)
    me = identity.load(run_dir, settings.device_id, settings.device_secret)
    if settings.is_readable:
        log.warning("everybody on the way can read what goes to the hub; use wss://", hub=settings.backend)
    uplink, state = Uplink(), State(me.device_id, settings.backend)
    table = jobs.Jobs(pace.nobody_s)
    context = zmq.asyncio.Context.instance()
    desk = Desk(context, run_dir, settings.backend, me.device_id, state, uplink, table)
    suite = Suite(context, run_dir, uplink, may_restart=settings.remote_restart)
    watching = Watching(context, run_dir, uplink, state)
    async with hub_http.session(settings.ca) as http:
        hub = hub_http.Hub(http, settings, me, run_dir)
        shell = Shell(settings, me, pace, desk, uplink, state, suite, watching, hub)
        serving()
        ours = (suite.tell(), suite.follow()) if HAS_SUITE else ()
        await _first(
            desk.take_work(), desk.tick(), desk.answer_state(), watching.hear(), watching.tick(),
            shell.watch_go2rtc(), shell.stay_connected(), *ours,
        )  # fmt: skip


class Shell:
    """What goes over the network."""

    def __init__(
        self,
        settings: Link,
        me: identity.Identity,
        pace: Pace,
        desk: Desk,
        uplink: Uplink,
        state: State,
        suite: Suite,
        watching: Watching,
        hub: hub_http.Hub,
    ) -> None:
        self._settings, self._me, self._pace = settings, me, pace
        self._desk, self._uplink, self._state, self._suite, self._hub = desk, uplink, state, suite, hub
        self._watching = watching
        self._keys = challenge.keys(me.secret, me.device_id)
        self._retry = Retry(pace=pace)
        self._streams: dict[str, Any] = {}

    async def stay_connected(self) -> None:
        """Connect, and connect again."""
        while True:
            end = await self._connection()
            self._uplink.session = None
            wait_s = self._retry.ended(end, time.monotonic())
            refused = end.code in REFUSING
            self._state.lost(end.reason, refused=refused)
            if refused:
                self._hub.forget_registration()
            what = (
                "replaced by another connection of this device" if end.code == REPLACED else "no connection to the hub"
            )
            log.warning(what, why=end.reason, code=end.code, again_in_s=round(wait_s, 2), hub=self._settings.backend)
            await asyncio.sleep(wait_s)

    async def _connection(self) -> End:
        """One connection, until it ends."""
        try:
            async with asyncio.timeout(self._pace.open_s):
                ws = await self._hub.register() or await self._hub.connect()
        except TimeoutError:
            return End(f"no connection within {self._pace.open_s:g} s")
        if isinstance(ws, End):
            return ws
        sock = ws.get_extra_info("socket")
        try:
            for level, name, value in _TCP:
                sock.setsockopt(level, name, value)
            session = Session(self._me, self._keys, time.monotonic(), self._pace, has_suite=HAS_SUITE)
            self._uplink.begin(session)
            self._uplink.send(session.hello(self._settings.go2rtc_without_login, show_secret=self._settings.compat))
            end: End = await _first(self._read(ws, session), self._write(ws), self._tick(session))
            return end
        except OSError as error:
            return End(str(error) or type(error).__name__)
        finally:
            with contextlib.suppress(TimeoutError, OSError, aiohttp.ClientError):
                async with asyncio.timeout(CLOSE_LIMIT_S):
                    await ws.close()
            with contextlib.suppress(OSError):  # one that nobody reads any more is not closed by asking
                sock.shutdown(socket.SHUT_RDWR)

    async def _read(self, ws: aiohttp.ClientWebSocketResponse[bool], session: Session) -> End:
        count = 0
        while True:
            message = await ws.receive()
            if message.type == aiohttp.WSMsgType.TEXT:
                for event in session.received(message.data, time.monotonic()):
                    if isinstance(event, End):
                        return event
                    self._happened(event, session)
            elif message.type == aiohttp.WSMsgType.BINARY:
                self._state.note("binary frame", f"{len(message.data)} bytes")
            elif message.type == aiohttp.WSMsgType.CLOSE:
                return End(f"the hub closed: {message.extra or 'without a reason'}", int(message.data or 0))
            else:
                return End(
                    f"the connection broke: {message.data or ws.exception() or 'without a word'}", ws.close_code or 0
                )
            count += 1
            if count % IN_A_ROW == 0:  # a flood must not keep heartbeats from being sent
                await asyncio.sleep(0)

    async def _write(self, ws: aiohttp.ClientWebSocketResponse[bool]) -> End:
        uplink = self._uplink
        while not uplink.overflowed:
            text = uplink.outbox.first(time.monotonic(), bulk=uplink.is_connected)
            if text is None:
                uplink.waiting.clear()
                await uplink.waiting.wait()
                continue
            try:
                async with asyncio.timeout(self._pace.send_s):
                    await ws.send_str(text)
            except TimeoutError:
                return End(f"the hub has read nothing for {self._pace.send_s:g} s")
            except aiohttp.ClientError as error:
                return End(f"the connection broke: {error}")
            uplink.sent(text)
        return End("the hub reads slower than it asks")

    async def _tick(self, session: Session) -> End:
        while True:
            await asyncio.sleep(TICK_S)
            for event in session.tick(time.monotonic(), self._streams):
                if isinstance(event, End):
                    return event
                self._happened(event, session)

    def _happened(self, event: Event, session: Session) -> None:
        now = time.monotonic()
        if isinstance(event, Send):
            self._uplink.send(event.text)
        elif isinstance(event, Connected):
            self._connected(event, session)
        elif isinstance(event, Asked):
            log.debug("request", rid=event.request.rid, method=event.request.method, path=event.request.path)
            self._desk.act(self._desk.jobs.take(event.request, now))
        elif isinstance(event, Unanswerable):
            self._uplink.answer(jobs.refusal(event.rid, event.status, event.reason))
        elif isinstance(event, Answered):
            if not self._desk.questions.answered(event.request_id, event.answer):
                self._state.note("answer to no question", event.answer.type)
        elif isinstance(event, Signalled):
            self._watching.signalled(event, now)
        elif isinstance(event, Paired):
            self._state.paired = event.code
            log.info("paired: a user has claimed this device")
        elif isinstance(event, SuiteWatched):
            self._suite.watch(event.for_s)
        elif isinstance(event, RestartAsked):
            self._suite.restart(event.restart, event.request_id)
        elif isinstance(event, Noted):
            self._state.note(event.kind, event.reason)

    def _connected(self, event: Connected, session: Session) -> None:
        now = time.monotonic()
        self._retry.taken(now)
        self._state.connected(event.mux)
        self._suite.connected(is_known=event.suite)
        log.info(
            "connected to the hub", device_id=self._me.device_id, hub=self._settings.backend,
            proved=event.proved, data_connections=event.mux,
        )  # fmt: skip
        if not event.mux:
            self._desk.questions.refuse("data_ticket", "the hub takes no data connections")
        self._desk.pair_by_http = None if event.proved or event.mux else self._hub.pairing_code
        for text in self._desk.questions.again():
            self._uplink.send(text)
        self._uplink.waiting.set()  # for the answers that have waited for this connection
        if self._streams:
            self._uplink.send(session.capabilities(now, self._streams).text)

    async def watch_go2rtc(self) -> None:
        """Ask go2rtc for its streams, and announce them when they change."""
        answers: bool | None = None
        while True:
            try:
                async with asyncio.timeout(LOOK_LIMIT_S):
                    listed = await self._hub.json_of(f"{self._settings.go2rtc_http}/api/streams", LOOK_MAX_BYTES)
            except (OSError, aiohttp.ClientError, ValueError, Refused) as error:
                if answers is not False:
                    log.warning("go2rtc does not answer", at=self._settings.go2rtc_http, why=hub_http.words(error))
                answers = False
            else:
                if not answers:
                    log.info("go2rtc answers", at=self._settings.go2rtc_http)
                answers = True
                self._take_streams(streams.announced(listed))
            await asyncio.sleep(LOOK_S)

    def _take_streams(self, now_there: dict[str, Any]) -> None:
        changed = streams.substance(now_there) != streams.substance(self._streams)
        self._streams = now_there
        session = self._uplink.session
        if changed and session and session.state == "connected":
            self._uplink.send(session.capabilities(time.monotonic(), now_there).text)


async def _first(*works: Coroutine[Any, Any, Any]) -> Any:
    """What the first of them to end returns or raises; the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
