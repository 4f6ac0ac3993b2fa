"""How the suite is: what supervisord knows, what the warden has seen, what go2rtc serves, and what is missing now."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from procs import proc
from procs.messages.requests import LinkState, ProcessState, SuiteState
from scripts import capture_programs, health, producing, reach, reasons, speaking, suite, tunnel_state
from scripts.plan import Plan

NO_DEVICES = "not configured: there is no devices.json (README: A backend that talks)"
WELL = ("SERVING", "RUNNING", "STARTING")


def gather(root: Path, plan: Plan) -> dict[str, Any]:
    """What `status --json` prints of one that is up. What nobody knows is None. Raises Unhealthy if it is down."""
    seen = suite.ask_warden(root)
    by_name = {process.name: process for process in seen.processes} if seen else {}
    pid = proc.supervisord(root)
    its = proc.stat(pid)
    known = [suite.Process("supervisord", "RUNNING", pid, int(its.age_s) if its else 0, "")]
    makers = suite.producers(root)
    known += [*suite.processes(root), *makers]
    known = [process for process in known if not plan.is_off(process.name)]
    processes = [_process(root, plan, each, by_name.get(each.name)) for each in known]
    for process in processes:
        process["recovery"] = _recovery(seen, process["name"])
    link = reach.link_state(root) if "device" in plan.suite.roles else None
    audio = reach.audio_state(root) if "audio" in plan.suite.roles else None
    voice = reach.voice_state(root) if "voice" in plan.suite.roles else None
    troubles = seen.troubles if seen else ["the warden does not answer"]
    tunnel = msgspec.to_builtins(seen.tunnel) if seen and "tun" in plan.suite.roles else None
    if tunnel and not tunnel["interface"]:
        tunnel["needs"] = tunnel_state.needs(plan.wall.agent)
    return {
        "processes": processes,
        "hub": _hub(plan) if "hub" in plan.suite.roles else None,
        "device": _device(link) if link else None,
        "watching": msgspec.to_builtins(seen.watching) if seen else None,
        "tunnel": tunnel,
        "audio": msgspec.to_builtins(audio) if audio else None,
        "voice": msgspec.to_builtins(voice) if voice else None,
        "backend": speaking.backend(plan),
        "speech": speaking.places(plan),
        "streams": _streams(root, plan, makers) if "streams" in plan.suite.roles else [],
        "degraded": [
            *_missing(root, processes),
            *reach.missing(link),
            *reach.missing_go2rtc(plan),
            *reach.missing_sound(audio),
            *reach.missing_voice(voice),
            *troubles,
            *(tunnel_state.away(tunnel) if tunnel else []),
        ],
    }


def _hub(plan: Plan) -> dict[str, Any]:
    figures, why = reach.hub_figures(plan)
    told = ("devices_online", "data_links", "viewers")
    return {"url": f"{plan.wall.hub_url}/", **{name: figures.get(name) for name in told}, "said": why}


def _device(link: LinkState) -> dict[str, Any]:
    told = ("device_id", "hub", "state", "since_s", "reconnects", "refused", "mux", "workers", "sessions", "said")
    return {name: getattr(link, name) for name in told}


def _process(root: Path, plan: Plan, known: suite.Process, seen: ProcessState | None) -> dict[str, Any]:
    found = known._asdict() | {
        "pid": known.pid or None,
        "restarts_last_hour": seen.restarts_hour if seen else None,
        "last_exit": seen.last_end if seen else None,
        "rss_bytes": proc.rss_bytes(known.pid) if known.pid else 0,
        "heartbeat_age_s": seen.sign_age_s if seen else None,
    }
    if known.state == "STOPPED":
        found["said"] = f"stopped by hand; supervisorctl -c supervisord.conf start {known.name}"
    if not seen:
        return found
    if seen.state in ("SERVING", "HANGING") and seen.pid == known.pid:
        found["state"] = seen.state  # supervisord's word means only that it has not died yet
    elif seen.failures > 1:
        stream = known.name.removeprefix("capture_")
        why = reasons.last_error(root, plan, stream) if stream in plan.captures else seen.last_end
        later = f"; next start in {seen.wait_s:.0f} s" if seen.wait_s else ""
        found |= {"state": "FAILING", "said": f"{seen.failures} starts in a row failed: {why}{later}"}
    return found


def _recovery(seen: SuiteState | None, name: str) -> dict[str, Any] | None:
    """The histogram of how long it took to serve again; None where it never had to."""
    found = [each.recoveries for each in seen.processes if each.name == name] if seen else []
    return msgspec.to_builtins(found[0]) | {"bounds_s": seen.bounds_s} if seen and found and found[0] else None


def _streams(root: Path, plan: Plan, makers: Iterable[suite.Process]) -> list[dict[str, Any]]:
    try:
        listed = health.get_streams(plan.suite)
    except (OSError, http.client.HTTPException, ValueError):
        listed = {}
    running = producing.gather(root / "run", makers, plan.streams)
    return [
        {
            "name": name,
            "watched_by": len(listed[name].get("consumers") or []) if name in listed else None,
            "producer": running.get(name),
            "rtsp": f"rtsp://{plan.suite.rtsp}/{name}",
        }
        for name in plan.streams
    ]


def _missing(root: Path, processes: Iterable[dict[str, Any]]) -> list[str]:
    """What cannot be had while a process is down, as supervisord.conf says above each."""
    paths = (root / "supervisord.conf", root / capture_programs.FOLDER / "captures.conf")
    texts = [path.read_text() for path in paths if path.is_file()]
    words = {name: text for each in texts for name, text in comments(each).items()}
    ill = [process for process in processes if process["state"] not in WELL and process["name"] in words]
    return [
        f"{process['name']} is {process['state'].lower()} ({process['said']}): {words[process['name']]}"
        for process in ill
    ]


def comments(text: str) -> dict[str, str]:
    """Program -> the first sentence of the comment above its section, of a supervisord configuration."""
    sections = re.findall(r"^((?:;[^\n]*\n)+)\[(?:fcgi-)?(?:program|eventlistener):([^\]]+)\]", text, re.M)
    whole = {name: " ".join(line.lstrip("; ") for line in comment.splitlines()) for comment, name in sections}
    return {name: text.partition(". ")[0] for name, text in whole.items()}


def show(answer: dict[str, Any]) -> None:
    """The same for people."""
    head = ("PROCESS", "STATE", "PID", "UP", "RESTARTS/H", "HEARTBEAT", "MEMORY", "LAST EXIT")
    print_table([head, *map(_row, answer["processes"])])
    if hub := answer["hub"]:
        figures = [_known(hub[name]) for name in ("devices_online", "data_links", "viewers")]
        print()
        print_table([("HUB", "DEVICES ONLINE", "DATA CONNECTIONS", "VIEWERS"), (hub["url"], *figures)])
        if hub["said"]:
            print(f"hub: {hub['said']}")
    if device := answer["device"]:
        how = device["state"], in_words(int(device["since_s"])), str(device["workers"]), _known(device["sessions"])
        print()
        named = "DEVICE", "HUB", "STATE", "FOR", "PROXIES", "WATCH SESSIONS"
        print_table([named, (device["device_id"], device["hub"], *how)])
    if answer["streams"]:
        print()
        print_table([STREAMS, *map(_stream, answer["streams"])])
        for note in producing.notes({s["name"]: s["producer"] for s in answer["streams"] if s["producer"]}):
            print(note)
    if answer["watching"]:
        print()
        print_table([WATCHING, *map(watcher, answer["watching"])])
    if tunnel := answer["tunnel"]:
        print()
        if tunnel["peers"]:
            print_table([tunnel_state.COLUMNS, *map(tunnel_state.row, tunnel["peers"])])
        print("\n".join(tunnel_state.notes(tunnel)))
    if audio := answer["audio"]:
        print()
        print_table([AUDIO, audio_row(audio)])
    if voice := answer["voice"]:
        print()
        if voice["devices"]:
            print_table([VOICE, *map(voice_row, voice["devices"])])
        if not voice["configured"]:
            print(f"voice: {NO_DEVICES}")
    if backend := answer["backend"]:
        rows = (
            ("backend", f"{backend['url']} (calls the devices of {backend['devices_file']})"),
            *answer["speech"].items(),
        )
        print()
        print_table([SPEECH, *rows])
    if answer["degraded"]:
        print("\nDEGRADED\n" + "\n".join(f"  {each}" for each in answer["degraded"]))


def _row(process: dict[str, Any]) -> tuple[str, ...]:
    restarts, age_s = process["restarts_last_hour"], process["heartbeat_age_s"]
    return (
        process["name"],
        process["state"].lower(),
        str(process["pid"] or "-"),
        in_words(process["uptime_s"]),
        "-" if restarts is None else str(restarts),
        "-" if age_s is None else f"{age_s:.1f} s ago",
        f"{process['rss_bytes'] / 1e6:.0f} MB" if process["rss_bytes"] else "-",
        process["last_exit"] or "-",
    )


STREAMS = ("STREAM", "WATCHED BY", "PRODUCER", "ADDRESS")


def _stream(its: dict[str, Any]) -> tuple[str, ...]:
    return its["name"], _watchers(its["watched_by"]), producing.cell(its["producer"]), its["rtsp"]


WATCHING = (
    *("WATCH SESSION", "STREAM", "STATE", "FOR", "PATH", "KBIT/S", "CAN TAKE", "LOSS", "ROUND TRIP"),
    *("SENT AGAIN", "DROPPED"),
)


def watcher(its: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one session, under WATCHING."""
    round_trip_ms, takes = its["round_trip_ms"], its["asked_bits_per_s"]
    return (
        its["session_id"][:8],
        its["stream"],
        its["state"],
        in_words(int(its["for_s"])),
        its["path"] or "-",
        f"{its['bits_per_s'] / 1000:.0f}",
        f"{takes / 1000:.0f}" if takes else "all",
        f"{its['loss']:.1%}",
        "-" if round_trip_ms is None else f"{round_trip_ms:.0f} ms",
        f"{its['packets_again']:.0f} of {its['packets']:.0f}",
        f"{its['dropped']:.0f}",
    )


