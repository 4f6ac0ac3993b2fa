"""What of the suite runs on this machine. A program whose role is off is not started, and nobody misses it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from procs.kinds import Address, Kind

PROGRAMS = {
    "hub": ("hub",),
    "device": ("ws_link", "proxy", "webrtc_peer"),
    "streams": ("go2rtc",),
    "tun": ("tun_pump", "webrtc_peer"),
    "voice": ("voice", "speech_stt", "speech_tts", "speech_llm"),
    "audio": ("audio_io",),
}
NEED_VOICE = frozenset({"audio", "voice"})  # what scripts/bootstrap.sh voice installs
_SECTIONS = {
    "hub": "fcgi-program:hub",
    "ws_link": "program:ws_link",
    "proxy": "program:proxy",
    "webrtc_peer": "program:webrtc_peer",
    "tun_pump": "program:tun_pump",
    "voice": "program:voice",
    "speech_stt": "program:speech_stt",
    "speech_tts": "program:speech_tts",
    "speech_llm": "program:speech_llm",
    "audio_io": "program:audio_io",
    "go2rtc": "program:go2rtc",
}
NAME = "roles.conf"  # in capture_programs.FOLDER, which supervisord.conf includes: what stands there later wins


def _parse(text: str) -> frozenset[str]:
    found = frozenset(text.replace(",", " ").split())
    if not found or found - PROGRAMS.keys():
        raise ValueError
    return found


ROLES = Kind(_parse, f"some of {' '.join(PROGRAMS)}")
DEFAULT = frozenset({"hub", "device", "streams"})  # needs no root, no device of the kernel, no sound card


def is_off(name: str, roles: Collection[str], without: Collection[str] = ()) -> bool:
    """Whether a process, as supervisorctl names it, is of roles that are all off, or is named in `without`."""
    kind = name.partition(":")[0].partition(" ")[0]
    kind = "go2rtc" if kind == "headless_agent" or kind.startswith("capture_") else kind
    of = {role for role, programs in PROGRAMS.items() if kind in programs}
    return name in without or (bool(of) and not of & set(roles))


def conf(roles: Collection[str], hub: Address, variables: Mapping[str, str], without: Collection[str] = ()) -> str:
    """What supervisord.conf says differently for these roles, `without` some programs of theirs, for a hub that listens
    there, and for what the settings file says of hub and device: a supervisord that is started by hand has it from here
    only."""
    # What has quotes in it can't be said there (supervisord takes them off): only make up tells that.
    plain = {name: value.replace("%", "%%") for name, value in sorted(variables.items()) if not {*"'\""} & {*value}}
    told = ",".join(f'{name}="{value}"' for name, value in plain.items())
    lines = ["; Written by `make up` from the settings."]
    for program, section in _SECTIONS.items():
        off = is_off(program, roles, without)
        lines += [f"[{section}]", f"autostart={'false' if off else 'true'}"]
        if program == "hub":
            # supervisord makes it all the same: where it is off, elsewhere, for another hub may listen at that port.
            lines.append(f"socket={'unix://%(here)s/../hub-off.sock' if off else f'tcp://{hub}'}")
        if program != "go2rtc" and told:
            lines.append(f"environment={told}")
    return "\n".join([*lines, ""])
