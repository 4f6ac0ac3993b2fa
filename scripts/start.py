#!/usr/bin/env python3
"""Start the streams and stay: everything ends with this process, on Ctrl-C or however else it dies.

scripts/start.py
scripts/start.py --mode play --go2rtc-exec-profile headless_egl --no-ui
scripts/start.py --go2rtc-mode fifo
scripts/start.py --go2rtc-exec-cmd 'render --id {instance_id}' --go2rtc-exec-wrap mpegts
scripts/start.py --no-go2rtc --go2rtc-url http://127.0.0.1:1984
scripts/start.py --docker

It is `make up` in the foreground, with the options under which this was published. Everything else is set in
planaria.yaml and .env.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from procs.errors import ConfigError, NotHere, PlanariaError, Unhealthy  # noqa: E402
from procs.flags import command_line  # noqa: E402

ASK_LIMIT_S = 3.0
COMPOSE = "docker/docker-compose.go2rtc.exec.yml"
PROJECT = "planaria-go2rtc"
# option -> the variable that carries it on
_CARRIED = {
    "workers": "PLANARIA_WORKERS",
    "go2rtc_mode": "PLANARIA_GO2RTC_MODE",
    "go2rtc_exec_cmd": "PLANARIA_GO2RTC_EXEC_CMD",
    "go2rtc_exec_profile": "PLANARIA_GO2RTC_EXEC_PROFILE",
    "go2rtc_exec_wrap": "PLANARIA_GO2RTC_EXEC_WRAP",
    "go2rtc_exec_wrapper": "PLANARIA_GO2RTC_EXEC_WRAPPER",
}
DEFAULT_URL = "http://127.0.0.1:1984"


def _options(argv: Sequence[str], environ: Mapping[str, str]) -> Any:
    parser = command_line("start", "Start the streams and stay.", (__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--mode", choices=["train", "play"], default="play", help="as published; either starts all")
    parser.add_argument("--workers", help="how many streams to generate")
    parser.add_argument("--go2rtc", action="store_true", default=None, help="start go2rtc (default; METABONK_GO2RTC)")
    parser.add_argument("--no-go2rtc", dest="go2rtc", action="store_false", help="one runs already: only look at it")
    parser.add_argument("--go2rtc-mode", metavar="MODE", help="exec or fifo (default exec; METABONK_GO2RTC_MODE)")
    for name in ("cmd", "profile", "wrap", "wrapper"):
        text = f"METABONK_GO2RTC_EXEC_{name.upper()}; see scripts/go2rtc_generate_config.py --help"
        parser.add_argument(f"--go2rtc-exec-{name}", metavar=name.upper(), help=text)
    parser.add_argument("--go2rtc-url", metavar="URL", help=f"of its API (default {DEFAULT_URL}; METABONK_GO2RTC_URL)")
    parser.add_argument("--no-ui", action="store_true", help="go2rtc serves no pages, only streams")
    parser.add_argument("--docker", action="store_true", help="in a container (docker/README.md) instead of here")
    chosen = parser.parse_args(list(argv))
    if chosen.go2rtc is None:
        chosen.go2rtc = environ.get("METABONK_GO2RTC", "") not in ("0", "false", "no", "off")
    chosen.go2rtc_url = chosen.go2rtc_url or environ.get("METABONK_GO2RTC_URL", "")
    return chosen


def carried(chosen: Any) -> dict[str, str]:
    """The variables that say what the options said. Raises ConfigError for a URL that is none."""
    found = {variable: getattr(chosen, name) for name, variable in _CARRIED.items() if getattr(chosen, name)}
    if chosen.no_ui:
        found["PLANARIA_NO_UI"] = "1"
    if chosen.go2rtc_url:
        found["PLANARIA_GO2RTC_API"] = address_of(chosen.go2rtc_url)
    return found


def address_of(url: str) -> str:
    """Host and port of go2rtc's API, with a name for this machine made a number."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port, parts = None, 0, urllib.parse.urlsplit("")
    if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.username:
        raise ConfigError(f"--go2rtc-url={url!r} (command line): must be http://HOST:PORT, such as {DEFAULT_URL}")
    number = "127.0.0.1" if host == "localhost" else host
    return f"[{number}]:{port}" if ":" in number else f"{number}:{port}"


def look(url: str) -> None:
    """Say what a go2rtc that somebody else runs serves. Raises Unhealthy when it does not answer."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/streams", timeout=ASK_LIMIT_S) as answer:
            streams = json.load(answer)
        if not isinstance(streams, dict):
            raise ValueError("whoever answers there is no go2rtc")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Unhealthy(f"no go2rtc answers at {url}: {reason}; start one, or leave out --no-go2rtc") from None
    print(f"go2rtc at {url} serves {', '.join(streams) or 'no streams'}; nothing was started")


def _in_docker(environ: dict[str, str]) -> NoReturn:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        raise NotHere("--docker: there is no docker with compose here; without it: scripts/start.py")
    os.chdir(ROOT)
    os.execve(docker, [docker, "compose", "-p", PROJECT, "-f", COMPOSE, "up", "--build", "--remove-orphans"], environ)


def _here(environ: dict[str, str]) -> NoReturn:
    done = subprocess.run(["sh", str(ROOT / "scripts/bootstrap.sh")], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    python = str(ROOT / ".venv/bin/python")
    os.execve(python, [python, str(ROOT / "scripts/cli.py"), "up", "--foreground"], environ)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Start, or say in one line why not."""
    try:
        chosen = _options(argv, environ)
        variables = {**environ, **carried(chosen)}
        if not chosen.go2rtc:
            look(chosen.go2rtc_url or DEFAULT_URL)
        elif chosen.docker:
            _in_docker(variables)
        else:
            _here(variables)
    except PlanariaError as error:
        print(f"start: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
