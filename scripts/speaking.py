"""Where the voice backend and the speech services are, and whether those of this machine serve: with the role voice."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Sequence

from procs.kinds import Address
from procs.settings import ROOT
from procs.speech import options
from scripts.plan import Plan

ASK_LIMIT_S = 2.0
PROGRAMS = tuple(f"speech_{program}" for program in options.PROGRAMS)


def programs(plan: Plan) -> Sequence[str]:
    """Those that run here."""
    return plan.speech.on if "voice" in plan.suite.roles else ()


def backend(plan: Plan) -> dict[str, str] | None:
    """Where this machine finds its voice backend, and the file of the devices that it calls; None without the role."""
    if "voice" not in plan.suite.roles:
        return None
    return {"url": f"http://{_near(plan.voice.listens)}/", "devices_file": str(ROOT / plan.voice.devices)}


def places(plan: Plan) -> dict[str, str]:
    """Who hears, speaks and answers for that backend, and where ours is if it is another; {} without the role."""
    if "voice" not in plan.suite.roles:
        return {}
    its = plan.voice.services
    used = {"stt": its.stt, "tts": its.tts, "llm": [its.llm]}
    return {program: f"{', '.join(used[program])}{_about(plan, program, used[program])}" for program in used}


def _about(plan: Plan, program: str, used: Sequence[str]) -> str:
    name = program.upper()
    if program in plan.speech.off:
        return f" (another server: PLANARIA_SPEECH_{name}={options.OFF})"
    ours = url(plan, program)
    return "" if ours in used else f" (KYUTAI_{name}_URL; ours is at {ours})"


def url(plan: Plan, program: str) -> str:
    """Where a backend finds one, as KYUTAI_STT_URL and its like have it."""
    return f"{'http' if program == 'llm' else 'ws'}://{_near(plan.speech.listen(program))}"


def why_not(plan: Plan) -> str:
    """Which of them does not answer; "" if all do."""
    for program in programs(plan):
        address = _near(plan.speech.listen(program))
        asked = http.client.HTTPConnection(address.host, address.port, timeout=ASK_LIMIT_S)
        try:
            with contextlib.closing(asked):
                asked.request("GET", "/api/build_info")
                status = asked.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"speech_{program}: it does not serve: {error}"
        if status != 200:
            return f"speech_{program}: /api/build_info: status {status}"
    return ""


def _near(listens: Address) -> Address:
    """Where this machine finds what listens there."""
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listens.host, listens.host), listens.port)
