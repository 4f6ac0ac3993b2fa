"""What `gpu_check` says of the facts that it has found: rows of a table, and one line that says what they come to.

Pure. Facts are what the probes print (scripts/gpu_probes.py), by probe; any of them may be missing.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

COLUMNS = ("GPU CHECK", "MS", "RESULT")
EXPECTED = 2  # of 255, at most, between two conversions of one picture
ENOUGH = 0.9  # of the pictures that a stream should have: the rest may be a busy moment
BY_MAKE_UP = ("PyAV", "PyOpenGL")  # the other packages are there after CUDA=1
WIDEST = 300  # a driver's words may be a page
STAGES = (  # probe, name in its "ms", words
    ("draw", "render", "render"),
    ("draw", "read_rgba", "read back RGBA, 3.69 MB"),
    ("draw", "pack", "pack NV12 (shader)"),
    ("draw", "read_nv12", "read back NV12, 1.38 MB"),
    ("cuda", "map_rgba", "map RGBA into CUDA"),
    ("cuda", "copy_rgba", "copy it to the host"),
    ("cuda", "map_nv12", "map NV12 into CUDA"),
    ("cuda", "copy_nv12", "copy it to the host"),
    ("cvcuda", "convert", "CV-CUDA to NV12"),
)
IN_CONTAINER = "in a container, start it with the GPU and NVIDIA_DRIVER_CAPABILITIES=all"
NO_NVENC = "this GPU has no NVENC"  # as encoders say it

Facts = Mapping[str, Any]
Row = tuple[str, str, str]


def is_stream(attempt: Facts) -> bool:
    """Whether a producer has made one."""
    return bool(attempt.get("frames")) and attempt.get("exit") == 0


def how_ended(code: int, said: bytes) -> str:
    """Words for a process that has died."""
    if code < 0:
        return f"died of {signal.Signals(-code).name}" if -code in {*signal.Signals} else f"died of signal {-code}"
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit {code}"


def rows(facts: Facts) -> list[Row]:
    """The table, under COLUMNS."""
    found = [*_machine(facts), *_driver(facts), *_egl(facts), *_stages(facts), *_encoders(facts), *_producer(facts)]
    return [(name, ms.rjust(6) if ms else "", _short(result)) for name, result, ms in _once(found, _reasons(facts))]


def _reasons(facts: Facts) -> set[str]:
    probes = (*facts.values(), *facts["encoders"].values())
    return {probe["error"] for probe in probes if isinstance(probe, Mapping) and probe.get("error")}


def _once(found: Iterable[Row], reasons: Iterable[str]) -> Iterator[Row]:
    """The same rows, with each reason in full in the first that has it."""
    said: dict[str, str] = {}
    for name, result, ms in found:
        text = result
        for reason in reasons:
            if reason in result:
                first = said.setdefault(reason, name)
                text = text if first == name else text.replace(reason, f"as above ({first})")
        yield name, text, ms


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(part for part in parts if part)


def _with_error(probe: Facts, *parts: str) -> str:
    return _joined((*parts, probe.get("error", "")))


def _machine(facts: Facts) -> Iterator[Row]:
    its = facts["machine"]
    about = f"{its['os']}, kernel {its['kernel']}, {its['machine']}, {its['cpus']} CPUs" if "os" in its else ""
    yield "machine", _with_error(its, about), ""
    ffmpeg = f" (FFmpeg {its['ffmpeg']})" if "ffmpeg" in its else ""
    packages = its.get("packages", {})
    named = [f"{name} {version}{ffmpeg if name == 'PyAV' else ''}" for name, version in packages.items() if version]
    yield "installed", _joined((f"Python {its.get('python', '?')}", *named)), ""
    if missing := [name for name, version in packages.items() if not version]:
        how = "make up" if {*BY_MAKE_UP} & {*missing} else "make up CUDA=1"
        yield "not installed", f"{_joined(missing)} ({how} installs {'them' if missing[1:] else 'it'})", ""


def _driver(facts: Facts) -> Iterator[Row]:
    its, nodes = facts["driver"], facts["nodes"]
    version = nodes.get("kernel_module") or its.get("version") or ""
    words = (
        f"NVIDIA {version}" if version else "no NVIDIA kernel driver seen",
        "libcuda.so.1 found" if its.get("libcuda") else "",
        f"CUDA {its['cuda']}" if "cuda" in its else "",
        f"CUDA devices: {its['devices']}" if "devices" in its else "",
        its.get("why", ""),
    )
    yield "driver", _with_error(its, *words), ""
    files = [f"{path} ({why})" if why else path for path, why in nodes.get("nodes", {}).items()]
    yield "device nodes", _with_error(nodes, *files) or "none", ""


def _egl(facts: Facts) -> Iterator[Row]:
    its, match = facts["egl"], facts["match"]
    vendors = [
        library if library.startswith("lib") else f"{path} ({library})"
        for path, library in its.get("vendors", {}).items()
    ]
    yield "EGL vendors", _joined(vendors) or "none", ""
    for index, device in enumerate(its.get("devices", [])):
        taken = ", chosen by device_idx" if index == facts["device_idx"] else ""
        yield f"EGL device {index}", f"{_kind(device)}{taken}", ""
    yield (
        "draws",
        _with_error(its, its.get("renderer", ""), f"by EGL's {its['platform']}" if "platform" in its else ""),
        "",
    )
    about = ""
    if "ordinal" in match:
        gib = match.get("memory_bytes", 0) / 2**30
        about = f"{match['ordinal']}: {match['name']}, {gib:.1f} GiB, compute {match.get('capability', '?')}"
    yield "CUDA device", _with_error(match, about), ""


def _kind(device: Facts) -> str:
    """What CUDA and EGL know of an EGL device."""
    if device["cuda"] is not None:
        return f"CUDA device {device['cuda']}"
    return "software" if device["is_software"] else "no CUDA device"


def _stages(facts: Facts) -> Iterator[Row]:
    for probe, name, words in STAGES:
        its = facts[probe]
        if (ms := its.get("ms", {}).get(name)) is not None:
            yield words, _found(its, name), f"{ms:.2f}"
    for probe, words in (("draw", "stages of OpenGL"), ("cuda", "OpenGL to CUDA"), ("cvcuda", "CV-CUDA")):
        if error := facts[probe].get("error"):
            yield words, error, ""


def _found(its: Facts, name: str) -> str:
    """What was found of a stage, besides its time."""
    if name in ("pack", "convert"):
        return _differs(its) if "differs_by" in its else "ok"
    kind = name.removeprefix("map_")
    if kind == name or kind not in its.get("equal", {}):
        return "ok"
    return "the same bytes as glReadPixels" if its["equal"][kind] else "OTHER BYTES than glReadPixels"


def _differs(its: Facts) -> str:
    if not its["differs_by"]:
        return "what the CPU makes of it"
    return f"at most {its['differs_by']} of 255 from what the CPU makes of it" + (
        f" (EXPECTED: {EXPECTED})" if its["differs_by"] > EXPECTED else ""
    )


def _encoders(facts: Facts) -> Iterator[Row]:
    for name, its in facts["encoders"].items():
        if "decoded" in its:
            quality = "equal" if its["decoded"] and its["psnr_db"] is None else f"{its['psnr_db']} dB"
            told = f"{its['decoded']} of {its['pictures']} pictures decoded again, luma {quality}"
            told += f", holds {its['held']} back" if its["held"] else ""
        else:
            told = ""
        yield f"encoder {name}", _with_error(its, told), f"{its['ms']:.2f}" if "ms" in its else ""
    engines, nvdec = facts["engines"], facts["nvdec"]
    yield "NVENC engines", _with_error(engines, str(engines.get("nvenc", ""))), ""
    told = f"{nvdec['decoded']} of {nvdec['pictures']} pictures of x264's" if "decoded" in nvdec else ""
    equal = ("as libav decodes them" if nvdec["equal"] else "OTHERS than libav's") if told else ""
    yield "NVDEC h264_cuvid", _with_error(nvdec, told, equal), ""


def _producer(facts: Facts) -> Iterator[Row]:
    for its in facts["producer"]:
        told = f"exit {its['exit']}" if its.get("exit") else ""
        pictures = _rate(its) if its.get("frames") else ""
        yield f"producer {its['renderer']}, {its['encoder']}", _with_error(its, its.get("line", ""), pictures, told), ""


def _rate(attempt: Facts) -> str:
    return f"{attempt['frames']} of {attempt['wanted']} pictures in 1 s at {attempt['size']}"


def verdict(facts: Facts) -> str:
    """What a user can expect here, and what to do for more."""
    first, last = facts["producer"][0], facts["producer"][-1]
    if not is_stream(last):
        return f"no stream can be made here: {_why(last)}"
    encoder, reasons = _taken(last)
    if last is not first:
        return _second_best(first, last, encoder)
    return f"{_who_does_what(facts, encoder, reasons)}{_advice(facts, last)}"


def _advice(facts: Facts, made: Facts) -> str:
    """Whether pictures by OpenGL, which are not the default, are worth asking for."""
    if made["frames"] < ENOUGH * made["wanted"]:
        return f"; renderer: egl is too slow here for this size and rate: {_rate(made)}"
    is_by_gpu = not facts["egl"].get("is_software", True)
    return "; set producer: {renderer: egl} in planaria.yaml to have it so" if is_by_gpu else ""


def _who_does_what(facts: Facts, encoder: str, reasons: str) -> str:
    if encoder in ("nvenc-cuda", "vpf"):
        return f"pictures stay on the GPU: {encoder}"
    if "renderer" not in facts["egl"]:
        return f"a stream is made ({encoder}), and what draws it is not known: {facts['egl'].get('error')}"
    if facts["egl"]["is_software"] and "ordinal" not in facts["match"]:
        renderer = facts["egl"]["renderer"].split(" ")[0]
        by_cpu = f"everything runs on the CPU ({renderer}, {encoder})"
        shared = f"the CPU renders ({renderer}), the GPU encodes (nvenc)"
        return f"{shared if encoder == 'nvenc' else by_cpu}; for a GPU that draws: {_for_a_gpu(facts)}"
    if encoder == "nvenc":
        return (
            f"the GPU renders, converts and encodes (nvenc), and each picture goes through the CPU's memory: {reasons}"
        )
    why = NO_NVENC if NO_NVENC in reasons else reasons
    return f"the GPU renders and converts, the CPU encodes ({encoder}): {why}"


def _taken(attempt: Facts) -> tuple[str, str]:
    """The encoder that a producer's first line names, and why no other."""
    found = re.fullmatch(r"encoder (.+?)(?: \((.*)\))?", attempt.get("line", ""), re.S)
    return (found[1], found[2] or "") if found else (attempt["encoder"], "")


