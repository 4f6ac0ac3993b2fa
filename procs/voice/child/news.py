"""Headlines, for a conversation about them."""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec

from procs import log

URL = "https://newsapi.org/v2/everything?sources=the-verge&sortBy=publishedAt&pageSize=50"
WITHIN_S = 3.0
MAX_BYTES = 512 * 1024
MOST = 50
_SHOWN = 300  # characters of a headline


class _Article(msgspec.Struct):
    title: str | None = None


class _Answer(msgspec.Struct):
    articles: list[_Article] = []


async def headlines(key: str, url: str = URL) -> list[str] | None:
    """The newest, or None where there are none to be had: a conversation does without."""
    if not key:
        return None
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            aiohttp.ClientSession(headers={"X-Api-Key": key}) as client,
            client.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            data = b""
            async for piece in response.content.iter_any():
                data += piece
                if len(data) > MAX_BYTES:
                    raise ValueError(f"an answer of more than {MAX_BYTES} bytes")
        found = msgspec.json.decode(data, type=_Answer).articles
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, msgspec.DecodeError) as error:
        log.warning("no headlines", why=(str(error) or type(error).__name__)[:_SHOWN])
        return None
    return [each.title[:_SHOWN] for each in found if each.title][:MOST] or None
