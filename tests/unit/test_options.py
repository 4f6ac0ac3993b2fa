"""Options of a producer: published names keep their meaning, wrong ones are one line."""

from __future__ import annotations

import re

import pytest

from procs.errors import ConfigError, NotHere
from procs.headless_agent import options
from procs.headless_agent.options import MAX_PES_BITS, Producer, load


def test_defaults_are_the_published_ones() -> None:
    chosen = load([], {})
    published = (chosen.instance_id, chosen.width, chosen.height, chosen.fps, chosen.gop, chosen.bitrate)
    assert published == ("agent-0", 1280, 720, 60, 60, 6_000_000)
    assert (chosen.renderer, chosen.encoder, chosen.device_idx, chosen.stdout_chunk) == ("cpu", "auto", 0, 65536)
    assert (chosen.x264_preset, chosen.x264_tune, chosen.force_sw) == ("ultrafast", "zerolatency", False)


def test_published_variables_work() -> None:
    environ = {
        "METABONK_INSTANCE_ID": "omega-7",
        "METABONK_HEADLESS_W": "320",
        "METABONK_HEADLESS_H": "180",
        "METABONK_HEADLESS_FPS": "25",
        "METABONK_HEADLESS_GOP": "50",
        "METABONK_HEADLESS_BITRATE": "1M",
        "METABONK_HEADLESS_FORCE_SW": "1",
        "METABONK_EGL_DEVICE_IDX": "2",
        "METABONK_NVENC_BUFSIZE": "2M",
        "METABONK_X264_PRESET": "veryfast",
    }
    chosen = load([], environ)
    assert chosen == Producer(
        instance_id="omega-7", width=320, height=180, fps=25, gop=50, bitrate=1_000_000, force_sw=True, device_idx=2,
        bufsize=2_000_000, x264_preset="veryfast",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--width", "0"], ["--width='0'", "even whole number from 16 to 8192"]),
        (["--width", "641"], ["--width='641'", "even"]),
        (["--height", "100000"], ["--height='100000'", "8192"]),
        (["--fps", "0"], ["--fps='0'", "1 to 240"]),
        (["--bitrate", "abc"], ["--bitrate='abc'", "2.5M"]),
        (["--instance-id", "a b; rm -rf /"], ["--instance-id="]),
        (["--colour", "red"], ["unrecognized arguments: --colour red", "--help"]),
        (["--wid", "640"], ["unrecognized arguments: --wid"]),
        (["--width"], ["--width: expected one argument"]),
        (["extra"], ["unrecognized arguments: extra"]),
    ],
)
def test_a_wrong_option_is_one_line(argv: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(argv, {})
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize("encoder", ["vpf", "nvenc-cuda"])
def test_encoders_on_the_gpu_say_that_there_is_no_driver(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "no_nvidia_driver", lambda: "no NVIDIA driver here")
    with pytest.raises(NotHere, match=f"encoder {encoder}: no NVIDIA driver here; use encoder: auto"):
        options.need_encoder(encoder)


def test_vpf_names_the_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "no_nvidia_driver", lambda: "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "cvcuda" else object())
    with pytest.raises(NotHere, match="encoder vpf: missing here: cvcuda-cu13: make up CUDA=1 installs it; use"):
        options.need_encoder("vpf")


def test_encoders_on_the_gpu_take_what_opengl_draws() -> None:
    assert load(["--encoder", "nvenc-cuda"], {}).renderer == "egl"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--audio", "tone", "--out", "h264"], "--out h264 can carry no sound"),
        (["--audio", "/nonexistent.wav"], "audio='/nonexistent.wav': no such file"),
        (["--encoder", "nvenc", "--force-sw"], "encoder=nvenc: is no software encoder"),
    ],
)
def test_options_that_exclude_each_other(argv: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(argv, {})


def test_the_buffer_keeps_keyframes_below_a_pes_length() -> None:
    assert Producer(bitrate=2_000_000).vbv_bits == 200_000
    assert Producer(bitrate=2_000_000, fps=5).vbv_bits == MAX_PES_BITS
    assert Producer(bitrate=50_000_000).vbv_bits == MAX_PES_BITS
    assert Producer(bufsize=12_345).vbv_bits == 12_345


def test_small_pictures_get_one_thread() -> None:
    assert Producer(x264_threads=0).threads == 1
    assert Producer(x264_threads=5).threads == 5
    assert 1 <= Producer(width=8192, height=8192, fps=240).threads <= 1024
