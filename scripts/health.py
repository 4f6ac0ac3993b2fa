"""Whether the suite really serves: asked of go2rtc as a viewer would ask, never guessed from a process list."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from procs import proc
from procs.carrier import DISTRUST
from procs.errors import ConfigError, Unhealthy
from procs.headless_agent.options import Producer
from procs.kinds import Address
from procs.messages.warden import TunnelState
from scripts import listeners, reach, reasons, roles, speaking, suite, tunnel_state
from scripts.plan import Plan
from scripts.stream_settings import next_step
from scripts.suite_settings import Suite

ASK_LIMIT_S = 2.0
DESCRIBE_LIMIT_S = 20.0  # a cold producer on a slow machine
STARTING_S = 2.0
CAPTURE_LIMIT_S = 20.0
SETTLE_S = 5.0
SETTLE_EVERY_S = 0.2
BACK_LIMIT_S = 10.0
YOUNG_S = 5  # a process that is no older may be on its way to serve
LOOK_EVERY_S = 0.05
LOG_LINES = 8
COMING = ("STARTING", "BACKOFF", "RUNNING", "SERVING")


def get_json(settings: Suite, path: str) -> Any:
    """A GET of go2rtc's API. Raises OSError or ValueError while it does not serve."""
    address = settings.api
    with contextlib.closing(http.client.HTTPConnection(address.host, address.port, timeout=ASK_LIMIT_S)) as connection:
        connection.request("GET", path, headers=_login(settings))
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{path}: status {answer.status}")
        return json.loads(answer.read())


def get_streams(settings: Suite) -> dict[str, dict[str, Any]]:
    """go2rtc's streams by name. Raises OSError or ValueError while it does not serve."""
    answer = get_json(settings, "/api/streams")
    if not isinstance(answer, dict) or not all(isinstance(stream, dict) for stream in answer.values()):
        raise ValueError("whoever answers there is no go2rtc")
    return answer


def _login(settings: Suite) -> dict[str, str]:
    """The header that go2rtc wants from callers that are not on loopback."""
    pair = f"{settings.username}:{settings.password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"} if settings.username else {}


