"""What the producers that run now say of themselves: what encodes and draws, and whether it is quick enough."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from procs import bus, rpc
from procs.errors import BusError
from procs.messages.requests import Describe, Description
from scripts import suite

ASK_LIMIT_S = 0.3
ALL_LIMIT_S = 1.0
BESIDE = 64  # questions at a time
YOUNG_S = 5  # one that is no older may be on its way to its first picture, and answers after it


def gather(run_dir: Path, living: Iterable[suite.Process], streams: Collection[str]) -> dict[str, dict[str, Any]]:
    """Stream -> the fields of its Description, or why there are none ("said"), of streams whose producer lives."""
    named = ((each.name.partition(" ")[2], each) for each in living)
    asked = {name: each for name, each in named if name in streams}
    answers = asyncio.run(_ask(run_dir, asked)) if asked else {}
    return {name: _told(each, answers.get(name)) for name, each in asked.items()}


async def _ask(run_dir: Path, names: Iterable[str]) -> dict[str, Description]:
    import zmq.asyncio  # here: most of the time nobody watches, and nobody is asked

    context, beside = zmq.asyncio.Context(), asyncio.Semaphore(BESIDE)
    answers: dict[str, Description] = {}

    async def ask(name: str) -> None:
        async with beside:
            try:
                reply = await rpc.ask(context, run_dir, bus.control_of(name), Describe(), within_s=ASK_LIMIT_S)
            except BusError:
                return
        if isinstance(reply.body, Description):
            answers[name] = reply.body

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ALL_LIMIT_S):
            await asyncio.gather(*map(ask, names))
    context.destroy(linger=0)
    return answers


def _told(its: suite.Process, answer: Description | None) -> dict[str, Any]:
    if answer is None:
        return {"pid": its.pid, "said": "starting" if its.uptime_s <= YOUNG_S else "silent"}
    return {"said": "", **{name: getattr(answer, name) for name in answer.__struct_fields__ if name != "instance"}}


def cell(its: Mapping[str, Any] | None) -> str:
    """One producer in a column; "-" where none runs."""
    if its is None:
        return "-"
    if its["said"]:
        return str(its["said"])
    return (
        f"{its['encoder']} {its['width']}x{its['height']} {its['fps']}/s {its['bitrate'] / 1e6:.3g} Mbit/s,"
        f" dropped {its['dropped']} of {its['frames'] + its['dropped']}"
    )


def notes(producers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What draws if not the processor, and why no better encoder is used: one line for all of whom the same is said."""
    alike: dict[str, list[str]] = {}
    for name, its in producers.items():
        if its["said"]:
            continue
        drawn = f"drawn by {its['renderer']}" if its["renderer"] not in ("", "cpu") else ""
        why = f"{its['encoder']}, since {its['refusals']}" if its["refusals"] else ""
        alike.setdefault("; ".join(filter(None, (drawn, why))), []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in alike.items() if text]
