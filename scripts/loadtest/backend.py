"""What is asked of a voice backend before any conversation: whether it is well, and which voices it has."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from procs.errors import ConfigError, LinkLost, Unhealthy

ASK_S = 10.0
MOST_BYTES = 4 * 1024 * 1024
_SHOWN = 300  # characters
_HTTP = {"ws": "http", "http": "http", "wss": "https", "https": "https"}


class Backend:
    """One, by its address."""

    def __init__(self, url: str, key: str) -> None:
        """Raises ConfigError."""
        parts = urllib.parse.urlsplit(url)
        try:
            wrong = parts.scheme not in _HTTP or not parts.hostname or parts.query or parts.port == 0
        except ValueError:
            wrong = True
        if wrong:
            raise ConfigError(
                f"--server-url={url!r}: must be like ws://127.0.0.1:8010 or https://voice.example.org/api"
            )
        self.key = key
        self._base = f"{_HTTP[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}"
        self.realtime_url = f"{self._base.replace('http', 'ws', 1)}/v1/realtime"

    def check_health(self) -> None:
        """Raises Unhealthy with what it says, LinkLost where nobody answers."""
        status, told = self._ask("/v1/health")
        said = told if isinstance(told, dict) else {}
        if status != 200 or said.get("ok") is False:
            why = said.get("message") or json.dumps(told)
            raise Unhealthy(f"{self._base}/v1/health: HTTP {status}: {why}"[:_SHOWN])

    def first_voice(self) -> str | None:
        """As the published client takes it: by the path of its sound, or by its name where there is none. Raises
        ConfigError where it wants another key, which its health needs none for."""
        status, told = self._ask("/v1/voices")
        voice = told[0] if status == 200 and isinstance(told, list) and told else None
        if not isinstance(voice, dict):
            return None
        source = voice.get("source")
        path = source.get("path_on_server") if isinstance(source, dict) else None
        return str(path or voice.get("name") or "") or None

    def _ask(self, path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(self._base + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as answer:
                status, body = answer.status, answer.read(MOST_BYTES)
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read(MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise LinkLost(f"{self._base}{path}: {getattr(error, 'reason', error)}") from None
        try:
            told = json.loads(body)
        except ValueError:
            told = body.decode(errors="replace")[:_SHOWN]
        if status in (401, 403):
            raise ConfigError(
                f"{self._base}{path}: HTTP {status}: {json.dumps(told)[:_SHOWN]}; --key-file names a file with its key"
            )
        return status, told
