"""Settings of the suite that are not about one stream, and which of them can't go together."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from procs import settings
from procs.errors import ConfigError
from procs.kinds import ADDRESS, NAME, PATH, SWITCH, Address, Kind, matching, one_of, seconds, whole
from procs.settings import option
from procs.warden.options import CEILINGS
from scripts import roles

# Published names of sets of options; the ones in a row are the same.
_EGL, _VPF, _TS = {"renderer": "egl"}, {"renderer": "egl", "encoder": "vpf"}, {"out": "mpegts"}
PROFILES: dict[str, dict[str, str]] = {
    "headless-agent": {}, "headless": {},
    "headless_egl": _EGL,
    "egl-vpf": _VPF, "headless-vpf": _VPF, "headless-egl-vpf": _VPF,
    "headless-agent-mpegts": _TS, "headless-mpegts": _TS,
}  # fmt: skip
_LOGIN = matching(r"[!-z|~]*", "printable ASCII without blanks, { or }")


def _parse_template(text: str) -> str:
    if "{instance_id}" not in text or not shlex.split(text):  # ValueError: a quote that is not closed
        raise ValueError
    return text


TEMPLATE = Kind(_parse_template, "a command with {instance_id} in it, quotes closed")


class Suite(settings.Settings):
    """Settings that are not about one stream."""

    roles: frozenset[str] = option(
        roles.DEFAULT,
        roles.ROLES,
        env=("PLANARIA_ROLES",),
        help="what runs here: hub (server), device, streams (go2rtc), tun (a tunnel to peers), audio (a microphone and"
        " a speaker), voice (a backend that talks, and speech)",
    )
    api: Address = option(
        Address("127.0.0.1", 1984), ADDRESS, env=("PLANARIA_GO2RTC_API",), help="go2rtc's API and pages listen here"
    )
    rtsp: Address = option(Address("127.0.0.1", 8554), ADDRESS, env=("PLANARIA_GO2RTC_RTSP",), help="RTSP listens here")
    webrtc: Address = option(
        Address("127.0.0.1", 8555),
        ADDRESS,
        env=("PLANARIA_GO2RTC_WEBRTC",),
        help="WebRTC media listens here (TCP, UDP)",
    )
    username: str = option("", _LOGIN, env=("PLANARIA_GO2RTC_USERNAME",), help="login of a listener beyond loopback")
    password: str = option(
        "", _LOGIN, env=("PLANARIA_GO2RTC_PASSWORD",), help="its password; best kept in .env", secret=True
    )
    workers: int = option(
        6, whole(0, 1000), env=("PLANARIA_WORKERS", "METABONK_DEFAULT_WORKERS"), help="how many streams to generate"
    )
    instance_prefix: str = option(
        "omega", NAME, env=("PLANARIA_INSTANCE_PREFIX", "METABONK_INSTANCE_PREFIX"), help="their names: PREFIX-0, ..."
    )
    ffmpeg: Path | None = option(
        None, PATH, env=("PLANARIA_FFMPEG",), help="ffmpeg for snapshots and file sources (default: the one we ship)"
    )
    mode: str = option(
        "exec",
        one_of("exec", "fifo"),
        env=("PLANARIA_GO2RTC_MODE", "METABONK_GO2RTC_MODE"),
        help="exec: go2rtc starts what makes a stream; fifo: it reads pipes that others fill",
    )
    exec_cmd_template: str = option(
        "",
        TEMPLATE,
        env=("PLANARIA_GO2RTC_EXEC_CMD", "METABONK_GO2RTC_EXEC_CMD"),
        help="what makes the generated streams, in the place of our producer",
    )
    exec_profile: str = option(
        "",
        one_of(*PROFILES),
        env=("PLANARIA_GO2RTC_EXEC_PROFILE", "METABONK_GO2RTC_EXEC_PROFILE"),
        help="options of our producer by the names they were published under",
    )
    exec_wrap: str = option(
        "raw",
        one_of("raw", "mpegts"),
        env=("PLANARIA_GO2RTC_EXEC_WRAP", "METABONK_GO2RTC_EXEC_WRAP"),
        help="raw: the command writes what go2rtc reads; mpegts: its H.264 is packed so that go2rtc adds no delay",
    )
    exec_wrapper: Path | None = option(
        None,
        PATH,
        env=("PLANARIA_GO2RTC_EXEC_WRAPPER", "METABONK_GO2RTC_EXEC_WRAPPER"),
        help="what packs it (default scripts/go2rtc_exec_mpegts.sh)",
    )
    fifo_dir: Path = option(
        Path("temp/streams"),
        PATH,
        env=("PLANARIA_STREAM_FIFO_DIR", "METABONK_STREAM_FIFO_DIR"),
        help="where the pipes of --mode fifo and of captures are",
    )
    fifo_container: str = option(
        "mpegts",
        one_of("mpegts"),
        env=("PLANARIA_FIFO_CONTAINER", "METABONK_FIFO_CONTAINER"),
        help="what goes through them",
    )
    container_fifo_dir: Path | None = option(
        None,
        PATH,
        env=("PLANARIA_GO2RTC_FIFO_DIR", "METABONK_GO2RTC_FIFO_DIR"),
        help="where go2rtc sees them, if it sees them elsewhere",
    )
    metrics: Address = option(
        Address("127.0.0.1", 9464), ADDRESS, env=("PLANARIA_METRICS",), help="the warden's metrics for Prometheus"
    )
    memory_mb: Mapping[str, int] | None = option(
        None, CEILINGS, env=("PLANARIA_MEMORY_MB",), help="who may use how much, such as headless_agent=600,capture=300"
    )
    no_ui: bool = option(False, SWITCH, env=("PLANARIA_NO_UI",), help="go2rtc serves no pages, only streams")
    up_limit_s: float = option(
        60.0, seconds(1, 3600), env=("PLANARIA_UP_LIMIT_S",), help="how long `make up` waits for health"
    )


def check(root: Path, suite: Suite) -> None:
    """Refuse what can't go together. Raises ConfigError."""
    if bool(suite.username) != bool(suite.password):
        raise ConfigError("PLANARIA_GO2RTC_USERNAME and PLANARIA_GO2RTC_PASSWORD: set both or neither")
    _refuse_open_doors(suite)
    _refuse_wrong_wrapper(root, suite)


