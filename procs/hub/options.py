"""What the hub can be told."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from procs import settings
from procs.environment import from_environment
from procs.errors import ConfigError
from procs.flags import command_line, parse_flags
from procs.kinds import ADDRESS, PATH, SWITCH, TEXT, Address, Kind, matching, one_of, whole
from procs.settings import Layers, option

ADMIN = "admin"  # the first account
PASSWORD_FILE = "admin-password"  # in the run directory, until somebody has seen it
LOCAL = "localhost"  # what is below it leads browsers to their own machine, without any DNS
EXAMPLES = """\
  python -m procs.hub
  python -m procs.hub --only signal --listen 127.0.0.1:8001
  DATABASE_URL=postgresql://planaria@db/planaria PLANARIA_HUB_CERT=cert.pem PLANARIA_HUB_KEY=key.pem \\
      python -m procs.hub --listen 0.0.0.0:8443

exit codes: 2 bad option, 1 anything else"""


def _words(pattern: str, allowed: str) -> Kind:
    compiled = re.compile(pattern)

    def parse(text: str) -> tuple[str, ...]:
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        if not words or not all(compiled.fullmatch(word) for word in words):
            raise ValueError
        return words

    return Kind(parse, allowed)


STUN_URLS = _words(r"stuns?:[A-Za-z0-9.\[\]:_-]{1,250}", "stun:HOST:PORT, several with commas between")
TURN_URLS = _words(
    r"turns?:[A-Za-z0-9.\[\]:_-]{1,250}(?:\?transport=(?:udp|tcp))?",
    "turn:HOST:PORT?transport=udp, several with commas between",
)
TOKENS = _words(r"\S{16,256}", "tokens of 16 to 256 characters, with commas between")
PROXIES = _words(r"[0-9a-fA-F.:]{2,45}", "IP addresses, with commas between")
_HOST_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
VIEWS = matching(rf"(?=.{{1,200}}\Z){_HOST_LABEL}(?:\.{_HOST_LABEL})*", "a host name such as view.example.org, or off")
DATABASE = matching(
    r"(?:sqlite|postgresql(?:\+pg8000)?)://\S+", "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
)


class Hub(settings.Settings):
    """Settings of the hub."""

    listen: Address = option(Address("127.0.0.1", 8000), ADDRESS, env=("PLANARIA_HUB",), help="where it listens")
    database_url: str = option(
        "", DATABASE, env=("DATABASE_URL",), secret=True, help="its store; default: hub.sqlite in the run directory"
    )
    cert: Path | None = option(None, PATH, env=("PLANARIA_HUB_CERT",), help="certificate chain for TLS, PEM")
    key: Path | None = option(None, PATH, env=("PLANARIA_HUB_KEY",), help="its private key, PEM")
    insecure: bool = option(
        False,
        SWITCH,
        env=("PLANARIA_HUB_INSECURE",),
        help="listen beyond this machine without TLS: a proxy in front does it",
    )
    proxies: tuple[str, ...] = option(
        (), PROXIES, env=("PLANARIA_HUB_PROXIES",), help="proxies in front, whose X-Forwarded-For is believed"
    )
    views: str = option(
        "",
        VIEWS,
        env=("PLANARIA_HUB_VIEWS",),
        help="host name below which each device's pages have an origin of their own; default: localhost where it"
        " listens for this machine alone, else off",
    )
    compat: bool = option(
        False,
        SWITCH,
        env=("PLANARIA_COMPAT",),
        help="take the published plain device_secret, ?token= and pairing without proof",
    )
    open_registration: bool = option(
        False, SWITCH, env=("PLANARIA_OPEN_REGISTRATION",), help="anybody may make an account"
    )
    token_ttl_s: int = option(
        3600, whole(60, 30 * 86_400), env=("PLANARIA_TOKEN_TTL_S",), help="for how long an access token is good"
    )
    admin_password: str = option(
        "",
        TEXT,
        env=("PLANARIA_ADMIN_PASSWORD",),
        secret=True,
        help="of the first account; default: made, kept in a file",
    )
    remote_restart: bool = option(
        True, SWITCH, env=("PLANARIA_REMOTE_RESTART",), help="let admins restart processes of this machine's suite"
    )
    stun_urls: tuple[str, ...] = option((), STUN_URLS, env=("STUN_URLS",), help="STUN servers for viewers and devices")
    turn_urls: tuple[str, ...] = option(
        (), TURN_URLS, env=("TURN_URLS",), help="TURN servers for them, where no direct path is open"
    )
    turn_secret: str = option(
        "", TEXT, env=("TURN_SECRET",), secret=True, help="coturn's static-auth-secret, by which they are let in"
    )
    only: str = option("", one_of("signal"), help="serve agents' signalling and nothing else: no store, no page")
    signaling_tokens: tuple[str, ...] = option(
        (),
        TOKENS,
        env=("SIGNALING_TOKENS",),
        secret=True,
        help="by which agents get in for signalling, each into a room of its own",
    )
    signaling_tokens_file: Path | None = option(
        None, PATH, env=("SIGNALING_TOKENS_FILE",), help="a file with such tokens, one a line"
    )

    @property
    def signaling_digests(self) -> frozenset[str]:
        """SHA-256 of each such token."""
        return frozenset(hashlib.sha256(token.encode()).hexdigest() for token in self.signaling_tokens)

    @property
    def is_reached_by_others(self) -> bool:
        """Whether somebody beyond this machine may get to it."""
        return self.is_behind_tls or bool(self.proxies) or not self.listen.is_loopback

    @property
    def is_registration_open(self) -> bool:
        """Whether an account needs no admin."""
        return self.open_registration or self.compat

    def store_url(self, run_dir: Path) -> str:
        """Where its store is."""
        return self.database_url or f"sqlite:///{run_dir / 'hub.sqlite'}"

    @property
    def view_suffix(self) -> str:
        """Below which host name the devices' own origins are; "" for no such origins."""
        if self.views:
            return "" if self.views == "off" else self.views
        return LOCAL if self.listen.is_loopback and not self.is_behind_tls else ""

    @property
    def is_behind_tls(self) -> bool:
        """Whether people reach it by https."""
        return self.cert is not None or self.insecure


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Hub:
    """Settings of this process. Raises ConfigError."""
    parser = command_line("hub", "Devices and people meet here.", EXAMPLES)
    flags = parse_flags(parser, Hub, list(sys.argv[1:] if argv is None else argv))
    environment, env_file = from_environment(os.environ if environ is None else environ)
    chosen = settings.load(Hub, Layers(flags, environment, env_file))
    if chosen.signaling_tokens_file:
        more = _tokens_in(chosen.signaling_tokens_file)
        chosen = chosen.but(signaling_tokens=chosen.signaling_tokens + more)
    check(chosen)
    return chosen


