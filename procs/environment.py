"""Variables of the environment and of .env: all of ours that there are; another PLANARIA_* name is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from procs.errors import ConfigError
from procs.kinds import one_of
from procs.settings import ROOT, Option, nearest, parse

# Every variable of ours. A PLANARIA_* name that is not here is a typing error, and refused as one.
# tests/test_in_step.py holds this against what the programs declare and against .env.example.
# PLANARIA_SUITE marks every process of one checkout's suite; PLANARIA_PARENT is for life.bind_to_parent;
# PLANARIA_FOREGROUND for the keeper.
OUR_ENV = frozenset({
    "PLANARIA_BUFSIZE", "PLANARIA_CAPTURE_STALL_LIMIT_S", "PLANARIA_COMPAT", "PLANARIA_FFMPEG",
    "PLANARIA_FFMPEG_FPS_MODE",
    "PLANARIA_FFMPEG_LOGLEVEL", "PLANARIA_FIFO_CONTAINER", "PLANARIA_FIRST_FRAME_LIMIT_S", "PLANARIA_FOREGROUND",
    "PLANARIA_GO2RTC_API",
    "PLANARIA_GO2RTC_EXEC_CMD", "PLANARIA_GO2RTC_EXEC_PROFILE", "PLANARIA_GO2RTC_EXEC_WRAP",
    "PLANARIA_GO2RTC_EXEC_WRAPPER", "PLANARIA_GO2RTC_FIFO_DIR", "PLANARIA_GO2RTC_MODE", "PLANARIA_GO2RTC_PASSWORD",
    "PLANARIA_GO2RTC_RTSP", "PLANARIA_GO2RTC_USERNAME", "PLANARIA_GO2RTC_WEBRTC", "PLANARIA_HEADLESS_AUDIO",
    "PLANARIA_HEADLESS_AUDIO_CODEC", "PLANARIA_HEADLESS_BITRATE", "PLANARIA_HEADLESS_CHUNK",
    "PLANARIA_HEADLESS_CONVERT", "PLANARIA_HEADLESS_DEBUG", "PLANARIA_HEADLESS_DEVICE_IDX",
    "PLANARIA_HEADLESS_DURATION", "PLANARIA_HEADLESS_ENCODER", "PLANARIA_HEADLESS_FORCE_SW", "PLANARIA_HEADLESS_FPS",
    "PLANARIA_HEADLESS_GOP", "PLANARIA_HEADLESS_H", "PLANARIA_HEADLESS_OUT", "PLANARIA_HEADLESS_PATTERN",
    "PLANARIA_HEADLESS_RENDERER", "PLANARIA_HEADLESS_W", "PLANARIA_INSTANCE_ID", "PLANARIA_INSTANCE_PREFIX",
    "PLANARIA_LOG", "PLANARIA_MEMORY_MB", "PLANARIA_METRICS", "PLANARIA_NO_UI", "PLANARIA_NVENC_PRESET",
    "PLANARIA_NVENC_RC", "PLANARIA_NVENC_TUNE", "PLANARIA_PARENT", "PLANARIA_REMOTE_RESTART", "PLANARIA_ROLES",
    "PLANARIA_RUN_DIR", "PLANARIA_SETTINGS",
    "PLANARIA_STDOUT_LIMIT_S", "PLANARIA_STREAM_FIFO_DIR", "PLANARIA_SUITE", "PLANARIA_UP_LIMIT_S", "PLANARIA_WORKERS",
    "PLANARIA_X264_PRESET", "PLANARIA_X264_THREADS", "PLANARIA_X264_TUNE",
    "PLANARIA_ADMIN_PASSWORD", "PLANARIA_HUB", "PLANARIA_HUB_CA", "PLANARIA_HUB_CERT", "PLANARIA_HUB_INSECURE",
    "PLANARIA_HUB_KEY", "PLANARIA_HUB_PROXIES", "PLANARIA_HUB_VIEWS", "PLANARIA_OPEN_REGISTRATION",
    "PLANARIA_TOKEN_TTL_S", "PLANARIA_TUN_PORT", "PLANARIA_UDP_RANGE", "PLANARIA_WATCH_STREAM",
    "PLANARIA_ALLOW_UNSIGNED", "PLANARIA_PEER_TRUST",
    "PLANARIA_SPEECH_KEY", "PLANARIA_SPEECH_KEY_FILE", "PLANARIA_SPEECH_LLM", "PLANARIA_SPEECH_PAUSE_S",
    "PLANARIA_SPEECH_SESSIONS", "PLANARIA_SPEECH_STT", "PLANARIA_SPEECH_TTS",
    "PLANARIA_VOICE_BROWSERS", "PLANARIA_VOICE_KEY", "PLANARIA_VOICE_KEY_FILE", "PLANARIA_VOICE_STORE",
    "PLANARIA_VOICE_STORE_FILE",
    "PLANARIA_AUDIO_CERT", "PLANARIA_AUDIO_ECHO", "PLANARIA_AUDIO_GAIN", "PLANARIA_AUDIO_HOST",
    "PLANARIA_AUDIO_INPUT", "PLANARIA_AUDIO_KEY", "PLANARIA_AUDIO_MICROPHONE", "PLANARIA_AUDIO_NAME",
    "PLANARIA_AUDIO_OUTPUT", "PLANARIA_AUDIO_PORT", "PLANARIA_AUDIO_SPEAKER", "PLANARIA_AUDIO_TOKEN",
    "PLANARIA_AUDIO_TOKEN_FILE", "PLANARIA_AUDIO_VOLUME", "PLANARIA_AUDIO_WAKE_WORD", "PLANARIA_NO_AUDIO",
})  # fmt: skip


_PREFIX = "PLANARIA_"


def refuse_unknown_variables(variables: Mapping[str, str], where: str) -> None:
    """Raise ConfigError if a PLANARIA_* variable is none of ours. Other people's variables are left alone."""
    for name in variables:
        if name.startswith(_PREFIX) and name not in OUR_ENV:
            raise ConfigError(f"{name}: unknown variable ({where}){_meant(name)}")


