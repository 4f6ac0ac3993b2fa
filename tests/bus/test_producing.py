"""What `make status` says of producers: real ones, asked as it asks them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from scripts import producing, suite
from tests.rig import AGENT, clean_environ, until

SMALL = ["--width", "320", "--height", "180", "--fps", "30"]


def asked(root: Path, streams: Collection[str]) -> dict[str, dict[str, Any]]:
    """As `make status` asks."""
    return producing.gather(root / "run", suite.producers(root), streams)


def all_told(its: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What they said, once each has; {} before."""
    return {} if any(each["said"] for each in its.values()) else its


def test_a_producer_says_how_it_does_and_a_frozen_one_is_said_to_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = clean_environ(PLANARIA_SUITE=str(tmp_path), PLANARIA_RUN_DIR=str(tmp_path / "run"))
    command = [*AGENT, "--instance-id", "a", *SMALL, "--bitrate", "1M"]
    assert asked(tmp_path, ["a"]) == {}
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as producer:
        try:
            its = until(lambda: all_told(asked(tmp_path, ["a", "b"])))
            assert its.keys() == {"a"} and its["a"]["pid"] == producer.pid
            assert its["a"]["encoder"] and its["a"]["renderer"] == "cpu" and its["a"]["frames"] > 0
            assert producing.cell(its["a"]).startswith(f"{its['a']['encoder']} 320x180 30/s 1 Mbit/s, dropped ")
            assert its["a"]["encoder"] != "x264" or its["a"]["refusals"].startswith("nvenc: ")
            assert asked(tmp_path, ["b"]) == {}
            os.kill(producer.pid, signal.SIGSTOP)
            monkeypatch.setattr(producing, "YOUNG_S", -1)
            assert asked(tmp_path, ["a"]) == {"a": {"pid": producer.pid, "said": "silent"}}
        finally:
            producer.kill()


def test_the_cell_and_the_lines_below_name_drops_what_draws_and_why_no_better_encoder() -> None:
    told = {"said": "", "width": 1280, "height": 720, "fps": 60, "bitrate": 6_000_000, "frames": 408, "dropped": 158}
    slow = {**told, "encoder": "x264", "renderer": "egl: llvmpipe", "refusals": "nvenc: no driver"}
    assert producing.cell(slow) == "x264 1280x720 60/s 6 Mbit/s, dropped 158 of 566"
    assert (producing.cell(None), producing.cell({"pid": 1, "said": "silent"})) == ("-", "silent")
    plain = {**told, "encoder": "nvenc", "renderer": "cpu", "refusals": ""}
    lines = producing.notes({"a": slow, "b": plain, "c": {"pid": 1, "said": "silent"}, "d": slow})
    assert lines == ["a, d: drawn by egl: llvmpipe; x264, since nvenc: no driver"]
