"""How a device is, for who asks: what is set, where its conversation stands, and what is wrong with it. Pure."""

from __future__ import annotations

from procs.messages.voice import DeviceState, VoiceBeat, VoiceDevice
from procs.voice.config import Device

_WORDS = {"stt": "recogniser", "tts": "synthesiser", "llm": "language model"}
_MOST = 500  # characters, as Reason has it


def device(
    its: Device, state: DeviceState, problem: str = "", *, beat: VoiceBeat | None = None, lines: int = 0
) -> VoiceDevice:
    """One. `beat`: what its child said last."""
    return VoiceDevice(
        name=its.name,
        host=its.host,
        port=its.port,
        voice=its.voice,
        instructions=its.instructions,
        enabled=its.enabled,
        auto_reconnect=its.auto_reconnect,
        reconnect_delay=its.reconnect_delay,
        state=state,
        problem=problem[:_MOST],
        beat=beat,
        lines=lines,
    )


def problem(beat: VoiceBeat) -> str:
    """Why somebody who talks there is not served, in words; "": nothing is known to be wrong."""
    failed = [f"the {_WORDS[name]} failed when last asked: {why}" for name, why in beat.services.items() if why]
    return "; ".join([beat.problem] if beat.problem else failed)
