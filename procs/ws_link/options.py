"""What the control connection can be told."""

from __future__ import annotations

import os
import re
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

from procs import settings
from procs.carrier import trust
from procs.environment import from_environment
from procs.flags import command_line, parse_flags, plain_flags
from procs.kinds import PATH as FILE
from procs.kinds import SWITCH, Kind, matching
from procs.settings import Layers, option

PATH = "/ws/device"
EXAMPLES = """\
  python -m procs.ws_link
  python -m procs.ws_link --device-id pi-cam-001 --backend wss://hub.example.org/ws/device
  DEVICE_SECRET=... python -m procs.ws_link --device-id pi-cam-001

exit codes: 2 bad option, 1 anything else"""


def _parse_backend(text: str) -> str:
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("ws", "wss") or not parts.path.endswith(PATH):
        raise ValueError
    return _plain(parts, text)


def _parse_http(text: str) -> str:
    parts = urllib.parse.urlsplit(text.rstrip("/"))
    if parts.scheme not in ("http", "https"):
        raise ValueError
    return _plain(parts, text.rstrip("/"), userinfo=True)


def _plain(parts: urllib.parse.SplitResult, text: str, *, userinfo: bool = False) -> str:
    """The address, if it names a host and no more than that and a path. Raises ValueError."""
    odd = parts.query or parts.fragment or ("@" in parts.netloc and not userinfo)
    if odd or not parts.hostname or parts.port == 0 or not re.fullmatch(r"[!-~]+", text):
        raise ValueError
    return text


BACKEND = Kind(_parse_backend, "an address of a hub that ends in /ws/device, such as wss://hub.example.org/ws/device")
HTTP = Kind(_parse_http, "an http:// or https:// address, such as http://127.0.0.1:1984")
DEVICE_ID = matching(r"(?!\.{1,2}$)[A-Za-z0-9_.:@-]{1,128}", "1 to 128 of A-Z a-z 0-9 _ . : @ -")
SECRET = matching(r"[ -~]{1,1024}", "1 to 1024 printable ASCII characters")


class Link(settings.Settings):
    """Who the device is, and where its hub and its go2rtc are."""

    device_id: str = option("", DEVICE_ID, env=("DEVICE_ID",), help="who it is; default: made once, in run/device.json")
    backend: str = option(
        "ws://localhost:8000/ws/device", BACKEND, env=("BACKEND_URL",), help="the hub to be connected to"
    )
    device_secret: str = option(
        "", SECRET, env=("DEVICE_SECRET",), help="what proves it; default: made once, in run/device.json", secret=True
    )
    go2rtc_http: str = option(
        "http://127.0.0.1:1984", HTTP, env=("GO2RTC_HTTP",), help="go2rtc's API, whose streams are announced"
    )
    ca: Path | None = option(
        None, FILE, env=("PLANARIA_HUB_CA",), help="certificates that the hub's may be signed by, PEM, beside the usual"
    )
    compat: bool = option(
        False, SWITCH, env=("PLANARIA_COMPAT",), help="send the secret itself too, for hubs that know no challenge"
    )
    remote_restart: bool = option(
        True, SWITCH, env=("PLANARIA_REMOTE_RESTART",), help="let the hub's page restart processes of this suite"
    )
    verbose: bool = option(False, SWITCH, help="log every frame's type")

    @property
    def base(self) -> str:
        """The http:// or https:// address that the hub's REST is below."""
        return "http" + self.backend.removeprefix("ws").removesuffix(PATH)

    @property
    def go2rtc_without_login(self) -> str:
        """Where go2rtc is, as others may know it."""
        scheme, _, rest = self.go2rtc_http.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    @property
    def is_readable(self) -> bool:
        """Whether others on the way can read what is said."""
        host = urllib.parse.urlsplit(self.backend).hostname or ""
        near = host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host)
        return self.backend.startswith("ws://") and not near


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Link:
    """Settings of this process. Raises ConfigError."""
    own = list(sys.argv[1:] if argv is None else argv)
    flags = plain_flags(Link, own)
    if flags is None:
        parser = command_line("ws_link", "A device's control connection to its hub.", EXAMPLES)
        parser.usage = "python -m procs.ws_link [OPTION ...]"
        flags = parse_flags(parser, Link, own)
    environment, env_file = from_environment(os.environ if environ is None else environ)
    chosen = settings.load(Link, Layers(flags, environment, env_file))
    if chosen.ca:
        trust(chosen.ca)
    return chosen
