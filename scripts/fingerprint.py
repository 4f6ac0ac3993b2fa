"""One word for everything that the running processes were started with: where it differs, `make up` restarts them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from procs import settings
from procs.agent.settings import AgentSettings
from procs.hub.options import Hub
from procs.proxy.options import Proxy
from procs.voice.options import Voice
from procs.webrtc_peer.options import Peer
from procs.ws_link.options import Link
from scripts.plan import Plan

# What is read by these names though no class declares them, and what other programs read.
_PREFIXES = "PLANARIA_", "METABONK_", "SSL_CERT_"
NOT_READ = "PLANARIA_UP_LIMIT_S", "MODE", "DATA_CHANNEL_LABEL"  # by what `make up` starts
_FILE = "AGENT_CONFIG"
# Their text is read once, at a start.
_FILES = (
    *(_FILE, "SIGNALING_TOKEN_FILE", "SIGNALING_TOKENS_FILE"),
    *("PLANARIA_AUDIO_TOKEN_FILE", "PLANARIA_SPEECH_KEY_FILE"),
    *("PLANARIA_VOICE_KEY_FILE", "PLANARIA_VOICE_STORE_FILE", "KYUTAI_LLM_API_KEY_FILE"),
)


def fingerprint(root: Path, plan: Plan, *made: object) -> str:
    """That word. `made`: what was laid out for the processes, beside the variables and the code that they read."""
    texts = json.dumps(made, default=str), json.dumps(sorted(variables(plan).items())), *_texts(plan), *_code(root)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def variables(plan: Plan) -> Mapping[str, str]:
    """The variables that running processes have read."""
    by_role = {"tun": AgentSettings, "voice": Voice}
    classes = Hub, Link, Peer, Proxy, *(cls for role, cls in by_role.items() if role in plan.suite.roles)
    declared = {name for cls in classes for option in settings.options_of(cls).values() for name in option.env}
    declared |= {_FILE} if "tun" in plan.suite.roles else set()
    return {
        name: value
        for name, value in plan.environment.items()
        if (name in declared or name.startswith(_PREFIXES)) and name not in NOT_READ
    }


def _texts(plan: Plan) -> list[str]:
    """What stands in the files that such variables name; whether one can be read is for its reader to say."""
    read = variables(plan)
    paths = [Path(read[name]).expanduser() for name in _FILES if read.get(name)]
    return [path.read_bytes().hex() if path.is_file() else "" for path in paths]


def _code(root: Path) -> list[str]:
    """The text of what processes run, so that new code is taken up."""
    return [path.read_text() for path in (root / "supervisord.conf", *sorted((root / "procs").rglob("*.py")))]
