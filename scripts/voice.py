"""The part of the settings that is about voice, and what it needs installed.

audio: {microphone: USB, wake_word: okay_nabu}       as `python -m procs.audio_io --help` lists
voice: {devices: /etc/planaria/devices.json}         as `python -m procs.voice --help` lists
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from procs import settings
from procs.audio_io import options as audio_options
from procs.audio_io.options import Audio
from procs.errors import NotHere
from procs.settings import Layers
from procs.voice import options as voice_options
from procs.voice.options import Voice
from scripts import settings_file
from scripts.roles import NEED_VOICE

SECTIONS = ("audio", "voice")
INSTALL_LIMIT_S = 1200.0


def load(
    document: Mapping[str, Any],
    name: str,
    environment: Mapping[str, str],
    env_file: Mapping[str, str],
    roles: frozenset[str],
) -> tuple[Audio, Voice, dict[str, str]]:
    """Read the sections of the settings file `name`; with the variables by which processes get what it says. Raises
    ConfigError."""
    section = settings_file.mapping(document.get("audio"), f"{name}: audio")
    audio = settings.load(Audio, Layers({}, environment, env_file, section, f"{name}: audio"))
    if "audio" in roles:
        audio_options.check(audio)
    told = settings.variables(Audio, section, environment, env_file)
    section = settings_file.mapping(document.get("voice"), f"{name}: voice")
    chosen = settings.load(Voice, Layers({}, environment, env_file, section, f"{name}: voice"))
    if "voice" in roles:
        chosen = voice_options.check(chosen)
    return audio, chosen, told | settings.variables(Voice, section, environment, env_file)


def install(root: Path, roles: frozenset[str]) -> None:
    """Have what the roles need on top of the rest; with nothing to do it takes milliseconds. Raises NotHere."""
    if not roles & NEED_VOICE:
        return
    command = ["sh", str(root / "scripts/bootstrap.sh"), "voice"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=INSTALL_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotHere(f"scripts/bootstrap.sh voice: not done within {INSTALL_LIMIT_S:g} s; run it by hand") from None
    if done.returncode:
        needed = " ".join(sorted(roles & NEED_VOICE))
        raise NotHere(f"PLANARIA_ROLES: {needed} needs what scripts/bootstrap.sh voice could not install (see above)")
