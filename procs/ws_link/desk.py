"""Our side of the bus: work and tickets for the proxies, and answers to whoever asks how the link is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import zmq
import zmq.asyncio

from procs import bus, log, rpc
from procs.errors import Refused
from procs.messages.requests import Command, Describe, Pair, PairingCode, Reply
from procs.messages.work import JobDone, Ready, TicketGrant, TicketRefused, TicketWanted, decode_from_worker
from procs.wire import envelope
from procs.wire.frames import device
from procs.wire.frames.connection import Error
from procs.wire.frames.device import DataTicket, DataTicketRequest, PairingRequest
from procs.ws_link.jobs import Action, Hand, Jobs
from procs.ws_link.options import PATH
from procs.ws_link.questions import Questions
from procs.ws_link.state import State
from procs.ws_link.uplink import Uplink

TICKET_LIMIT_S = 10.0
PAIRING_LIMIT_S = 8.0
TICK_S = 0.2


class Desk:
    """Bound for as long as the process lives. `pair` gets a pairing code from a hub that is to be asked over HTTP."""

    def __init__(
        self,
        context: zmq.asyncio.Context,
        run_dir: Path,
        backend: str,
        device_id: str,
        state: State,
        uplink: Uplink,
        jobs: Jobs,
    ) -> None:
        self._work = bus.work_binder(context, run_dir)
        self._state_socket = bus.binder(context, zmq.ROUTER, run_dir, bus.WS_LINK_STATE)
        self._origin, self._device_id = backend.removesuffix(PATH), device_id
        self._state, self._uplink = state, uplink
        self.jobs, self.questions = jobs, Questions()
        self.pair_by_http: Callable[[], Awaitable[PairingCode]] | None = None

    async def take_work(self) -> None:
        """Hear the proxies, for ever."""
        while True:
            worker, data, body = await bus.receive_work(self._work)
            try:
                message = decode_from_worker(data)
                if isinstance(message, Ready) and message.worker != worker:
                    raise Refused(f"worker {worker!r} says that it is {message.worker!r}")
            except Refused as reason:
                self._state.note("malformed bus message", str(reason))
                continue
            now = time.monotonic()
            if isinstance(message, TicketWanted):
                self._get_ticket(worker, message.id, now)
            elif isinstance(message, JobDone):
                self.act(self.jobs.done(worker, message, body, now))
            else:
                self.act(self.jobs.ready(message, now))

    async def tick(self) -> None:
        """Notice what is late, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self.questions.tick(now)
            self.act(self.jobs.tick(now))

    async def answer_state(self) -> None:
        """Answer at ws_link.state, for ever."""
        await rpc.respond(self._state_socket, self._obey)

    def act(self, actions: Iterable[Action]) -> None:
        """Do what the pure part has decided."""
        left = list(actions)
        while left:
            action = left.pop(0)
            if not isinstance(action, Hand):
                if action.why:
                    self._state.note(f"job: {action.why}", f"{action.status} to {action.rid}")
                self._uplink.answer(action)
            elif not self._handed(action):
                left += self.jobs.gone(action.worker, time.monotonic())

    def _handed(self, action: Hand) -> bool:
        try:
            return bus.send_work(self._work, action.job, action.body, worker=action.worker)
        except Refused as reason:
            done = JobDone(rid=action.job.rid, status=431)
            self._state.note("job: too large for the bus", str(reason))
            self.act(self.jobs.done(action.worker, done, b"", time.monotonic()))
            return True

    def _get_ticket(self, worker: str, wanted: int, now: float) -> None:
        def grant(answer: envelope.Envelope | str) -> None:
            try:
                ticket = envelope.parse(_expected(answer, "data_ticket"), DataTicket)
                url = self._origin + ticket.path
                message: TicketGrant | TicketRefused = TicketGrant(wanted, url, ticket.ticket, self._device_id)
            except Refused as reason:
                message = TicketRefused(wanted, str(reason)[:500])
                log.debug("no ticket for a data connection", worker=worker, why=str(reason))
            bus.send_work(self._work, message, worker=worker)

        if self._uplink.is_connected and not self._state.mux:
            grant("the hub takes no data connections")
        else:
            self._ask("data_ticket", DataTicketRequest(), now + TICKET_LIMIT_S, grant)

    def _ask(
        self,
        kind: str,
        payload: envelope.Payload,
        deadline: float,
        reply: Callable[[envelope.Envelope | str], None],
    ) -> None:
        text = self.questions.ask(kind, payload, deadline, reply)
        if text and self._uplink.is_connected:  # else it is asked with the others once there is a connection
            self._uplink.send(text)

    async def _obey(self, command: Command) -> Reply:
        if isinstance(command, Describe):
            return Reply(id=0, ok=True, body=self._state.told(self.jobs.workers))
        if isinstance(command, Pair):
            return Reply(id=0, ok=True, body=await self._pairing_code())
        raise Refused(f"ws_link takes no {type(command).__name__}")

    async def _pairing_code(self) -> PairingCode:
        if not self._uplink.is_connected:
            raise Refused("the hub is not connected")
        if self.pair_by_http:
            return await self.pair_by_http()
        came: asyncio.Future[envelope.Envelope | str] = asyncio.get_running_loop().create_future()

        def reply(answer: envelope.Envelope | str) -> None:
            if not came.done():
                came.set_result(answer)

        self._ask("pairing_request", PairingRequest(), time.monotonic() + PAIRING_LIMIT_S, reply)
        code = envelope.parse(_expected(await came, "pairing_code"), device.PairingCode)
        return PairingCode(code.code, code.expires_at, code.ttl)


def _expected(answer: envelope.Envelope | str, kind: str) -> envelope.Envelope:
    """The answer, if it is of the kind asked for. Raises Refused with what the hub says instead."""
    if isinstance(answer, str):
        raise Refused(answer)
    if answer.type == "error":
        raise Refused(f"the hub says: {envelope.parse(answer, Error).message}")
    if answer.type != kind:
        raise Refused(f"the hub answers with {answer.type}")
    return answer
