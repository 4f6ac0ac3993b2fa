"""What a producer can be told: the published options and METABONK_* variables, ours beside them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from procs import settings
from procs.environment import from_environment
from procs.errors import ConfigError, NotHere
from procs.flags import command_line, parse_flags, plain_flags
from procs.kinds import BITRATE, NAME, PATH, SWITCH, Kind, matching, one_of, seconds, whole
from procs.settings import Layers, option

# Without blanks in front, a path; go2rtc's configuration takes it as one word.
AUDIO = matching(r"none|tone|[^-\s].*", "none, tone, or the path of a file")
MAX_PES_BITS = 480_000  # a picture over 65,535 bytes has no PES length, and go2rtc would hold it for a frame

# Encoders that take what the GPU has drawn where it lies, and the packages they need: {package: module}.
ON_GPU = {
    "nvenc-cuda": {"cuda-bindings": "cuda.bindings"},
    "vpf": {"cuda-bindings": "cuda.bindings", "PyNvVideoCodec": "PyNvVideoCodec", "cvcuda-cu13": "cvcuda"},
}
# Why NVENC opens no session. The same words whoever asks for one, so that a reason is said once.
NO_NVENC = "this GPU has no NVENC (A100, H100 and H200 have none)"
NO_SESSION = "this GPU has no encoding session left, or no memory for one"
NO_LIBRARY = "libnvidia-encode.so.1 is missing (of the driver; a container gets it with the capability video)"

EXAMPLES = """\
  .venv/bin/python -m procs.headless_agent --width 640 --height 360 --fps 30 --duration 5 > five-seconds.ts
  .venv/bin/python -m procs.headless_agent --renderer egl --encoder auto --duration 5 > drawn-by-opengl.ts
  .venv/bin/python -m procs.headless_agent --instance-id omega-0 | ffplay -fflags nobuffer -
  kill -USR1 PID                                   the next picture is a keyframe