def describe(settings: Suite, stream: str) -> str:
    """The SDP of a stream; asking makes go2rtc start its producer. Raises OSError if there is none."""
    url = f"rtsp://{settings.rtsp}/{stream}"
    headers = {"CSeq": "1", "Accept": "application/sdp", **_login(settings)}
    lines = [f"DESCRIBE {url} RTSP/1.0", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    with socket.create_connection((settings.rtsp.host, settings.rtsp.port), timeout=DESCRIBE_LIMIT_S) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b""
        while not _complete(answer):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
    status = answer.split(b"\r\n", 1)[0].decode(errors="replace")
    if " 200 " not in f"{status} ":
        raise OSError(f"{url}: {status or 'no answer'}")
    return answer.decode(errors="replace")


def _complete(answer: bytes) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(blank) and len(body) >= (int(length[1]) if length else 0)


def wait(root: Path, plan: Plan, limit_s: float, say: Callable[[str], None], since: str = "") -> None:
    """Return once everything serves. Raises Unhealthy with the process, the reason and its last log lines; ConfigError
    or NotHere for what waiting does not mend.

    `since`: when it was all started, as in our logs; '' if it was up before.
    """
    deadline = time.monotonic() + limit_s
    programs = {name for role in plan.suite.roles for name in roles.PROGRAMS[role] if not plan.is_off(name)}
    say(f"waiting for {', '.join(sorted(programs))}")
    while why := why_not_serving(root, plan):
        _refuse_hopeless(root, plan)
        reasons.refuse_hopeless(root, programs - {"go2rtc"}, since)  # whose exit codes are of its own
        if DISTRUST in why:
            raise Unhealthy(why)  # the log says just that, once a try
        if time.monotonic() > deadline:
            raise Unhealthy(f"{why}{last_words(root, _program_of(why))}")
        time.sleep(LOOK_EVERY_S)
    _settle(root, plan)
    if "tun" in plan.suite.roles:
        _meet(root, plan, deadline, say)
    if (said := _tunnel(root, plan)) and (why := tunnel_state.why_refused(said)):
        raise ConfigError(f"tunnel: {why}")
    if "streams" not in plan.suite.roles:
        return
    files = [name for name, source in plan.sources.items() if isinstance(source, Path)]
    for stream in [*one_of_each_kind(plan), *list(plan.commands)[:1], *plan.captures, *files]:
        say(f"waiting for a first picture of {stream}")
        if since and stream in plan.captures:
            _wait_for_capture(root, plan, stream, since)
        codec = "H264" if stream in plan.producers else ""
        if why := _why_not_playing(plan.suite, stream, codec):
            raise Unhealthy(_in_words(root, plan, stream, why, since))


def _settle(root: Path, plan: Plan) -> None:
    """Return when what serves has told the warden so, which heartbeats do a second later, and cards are open or missed.
    What takes longer is for `status` to say."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until and not _is_settled(root, plan):
        time.sleep(SETTLE_EVERY_S)


def _is_settled(root: Path, plan: Plan) -> bool:
    if (audio := reach.audio_state(root) if "audio" in plan.suite.roles else None) and reach.opens(audio):
        return False
    seen = suite.ask_warden(root)
    programs = {name for role in plan.suite.roles for name in roles.PROGRAMS[role]}
    ours = [each for each in seen.processes if each.name.partition(":")[0] in programs] if seen else []
    return bool(ours) and all(each.state == "SERVING" for each in ours)


def _meet(root: Path, plan: Plan, deadline: float, say: Callable[[str], None]) -> None:
    """Return when the signalling server has taken or refused us, or is known not to answer: only then can be told
    whether it takes our token. If it says nothing for so long, that is for `status` to say."""
    if _is_met(root, plan):
        return
    say("waiting for an answer of the signalling server")
    while time.monotonic() < deadline and not _is_met(root, plan):
        time.sleep(SETTLE_EVERY_S)


def _is_met(root: Path, plan: Plan) -> bool:
    said = _tunnel(root, plan)
    return said is not None and tunnel_state.is_told(said)


def _tunnel(root: Path, plan: Plan) -> TunnelState | None:
    """What tun_pump says of it; None where there is none."""
    seen = suite.ask_warden(root) if "tun" in plan.suite.roles else None
    return seen.tunnel if seen else None


def _wait_for_capture(root: Path, plan: Plan, stream: str, since: str) -> None:
    """Return when a capture has its first picture, or it is late; whoever reads its pipe would only say that nothing
    comes. Raises Unhealthy when it has failed."""
    deadline = time.monotonic() + CAPTURE_LIMIT_S
    while time.monotonic() < deadline and not reasons.has_shown(root, plan, stream, since):
        if reasons.last_error(root, plan, stream, since):
            raise Unhealthy(_in_words(root, plan, stream, "", since))
        time.sleep(LOOK_EVERY_S)


def _in_words(root: Path, plan: Plan, stream: str, why: str, since: str) -> str:
    """What is wrong with a stream: what its process said, else what go2rtc answers, with the end of its log."""
    kind = "headless_agent " if stream in plan.producers else "capture " if stream in plan.captures else ""
    path = reasons.log_of(root, plan, stream)
    if said := reasons.last_error(root, plan, stream, since):
        _, places = plan.producers.get(stream, (None, {}))
        return f"{kind}{stream}: {said}{next_step(said, places)}\n  (all of it: {path})"
    return f"{kind}{stream}: {why}{last_words(root, path.stem)}"


def why_not_serving(root: Path, plan: Plan) -> str:
    """Why the suite is not as it should be at this moment, short of asking for a picture; '' if it is."""
    try:
        by_name = {process.name: process for process in suite.processes(root)}
        if "streams" in plan.suite.roles:
            listed = set(get_streams(plan.suite))
            if why := _why_go2rtc_does_not_serve(plan, by_name["go2rtc"].pid, listed):
                return why
    except Unhealthy as error:
        return str(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"go2rtc: its API does not serve: {error}"
    gone = [
        f"{name}: {its.state}"
        for name, its in by_name.items()
        if its.state in ("STOPPED", "FATAL", "UNKNOWN") and not plan.is_off(name)
    ]
    if gone:
        return gone[0]
    if why := reach.why_not_reached(root, plan) or speaking.why_not(plan):
        return why
    if "audio" in plan.suite.roles and reach.audio_state(root) is None:
        return "audio_io: it does not answer"
    if "voice" in plan.suite.roles and reach.voice_state(root) is None:
        return "voice: it does not answer"
    seen = suite.ask_warden(root)
    if not seen:
        return "the warden does not answer"
    if "tun" in plan.suite.roles and seen.tunnel is None:
        return "tun_pump: it has not said that it is there"
    late = [each.name for each in seen.processes if each.name == "go2rtc" and each.state != "SERVING"]
    if late and "streams" in plan.suite.roles:
        return f"{late[0]}: the warden has not seen it serve"
    return ""


def _program_of(why: str) -> str:
    """The program whose log may tell more about what stands in `why_not_serving`."""
    return {"proxy": "proxy_0"}.get(named := _named(why), named)


def _named(why: str) -> str:
    programs = ("hub", "ws_link", "proxy", "webrtc_peer", "tun_pump", "audio_io", "voice", *speaking.PROGRAMS, "warden")
    return next((name for name in programs if why.startswith((name, f"the {name}"))), "go2rtc")


def remedy(why: str, processes: Iterable[Mapping[str, Any]]) -> str:
    """What is to be done about what stands in `why_not_serving`, by what `status` knows of the processes."""
    its = [each for each in processes if each["name"].partition(":")[0] == _named(why)]
    is_coming = [each["state"] in COMING and each["uptime_s"] <= YOUNG_S for each in its]
    return "it is being started again: look once more" if any(is_coming) else "make up mends it"


def _why_go2rtc_does_not_serve(plan: Plan, pid: int, listed: set[str]) -> str:
    wanted = set(plan.streams)
    if listed != wanted:
        return f"go2rtc: its streams were changed from outside: {', '.join(sorted(listed ^ wanted))}"
    for key, address in _listeners(plan.suite):
        holder = listeners.listener(address, likely=pid)
        if holder not in (pid, 0):  # 0: somebody whom we may not look at
            return f"go2rtc: it does not listen at {key}={address}"
    return ""


def why_not_back(root: Path, plan: Plan, say: Callable[[str], None]) -> str:
    """As why_not_serving, but what comes back by itself is given the time that it may take."""
    until, said = time.monotonic() + BACK_LIMIT_S, ""
    while (why := why_not_serving(root, plan)) and time.monotonic() < until:
        if any(word in why for word in ("changed from outside", "STOPPED", "FATAL", "UNKNOWN")):
            return why
        if not said:
            said = why
            say(f"{why}: waiting for it to come back by itself")
        time.sleep(LOOK_EVERY_S)
    return why


def _listeners(settings: Suite) -> list[tuple[str, Address]]:
    return [("api", settings.api), ("rtsp", settings.rtsp), ("webrtc", settings.webrtc)]


def _refuse_hopeless(root: Path, plan: Plan) -> None:
    """Raise Unhealthy for what waiting does not mend: a program given up, a port that somebody else has taken."""
    for process in suite.processes(root):
        if process.state in ("FATAL", "STOPPED", "UNKNOWN") and not plan.is_off(process.name):
            raise Unhealthy(f"{process.name}: {process.state}: {process.said}{last_words(root, process.name)}")
    for key, address in _listeners(plan.suite) if "streams" in plan.suite.roles else []:
        holder = listeners.listener(address)
        if holder and holder not in proc.marked(root):
            raise Unhealthy(f"go2rtc: {key}={address} is taken{listeners.described(holder)}; choose another port")


def _why_not_playing(settings: Suite, stream: str, codec: str) -> str:
    """Why a stream can't be had over RTSP; '' if it can. Asked again for a moment: a go2rtc that has just started
    listens before it knows how to start a producer, and says 404 meanwhile."""
    until = time.monotonic() + STARTING_S
    while True:
        try:
            return "" if codec in describe(settings, stream) else f"no {codec} in its description"
        except OSError as error:
            if time.monotonic() > until:
                return str(error)
        time.sleep(LOOK_EVERY_S)


def one_of_each_kind(plan: Plan) -> list[str]:
    """The first stream of each set of options: if it plays, the others of its kind do."""
    kinds: dict[Producer, str] = {}
    for name, (producer, _) in plan.producers.items():
        kinds.setdefault(producer.but(instance_id=""), name)
    return list(kinds.values())


def last_words(root: Path, program: str) -> str:
    """The end of a program's log, indented under the line that says what is wrong."""
    path = root / f"run/log/{program}.log"
    try:
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in lines) + f"\n  (all of it: {path})"