def _meant(name: str) -> str:
    """What somebody may have meant: by what stands behind the prefix, which alone makes any two of ours look alike."""
    close = nearest(name.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in OUR_ENV])
    return f"; did you mean {_PREFIX}{close}?" if close else "; .env.example lists ours"


def read_env_file(path: Path) -> dict[str, str]:
    """Variables of a .env file; {} when there is none. Raises ConfigError that names the broken line."""
    if not path.exists():
        return {}
    import io

    from dotenv.parser import parse_stream  # here: 15 ms, and most starts have no file to read

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None) or "\0" in binding.original.string:
            # The line is not shown: what should have been a value may be a secret.
            raise ConfigError(f"{path}: line {binding.original.line}: must be NAME=value, with quotes closed")
        if binding.key is not None:
            values[binding.key] = binding.value or ""
    refuse_unknown_variables(values, str(path))
    return values


# An option of every program, which each reads where it needs it (procs/log.py).
_LOG = Option("", one_of("json", "text"), ("PLANARIA_LOG",), "how log lines look", secret=False)


def from_environment(environ: Mapping[str, str], root: Path = ROOT) -> tuple[dict[str, str], dict[str, str]]:
    """(environment, .env) as `Layers` wants them, both checked for unknown names.

    Inside a suite `make up` has already merged .env into the environment, so the file is not read again.
    """
    refuse_unknown_variables(environ, "environment")
    if style := environ.get("PLANARIA_LOG"):
        parse(_LOG, "PLANARIA_LOG", style, "environment")
    env_file = {} if "PLANARIA_SUITE" in environ else read_env_file(root / ".env")
    return dict(environ), env_file