def _why(attempt: Facts) -> str:
    return attempt.get("error") or attempt.get("line") or f"exit {attempt.get('exit')}"


def _second_best(first: Facts, last: Facts, encoder: str) -> str:
    """A stream, but not as it is set up by default."""
    changed = [what for what in ("renderer", "encoder") if last[what] != first[what]]
    works, fails = (", ".join(f"{what}: {attempt[what]}" for what in changed) for attempt in (last, first))
    return f"{works} works ({encoder}), {fails} does not: {_why(first)}"


def _for_a_gpu(facts: Facts) -> str:
    """What is missing, the nearest to the metal first."""
    nodes, driver, egl = facts["nodes"], facts["driver"], facts["egl"]
    closed = [f"{path}: {why}" for path, why in nodes.get("nodes", {}).items() if why]
    if other := [index for index, device in enumerate(egl.get("devices", [])) if not device["is_software"]]:
        return f"device_idx {other[0]} is one"
    if closed:
        return closed[0]
    if driver.get("error"):
        return f"NVIDIA's driver is broken: {driver['error']}"
    if not driver.get("libcuda"):
        if nodes.get("kernel_module") or any("nvidia" in path for path in nodes.get("nodes", {})):
            return f"the driver's libraries are missing here; {IN_CONTAINER}"
        return f"install its driver (NVIDIA's; Mesa's for others); {IN_CONTAINER}"
    if driver.get("why"):
        return f"NVIDIA's driver serves none: {driver['why']}"
    if not any("nvidia" in library for library in egl.get("vendors", {}).values()):
        return f"NVIDIA's EGL is missing (libEGL_nvidia.so.0 and the file that names it); {IN_CONTAINER}"
    return "EGL offers none, though the driver does"