exit codes: 0 duration reached, 2 bad option, 3 not here, 4 no first frame, 5 reader blocked, 6 reader gone,
7 encoder failed, 16 GPU lost, 1 anything else"""


def _both(suffix: str) -> tuple[str, str]:
    return f"PLANARIA_{suffix}", f"METABONK_{suffix}"


class Producer(settings.Settings):
    """One stream: what it shows and how it is encoded."""

    instance_id: str = option("agent-0", NAME, env=_both("INSTANCE_ID"), help="name of the stream, shown in it")
    width: int = option(1280, whole(16, 8192, even=True), env=_both("HEADLESS_W"), help="pixels")
    height: int = option(720, whole(16, 8192, even=True), env=_both("HEADLESS_H"), help="pixels")
    fps: int = option(60, whole(1, 240), env=_both("HEADLESS_FPS"), help="pictures a second")
    gop: int = option(60, whole(1, 1200), env=_both("HEADLESS_GOP"), help="pictures from keyframe to keyframe")
    bitrate: int = option(6_000_000, BITRATE, env=_both("HEADLESS_BITRATE"), help="bits a second: 800k, 2.5M")
    renderer: str = option("cpu", one_of("cpu", "egl"), env=_both("HEADLESS_RENDERER"), help="what draws")
    encoder: str = option(
        "auto",
        one_of("auto", "x264", "ffmpeg", "nvenc", "vpf", "nvenc-cuda"),
        env=_both("HEADLESS_ENCODER"),
        help="auto: the first of nvenc-cuda, vpf (both make the renderer egl when named), nvenc and x264 that "
        "really encodes; ffmpeg: a child, its hardware encoders first",
    )
    device_idx: int = option(
        0,
        whole(0, 63),
        env=("PLANARIA_HEADLESS_DEVICE_IDX", "METABONK_EGL_DEVICE_IDX"),
        help="EGL device: CUDA's first, see make gpu-check",
    )
    force_sw: bool = option(False, SWITCH, env=_both("HEADLESS_FORCE_SW"), help="no hardware encoder")
    stdout_chunk: int = option(65536, whole(512, 1 << 20), env=_both("HEADLESS_CHUNK"), help="bytes a write at most")
    debug: bool = option(False, SWITCH, env=_both("HEADLESS_DEBUG"), help="say more on stderr")
    pattern: str = option(
        "planaria",
        one_of("planaria", "testsrc2"),
        env=("PLANARIA_HEADLESS_PATTERN",),
        help="what the cpu renderer draws",
    )
    convert: str = option(
        "auto",
        one_of("auto", "swscale", "shader"),
        env=("PLANARIA_HEADLESS_CONVERT",),
        help="what makes NV12 of egl's pictures; auto tries both and keeps the faster",
    )
    out: str = option(
        "mpegts",
        one_of("mpegts", "h264"),
        env=("PLANARIA_HEADLESS_OUT",),
        help="mpegts (with PES lengths and clock) or h264 (Annex-B with look-ahead)",
    )
    duration: float = option(
        0.0, seconds(0, 1e9), env=("PLANARIA_HEADLESS_DURATION",), help="seconds to run; 0 is for ever"
    )
    x264_preset: str = option(
        "ultrafast",
        one_of("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"),
        env=_both("X264_PRESET"),
        help="x264's speed against quality",
    )
    x264_tune: str = option(
        "zerolatency", one_of("zerolatency"), env=_both("X264_TUNE"), help="only zerolatency holds no frames back"
    )
    x264_threads: int = option(
        0, whole(0, 64), env=("PLANARIA_X264_THREADS",), help="0: one per 130 Mpixel/s, which is cheapest"
    )
    nvenc_preset: str = option(
        "p1", one_of("p1", "p2", "p3", "p4", "p5", "p6", "p7"), env=_both("NVENC_PRESET"), help="p1 is the fastest"
    )
    nvenc_tune: str = option("ll", one_of("ll", "ull"), env=_both("NVENC_TUNE"), help="low or ultra-low latency")
    nvenc_rc: str = option("cbr", one_of("cbr", "vbr"), env=_both("NVENC_RC"), help="rate control")
    ffmpeg: Path | None = option(
        None, PATH, env=("PLANARIA_FFMPEG",), help="the program of --encoder ffmpeg (default: the system's, else ours)"
    )
    ffmpeg_fps_mode: str = option(
        "cfr", one_of("cfr", "vfr", "passthrough"), env=_both("FFMPEG_FPS_MODE"), help="its -fps_mode"
    )
    ffmpeg_loglevel: str = option(
        "error",
        one_of("quiet", "panic", "fatal", "error", "warning", "info"),
        env=_both("FFMPEG_LOGLEVEL"),
        help="its -v",
    )
    audio: str = option(
        "none", AUDIO, env=("PLANARIA_HEADLESS_AUDIO",), help="sound beside the pictures, a file in a loop"
    )
    audio_codec: str = option(
        "aac", one_of("aac", "opus"), env=("PLANARIA_HEADLESS_AUDIO_CODEC",), help="opus is what WebRTC plays"
    )
    bufsize: int = option(
        0,
        Kind(lambda t: 0 if t == "0" else BITRATE.parse(t), f"0 (chosen by bit rate), or {BITRATE.allowed}"),
        env=("PLANARIA_BUFSIZE", "METABONK_NVENC_BUFSIZE"),
        help="rate control buffer in bits; 0: a tenth of a second",
    )
    first_frame_limit_s: float = option(
        5.0, seconds(0.001, 600), env=("PLANARIA_FIRST_FRAME_LIMIT_S",), help="no picture by then: exit 4"
    )
    stdout_limit_s: float = option(
        10.0, seconds(0.1, 600), env=("PLANARIA_STDOUT_LIMIT_S",), help="reader blocked for so long: exit 5"
    )

    def name(self) -> str:
        """What tells this copy from others: for locks, logs and the control endpoint."""
        return self.instance_id

    @property
    def is_bt709(self) -> bool:
        """Whether the pictures are BT.709: all but ffmpeg's testsrc2, which is BT.601 whatever its size."""
        return self.renderer != "cpu" or self.pattern != "testsrc2"

    @property
    def vbv_bits(self) -> int:
        """Rate control buffer in bits: small, so that a keyframe neither bursts nor outgrows a PES length."""
        return self.bufsize or min(max(self.bitrate // 10, 2 * self.bitrate // self.fps), MAX_PES_BITS)

    @property
    def threads(self) -> int:
        """Encoder threads: as few as hold the rate, since each more costs CPU."""
        wanted = -(-self.width * self.height * self.fps // 130_000_000)
        return self.x264_threads or max(1, min(wanted, os.cpu_count() or 1))


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Producer:
    """Settings of this process. Raises ConfigError."""
    argv = sys.argv[1:] if argv is None else argv
    flags = plain_flags(Producer, argv)
    if flags is None:
        parser = command_line("headless_agent", "One stream of H.264 on stdout, for go2rtc's exec: source.", EXAMPLES)
        flags = parse_flags(parser, Producer, argv)
    environment, env_file = from_environment(os.environ if environ is None else environ)
    chosen = settings.load(Producer, Layers(flags, environment, env_file))
    if chosen.encoder in ON_GPU:
        chosen = chosen.but(renderer="egl")
    check(chosen)
    return chosen


def check(chosen: Producer) -> None:
    """Raise ConfigError for options that exclude each other."""
    if chosen.audio not in ("none", "tone") and not Path(chosen.audio).expanduser().is_file():
        raise ConfigError(f"audio={chosen.audio!r}: no such file; allowed: {AUDIO.allowed}")
    if chosen.audio != "none" and chosen.out == "h264":
        raise ConfigError(f"audio={chosen.audio!r}: --out h264 can carry no sound: use mpegts")
    if chosen.encoder == "ffmpeg" and chosen.ffmpeg and not _is_program(chosen.ffmpeg):
        raise ConfigError(f"ffmpeg={str(chosen.ffmpeg)!r}: is no program")
    if chosen.force_sw and chosen.encoder not in ("auto", "ffmpeg", "x264"):
        raise ConfigError(f"encoder={chosen.encoder}: is no software encoder, and force_sw allows no other")


def need_encoder(name: str) -> None:
    """Raise NotHere for an encoder that was named and whose parts are missing, as far as is seen at a glance."""
    if reason := missing_for(name):
        raise NotHere(f"encoder {name}: {reason}; use encoder: auto")


def missing_for(encoder: str) -> str:
    """What this machine lacks of what an encoder ON_GPU needs, seen at a glance; '' if it may serve, or is another."""
    if encoder not in ON_GPU:
        return ""
    if reason := no_nvidia_driver():
        return reason
    import importlib.util  # here: 5 ms

    def is_missing(module: str) -> bool:
        try:
            return importlib.util.find_spec(module) is None
        except ModuleNotFoundError:  # of the package that it is in
            return True

    missing = [package for package, module in ON_GPU[encoder].items() if is_missing(module)]
    return f"missing here: {', '.join(missing)}: make up CUDA=1 installs it" if missing else ""


def no_nvidia_driver() -> str:
    """Why neither CUDA nor NVENC can be had here, at a glance; '' if they may be."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver here (libcuda.so.1 is missing)"
    return ""


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
