"""One load test, as the command line has it."""

from __future__ import annotations

import argparse
import json

import msgspec
import uvloop

from procs.wire.conversation import Instructions, Session
from scripts.loadtest import report, sounds
from scripts.loadtest.backend import Backend
from scripts.loadtest.caller import Place
from scripts.loadtest.crowd import run
from scripts.loadtest.options import key_of
from scripts.loadtest.talk import Plan


def test(chosen: argparse.Namespace) -> int:
    """Do it; the exit code. Raises PlanariaError."""
    backend = Backend(chosen.server_url, key_of(chosen.key_file))
    backend.check_health()
    first = backend.first_voice()  # before a wrong key fails each conversation
    voice = chosen.voice if chosen.voice is not None else first
    said = sounds.load(chosen.audio_dir)
    instructions = msgspec.convert({"type": chosen.instructions}, Instructions)
    session = Session(allow_recording=False, instructions=instructions, voice=voice)
    place = Place(backend.realtime_url, backend.key, session, said.silence)
    left = chosen.without
    plan = Plan(chosen.turns, "barge-in" not in left, "cough" not in left, "reconnect" not in left)
    count = chosen.n_conversations or chosen.n_workers
    outcomes = uvloop.run(run(place, said, plan, chosen.n_workers, count))
    asked = {"server_url": chosen.server_url, "voice": voice, "workers": chosen.n_workers}
    told = report.as_json(outcomes, asked)
    print(json.dumps(told) if chosen.json else report.as_text(told), flush=True)
    return 0 if told["ok"] == count else 1
