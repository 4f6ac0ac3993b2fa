"""The description of the hub's calls: complete, and true to the routes that are served."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from aiohttp import web

from procs.hub import openapi
from procs.hub.app import ROUTES, runner
from procs.hub.openapi import Route
from procs.hub.options import Hub
from procs.hub.state import State
from procs.store import Store
from tests import hub_rig


class Body(msgspec.Struct):
    """What is sent."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z]+\Z")]


class Query(msgspec.Struct):
    """What is asked."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


async def change(_: web.Request) -> web.Response:
    """PUT /things/{id}: change it.

    And more of that.
    """
    return web.Response()


def test_nothing_is_served_undocumented(tmp_path: Path) -> None:
    app = runner(State(Hub(), Store(f"sqlite:///{tmp_path}/hub.sqlite"))).app
    served = {f"{route.method} {route.resource.canonical}" for route in app.router.routes() if route.resource}
    said = openapi.document(ROUTES)
    documented = {f"{method.upper()} {path}" for path, calls in said["paths"].items() for method in calls}
    documented |= {f"GET {path}" for path in said["x-websockets"]}
    for call in served:
        method, path = call.split()
        methods = openapi.METHODS if method == "*" else [method]
        assert all(f"{each.upper()} {path}" in documented or each == "HEAD" for each in methods), call


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.call)
def test_every_call_says_what_it_does(route: Route) -> None:
    assert len(route.summary) > 8 and route.method not in route.summary, route.handler.__doc__
    if route.method != "*" and route.answer != openapi.WEBSOCKET:
        path = openapi.plain_path(route.path)
        assert (route.handler.__doc__ or "").startswith(f"{route.method} {path}")


def test_a_call_is_described_by_its_line() -> None:
    said = openapi.document([Route("PUT /things/{id:[0-9]{1,9}}", change, "owner", Body, list[Body], Query, (409,))])
    call = said["paths"]["/things/{id}"]["put"]
    assert call["summary"] == "Change it."
    in_path, in_query = call["parameters"]
    assert in_path["schema"] == {"type": "string", "minLength": 1, "pattern": "^[0-9]{1,9}$"} and in_path["required"]
    assert in_query["name"] == "limit" and in_query["schema"]["maximum"] == 200 and not in_query["required"]
    assert call["requestBody"]["required"] and call["security"]
    assert set(call["responses"]) == {"200", "400", "401", "403", "404", "408", "409", "413", "503"}
    answer = call["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"type": "array", "items": {"$ref": "#/components/schemas/Body"}}
    either = openapi.document([Route("GET /things", change, "anybody", None, (Body, Query))])
    answer = either["paths"]["/things"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert [each["$ref"].rpartition("/")[2] for each in answer["anyOf"]] == ["Body", "Query"]
    assert said["components"]["schemas"]["Body"]["properties"]["name"]["pattern"] == "^[a-z]+$"


def test_anybody_can_read_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_rig.within(tmp_path) as (_, nobody):
            answer = await hub_rig.ask(nobody, "GET", "/api/openapi.json")
            assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/json")
            assert json.loads(answer.body) == openapi.document(ROUTES)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["{}", "a%2Fb", "a%25b", "%7B%7B7*7%7D%7D", "..."])
def test_a_name_in_a_path_may_be_any(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with hub_rig.within(tmp_path) as (_, nobody):
            admin = await asyncio.to_thread(nobody.as_user, "admin", hub_rig.ADMIN_PASSWORD)
            answer = await hub_rig.ask(admin, "PUT", f"/api/devices/none/shares/{name}", {"role": "viewer"})
            assert (answer.status, answer.detail) == (404, "Device not found"), "and not: no such address"

    asyncio.run(main())
