"""Log lines: one JSON object each, without secrets, without floods."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from procs import log

Lines = Callable[[], list[dict[str, object]]]


class Clock:
    """A clock that stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> Iterator[Lines]:
    """Configure logging into memory; call it for what was logged, as JSON."""
    kept = logging.getLogger().handlers[:]
    out = io.StringIO()
    log.configure("test", stream=out, clock=clock, debug=True)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    logging.getLogger().handlers[:] = kept


def test_a_line_is_one_json_object(lines: Lines) -> None:
    log.info("two\nlines \x1b[31m", width=3, path="a\nb")
    (line,) = lines()
    assert line["tag"] == "test" and line["level"] == "info" and line["event"] == "two\nlines \x1b[31m"
    assert (line["width"], line["path"]) == (3, "a\nb")


def test_every_line_says_whom_it_is_about(lines: Lines) -> None:
    out = io.StringIO()
    for style, wanted in (("json", '"device": "panel"'), ("text", "device=panel")):
        log.configure("test", stream=out, style=style, always={"device": "panel"})
        log.warning("the language model has not answered")
        assert wanted in out.getvalue().splitlines()[-1]


@pytest.mark.parametrize("name", ["device_secret", "token", "Authorization", "PASSWORD", "api_key", "cookie"])
def test_secrets_are_cut_by_name(lines: Lines, name: str) -> None:
    log.info("x", **{name: "hunter2"})
    assert lines()[0][name] == "***"


def test_secrets_are_cut_inside_urls(lines: Lines) -> None:
    log.warning("no rtsp://admin:hunter2@cam/1", url="http://h/x?a=1&token=hunter2&b=2")
    line = lines()[0]
    assert line["event"] == "no rtsp://***@cam/1"
    assert line["url"] == "http://h/x?a=1&token=***&b=2"


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://hunter2@cam/1",
        "rtsp://user:pa@hunter2@cam/1",
        "GET /x?sig=hunter2&a=1",
        "GET /x?x-api-key=hunter2",
        "Authorization: Bearer hunter2",
        "{'password': 'hunter2', 'a': 1}",
        '{"device_secret": "hunter2"}',
        '{"password": "a\\"b hunter2"}',
        "{'password': b'x hunter2'}",
        "password: x hunter2",
        "pass=hunter2",
        "passphrase=hunter2",
        "http://h/?pwd=hunter2&a=1",
        "rtsp://user:p/hunter2@host/x",
        'rtsp://user:p"hunter2@host/x',
        "MY_TOKEN=hunter2 started",
        "MY_TOKEN_FILE='hunter2': cannot be read",
        "MY_TOKEN=/hunter2",
        "x" * (log.MAX_TEXT - 12) + " rtsp://u:hunter2@cam/1",
    ],
)
def test_secrets_are_cut_wherever_they_stand(lines: Lines, text: str) -> None:
    log.info(text, detail=text, more=[text.replace('"', "")])
    assert "hunte" not in json.dumps(lines()[0])


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["a", "secret", "://", "-", '"', "secret=", "secret: ", "b'", "\\", "x://y@", "= ", "bearer "]
)
def test_no_text_makes_it_slow(text: str) -> None:
    for _ in range(20):
        log.redact("", text * (100_000 // len(text)))


def test_what_is_no_secret_stays() -> None:
    for text in ("monkey=3 keyframe: yes", "http://h/api?src=omega-0", "width=3 (--width): must be even", "a: b, c: d"):
        assert log.redact("event", text) == text
    assert log.redact("", path := "MY_TOKEN_FILE='/etc/token': cannot be read") == path
    assert log.redact("token_file", "~/token") == "~/token"


def test_long_values_are_cut(lines: Lines) -> None:
    log.info("x", text="y" * 10_000)
    assert len(str(lines()[0]["text"])) == log.MAX_TEXT


def test_repeats_are_held_back_and_counted(lines: Lines, clock: Clock) -> None:
    for _ in range(105):
        log.warning("again")
    log.info("other")
    assert [line["event"] for line in lines()] == ["again"] * 5 + ["other"]
    clock.now = log.REPEAT_WINDOW_S
    log.warning("again")
    assert lines()[-1]["held_back"] == 100


def test_an_exception_brings_its_trace(lines: Lines) -> None:
    try:
        raise ValueError("deep")
    except ValueError:
        log.error("failed", trace=True)
    assert "ValueError: deep" in str(lines()[0]["trace"])


def test_a_terminal_gets_text_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANARIA_LOG", "text")
    kept = logging.getLogger().handlers[:]
    out = io.StringIO()
    log.configure("test", stream=out)
    log.warning("bad \x1b]0;title\x07", width=3)
    logging.getLogger().handlers[:] = kept
    assert "test | warning: bad ?]0;title?  width=3" in out.getvalue()
