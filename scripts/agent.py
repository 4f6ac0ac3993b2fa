#!/usr/bin/env python3
"""The device's side alone, in the foreground: its connection to a hub, and what carries requests to go2rtc.

scripts/agent.py --device-id pi-cam-001 --backend wss://hub.example.org/ws/device
DEVICE_ID=pi-cam-001 DEVICE_SECRET=... BACKEND_URL=wss://hub.example.org/ws/device scripts/agent.py --verbose
scripts/agent.py --camera                the id is made once, and kept in run/device.json

go2rtc runs already, here or elsewhere (--go2rtc-http). What dies is started again; all of it dies with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import hidden_secret, own_python

if __name__ == "__main__":
    hidden_secret.hide("--device-secret", "DEVICE_SECRET")
    own_python.become()

from procs import backoff, settings
from procs.environment import from_environment
from procs.errors import ConfigError, PlanariaError
from procs.flags import command_line, parse_flags
from procs.settings import ROOT, Layers
from procs.ws_link.options import Link

# It is the published package `agent` of peers, too: `from agent import AgentCore`, `from agent.tun import create_tun`.
__path__ = [str(Path(__file__).with_name("agent_api"))]
_API = {
    **dict.fromkeys(("AgentSettings", "load_settings"), "config"),
    **dict.fromkeys(("AgentCore", "PeerSession"), "core"),
    "SignalingClient": "signaling",
    **dict.fromkeys(("Transport", "ChatTransport", "JsonTransport", "BytesTransport", "TunTransport"), "transport"),
    "create_transport": "transport",
    **dict.fromkeys(("TunDevice", "create_tun", "create_tap", "check_tun_support", "get_interface_info"), "tun"),
}


def __getattr__(name: str) -> object:
    """What of that package is asked for: aiortc takes a quarter of a second, and a device's side needs none of it."""
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"scripts.agent_api.{_API[name]}"), name)


PROXIES = 2
STEADY_S = 10.0  # a run that lasted for so long ends a row of failures
MAX_LINE = 1024 * 1024


def show(tag: str, text: str) -> None:
    """One line. A terminal obeys control characters, and the text may come from a peer."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    with contextlib.suppress(OSError):  # a log whose reader is gone must not change what a process does
        print(f"{time.strftime('%H:%M:%S')} [{tag}] {plain}", file=sys.stderr, flush=True)


class Child(NamedTuple):
    """One process of ours."""

    tag: str  # as published
    command: list[str]


def options(argv: Sequence[str], environ: Mapping[str, str]) -> Link:
    """The device's settings. Raises ConfigError, also without an id."""
    parser = command_line("agent", "The device's side alone.", (__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--camera", action="store_const", const="1", help="without --device-id one is made and kept")
    parser.add_argument("--device-secret", metavar="SECRET", help="as published, but better set DEVICE_SECRET")
    flags = parse_flags(parser, Link, argv)
    environment, env_file = from_environment(environ)
    chosen = settings.load(Link, Layers(flags, environment, env_file))
    if not chosen.device_id and "camera" not in flags:
        raise ConfigError("--device-id (or DEVICE_ID): must be given; or --camera, with which one is made and kept")
    return chosen


def children(chosen: Link) -> list[Child]:
    """What is to be started."""
    more = ["--verbose"] if chosen.verbose else []
    proxies = [
        Child("proxy", [sys.executable, "-m", "procs.proxy", "--instance", str(number), *more])
        for number in range(PROXIES)
    ]
    return [
        Child("ws", [sys.executable, "-m", "procs.ws_link", *more]),
        *proxies,
        Child("webrtc", [sys.executable, "-m", "procs.webrtc_peer", *more]),
    ]


def environment(chosen: Link, environ: Mapping[str, str]) -> dict[str, str]:
    """What children are started with: everything that was chosen, wherever it came from."""
    told = {
        "DEVICE_ID": chosen.device_id,
        "DEVICE_SECRET": chosen.device_secret,
        "BACKEND_URL": chosen.backend,
        "GO2RTC_HTTP": chosen.go2rtc_http,
        "PLANARIA_COMPAT": "1" if chosen.compat else "0",
        "PLANARIA_LOG": "json",
        "PLANARIA_PARENT": str(os.getpid()),
        "PYTHONPATH": str(ROOT),
    }
    return {**environ, **told}


async def keep(child: Child, environ: Mapping[str, str]) -> int:
    """Run a child for ever. Returns only when its settings are wrong, which no new start would change."""
    delays = backoff.delays()
    while True:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *child.command,
            env=environ,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
        )
        assert process.stderr
        await _relay(child.tag, process.stderr)
        code = await process.wait()
        if code == ConfigError.exit_code:
            return code
        if time.monotonic() - began >= STEADY_S or code == -signal.SIGKILL:
            delays = backoff.delays()  # to be killed is no fault of its own
        wait_s = next(delays)
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        show(child.tag, f"warning: ended ({how}); starts again in {wait_s:.2f} s")
        await asyncio.sleep(wait_s)


async def _relay(tag: str, lines: asyncio.StreamReader) -> None:
    while True:
        try:
            line = await lines.readline()
        except ValueError:  # longer than any line of ours
            continue
        if not line:
            return
        show(*tagged(tag, line.decode(errors="replace").rstrip()))


def tagged(tag: str, line: str) -> tuple[str, str]:
    """The published tag and the text of a line that a child wrote."""
    try:
        fields = json.loads(line)
        level, event = str(fields.pop("level")), str(fields.pop("event"))
    except (ValueError, AttributeError, TypeError, KeyError):  # a traceback, say
        return tag, line
    more = "".join(f"  {name}={value}" for name, value in fields.items() if name not in ("time", "tag"))
    about = "go2rtc" if event.startswith("go2rtc") else tag
    return about, f"{'' if level == 'info' else level + ': '}{event}{more}"


async def run(chosen: Link, environ: Mapping[str, str]) -> int:
    """Keep all of them, until one can't be kept."""
    with_choice = environment(chosen, environ)
    kept = [asyncio.create_task(keep(child, with_choice)) for child in children(chosen)]
    done, _ = await asyncio.wait(kept, return_when=asyncio.FIRST_COMPLETED)
    return next(iter(done)).result()


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be the device, or say in one line why not."""
    try:
        return asyncio.run(run(options(argv, environ), environ))
    except PlanariaError as error:
        print(f"agent: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
