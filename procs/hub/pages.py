"""The page that people see: static files, read once at start, and the headers under which a browser runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from aiohttp import hdrs, web

from procs.hub.rest import refusal

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing but what is here runs, is loaded or is talked to; and no string ever becomes HTML or code.
_POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "media-src blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
))  # fmt: skip
_HEADERS = {
    hdrs.CACHE_CONTROL: "no-cache",  # asked for each time, and told again only when it is another
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


class File(NamedTuple):
    """One file of the page."""

    type: str
    body: bytes
    etag: str


def read(folder: Path = FOLDER) -> Mapping[str, File]:
    """Every file of the page, by its name."""
    return {path.name: _file(path) for path in folder.iterdir() if path.suffix in _TYPES}


def _file(path: Path) -> File:
    body = path.read_bytes()
    return File(_TYPES[path.suffix], body, hashlib.sha256(body).hexdigest()[:32])


_FILES = read()


async def front(request: web.Request) -> web.Response:
    """GET /: the page. What it shows is in the part of its address that a browser keeps to itself."""
    return _answer(request, _FILES[INDEX])


async def get_file(request: web.Request) -> web.Response:
    """GET /page/{name}: what the page is made of."""
    file = _FILES.get(request.match_info["name"])
    if file is None:
        raise refusal(web.HTTPNotFound, "No such file")
    return _answer(request, file)


def _answer(request: web.Request, file: File) -> web.Response:
    known = request.if_none_match or ()
    if any(etag.value in (file.etag, "*") for etag in known):
        response = web.Response(status=304, headers=_HEADERS)
    else:
        response = web.Response(body=file.body, headers=_HEADERS | {hdrs.CONTENT_TYPE: file.type})
    response.etag = file.etag
    return response
