"""The command line of what cli.py does between agents. The verbs themselves are loaded when one is asked for: others
need not wait for them."""

from __future__ import annotations

import argparse
import functools
import os
from typing import Any

WITHIN_S = 30.0
MODES = ("chat", "json", "bytes", "tun")
TUNNEL_FLAGS = {
    "interface": "its name (default mvp-tun0)",
    "address": "this machine's addresses in the tunnel, such as 10.77.0.1/24,fd77::1/64",
    "mtu": "the largest packet (default 1380)",
    "allowed": "PEER=PREFIX,... which addresses are behind which peer (default: those that each claims in our"
    " networks); may be given several times",
}
FLAGS = {
    "id": ("agent_id", "who you are, to your peers; AGENT_ID"),
    "server": ("signaling_url", "where agents meet, such as ws://127.0.0.1:8000/ws/signal; SIGNALING_URL"),
    "ice": ("ice_urls", "STUN and TURN servers, with commas between; ICE_URLS"),
    "label": ("data_channel_label", "name of the main channel; DATA_CHANNEL_LABEL"),
    "trust": ("trust", "first-use or approved: whose keys are taken; PLANARIA_PEER_TRUST"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of all verbs. A token comes by SIGNALING_TOKEN alone: command lines can be read by everybody."""
    for flag, (_, text) in FLAGS.items():
        parser.add_argument(f"--{flag}", metavar=flag.upper(), help=text)
    parser.add_argument(
        "--allow-unsigned", action="store_true", help="talk to the published agents, too, which prove nothing"
    )
    parser.add_argument("--json", action="store_true", help="JSON, for programs")
    parser.add_argument("--verbose", action="store_true", help="say what happens, on stderr")


def add(verbs: Any) -> None:
    """Give the parser of cli.py these verbs."""
    for name, (text, example) in VERBS.items():
        sub = verbs.add_parser(
            name, help=text, description=text, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        sub.set_defaults(verb=functools.partial(_do, name))
        _OPTIONS[name](sub)
        if name == "peers":
            sub.add_argument("--json", action="store_true", help="JSON, for programs")
        else:
            add_arguments(sub)


def _do(name: str, arguments: argparse.Namespace) -> None:
    if name == "peers":
        from scripts.peer import known

        known.peers(arguments)
    else:
        from scripts.peer import verbs

        getattr(verbs, name.replace("-", "_"))(arguments)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 86_400:
        raise ValueError
    return value


def _peer(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("peer", metavar="PEER", help="its AGENT_ID")
    text = f"for the first connection (default {WITHIN_S:g} s)"
    sub.add_argument("--within", type=_seconds, default=WITHIN_S, metavar="S", help=text)


def _mode(sub: argparse.ArgumentParser) -> None:
    mode = os.environ.get("MODE", "chat")
    sub.add_argument("--mode", choices=MODES, default=mode, help="what is carried; MODE")
    for flag, text in TUNNEL_FLAGS.items():
        how = "append" if flag == "allowed" else "store"
        sub.add_argument(f"--{flag}", action=how, metavar=flag.upper(), help=f"with --mode tun: {text}")


def _connect(sub: argparse.ArgumentParser) -> None:
    _peer(sub)
    _mode(sub)


def _send_file(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("path", metavar="PATH")
    _peer(sub)


def _receive(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--into", metavar="DIR", default=".", help="where files go (default: here)")
    sub.add_argument("--count", type=int, default=0, metavar="N", help="end after so many")


def _ping(sub: argparse.ArgumentParser) -> None:
    _peer(sub)
    sub.add_argument("--count", type=int, default=0, metavar="N", help="end after so many")
    sub.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="between two (default 1)")


def _bench(sub: argparse.ArgumentParser) -> None:
    _peer(sub)
    sub.add_argument("--seconds", type=_seconds, default=5.0, metavar="S", help="each way (default 5)")


def _peers(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--approve", nargs="+", metavar=("PEER", "KEY"), help="let it in, by this one key")
    sub.add_argument("--forget", metavar="PEER", help="its next key counts as a first one; a revoked key stays so")
    text = "end what there is with its key: nobody gets in by it, nor that peer by another one, until it is approved"
    sub.add_argument("--revoke", metavar="PEER|KEY", help=text)


_OPTIONS = {
    "connect": _connect,
    "listen": _mode,
    "send-file": _send_file,
    "receive": _receive,
    "ping": _ping,
    "bench": _bench,
    "peers": _peers,
}
_AT = "SIGNALING_URL=ws://127.0.0.1:8000/ws/signal scripts/cli.py"
VERBS = {
    "connect": (
        "call an agent, and talk or pipe; ends when standard input does, and what was sent has arrived",
        f"examples:\n  AGENT_ID=alice {_AT} connect bob\n  tar c . | AGENT_ID=alice {_AT} connect bob --mode bytes\n"
        f"  sudo AGENT_ID=alice {_AT} connect bob --mode tun --address 10.77.0.1/24",
    ),
    "listen": (
        "wait for agents that call: talk with all, or pipe with the first until both sides have ended",
        f"examples:\n  AGENT_ID=bob {_AT} listen\n  AGENT_ID=bob {_AT} listen --mode bytes | tar x",
    ),
    "send-file": (
        "send a file to an agent that receives; run again after any failure, it goes on where it was",
        f"example:\n  AGENT_ID=alice {_AT} send-file film.mkv bob",
    ),
    "receive": (
        "take files that agents send, until killed or --count of them are here",
        f"example:\n  AGENT_ID=bob {_AT} receive --into ~/Downloads --count 1",
    ),
    "ping": (
        "how far away an agent is that listens or receives",
        f"example:\n  AGENT_ID=alice {_AT} ping bob --count 5",
    ),
    "bench": (
        "how much goes through to an agent that listens or receives, and back",
        f"example:\n  AGENT_ID=alice {_AT} bench bob",
    ),
    "peers": (
        "whom this machine's agents know, and by which keys",
        "examples:\n  scripts/cli.py peers\n  scripts/cli.py peers --forget bob\n  scripts/cli.py peers --revoke bob",
    ),
}
