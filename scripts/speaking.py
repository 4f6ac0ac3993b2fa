"""Whether the speech services of this machine serve, where its role voice is on."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Sequence

from procs.settings import Address
from procs.speech import options
from scripts.suite_settings import Plan

ASK_LIMIT_S = 2.0
PROGRAMS = tuple(f"speech_{program}" for program in options.PROGRAMS)


def programs(plan: Plan) -> Sequence[str]:
    """Those that run here."""
    return plan.speech.on if "voice" in plan.suite.roles else ()


def places(plan: Plan) -> dict[str, str]:
    """Where each is found, or that it is off; {} without the role."""
    if "voice" not in plan.suite.roles:
        return {}
    off = dict.fromkeys(plan.speech.off, f"{options.OFF}: another server is used in its place")
    return {program: off.get(program) or url(plan, program) for program in options.PROGRAMS}


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
