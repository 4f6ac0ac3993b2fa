"""What the hub serves, as OpenAPI 3.1 says it: made of the same table as the routes themselves."""

from __future__ import annotations

import http
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from procs.hub import answers
from procs.hub.rest import after_body, for_any_page

Who = Literal["anybody", "user", "viewer", "owner", "admin", "machine"]
JSON = "application/json"
ANYTHING = "*/*"  # for `answer`: whatever a device says
PROXIED = (303, 400, 408, 413, 429, 431, 501, 502, 504)  # what the tunnel to a device says besides
WEBSOCKET = "websocket"  # for `answer`: it is one
METHODS = ("get", "head", "options", "post", "put", "patch", "delete")  # those of "*"
_VARIABLE = re.compile(r"\{(\w+):?((?:[^{}]|\{[^{}]*\})*)\}")
_REF = "#/components/schemas/"
DOCUMENT = web.AppKey("openapi", bytes)

_WHO = {
    "anybody": "Anybody may.",
    "user": "Who is signed in may.",
    "viewer": "Who may look at the device: its owners, and those with whom it is shared.",
    "owner": "Who has the role owner on the device may.",
    "admin": "Admins may.",
    "machine": "This machine may, and admins.",
}
_SIGNED_IN: list[dict[str, list[str]]] = [{"session": []}, {"bearer": []}]
_SECURITY: dict[Who, list[dict[str, list[str]]]] = {
    "anybody": [],
    "user": _SIGNED_IN,
    "viewer": _SIGNED_IN,
    "owner": _SIGNED_IN,
    "admin": _SIGNED_IN,
    "machine": [{}, *_SIGNED_IN],
}
_SCHEMES = {
    "session": {"type": "apiKey", "in": "cookie", "name": "planaria_session", "description": "of POST /api/session"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "an access token, or a program's"},
    "basic": {"type": "http", "scheme": "basic", "description": "only below a device's proxy address"},
}
_ABOUT = """\
Every answer that says no is JSON, {"detail": why}; 429 and 503 say in Retry-After when to come again. By the session
cookie, a call that changes something needs an Origin that is the hub's own. What is not yours looks like what is not
there. WebSockets stand under x-websockets."""


class Route(NamedTuple):
    """One line of the table.

    `call`: a method (* for all), a blank, and a path; its variables may say what they look like: {id:[0-9]+}.
    `body`: the struct that it must be. `answer`: a type of JSON (or a tuple of some), or a media type, or WEBSOCKET.
    `query`: a struct of what may stand there. `also`: statuses that don't follow from the rest, such as 409.
    `takes`: the media type of a body that is no JSON. `ok`: the status of what went well. `is_shared`: pages of other
    sites may call it.
    """

    call: str
    handler: Handler
    who: Who
    body: type[msgspec.Struct] | None = None
    answer: Any = None
    query: type[msgspec.Struct] | None = None
    also: tuple[int, ...] = ()
    takes: str = ""
    ok: int = 200
    is_shared: bool = False

    @property
    def method(self) -> str:
        """GET, POST, ..., or *."""
        return self.call.partition(" ")[0]

    @property
    def path(self) -> str:
        """As aiohttp takes it."""
        return self.call.partition(" ")[2]

    @property
    def served(self) -> web.RouteDef:
        """As aiohttp takes it: who may GET may HEAD. By itself it takes no braces in names of people and streams."""
        path = _VARIABLE.sub(lambda found: f"{{{found[1]}:{found[2] or '[^/]+'}}}", self.path)
        if self.method == "GET":
            return web.get(path, self.handler)
        handler = after_body(self.handler) if self.body or self.takes else self.handler
        return web.route(self.method, path, for_any_page(handler) if self.is_shared else handler)

    @property
    def summary(self) -> str:
        """What it does: the first paragraph of its handler's docstring, after the call."""
        first = (self.handler.__doc__ or "").partition("\n\n")[0]
        text = " ".join(first.rpartition(": ")[2].split())
        return text[:1].upper() + text[1:]

    @property
    def statuses(self) -> list[int]:
        """All that it may answer, but 500, which nothing should."""
        found = {self.ok, 503, *self.also}
        if self.body or self.takes:
            found |= {400, 408, 413}
        if self.takes:
            found |= {415}
        if self.query:
            found |= {400}
        if self.who != "anybody":
            found |= {401, 403}
        if "{" in self.path:
            found |= {404}
        return sorted(found)


