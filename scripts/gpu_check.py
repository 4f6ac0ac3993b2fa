#!/usr/bin/env python3
"""What this machine can do for the producer, from the driver to a real stream, as a table for an issue."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.become()

from procs.errors import ConfigError, NotHere
from procs.flags import command_line
from procs.settings import ROOT
from scripts import gpu_report
from scripts.status import print_table

EXAMPLES = """\
  make gpu-check                             the same, without options
  make gpu-check DEVICE_IDX=1                another GPU
  scripts/gpu_check.py --json | jq .verdict

exit codes: 0 a stream can be made here (the last line says how), 3 none can (or not on the device that was named),
2 bad option"""

LIMIT_S = 8.0  # of one probe; it is killed then, and its silence is a row of the table
BURIED_S = 1.0  # a process that hangs inside a driver dies when the driver lets it
PICTURES_MIN, PICTURES_MAX, DEVICE_IDX_MAX = 10, 1000, 63
SILENCE = "no answer"
# (probe, what it needs to work before it is worth asking)
STAGES = (("match", "egl cuda"), ("draw", "egl"), ("cuda", "egl cuda"), ("cvcuda", "egl cuda"))
ENCODERS = (("nvenc-cuda", "egl cuda"), ("vpf", "egl cuda"), ("nvenc", "cuda"), ("x264", ""))
ENGINES = ("engines", "nvdec")
ATTEMPTS = (("auto", "egl"), ("x264", "egl"), ("auto", "cpu"), ("x264", "cpu"))  # encoder, renderer

Facts = dict[str, Any]


def ask(name: str, *options: str, limit_s: float = LIMIT_S) -> Facts:
    """What a probe told before its end; "error" says why it told no more."""
    child = subprocess.Popen(
        [sys.executable, "-m", "scripts.gpu_probes", name, *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        told, said = child.communicate(timeout=limit_s)
        is_late = False
    except subprocess.TimeoutExpired:
        child.kill()
        is_late = True
        try:
            told, said = child.communicate(timeout=BURIED_S)
        except subprocess.TimeoutExpired as silent:
            told, said = silent.output or b"", b""
    facts: Facts = {}
    for line in told.splitlines():
        with contextlib.suppress(ValueError):  # half a line, of one that was killed
            facts |= json.loads(line)
    doing = facts.pop("doing", "starting")
    if is_late:
        facts["error"] = f"{SILENCE} within {limit_s:g} s from {doing}"
    elif child.returncode:
        facts["error"] = f"{gpu_report.how_ended(child.returncode, said)} at {doing}"
    return facts


class Check:
    """All facts, each probe after the other: what is measured has the machine for itself."""

    def __init__(self, device_idx: int, pictures: int, *, is_silent: bool = False) -> None:
        self._is_silent = is_silent
        self._options = ("--device-idx", str(device_idx), "--pictures", str(pictures))
        self.facts: Facts = {"device_idx": device_idx, "pictures": pictures}
        for name in ("machine", "nodes", "driver", "egl"):
            self.facts[name] = self._ask(name)
        egl, driver = self.facts["egl"], self.facts["driver"]
        draws = "renderer" in egl
        is_mute = driver.get("error", "").startswith(SILENCE)
        self._lacks = {
            "egl": "" if draws else "not asked: nothing draws",
            "cuda": "not asked: the driver gives no answer" if is_mute else "",
        }
        renderer = "egl" if draws else "cpu"
        self.facts |= {name: self._unless_lacking(needs, name) for name, needs in STAGES}
        self.facts["encoders"] = {
            name: self._unless_lacking(needs, "encode", "--encoder", name, "--renderer", renderer)
            for name, needs in ENCODERS
        }
        ordinal = str(self.facts["match"].get("ordinal", 0))
        self.facts |= {name: self._unless_lacking("cuda", name, "--ordinal", ordinal) for name in ENGINES}
        self.facts["producer"] = self._attempts()

    def _ask(self, *words: str) -> Facts:
        if not self._is_silent:
            print(f"gpu-check: {' '.join(words)}", file=sys.stderr, flush=True)
        return ask(*words, *self._options)

    def _unless_lacking(self, needs: str, *words: str) -> Facts:
        why = next((self._lacks[need] for need in needs.split() if self._lacks[need]), "")
        return {"error": why} if why else self._ask(*words)

    def _attempts(self) -> list[Facts]:
        """What the producer does as it is set up by default, and where that gives no stream, what does."""
        tried: list[Facts] = []
        # A device that somebody names is not replaced: without it there is no stream.
        attempts = ATTEMPTS[:1] if self.facts["device_idx"] and self._lacks["egl"] else ATTEMPTS
        for encoder, renderer in attempts:
            if tried and renderer == "egl" and self._lacks["egl"]:
                continue
            found = self._ask("stream", "--encoder", encoder, "--renderer", renderer)
            tried.append({"encoder": encoder, "renderer": renderer, **found})
            if gpu_report.is_stream(tried[-1]):
                break
        return tried


def main() -> int:
    """Print the table, or the facts as one JSON object."""
    parser = command_line("gpu_check", __doc__ or "", EXAMPLES)
    parser.add_argument(
        "--device-idx", type=int, default=0, metavar="N", help="EGL device, as the producer counts them"
    )
    parser.add_argument("--pictures", type=int, default=60, metavar="N", help=f"for each figure, 10 to {PICTURES_MAX}")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    try:
        asked = parser.parse_args()
        if not 0 <= asked.device_idx <= DEVICE_IDX_MAX:
            raise ConfigError(f"--device-idx {asked.device_idx}: allowed: 0 to {DEVICE_IDX_MAX}")
        if not PICTURES_MIN <= asked.pictures <= PICTURES_MAX:
            raise ConfigError(f"--pictures {asked.pictures}: allowed: {PICTURES_MIN} to {PICTURES_MAX}")
    except ConfigError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return error.exit_code
    try:
        facts = Check(asked.device_idx, asked.pictures, is_silent=asked.json and not sys.stderr.isatty()).facts
        facts["verdict"] = gpu_report.verdict(facts)
        if asked.json:
            print(json.dumps(facts))
        else:
            print_table([gpu_report.COLUMNS, *gpu_report.rows(facts)])
            print(f"\n{facts['verdict']}")
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `make gpu-check | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0 if gpu_report.is_stream(facts["producer"][-1]) else NotHere.exit_code


if __name__ == "__main__":
    sys.exit(main())
