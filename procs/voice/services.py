"""Whether the services are there by which conversations hear, speak and think."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from procs.messages.voice import Services

ASK_S = 2.0
FRESH_S = 0.5  # as published
KEY = "kyutai-api-key"
NO_KEY = "EMPTY"  # what a language model without one is shown, as published


class Health:
    """Asks each, seldom. `told`: what each check has found, all well or not."""

    def __init__(self, services: Services, told: Callable[[bool], None]) -> None:
        self._services, self._told = services, told
        self._found = dict.fromkeys(("stt", "tts", "llm"), "it was not asked yet")
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def look(self, fresh_s: float = FRESH_S) -> dict[str, str]:
        """stt, tts, llm -> what is wrong, "": nothing. Whoever asks meanwhile waits for the same answer."""
        if time.monotonic() - self._asked_at > fresh_s:
            self._asking = self._asking or asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)
        return dict(self._found)

    async def _ask(self) -> None:
        its = self._services
        try:
            timeout = aiohttp.ClientTimeout(total=ASK_S)
            async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
                stt, tts, llm = await asyncio.gather(
                    self._one_of(session, its.stt), self._one_of(session, its.tts), self._llm(session)
                )
            self._found = {"stt": stt, "tts": tts, "llm": llm}
            self._asked_at = time.monotonic()
            self._told(not (stt or tts or llm))
        finally:
            self._asking = None

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
        return error.os_error.strerror or "cannot be reached"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:200]