def _tokens_in(file: Path) -> tuple[str, ...]:
    """Those in a file. Raises ConfigError."""
    try:
        tokens: tuple[str, ...] = TOKENS.parse(",".join(file.read_text().split()))
    except OSError as error:
        raise ConfigError(f"SIGNALING_TOKENS_FILE={str(file)!r}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"SIGNALING_TOKENS_FILE={str(file)!r}: must have {TOKENS.allowed} or on lines") from None
    return tokens


def check(chosen: Hub) -> None:
    """Raise ConfigError for settings that do not go together."""
    if (chosen.cert is None) != (chosen.key is None):
        raise ConfigError("PLANARIA_HUB_CERT and PLANARIA_HUB_KEY: must both be set, or neither")
    if bool(chosen.turn_urls) != bool(chosen.turn_secret):
        raise ConfigError("TURN_URLS and TURN_SECRET: must both be set, or neither")
    if chosen.only and chosen.is_reached_by_others and not chosen.signaling_tokens:
        raise ConfigError(
            f"PLANARIA_HUB={chosen.listen}, --only signal: others can reach it, and there are no accounts; set"
            f" SIGNALING_TOKENS ({TOKENS.allowed})"
        )
    refuse_open_air(chosen, chosen.listen)
    tls(chosen)


def tls(chosen: Hub) -> ssl.SSLContext | None:
    """What the hub speaks TLS with; None without. Raises ConfigError for files that can't be used."""
    if chosen.cert is None or chosen.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(chosen.cert, chosen.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"PLANARIA_HUB_CERT={str(chosen.cert)!r}, PLANARIA_HUB_KEY={str(chosen.key)!r}: cannot be used: {error}"
        ) from None
    return context


def refuse_open_air(chosen: Hub, listens: Address) -> None:
    """Raise ConfigError for an address that others can reach, where nothing hides what is said."""
    if not listens.is_loopback and not chosen.is_behind_tls:
        raise ConfigError(
            f"PLANARIA_HUB={listens}: must be a loopback address without TLS; set PLANARIA_HUB_CERT and"
            " PLANARIA_HUB_KEY (openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=NAME -addext"
            " subjectAltName=DNS:NAME -keyout key.pem -out cert.pem makes a pair for the host NAME; IP:ADDRESS for an"
            " address),"
            " or PLANARIA_HUB_INSECURE=1 behind a proxy that does TLS"
        )
