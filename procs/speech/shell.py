"""The process: loads the service that it is, listens, serves, for ever."""

from __future__ import annotations

import errno
import socket
from typing import Any, Protocol

from aiohttp import web

from procs import log
from procs.errors import ConfigError
from procs.kinds import Address
from procs.speech import door
from procs.speech.options import Speech

IDLE_S = 30.0  # between two requests of one connection
BACKLOG = 256


class Alive(Protocol):
    """What life.run gives a process."""

    def serving(self) -> None:
        """The work is there to be had."""


async def serve(which: str, settings: Speech, alive: Alive, brood: Any) -> None:
    """Be that service. `brood` is stt's."""
    service = _service(which, settings, brood)

    async def opened() -> None:
        address = settings.listen(which)
        listener = _listener(which, address)
        running = web.AppRunner(
            door.application(service, settings),
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # whoever leaves frees what works for them, at once
            keepalive_timeout=IDLE_S,
            shutdown_timeout=0,
        )
        await running.setup()
        await web.SockSite(running, listener, backlog=BACKLOG).start()
        log.info("serving", address=str(address), key=bool(settings.key))
        alive.serving()

    await service.run(opened)


def _service(which: str, settings: Speech, brood: Any) -> door.Service:
    """Imported here: none of them needs what the others do."""
    if which == "stt":
        from procs.speech.stt.service import Stt

        return Stt(settings, brood)
    if which == "tts":
        from procs.speech.tts.service import Tts

        return Tts(settings)
    from procs.speech.llm.service import Llm

    return Llm(settings)


def _listener(which: str, wanted: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    try:
        return socket.create_server(wanted, family=family, backlog=BACKLOG)
    except OSError as error:
        said = "somebody else listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigError(f"PLANARIA_SPEECH_{which.upper()}={wanted}: cannot be listened on: {said}") from None
