"""A login at an RTSP server, as it asks for it. Pure.

Source: RFC 7617 (Basic), RFC 7616 (Digest; without qop it is that of RFC 2069), RFC 2326 (RTSP), 14.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from typing import NamedTuple

MAX_CHALLENGES = 4096
_HASHES: dict[str, Callable[[bytes], hashlib._Hash]] = {"md5": hashlib.md5, "sha-256": hashlib.sha256}
_PART = re.compile(r'(?:([\w-]+)[ \t]+)?([\w-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class User(NamedTuple):
    """Whom to be there."""

    name: str
    password: str

    def __repr__(self) -> str:
        return "User(***)"


class Server(NamedTuple):
    """Where it is, and whom to be there."""

    host: str
    port: int
    user: User | None = None


class Login:
    """Of one connection."""

    def __init__(self, user: User, nonce: Callable[[], str] = lambda: secrets.token_hex(16)) -> None:
        self._user, self._nonce = user, nonce
        self._scheme = ""
        self._asked: dict[str, str] = {}
        self._count = 0

    def take(self, challenges: str) -> bool:
        """WWW-Authenticate has come, with 401; all lines of it, with commas between. Whether to ask once more."""
        known = _parsed(challenges)
        digest = next((asked for scheme, asked in known if scheme == "digest" and _is_known(asked)), None)
        is_again, before = bool(self._scheme), self._asked
        if digest:
            self._scheme, self._asked, self._count = "digest", digest, 0
            return not is_again or (
                digest["nonce"] != before.get("nonce") and digest.get("stale", "").lower() == "true"
            )
        self._scheme = "basic" if any(scheme == "basic" for scheme, _ in known) else ""
        return bool(self._scheme) and not is_again

    def headers(self, method: str, uri: str) -> list[str]:
        """What a request has to carry; nothing before the server has asked for it."""
        if self._scheme == "digest":
            return [f"Authorization: Digest {self._digest(method, uri)}"]
        if self._scheme == "basic":
            return [f"Authorization: Basic {base64.b64encode(':'.join(self._user).encode()).decode()}"]
        return []

    def _digest(self, method: str, uri: str) -> str:
        asked, (hash_name, is_session) = self._asked, _hash_of(self._asked)
        realm, nonce, client_nonce = asked.get("realm", ""), asked["nonce"], self._nonce()
        self._count += 1

        def hashed(*parts: str) -> str:
            return _HASHES[hash_name](":".join(parts).encode()).hexdigest()

        secret = hashed(self._user.name, realm, self._user.password)
        if is_session:
            secret = hashed(secret, nonce, client_nonce)
        said = {"username": _quoted(self._user.name), "realm": _quoted(realm), "nonce": _quoted(nonce)}
        said["uri"] = _quoted(uri)
        if "algorithm" in asked:
            said["algorithm"] = asked["algorithm"]
        if "opaque" in asked:
            said["opaque"] = _quoted(asked["opaque"])
        between = [nonce]
        if "qop" in asked or is_session:
            said |= {"nc": f"{self._count:08x}", "cnonce": _quoted(client_nonce)}
        if "qop" in asked:
            said["qop"] = "auth"
            between += [said["nc"], client_nonce, "auth"]
        said["response"] = _quoted(hashed(secret, *between, hashed(method, uri)))
        return ", ".join(f"{name}={value}" for name, value in said.items())


def _parsed(challenges: str) -> list[tuple[str, dict[str, str]]]:
    """The schemes, in lower case, with what they say."""
    found: list[tuple[str, dict[str, str]]] = []
    for scheme, name, quoted, plain in _PART.findall(challenges[:MAX_CHALLENGES]):
        if scheme:
            found.append((scheme.lower(), {}))
        if found:
            found[-1][1][name.lower()] = re.sub(r"\\(.)", r"\1", quoted) or plain
    return found


def _is_known(asked: dict[str, str]) -> bool:
    """Whether we can answer it."""
    qops = [each.strip().lower() for each in asked.get("qop", "auth").split(",")]
    return "nonce" in asked and "auth" in qops and _hash_of(asked)[0] in _HASHES


def _hash_of(asked: dict[str, str]) -> tuple[str, bool]:
    """Which hash, and whether it is mixed with both nonces (-sess)."""
    name = asked.get("algorithm", "MD5").lower()
    return name.removesuffix("-sess"), name.endswith("-sess")


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
