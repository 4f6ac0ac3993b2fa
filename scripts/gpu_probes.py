"""What `gpu_check` asks of the machine, one probe a process: python -m scripts.gpu_probes NAME [--pictures N] ...

A driver that is broken crashes or hangs whoever calls it. So each probe is a child that prints what it knows as soon as
it knows it, one JSON object a line, and in front of a call that may not come back "doing" and its name.
"""

from __future__ import annotations

import argparse
import ctypes
import glob
import grp
import importlib
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from procs import prctl
from procs.errors import PlanariaError

Facts = Iterator[dict[str, Any]]

PACKAGES = {  # name for people: names of what may be installed
    "PyAV": ("av",),
    "PyOpenGL": ("pyopengl",),
    "cuda-bindings": ("cuda-bindings",),
    "PyNvVideoCodec": ("pynvvideocodec",),
    "CV-CUDA": ("cvcuda-cu13", "cvcuda-cu12", "cvcuda"),
    "CuPy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
}
NODES = ("/dev/nvidia*", "/dev/dri/renderD*")


def machine(_: argparse.Namespace) -> Facts:
    """System and versions, of what is installed rather than of what can be imported."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    yield {"os": name, "kernel": platform.release(), "machine": platform.machine(), "cpus": os.cpu_count()}
    packages = {name: _version(names) for name, names in PACKAGES.items()}
    yield {"python": platform.python_version(), "packages": packages}
    yield {"doing": "import av"}
    import av

    yield {"ffmpeg": av.ffmpeg_version_info}


def _version(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def nodes(_: argparse.Namespace) -> Facts:
    """The device files of GPUs, and what keeps us from using each; nothing of a driver is called."""
    paths = [path for pattern in NODES for path in sorted(glob.glob(pattern)) if not Path(path).is_dir()]
    yield {"nodes": {path: _why_closed(path) for path in paths}}
    said = Path("/proc/driver/nvidia/version")
    found = re.search(r"Module\s.*?(\d+\.\d+(?:\.\d+)?)", said.read_text()) if said.exists() else None
    yield {"kernel_module": found[1] if found else ""}


def _why_closed(path: str) -> str:
    if os.access(path, os.R_OK | os.W_OK):
        return ""
    number = os.stat(path).st_gid
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:  # of the host that a container is on
        group = str(number)
    return f"no permission: add yourself to group {group}"


def driver(_: argparse.Namespace) -> Facts:
    """NVIDIA's driver by its two libraries, asked without any package of Python."""
    yield {"doing": "nvmlInit"}
    yield {"version": _by_nvml()}
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        yield {"libcuda": "", "why": _why_not_loaded(str(error))}
        return
    yield {"libcuda": "found", "doing": "cuDriverGetVersion"}
    version = ctypes.c_int()
    if not cuda.cuDriverGetVersion(ctypes.byref(version)):
        yield {"cuda": f"{version.value // 1000}.{version.value % 1000 // 10}"}
    yield {"doing": "cuInit"}
    if code := cuda.cuInit(0):
        yield {"why": f"cuInit: {_cuda_words(cuda, code)}"}
        return
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    yield {"devices": count.value}


def _why_not_loaded(words: str) -> str:
    return "libcuda.so.1 is missing" if "No such file" in words else words


def _cuda_words(cuda: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    return f"{(text.value or b'error').decode(errors='replace')} ({code})"


def _by_nvml() -> str:
    """The driver's version as NVML has it, '' without NVML."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(80)
        if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, len(text)):
            return ""
    except (OSError, AttributeError):
        return ""
    return text.value.decode(errors="replace")


# Where each probe is: those of the last two draw and encode, and a broken package must not take the others along.
MODULES = {
    **dict.fromkeys(("machine", "nodes", "driver"), "scripts.gpu_probes"),
    **dict.fromkeys(("egl", "match", "draw", "cuda", "cvcuda"), "scripts.gpu_stages"),
    **dict.fromkeys(("encode", "engines", "nvdec", "stream"), "scripts.gpu_encodes"),
}


def main() -> None:
    """Print what one probe finds. Whatever it leaves behind in a driver is not given back: the kernel does that."""
    prctl.bind_to_parent()
    parser = argparse.ArgumentParser(prog="gpu_probes", description=__doc__)
    parser.add_argument("name", choices=MODULES)
    parser.add_argument("--device-idx", type=int, default=0)
    parser.add_argument("--ordinal", type=int, default=0)  # of CUDA's device
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--encoder", default="x264")
    parser.add_argument("--renderer", default="egl")
    asked = parser.parse_args()
    probe: Callable[[argparse.Namespace], Facts] = getattr(importlib.import_module(MODULES[asked.name]), asked.name)
    answer = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        for facts in probe(asked):
            print(json.dumps(facts), file=answer)
    except PlanariaError as error:
        print(json.dumps({"error": str(error)}), file=answer)
    answer.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
