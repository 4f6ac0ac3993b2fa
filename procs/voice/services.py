"""Whether the services are there by which conversations hear, speak and think."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import aiohttp

from procs.messages.voice import Services
from procs.voice import unreached

ASK_S = 2.0
FRESH_S = 0.5  # as published
RECENT_S = 2.0  # what is older is not told as how it is
AT_ONCE_S = 0.2  # for services that are near to answer for the first time
KEY = "kyutai-api-key"
NO_KEY = "EMPTY"  # what a language model without one is shown, as published


class Health:
    """Asks each, seldom. `told`: what each check has found, all well or not."""

    def __init__(self, services: Services, told: Callable[[bool], None]) -> None:
        self._services, self._told = services, told
        self._found = dict.fromkeys(("stt", "tts", "llm"), "it has not answered yet")
        self._asked_at = float("-inf")
        self._wanted = asyncio.Event()
        self._answer: asyncio.Future[None] | None = None  # to who has asked

    async def work(self) -> NoReturn:
        """Ask them whenever somebody wants to know, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._ask_all()
            if answer := self._answer:
                self._answer = None
                answer.set_result(None)

    async def look(self) -> dict[str, str]:
        """stt, tts, llm -> what is wrong, "": nothing; as it was not long ago. Whoever asks meanwhile waits for the
        same answer."""
        answer = self._ask(FRESH_S)
        if answer and time.monotonic() - self._asked_at > RECENT_S:
            await asyncio.shield(answer)
        return dict(self._found)

    async def known(self, fresh_s: float) -> dict[str, str]:
        """The same at once, as far as it is known. If that is older, they are asked for who comes next."""
        answer = self._ask(fresh_s)
        if answer and self._asked_at == float("-inf"):
            await asyncio.wait([answer], timeout=AT_ONCE_S)
        return dict(self._found)

    def _ask(self, fresh_s: float) -> asyncio.Future[None] | None:
        """Have them asked if what is known is older. The answer, while it is not there."""
        if not self._answer and time.monotonic() - self._asked_at > fresh_s:
            self._answer = asyncio.get_running_loop().create_future()
            self._wanted.set()
        return self._answer

    async def _ask_all(self) -> None:
        its, timeout = self._services, aiohttp.ClientTimeout(total=ASK_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            await asyncio.gather(
                self._note("stt", self._one_of(session, its.stt)),
                self._note("tts", self._one_of(session, its.tts)),
                self._note("llm", self._llm(session)),
            )
        self._asked_at = time.monotonic()
        self._told(not any(self._found.values()))

    async def _note(self, name: str, asked: Coroutine[Any, Any, str]) -> None:
        self._found[name] = await asked

    async def _one_of(self, session: aiohttp.ClientSession, instances: list[str]) -> str:
        """What is wrong with all of them; "" where one is up."""
        headers = {KEY: self._services.speech_key} if self._services.speech_key else {}
        asked = [_get(session, f"http{each.removeprefix('ws')}/api/build_info", headers) for each in instances]
        found = await asyncio.gather(*asked)
        return "" if "" in found else "; ".join(f"{at}: {why}" for at, why in zip(instances, found, strict=True))[:500]

    async def _llm(self, session: aiohttp.ClientSession) -> str:
        headers = {"Authorization": f"Bearer {self._services.llm_key or NO_KEY}"}
        why = await _get(session, f"{self._services.llm}/v1/models", headers)
        return f"{self._services.llm}: {why}"[:500] if why else ""


async def _get(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> str:
    try:
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except TimeoutError:
        return f"no answer within {ASK_S:g} s"
    except aiohttp.ClientConnectorError as error:
        return unreached.why(error.os_error)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:200]
