"""HTTP of this process: registration, opening the WebSocket, what an older hub is asked by HTTP, go2rtc's answers."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec

from procs import log
from procs.carrier import distrust, trust
from procs.errors import Refused
from procs.messages.requests import PairingCode
from procs.wire import challenge
from procs.wire.frames import device
from procs.ws_link.identity import Identity
from procs.ws_link.link import AGENT_VERSION, MAX_MESSAGE, End
from procs.ws_link.options import Link

MAX_ANSWER = 64 * 1024
LIMIT_S = 8.0
TOO_MANY = (429, 503)


def session(ca: Path | None) -> aiohttp.ClientSession:
    """`ca`: as of carrier.trust. Keeps no cookies and follows no redirect: it could lead from wss:// to ws://."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust(ca) if ca else True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"planaria/{AGENT_VERSION}"},
        timeout=aiohttp.ClientTimeout(total=LIMIT_S),
        trace_configs=[trace],
    )


async def _refuse_redirect(
    _: aiohttp.ClientSession, __: SimpleNamespace, to: aiohttp.TraceRequestRedirectParams
) -> None:
    raise aiohttp.ClientError(
        f"redirected by {to.url.host}, which is not followed: {to.response.headers.get('Location', '')[:200]}"
    )


class Hub:
    """One hub, asked on behalf of one device."""

    def __init__(self, http: aiohttp.ClientSession, settings: Link, me: Identity, run_dir: Path) -> None:
        self._http, self._settings, self._me = http, settings, me
        # Only a hint, which saves a round trip at each start: a hub that does not know us says so.
        self._hint = run_dir / "ws_link.registered"
        self._mark = f"{settings.base} {me.device_id}"

    def forget_registration(self) -> None:
        """It does not want us: the next attempt registers anew."""
        with contextlib.suppress(OSError):
            self._hint.unlink(missing_ok=True)

    async def register(self) -> End | None:
        """Make the hub know this device and what checks its proof, unless it does. Returns why it can't be now."""
        with contextlib.suppress(OSError, UnicodeError):
            if self._hint.read_text() == self._mark:
                return None
        verifier = challenge.verifier(self._me.secret, self._me.device_id).to_text()
        body = {"device_id": self._me.device_id, "device_type": "camera", "verifier": verifier}
        try:
            async with self._http.post(f"{self._settings.base}/api/devices/register", json=body) as answer:
                said = (await _limited(answer, MAX_ANSWER)).decode(errors="replace")[:300]
        except (OSError, aiohttp.ClientError, Refused) as error:
            return End(words(error))
        if answer.status in TOO_MANY:
            return End(f"registration: {answer.status} {said}", answer.status, _retry_after(answer.headers))
        if answer.status != 200:  # it may know us all the same, and says so after hello
            log.warning("the hub does not register this device", status=answer.status, said=said)
            return None
        with contextlib.suppress(OSError):
            self._hint.write_text(self._mark)
        return None

    async def connect(self) -> aiohttp.ClientWebSocketResponse[bool] | End:
        """The WebSocket, or why there is none."""
        try:
            return await self._http.ws_connect(
                self._settings.backend,
                max_msg_size=MAX_MESSAGE,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except aiohttp.WSServerHandshakeError as error:
            return End(f"the hub answers {error.status}", error.status, _retry_after(error.headers or {}))
        except (OSError, aiohttp.ClientError) as error:
            return End(words(error))

    async def pairing_code(self) -> PairingCode:
        """A code from a hub that takes no pairing_request. Raises Refused."""
        url = f"{self._settings.base}/api/pairing/generate"
        try:
            async with self._http.post(url, params={"device_id": self._me.device_id}) as answer:
                said = await _limited(answer, MAX_ANSWER)
                if answer.status != 200:
                    raise Refused(f"the hub answers {answer.status}: {said.decode(errors='replace')[:200]}")
                code = msgspec.json.decode(said, type=device.PairingCode)
        except (OSError, aiohttp.ClientError, msgspec.DecodeError, UnicodeError) as error:
            raise Refused(words(error)) from None
        return PairingCode(code.code, code.expires_at, code.ttl)

    async def json_of(self, url: str, limit: int) -> Any:
        """A JSON answer of go2rtc. Raises OSError, ClientError, ValueError or Refused."""
        async with self._http.get(url) as answer:
            if answer.status != 200:
                raise Refused(f"it answers {answer.status}")
            return msgspec.json.decode(await _limited(answer, limit))


async def _limited(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    read = bytearray()
    async for chunk in answer.content.iter_any():
        read += chunk
        if len(read) > limit:
            raise Refused(f"an answer of more than {limit} bytes")
    return bytes(read)


def _retry_after(headers: Any) -> float:
    """Seconds that the header Retry-After asks for; 0 without one."""
    text = str(headers.get("Retry-After", "")).strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def words(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, TimeoutError):
        return f"no answer within {LIMIT_S:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return distrust(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return f"nobody there: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
