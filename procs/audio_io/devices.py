"""Which microphones and speakers PortAudio finds here."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal

import msgspec

from procs.errors import NotHere

Side = Literal["microphone", "speaker"]
PORTAUDIO = "PortAudio is not here: apt-get install libportaudio2"
# Dies with us (PR_SET_PDEATHSIG), then begins as sounddevice does.
_PROBE = "import ctypes; ctypes.CDLL(None).prctl(1, 9); ctypes.CDLL('libportaudio.so.2').Pa_Initialize()"
_PROBE_LIMIT_S = 5.0
_NONE_FOUND = "this machine shows no {side} (is it plugged in, may this user open /dev/snd: group audio?)"
_NONE_NAMED = "no {side} has {name!r} in its name; --list-devices shows those that are here"


class Device(msgspec.Struct, frozen=True):
    """A card's side, or both, as PortAudio tells it."""

    index: int
    name: str
    inputs: int  # channels
    outputs: int
    rate: int  # its own samples a second
    default_input: bool = False
    default_output: bool = False


def library() -> Any:
    """The sounddevice module, which ships no types. Raises NotHere where it or PortAudio is not to be had."""
    _refuse_fatal()
    try:
        import sounddevice
    except OSError:
        raise NotHere(PORTAUDIO) from None
    except ImportError:
        raise NotHere("sounddevice is not installed: sh scripts/bootstrap.sh voice") from None
    return sounddevice


def _refuse_fatal() -> None:
    """PortAudio aborts the process that it is in where it can't make sense of ALSA's configuration, so one that nobody
    needs goes first: 16 ms. Raises NotHere."""
    try:
        probe = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROBE], capture_output=True, timeout=_PROBE_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if probe.returncode < 0:
        said = probe.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise NotHere(f"PortAudio can't begin with ALSA's configuration, which may lack pcm.!default: {said}")


def devices(card: Any) -> list[Device]:
    """All that `library()` knows."""
    chosen_input, chosen_output = card.default.device
    return [
        Device(
            index=index,
            name=str(one["name"]),
            inputs=int(one["max_input_channels"]),
            outputs=int(one["max_output_channels"]),
            rate=round(one["default_samplerate"]),
            default_input=index == chosen_input,
            default_output=index == chosen_output,
        )
        for index, one in enumerate(card.query_devices())
    ]


def pick(found: list[Device], side: Side, name: str) -> Device:
    """The one whose whole name this is, else the first with this in its name; "": the default, else the first. Raises
    NotHere."""
    able = [one for one in found if (one.inputs if side == "microphone" else one.outputs)]
    if not able:
        raise NotHere(_NONE_FOUND.format(side=side))
    if not name:
        chosen = [one for one in able if (one.default_input if side == "microphone" else one.default_output)]
        return (chosen or able)[0]
    fitting = [one for one in able if name.casefold() in one.name.casefold()]
    if not fitting:
        raise NotHere(_NONE_NAMED.format(side=side, name=name))
    return next((one for one in fitting if one.name == name), fitting[0])


def listing(*, as_json: bool) -> str:
    """What `--list-devices` prints. Raises NotHere where PortAudio is missing."""
    found = devices(library())
    if as_json:
        return json.dumps([msgspec.to_builtins(one) for one in found])
    if not found:
        return "no microphone and no speaker: " + _NONE_FOUND.format(side="card")
    rows = [("", "in", "out", "Hz", "name")]
    for one in found:
        chosen = ("<" if one.default_input else "") + (">" if one.default_output else "")
        rows.append((chosen, str(one.inputs or "-"), str(one.outputs or "-"), str(one.rate), one.name))
    lines = [f"{mark:>2} {ins:>4} {outs:>4} {rate:>6}  {name}" for mark, ins, outs, rate, name in rows]
    return "\n".join([*lines, "< default microphone, > default speaker"])
