"""H.264 by an ffmpeg program of the machine's, as a child: for encoders that PyAV's own FFmpeg does not have.

Pictures go in as raw NV12, units come out as FLV (media/flv.py says why). The child dies with us, by the kernel's hand
and by the end of its input; when it dies, so do we.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from glob import glob
from typing import Any, NamedTuple

import av

from procs import log, prctl
from procs.errors import EncoderFailed, NotHere, Refused
from procs.headless_agent.encoder import AccessUnit, Choice, Maker, Picture
from procs.headless_agent.options import Producer, no_nvidia_driver
from procs.media import flv

PICTURE_LIMIT_S = 3.0  # less than the warden has, so that we can say what hangs
HARDWARE_LIMIT_S = 3.0  # for the first picture, so that there is time for another encoder
RENEW_EVERY_S = 0.5  # at most, however many keyframes are asked for
PIPE_BYTES = 1 << 20  # what a user may have; a picture of 720p then needs two turns
_READ_BYTES = 1 << 18
LAST_WORDS_S = 1.0
LINES_MAX = 20  # of one child's words that are logged; the last ones are told in any case when it dies
_WORDS_BYTES = 4096


class _Codec(NamedTuple):
    """One of ffmpeg's H.264 encoders: options, filter, and why it can't be had here at a glance ('' if it may be)."""

    name: str
    options: Callable[[Producer], dict[str, object]]
    missing: Callable[[], str] = lambda: ""
    before_input: Callable[[], list[str]] = lambda: []
    filters: str = ""


def _render_nodes() -> list[str]:
    return sorted(glob("/dev/dri/renderD*"))


CODECS = (
    _Codec(
        "h264_nvenc",
        lambda c: {"preset": c.nvenc_preset, "tune": c.nvenc_tune, "rc": c.nvenc_rc, "delay": 0, "zerolatency": 1},
        missing=no_nvidia_driver,
    ),
    _Codec(
        "h264_vaapi",
        lambda c: {"rc_mode": "CBR"},
        missing=lambda: "" if _render_nodes() else "there is no /dev/dri/renderD*",
        before_input=lambda: ["-vaapi_device", _render_nodes()[0]],
        filters="format=nv12,hwupload",
    ),
    _Codec(
        "libx264",
        lambda c: {"preset": c.x264_preset, "tune": c.x264_tune, "threads": c.threads, "sc_threshold": 0},
    ),
    _Codec("libopenh264", lambda c: {"rc_mode": "bitrate", "allow_skip_frames": 0}),
)
HARDWARE = ("h264_nvenc", "h264_vaapi")


def find_ffmpeg(chosen: Producer) -> str:
    """The ffmpeg that was named, else the system's, which may know the machine's hardware, else the one we ship."""
    if chosen.ffmpeg:
        return str(chosen.ffmpeg)
    if system := shutil.which("ffmpeg"):
        return system
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise NotHere("encoder ffmpeg: no ffmpeg found: apt-get install ffmpeg, or name one with --ffmpeg") from None


def command(chosen: Producer, program: str, codec: _Codec, pixel_format: str) -> list[str]:
    """The child's command line."""
    ffmpeg: Any = importlib.import_module("ffmpeg")  # here: 40 ms that other encoders need not pay
    size = f"{chosen.width}x{chosen.height}"
    # No `nobuffer`: with it ffmpeg throws away the first picture, which it has read to find out what comes.
    # fpsprobesize: at 1 to 4 and over 100 a second it would look at 20 pictures before it begins.
    source = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt=pixel_format, s=size, r=chosen.fps, fpsprobesize=0)
    matrix = "bt709" if chosen.is_bt709 else "smpte170m"
    colours = {"color_range": "tv", "colorspace": matrix, "color_primaries": matrix, "color_trc": matrix}
    options: dict[str, object] = {
        "format": "flv",
        "flvflags": "no_duration_filesize",
        "flush_packets": 1,
        "fps_mode": chosen.ffmpeg_fps_mode,
        "vcodec": codec.name,
        "g": chosen.gop,
        "bf": 0,
        "b:v": chosen.bitrate,
        "maxrate": chosen.bitrate,
        "bufsize": chosen.vbv_bits,
        **codec.options(chosen),
        **colours,
    }
    if codec.filters:
        options["vf"] = codec.filters
    words: list[str] = ffmpeg.output(source, "pipe:1", **options).compile(cmd=program)
    return [words[0], "-nostdin", "-nostats", "-v", chosen.ffmpeg_loglevel, *codec.before_input(), *words[1:]]


