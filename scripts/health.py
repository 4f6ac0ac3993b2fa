"""Whether the suite really serves: asked of go2rtc as a viewer would ask, never guessed from a process list."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from procs.errors import Unhealthy
from procs.settings import Address
from scripts import suite
from scripts.suite_settings import Plan

ASK_LIMIT_S = 2.0
DESCRIBE_LIMIT_S = 20.0  # a cold producer on a slow machine
STARTING_S = 2.0
LOOK_EVERY_S = 0.05
LOG_LINES = 8


def get_json(api: Address, path: str) -> Any:
    """A GET of go2rtc's API. Raises OSError or ValueError while it does not serve."""
    with contextlib.closing(http.client.HTTPConnection(api.host, api.port, timeout=ASK_LIMIT_S)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{path}: status {answer.status}")
        return json.loads(answer.read())


def describe(rtsp: Address, stream: str) -> str:
    """The SDP of a stream; asking makes go2rtc start its producer. Raises OSError if there is none."""
    request = f"DESCRIBE rtsp://{rtsp}/{stream} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    with socket.create_connection((rtsp.host, rtsp.port), timeout=DESCRIBE_LIMIT_S) as connection:
        connection.sendall(request.encode())
        answer = b""
        while not _complete(answer):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
    status = answer.split(b"\r\n", 1)[0].decode(errors="replace")
    if " 200 " not in f"{status} ":
        raise OSError(f"rtsp://{rtsp}/{stream}: {status or 'no answer'}")
    return answer.decode(errors="replace")


def _complete(answer: bytes) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(blank) and len(body) >= (int(length[1]) if length else 0)


def wait(root: Path, plan: Plan, limit_s: float, say: Callable[[str], None]) -> None:
    """Return once everything serves. Raises Unhealthy with the process, the reason and its last log lines."""
    deadline = time.monotonic() + limit_s
    say("waiting for go2rtc")
    while why := _why_not_listed(plan):
        _refuse_fatal(root)
        if time.monotonic() > deadline:
            raise Unhealthy(f"go2rtc: {why}{last_words(root, 'go2rtc')}")
        time.sleep(LOOK_EVERY_S)
    for stream in one_of_each_kind(plan):
        say(f"waiting for a first picture of {stream}")
        if why := _why_not_playing(plan.suite.rtsp, stream):
            raise Unhealthy(f"headless_agent {stream}: {why}{last_words(root, 'go2rtc')}")


def _why_not_listed(plan: Plan) -> str:
    """Why go2rtc's list of streams is not ours; '' if it is."""
    try:
        listed = set(get_json(plan.suite.api, "/api/streams"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"its API does not serve: {error}"
    missing = sorted({*plan.producers, *plan.sources} - listed)
    return f"it does not list {', '.join(missing)}" if missing else ""


def _why_not_playing(rtsp: Address, stream: str) -> str:
    """Why a stream can't be had over RTSP; '' if it can. Asked again for a moment: a go2rtc that has just started
    listens before it knows how to start a producer, and says 404 meanwhile."""
    until = time.monotonic() + STARTING_S
    while True:
        try:
            return "" if "H264" in describe(rtsp, stream) else "no H.264 in its description"
        except OSError as error:
            if time.monotonic() > until:
                return str(error)
        time.sleep(LOOK_EVERY_S)


def changed_from_outside(plan: Plan) -> bool:
    """Whether go2rtc serves other streams than ours: somebody added or deleted one by its API or its page."""
    try:
        return set(get_json(plan.suite.api, "/api/streams")) != {*plan.producers, *plan.sources}
    except (OSError, http.client.HTTPException, ValueError):
        return False  # it does not serve at all, which `wait` is about


def one_of_each_kind(plan: Plan) -> list[str]:
    """The first stream of each renderer and encoder: if it plays, the others of its kind do."""
    kinds: dict[tuple[str, str], str] = {}
    for name, (producer, _) in plan.producers.items():
        kinds.setdefault((producer.renderer, producer.encoder), name)
    return list(kinds.values())


def _refuse_fatal(root: Path) -> None:
    for process in suite.processes(root):
        if process.state in ("FATAL", "STOPPED", "UNKNOWN"):
            raise Unhealthy(f"{process.name}: {process.state}: {process.said}{last_words(root, process.name)}")


def last_words(root: Path, program: str) -> str:
    """The end of a program's log, indented under the line that says what is wrong."""
    path = root / f"run/log/{program}.log"
    try:
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in lines) + f"\n  (all of it: {path})"