def _refuse_wrong_wrapper(root: Path, suite: Suite) -> None:
    wrapper = root / suite.exec_wrapper if suite.exec_wrapper else None
    if wrapper and not (wrapper.is_file() and os.access(wrapper, os.X_OK)):
        raise ConfigError(f"exec_wrapper={str(suite.exec_wrapper)!r}: is no program")
    if suite.exec_cmd_template and suite.exec_profile:
        raise ConfigError(
            f"exec_profile={suite.exec_profile}: is about our producer, and exec_cmd_template takes its place: set one"
        )


def _refuse_open_doors(suite: Suite) -> None:
    if not suite.metrics.is_loopback:
        raise ConfigError(f"PLANARIA_METRICS={suite.metrics}: has no login, so it must be on 127.0.0.1 or ::1")
    for key, variable in (
        ("api", "PLANARIA_GO2RTC_API"),
        ("rtsp", "PLANARIA_GO2RTC_RTSP"),
        ("webrtc", "PLANARIA_GO2RTC_WEBRTC"),
    ):
        address: Address = getattr(suite, key)
        if not address.is_loopback and not (suite.username and suite.password):
            raise ConfigError(
                f"{variable}={address}: reachable by others without a login; set PLANARIA_GO2RTC_USERNAME and"
                " PLANARIA_GO2RTC_PASSWORD in .env (a password: openssl rand -base64 24), or listen on 127.0.0.1"
            )
