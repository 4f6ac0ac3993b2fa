"""Driver libraries of NVIDIA that need no GPU: our own libcuda.so.1 and libnvidia-encode.so.1, built from the C here.

What a test runs is real: cuda-bindings, PyAV's FFmpeg and PyNvVideoCodec load these two in the driver's place.
"Device memory" is host memory, a mapped texture is what OpenGL really drew, and the encoder's H.264 is made of I_PCM
macroblocks and skipped ones, so it decodes to exactly the bytes that lay in "device memory". What is asked for on a
stream is done when somebody waits for it or is ordered after it, and no sooner: an order that was forgotten shows in
every run. Fresh "device memory" is full of 0xA5. Errors 700, 702, 710 and 714 to 719 stay with the context, as the
driver's do. Nothing they do says anything of speed.

The loader looks at LD_LIBRARY_PATH once, when a process starts: give `environ()` to a child. Variables:

    FAKE_LOG              file to which each call appends its line; `calls()` reads it
    FAKE_FAIL             "name:n:code,...": from its n-th call on, this function returns that code;
                          -1: it never returns
    FAKE_DEVICES          number of GPUs, 1; with 0, cuInit says that there is none
    FAKE_DRIVER_VERSION   of the CUDA API, 13000
    FAKE_MEMORY_MB        "device memory", 1024: more is error 2, out of memory
    FAKE_GL_DEVICES       0: no CUDA device draws the OpenGL context that is current
    FAKE_GL_ORDINAL       the CUDA device that draws it, 0
    FAKE_NVENC            "none": no session can be opened, as on an H200
    FAKE_NVENC_SESSIONS   open at a time in a process, 64: the next is error 10
    FAKE_NVENC_VERSION    of the NVENC API, "13.1"
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

NEEDED = "gcc"  # for the marker `needs`

_HERE = Path(__file__).parent
_LIBRARIES = {
    "libcuda.so.1": ("cuda.c", "cuda_entry.c", "cuda_memory.c", "cuda_graphics.c", "cuda_streams.c", "fake.c"),
    "libnvidia-encode.so.1": ("nvenc.c", "nvenc_pictures.c", "h264.c", "fake.c"),
}
_FLAGS = ("-std=gnu11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-pthread")
_BUILD_S = 120


class Call(NamedTuple):
    """One call of a driver, such as cuMemAlloc with {"bytes": "4096"}; names are without their _v2."""

    name: str
    pid: int
    arguments: dict[str, str]
    result: int
    why: str  # it was refused


@functools.cache
def built() -> Path:
    """The folder with both libraries, built unless it was before from the same sources. Needs gcc and libc6-dev."""
    sources = sorted(path for path in _HERE.iterdir() if path.suffix in (".c", ".h"))
    content = b"\0".join([" ".join(_FLAGS).encode(), *(path.read_bytes() for path in sources)])
    folder = Path(tempfile.gettempdir()) / f"planaria-drivers-{os.getuid()}-{hashlib.sha256(content).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        for library, names in _LIBRARIES.items():
            paths = [str(_HERE / name) for name in names]
            command = ["gcc", *_FLAGS, f"-Wl,-soname,{library}", "-o", str(fresh / library), *paths, "-ldl"]
            subprocess.run(command, check=True, timeout=_BUILD_S)
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():  # of several that build at the same time, one is first, and its build is as good
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def environ(log: Path | None = None, fail: str = "", **more: str) -> dict[str, str]:
    """This process's environment for a child with the fake drivers; `more` are variables of theirs, by whole name."""
    path = ":".join(filter(None, (str(built()), os.environ.get("LD_LIBRARY_PATH"))))
    rest = {name: value for name, value in os.environ.items() if not name.startswith("FAKE_")}
    return {**rest, "LD_LIBRARY_PATH": path, "FAKE_LOG": str(log or ""), "FAKE_FAIL": fail, **more}


def calls(log: Path, name: str = "") -> list[Call]:
    """What was called, oldest first; with `name`, the calls of that function only."""
    read = [_call(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [call for call in read if name in ("", call.name)]


def _call(line: str) -> Call:
    words, _, why = line.partition(" why=")
    name, *rest = words.split()
    arguments = dict(word.split("=", 1) for word in rest)
    return Call(name, int(arguments.pop("pid")), arguments, int(arguments.pop("result")), why)