class FfmpegChild:
    """One codec of one ffmpeg. A keyframe or another bit rate is had from a new child: its first picture is one."""

    def __init__(self, chosen: Producer, program: str, codec: _Codec, pixel_format: str) -> None:
        if missing := codec.missing():
            raise NotHere(missing)
        self.name, self.bitrate = f"ffmpeg {codec.name}", chosen.bitrate
        self._chosen, self._program, self._codec, self._pixel_format = chosen, program, codec, pixel_format
        self._child = self._start()
        self._is_new, self._wants_keyframe, self._renewed_at = True, False, time.monotonic()

    def encode(self, picture: Picture, index: int, *, keyframe: bool) -> list[AccessUnit]:
        """As Encoder; its unit at once. Raises EncoderFailed when the child gives none in time, or is dead."""
        self._wants_keyframe = (self._wants_keyframe or keyframe) and not self._is_new
        if self._wants_keyframe and time.monotonic() - self._renewed_at >= RENEW_EVERY_S:
            self._renew()
        limit_s = HARDWARE_LIMIT_S if self._is_new and self._codec.name in HARDWARE else PICTURE_LIMIT_S
        self._is_new = False
        return [self._child.encode(picture.frame(), limit_s)]

    def set_bitrate(self, bits_per_s: int) -> None:
        """Encode at another rate from the next picture on, which is a keyframe."""
        self.bitrate = bits_per_s
        self._renew()

    def _renew(self) -> None:
        self._child.kill()
        self._child = self._start()
        self._is_new, self._wants_keyframe, self._renewed_at = True, False, time.monotonic()

    def _start(self) -> _Child:
        chosen = self._chosen.but(bitrate=self.bitrate)
        return _Child(command(chosen, self._program, self._codec, self._pixel_format), self._codec.name)


class _Child:
    """A running ffmpeg, which is fed a picture and asked for its unit in turn."""

    def __init__(self, words: list[str], codec: str) -> None:
        self._codec, self._said, self._has_served = codec, "", False
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=functools.partial(prctl.bind_to_parent, os.getpid()),
            process_group=0,  # a wrapper may stand between us and ffmpeg
        )
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        with contextlib.suppress(PermissionError):  # the user's quota of pipe memory is used up
            fcntl.fcntl(self._to, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._listener = threading.Thread(target=self._listen, name="ffmpeg's words", daemon=True)
        self._listener.start()
        self._demuxer = flv.Demuxer()

    def _listen(self) -> None:
        """Log what it says, within measure, and remember the end of it."""
        assert self._process.stderr
        lines, rest = 0, b""
        while said := os.read(self._process.stderr.fileno(), _WORDS_BYTES):
            *whole, rest = (rest + said).replace(b"\r", b"\n")[-_WORDS_BYTES:].split(b"\n")
            for line in filter(None, map(bytes.strip, whole)):
                self._said, lines = line.decode(errors="replace"), lines + 1
                if self._has_served and lines <= LINES_MAX:  # before, it is the reason why another is taken
                    log.warning(f"ffmpeg: {self._said}")
        self._said = rest.strip().decode(errors="replace") or self._said
        self._process.stderr.close()

    def encode(self, picture: av.VideoFrame, limit_s: float) -> AccessUnit:
        """The unit of one picture. Raises EncoderFailed, and then the child is dead."""
        try:
            return self._encode(picture, limit_s)
        except (BrokenPipeError, EOFError):
            failure = EncoderFailed(self._last_words())
        except TimeoutError:
            failure = EncoderFailed(f"ffmpeg {self._codec} stood still for {limit_s:g} s")
        except Refused as error:
            failure = EncoderFailed(f"ffmpeg {self._codec} wrote what we can't read: {error}")
        self.kill()
        raise failure

    def _encode(self, picture: av.VideoFrame, limit_s: float) -> AccessUnit:
        deadline = time.monotonic() + limit_s
        for plane, part in zip(picture.planes, _rows(picture), strict=True):
            self._write(_packed(plane, *part), deadline)
        while not (units := self._demuxer.push(self._read(deadline))):
            pass
        if len(units) != 1:
            raise Refused(f"{len(units)} units for one picture")
        self._has_served = True
        return AccessUnit(*units[0])

    def _write(self, data: memoryview, deadline: float) -> None:
        while data:
            try:
                data = data[os.write(self._to, data) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT, deadline)

    def _read(self, deadline: float) -> bytes:
        self._wait(self._from, select.POLLIN, deadline)
        if not (data := os.read(self._from, _READ_BYTES)):
            raise EOFError
        return data

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError

    def _last_words(self) -> str:
        self._listener.join(LAST_WORDS_S)
        try:
            code = self._process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            return f"ffmpeg {self._codec} closed its output: {self._said}"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"ffmpeg {self._codec} {how}{': ' if self._said else ''}{self._said}"

    def kill(self) -> None:
        """End it, with whatever stands between it and us. Its output is not read any more."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not written is of no use
                assert pipe
                pipe.close()


def _rows(picture: av.VideoFrame) -> list[tuple[int, int]]:
    """(bytes, rows) that each plane of an NV12 or YUV 4:2:0 picture really has."""
    width, height = picture.width, picture.height
    if picture.format.name == "nv12":
        return [(width, height), (width, height // 2)]
    return [(width, height), (width // 2, height // 2), (width // 2, height // 2)]


def _packed(plane: av.video.plane.VideoPlane, width: int, height: int) -> memoryview:
    """A plane without the bytes that pad its rows."""
    data, stride = memoryview(plane), plane.line_size
    if stride == width:
        return data[: width * height]
    return memoryview(b"".join(data[row * stride : row * stride + width] for row in range(height)))


def open_child(chosen: Producer, pixel_format: str) -> Choice:
    """The first of ffmpeg's encoders that encodes the first picture: hardware before software, unless forced."""
    program = find_ffmpeg(chosen)
    codecs = [codec for codec in CODECS if not (chosen.force_sw and codec.name in HARDWARE)]

    def maker(codec: _Codec) -> Maker:
        return f"ffmpeg {codec.name}", lambda: FfmpegChild(chosen, program, codec, pixel_format)

    return Choice([maker(codec) for codec in codecs])