async def get_document(request: web.Request) -> web.Response:
    """GET /api/openapi.json: this description."""
    return web.Response(body=request.app[DOCUMENT], content_type=JSON, headers={"Cache-Control": "no-cache"})


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 of them."""
    schemas = Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.answer != WEBSOCKET:
            for method in METHODS if route.method == "*" else (route.method.lower(),):
                paths.setdefault(plain_path(route.path), {})[method] = _operation(route, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Planaria hub", "version": "1", "description": _ABOUT},
        "paths": paths,
        "x-websockets": {route.path: route.summary for route in routes if route.answer == WEBSOCKET},
        "components": {"schemas": schemas.components, "securitySchemes": _SCHEMES},
    }


def _pattern(pattern: str) -> str:
    return pattern.replace(r"\Z", "$").replace(r"\ud800-\udfff", "")


class Schemas:
    """The JSON Schema of every type that routes take or give. Those of structs stand in `components`, by name."""

    def __init__(self, routes: Iterable[Route]) -> None:
        named = [kind for route in routes for kind in (route.body, route.query, *_kinds(route.answer))]
        self._types = [answers.Detail, *(kind for kind in named if not isinstance(kind, str | None))]
        schemas, components = msgspec.json.schema_components(self._types, ref_template=f"{_REF}{{name}}")
        self._schemas: list[dict[str, Any]] = [_plain(schema) for schema in schemas]
        self.components: dict[str, Any] = _plain(components)

    def of(self, kind: Any) -> dict[str, Any]:
        """Of a type; of a struct it is a reference."""
        return self._schemas[self._types.index(kind)]

    def of_struct(self, kind: type[msgspec.Struct]) -> dict[str, Any]:
        """Of a struct, written out."""
        found: dict[str, Any] = self.components[self.of(kind)["$ref"].removeprefix(_REF)]
        return found


def _plain(schema: Any) -> Any:
    r"""A schema with patterns that every reader of it understands: $ for \Z, and no surrogates, which no text has."""
    if isinstance(schema, dict):
        return {
            key: _pattern(value) if key == "pattern" and isinstance(value, str) else _plain(value)
            for key, value in schema.items()
        }
    return [_plain(each) for each in schema] if isinstance(schema, list) else schema


def plain_path(path: str) -> str:
    """A path as OpenAPI has it: its variables say nothing of what they look like."""
    return _VARIABLE.sub(r"{\1}", path)


def _operation(route: Route, method: str, schemas: Schemas) -> dict[str, Any]:
    said: dict[str, Any] = {"summary": route.summary, "description": _WHO[route.who]}
    if parameters := [*_in_path(route), *_in_query(route, schemas)]:
        said["parameters"] = parameters
    if route.body:
        needed = bool(schemas.of_struct(route.body).get("required"))
        said["requestBody"] = {"required": needed, "content": {JSON: {"schema": schemas.of(route.body)}}}
    if route.takes:
        said["requestBody"] = {"required": True, "content": {route.takes: {"schema": {"type": "string"}}}}
    said["responses"] = {str(status): _response(route, status, schemas) for status in route.statuses}
    said["security"] = _SECURITY[route.who]
    if method == "head":
        for response in said["responses"].values():
            response.pop("content", None)
    return said


def _response(route: Route, status: int, schemas: Schemas) -> dict[str, Any]:
    said: dict[str, Any] = {"description": http.HTTPStatus(status).phrase}
    if status >= 400:
        return said | {"content": {JSON: {"schema": schemas.of(answers.Detail)}}}
    if isinstance(route.answer, str):
        return said | {"content": {route.answer: {}}}
    if route.answer is None or status != route.ok:
        return said
    kinds = [schemas.of(kind) for kind in _kinds(route.answer)]
    return said | {"content": {JSON: {"schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}}}


def _kinds(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _in_path(route: Route) -> Iterable[dict[str, Any]]:
    for name, pattern in _VARIABLE.findall(route.path):
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if pattern:
            schema["pattern"] = f"^{pattern}$"
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(route: Route, schemas: Schemas) -> Iterable[dict[str, Any]]:
    if route.query is None:
        return
    schema = schemas.of_struct(route.query)
    for name, each in schema["properties"].items():
        yield {"name": name, "in": "query", "required": name in schema.get("required", []), "schema": each}
