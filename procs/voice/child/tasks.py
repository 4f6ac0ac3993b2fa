"""Work beside other work, whose unforeseen errors end the process and are not kept for nobody to look at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from procs import log
from procs.errors import PlanariaError

T = TypeVar("T")


def spawn(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Have it done; who is to keep the task until then is the caller."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(_raise)
    return task


def _raise(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.result()


def die_of_errors(loop: asyncio.AbstractEventLoop) -> None:
    """What is raised by a callback of the loop ends this process."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "handle" not in context:  # a transport or a library tells of what it has dealt with
            log.debug(str(context.get("message")), error=str(error))
            return
        if isinstance(error, PlanariaError):
            log.error(str(error))
            os._exit(error.exit_code)
        log.error(f"unforeseen {type(error).__name__}: {error}", stack="".join(_stack(error)))
        os._exit(1)

    loop.set_exception_handler(handle)


def _stack(error: BaseException | None) -> list[str]:
    import traceback  # here: nobody needs it while all is well

    return traceback.format_exception(error) if error else []