AUDIO = ("AUDIO", "BACKEND", "FOR", "MICROPHONE", "SPEAKER", "ECHO", "BUFFER", "UNDERRUNS", "CONCEALED", "REFUSED")


def audio_row(its: dict[str, Any]) -> tuple[str, ...]:
    """The cells of the device's ears and mouth, under AUDIO."""
    figures, is_heard = its["figures"], "asleep" if not its["awake"] else "muted" if its["muted"] else "on"
    return (
        f"{'wss' if its['tls'] else 'ws'}://{its['listens']}",
        its["backend"] or "nobody",
        in_words(int(its["for_s"])) if its["backend"] else "-",
        is_heard if its["microphone"] == "ok" else its["microphone"].partition(":")[0],
        "on" if its["speaker"] == "ok" else its["speaker"].partition(":")[0],
        its["echo"],
        f"{figures.get('depth_ms', 0)} ms",
        str(figures.get("underruns", 0)),
        f"{figures.get('concealed_ms', 0)} ms",
        str(sum(its["refused"].values())),
    )


VOICE = ("VOICE DEVICE", "ADDRESS", "STATE", "FOR", "TURN", "VOICE", "LINES", "CONNECTIONS")


def voice_row(its: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one device of the voice backend, under VOICE."""
    beat = its["beat"] or {}
    return (
        its["name"],
        f"{its['host']}:{its['port']}",
        its["state"],
        in_words(max(0, int(time.time() - beat["since"]))) if beat.get("since") else "-",
        "muted" if beat.get("muted") else beat.get("turn") or "-",
        its["voice"],
        str(its["lines"]),
        str(beat.get("connections", "-")),
    )


SPEECH = ("SPEECH", "USED")


def in_words(seconds: int) -> str:
    """A duration to be read: 12 s, 3 min, 5 h, 2 d."""
    for limit, size, word in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size} {word}"
    return f"{seconds // 86400} d"


def _known(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _watchers(count: int | None) -> str:
    return "unknown" if count is None else str(count or "nobody")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they have to be."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
