"""What watch sessions are told: where go2rtc is, which stream is shown, from which ports.

`make up` writes run/webrtc_peer.json with what it knows of go2rtc, and run/tunnel.json with the peers of the tunnel;
beside them counts the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from procs import settings
from procs.agent import network
from procs.agent.network import Tunnel
from procs.agent.settings import AgentSettings, load_settings
from procs.environment import from_environment
from procs.flags import command_line, parse_flags
from procs.kinds import ADDRESS, ALL_PORTS, PORTS, SWITCH, Address, Kind, matching
from procs.settings import Layers, option
from procs.webrtc_peer.rtsp_login import Server, User

NAME = "webrtc_peer.json"
RTSP_PORT = 8554
EXAMPLES = """\
  python -m procs.webrtc_peer
  PLANARIA_WATCH_STREAM=door PLANARIA_UDP_RANGE=50000-50200 python -m procs.webrtc_peer

exit codes: 2 bad option, 15 its zygote died, 1 anything else"""


class Go2rtc(str):
    """The address of go2rtc's API, which may hold a login and so does not show itself in a repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    @property
    def host(self) -> str:
        """Where it is."""
        return urlsplit(self).hostname or ""

    @property
    def port(self) -> int:
        """Of its API."""
        return urlsplit(self).port or 80

    @property
    def user(self) -> User | None:
        """Whose login is in it."""
        parts = urlsplit(self)
        return User(unquote(parts.username), unquote(parts.password or "")) if parts.username else None


def _parse_http(text: str) -> Go2rtc:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.port == 0:
        raise ValueError
    return Go2rtc(text.rstrip("/"))


HTTP = Kind(_parse_http, "http://HOST[:PORT] without a path")
LOGIN = matching(r"[!-~]*", "printable ASCII without blanks")
STREAM = matching(r"[A-Za-z0-9_.:@-]{1,200}", "1 to 200 of A-Z a-z 0-9 _ . : @ -")


class Peer(settings.Settings):
    """Settings of webrtc_peer."""

    stream: str = option(
        "", STREAM, env=("PLANARIA_WATCH_STREAM",), help="for who asks for none; default: camera, else the first"
    )
    udp_range: tuple[int, int] = option(
        ALL_PORTS, PORTS, env=("PLANARIA_UDP_RANGE",), help="UDP ports that sessions use"
    )
    go2rtc_http: Go2rtc = option(
        Go2rtc("http://127.0.0.1:1984"), HTTP, env=("GO2RTC_HTTP",), help="go2rtc's API", secret=True
    )
    rtsp: Address | None = option(
        None, ADDRESS, env=("PLANARIA_GO2RTC_RTSP",), help=f"go2rtc's RTSP; default: port {RTSP_PORT} of the same host"
    )
    username: str = option(
        "", LOGIN, env=("PLANARIA_GO2RTC_USERNAME",), help="login of go2rtc; default: that in GO2RTC_HTTP"
    )
    password: str = option("", LOGIN, env=("PLANARIA_GO2RTC_PASSWORD",), help="its password", secret=True)
    verbose: bool = option(False, SWITCH, help="log each frame of a session")
    # Of the tunnel's sessions with other agents; None where there is no tunnel.
    agent: AgentSettings | None = None
    tunnel: Tunnel | None = None

    @property
    def user(self) -> User | None:
        """Whom to be at go2rtc, of API and RTSP alike, where it asks."""
        return User(self.username, self.password) if self.username else self.go2rtc_http.user

    @property
    def rtsp_at(self) -> Server:
        """Where streams are pulled from."""
        if not self.rtsp:
            return Server(self.go2rtc_http.host, RTSP_PORT, self.user)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.rtsp.host, self.rtsp.host)
        return Server(host, self.rtsp.port, self.user)


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Peer:
    """Settings of this process. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    parser = command_line("webrtc_peer", "Shows streams to viewers, over WebRTC.", EXAMPLES)
    flags = parse_flags(parser, Peer, sys.argv[1:] if argv is None else argv)
    environment, env_file = from_environment(environ)
    path = settings.run_dir(environ) / NAME
    found = settings.load(Peer, Layers(flags, environment, env_file, settings.written(path), str(path)))
    path = settings.run_dir(environ) / network.NAME
    tunnel = settings.load(Tunnel, Layers(document=settings.written(path), document_name=str(path)))
    if not tunnel.allowed:
        return found
    return found.but(agent=load_settings(environ), tunnel=network.check(tunnel))
