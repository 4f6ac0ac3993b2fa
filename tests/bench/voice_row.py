"""The floor: the same services called in a row for one turn, with no device, no conversation and no Opus in between.

All connections are there before the turn, and the sound goes out as it would be spoken. What it takes is what no
backend can do without: the recogniser's pause and flush, the first words of the answer, and their first sound.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from procs.errors import Unhealthy
from procs.wire import moshi
from tests.bench.voice_device import Utterance

STEP_S = moshi.STEP / moshi.RATE
PAUSE, SCORE = 0.6, 2  # of which score, that a turn is over
FLUSH_STEPS = 8
LIMIT_S = 20.0


class Row(NamedTuple):
    """From the end of speech, in seconds: each from the one before."""

    pause: float
    flush: float
    llm: float
    tts: float

    @property
    def whole(self) -> float:
        """All of it."""
        return self.pause + self.flush + self.llm + self.tts


class Bot(NamedTuple):
    """Who answers."""

    instructions: Mapping[str, Any]
    voice: str
    lines: Sequence[Mapping[str, str]]  # role and text of what was said before


def row(services: Mapping[str, str], what: Utterance, bot: Bot) -> Row:
    """One turn. `services`: variables of a backend."""
    return asyncio.run(_row(services, what, bot))


async def _row(services: Mapping[str, str], what: Utterance, bot: Bot) -> Row:
    async with (
        asyncio.timeout(LIMIT_S + len(what.pcm) / moshi.RATE),
        _opened(f"{services['KYUTAI_STT_URL']}/api/asr-streaming") as ears,
        _opened(f"{services['KYUTAI_TTS_URL']}/api/tts_streaming?format=PcmMessagePack&voice={bot.voice}") as mouth,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{services['KYUTAI_LLM_URL']}/v1/models") as answer:  # which leaves a connection open
            model = (await answer.json())["data"][0]["id"]
        ended, paused, flushed, words = await _hear(ears, what)
        asked = {
            "model": model,
            "stream": True,
            "messages": [
                {"role": "system", "content": str(bot.instructions["text"])},
                *({"role": each["role"], "content": each["text"]} for each in bot.lines),
                {"role": "user", "content": " ".join(words)},
            ],
            "metadata": {"instructions": dict(bot.instructions)},
        }
        async with session.post(f"{services['KYUTAI_LLM_URL']}/v1/chat/completions", json=asked) as answer:
            first = await _say(answer, mouth)
        while not isinstance(moshi.decode(await mouth.recv(), moshi.FROM_TTS), moshi.Audio):
            pass
        return Row(paused - ended, flushed - paused, first - flushed, time.monotonic() - first)


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncIterator[ClientConnection]:
    """A WebSocket of a service that is ready."""
    async with connect(url, additional_headers={"kyutai-api-key": "public_token"}, compression=None) as ws:
        if not isinstance(moshi.decode(await ws.recv(), moshi.FROM_STT), moshi.Ready):
            raise Unhealthy("a speech service has no room")
        yield ws
        ws.transport.abort()  # one that speaks still would be waited for


async def _hear(ws: ClientConnection, what: Utterance) -> tuple[float, float, float, list[str]]:
    """When it ended, was taken for ended, and was known; and what it was."""
    began, words, paused = time.monotonic(), list[str](), asyncio.Event()
    speaking = asyncio.create_task(_speak(ws, what, began, paused))
    paused_at = 0.0
    try:
        while True:
            message = moshi.decode(await ws.recv(), moshi.FROM_STT)
            now = time.monotonic()
            is_over = isinstance(message, moshi.Step) and message.prs[SCORE] > PAUSE
            if is_over and now > began + what.end_s and not paused.is_set():
                paused_at = now
                paused.set()
            elif isinstance(message, moshi.Word):
                words.append(message.text)
            elif isinstance(message, moshi.Marker):
                return began + what.end_s, paused_at, now, words
            elif isinstance(message, moshi.Error):
                raise Unhealthy(f"speech_stt: {message.message}")
    finally:
        speaking.cancel()


async def _speak(ws: ClientConnection, what: Utterance, began: float, paused: asyncio.Event) -> None:
    """Each step when its last sample was spoken; then the mark, and silence behind it."""
    number = 0
    while not paused.is_set():
        pcm = what.pcm[number * moshi.STEP : (number + 1) * moshi.STEP]
        number += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, began + number * STEP_S - time.monotonic())):
                await paused.wait()
        if not paused.is_set():
            await ws.send(moshi.encode(moshi.Audio(np.pad(pcm, (0, moshi.STEP - len(pcm))))))
    await ws.send(moshi.encode(moshi.Marker(1)))
    for _ in range(FLUSH_STEPS):
        await ws.send(moshi.encode(moshi.Audio(np.zeros(moshi.STEP, np.int16))))


async def _say(answer: aiohttp.ClientResponse, mouth: ClientConnection) -> float:
    """Each word to the synthesiser as it comes; when the first whole one was there."""
    text, sent, first = "", 0, 0.0
    async for line in answer.content:
        if not line.startswith(b"data: {"):
            continue
        text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        whole = text.split()[:-1]
        for word in whole[sent:]:
            first = first or time.monotonic()
            await mouth.send(moshi.encode(moshi.Text(word)))
        sent = len(whole)
    for word in text.split()[sent:]:
        first = first or time.monotonic()
        await mouth.send(moshi.encode(moshi.Text(word)))
    await mouth.send(moshi.encode(moshi.Eos()))
    return first
