"""The page as the hub serves it: under which headers, and what is asked for again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from procs.hub.pages import FOLDER
from tests import hub_rig
from tests.hub_rig import Process


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One hub."""
    with hub_rig.process(tmp_path_factory.mktemp("hub")) as running:
        yield running


def policy_of(hub: Process, path: str) -> dict[str, str]:
    """The Content-Security-Policy there, by directive."""
    told = hub.http("GET", path).headers["Content-Security-Policy"]
    return {name: rest for name, _, rest in (directive.strip().partition(" ") for directive in told.split(";"))}


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/style.css", "/page/icon.svg"])
def test_it_runs_what_is_the_hubs_and_nothing_else(hub: Process, path: str) -> None:
    assert policy_of(hub, path) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    headers = hub.http("GET", path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("name", "kind"), [("main.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")]
)
def test_a_file(hub: Process, name: str, kind: str) -> None:
    answer = hub.http("GET", f"/page/{name}")
    assert answer.status == 200 and answer.body == (FOLDER / name).read_bytes()
    assert answer.headers["Content-Type"].startswith(kind)


def test_the_front_page(hub: Process) -> None:
    answer = hub.http("GET", "/")
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.body == (FOLDER / "index.html").read_bytes()


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_what_is_known_is_not_sent_again(hub: Process, path: str) -> None:
    first = hub.http("GET", path)
    assert first.headers["Cache-Control"] == "no-cache"
    for known in (first.headers["ETag"], f'"another", W/{first.headers["ETag"]}', "*"):
        again = hub.http("GET", path, headers={"If-None-Match": known})
        assert again.status == 304 and again.body == b"" and again.headers["ETag"] == first.headers["ETag"]
    assert hub.http("GET", path, headers={"If-None-Match": '"another"'}).status == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_head(hub: Process, path: str) -> None:
    whole, head = hub.http("GET", path), hub.http("HEAD", path)
    assert head.status == 200 and head.body == b""
    for name in ("ETag", "Content-Length", "Content-Type", "Content-Security-Policy"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nothing.js", "/page/..%2Fpages.py", "/page/%2Fetc%2Fpasswd", "/page"]
)
def test_nothing_else_is_there(hub: Process, path: str) -> None:
    answer = hub.http("GET", path)
    assert answer.status == 404 and answer.json["detail"]


def test_it_is_there_to_be_read(hub: Process) -> None:
    assert hub.http("POST", "/", {}).status == hub.http("DELETE", "/page/main.js").status == 405
