#!/usr/bin/env python3
"""Write go2rtc's configuration: a producer per stream, loopback listeners, and as few doors as will do.

scripts/go2rtc_generate_config.py --out run/go2rtc.yaml
scripts/go2rtc_generate_config.py --workers 10 --instance-prefix cam --out -
scripts/go2rtc_generate_config.py --exec-cmd-template 'render --id {instance_id}' --exec-wrap mpegts --out -
scripts/go2rtc_generate_config.py --mode fifo --fifo-dir /streams --out -

--mode is exec unless told otherwise (the generator this one follows had fifo): go2rtc starts a producer for each
watched stream. With fifo it reads FIFO-DIR/PREFIX-N.ts, which scripts/fifo_writer.sh fills.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.become()

import yaml

from procs import proc
from procs.errors import ConfigError, PlanariaError
from procs.flags import command_line, parse_flags
from procs.settings import ROOT
from scripts import exec_sources
from scripts.plan import Plan, load_plan
from scripts.suite_settings import Suite

# What viewers and go2rtc's own player pages use. Not here: config, restart, exit, log, exec, ffmpeg, discovery.
PAGES = ["/"]
ALLOW_PATHS = [
    "/api",
    "/api/ws",
    "/api/webrtc",
    "/api/streams",
    "/api/stream.mp4",
    "/api/stream.m3u8",
    "/api/stream.mjpeg",
    "/api/stream.ts",
    "/api/stream.flv",
    "/api/stream.aac",
    "/api/frame.jpeg",
    "/api/frame.mp4",
    "/api/hls/playlist.m3u8",
    "/api/hls/init.mp4",
    "/api/hls/segment.m4s",
    "/api/hls/segment.ts",
]


def configuration(root: Path, plan: Plan, ffmpeg: Path, *, gop_cache: bool = False) -> dict[str, Any]:
    """go2rtc's configuration as YAML will hold it. `gop_cache`: this go2rtc can keep the last GOP for joiners."""
    suite = plan.suite
    login = {"username": suite.username, "password": suite.password} if suite.username else {}
    streams = exec_sources.sources(root, plan, ffmpeg, gop_cache=gop_cache)
    pages = [] if suite.no_ui else PAGES
    return {
        "app": {
            "modules": [
                *("api", "ws", "http", "rtsp", "webrtc", "mp4", "hls", "mjpeg", "mpeg", "exec", "ffmpeg", "rtmp"),
                "mpegts",  # what `mpeg` is called in some builds
            ]
        },
        "api": {"listen": str(suite.api), "allow_paths": [*pages, *ALLOW_PATHS], **login},
        "rtsp": {"listen": str(suite.rtsp), **login},
        "webrtc": {"listen": str(suite.webrtc), **_candidates(suite)},
        "exec": {"allow_paths": exec_sources.wrappers(list(streams.values()))},
        "ffmpeg": {"bin": str(ffmpeg)},
        # exec at debug: go2rtc passes on what a producer says only then
        "log": {"format": "text", "level": "info", "exec": "debug"},
        "streams": streams,
    }


def _candidates(suite: Suite) -> dict[str, Any]:
    """On loopback the only address worth offering is that one; asking a STUN server would leave the machine."""
    return {"candidates": [str(suite.webrtc)], "ice_servers": []} if suite.webrtc.is_loopback else {}


def find_ffmpeg(suite: Suite) -> Path:
    """The ffmpeg that go2rtc uses: the one that was set, else the one that imageio-ffmpeg ships."""
    if suite.ffmpeg:
        if not suite.ffmpeg.is_file() or not os.access(suite.ffmpeg, os.X_OK):
            raise ConfigError(f"PLANARIA_FFMPEG={str(suite.ffmpeg)!r}: is no program")
        return suite.ffmpeg
    import imageio_ffmpeg

    return Path(imageio_ffmpeg.get_ffmpeg_exe())


def to_yaml(configured: dict[str, Any]) -> str:
    """The text of go2rtc's configuration file. Its first line tells scripts/exec_go2rtc.py that the rest is whole."""
    text = "# Change planaria.yaml or .env and run `make up`: with a file changed by hand go2rtc does not start.\n"
    text += yaml.safe_dump(configured, sort_keys=False, width=1000, allow_unicode=True)
    try:
        return f"# sha256 {hashlib.sha256(text.encode()).hexdigest()} of what follows\n{text}"
    except UnicodeEncodeError as error:
        raise ConfigError(f"{error.object[error.start : error.end]!r}: no character that go2rtc could read") from None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a crash leaves the old or the new one, readable by us alone (it may hold passwords)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _refuse_live(out: Path) -> None:
    """Raise ConfigError for the file that the running go2rtc would start from anew."""
    if out.resolve() == ROOT / "run/go2rtc.yaml" and proc.supervisord(ROOT):
        raise ConfigError(
            f"--out={str(out)!r}: the suite is up and starts from it; make up changes it when settings do"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; 2 for a wrong setting."""
    parser = command_line(
        "go2rtc_generate_config", "Write go2rtc's configuration.", (__doc__ or "").partition("\n\n")[2]
    )
    out_of = os.environ.get("METABONK_GO2RTC_CONFIG") or "run/go2rtc.yaml"
    parser.add_argument(
        "--out", default=out_of, help="file to write, - for stdout (default run/go2rtc.yaml; METABONK_GO2RTC_CONFIG)"
    )
    parser.add_argument(
        "--gop-cache", action="store_true", help="for a go2rtc that has one (`make up` finds out itself)"
    )
    try:
        flags = parse_flags(parser, Suite, sys.argv[1:] if argv is None else argv)
        out = flags.pop("out")
        gop_cache = bool(flags.pop("gop_cache"))
        plan = load_plan(ROOT, os.environ, flags)
        text = to_yaml(configuration(ROOT, plan, find_ffmpeg(plan.suite), gop_cache=gop_cache))
        if out == "-":
            print(text, end="")
        else:
            _refuse_live(Path(out))
            Path(out).parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(Path(out), text)
            print(f"wrote {out}", file=sys.stderr)
    except PlanariaError as error:
        print(f"go2rtc_generate_config: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"go2rtc_generate_config: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
