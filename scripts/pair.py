#!/usr/bin/env python3
"""Show a code beside the device with which a user of the hub claims it, and wait until that was done. On a terminal
there is a QR code, too: it leads to the hub's page with the code typed in.

scripts/pair.py
scripts/pair.py --json           a line with the code, and one with how it ended, for programs

exit codes: 0 paired, 1 the code has expired, 8 the device is not connected to a hub, 10 the hub gives no code
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.become()

import segno

from procs import bus, rpc, settings
from procs.errors import DeadlineExceeded, PlanariaError, Unhealthy
from procs.flags import command_line
from procs.messages.requests import Describe, LinkState, Pair, PairingCode

CONNECT_LIMIT_S = 15.0
ASK_LIMIT_S = 10.0
LOOK_S = 0.5
# Each digit as five rows of three.
_DIGITS = [
    "### ..# ### ### #.# ### ### ### ### ###",
    "#.# ..# ..# ..# #.# #.. #.. ..# #.# #.#",
    "#.# ..# ### ### ### ### ### ..# ### ###",
    "#.# ..# #.. ..# ..# ..# #.# ..# #.# ..#",
    "### ..# ### ### ..# ### ### ..# ### ###",
]


def large(code: str, block: str = "█") -> str:
    """Digits that can be read across a room."""
    rows = [row.split() for row in _DIGITS]
    lines = ["   ".join(row[int(digit)] for digit in code) for row in rows]
    return "\n".join("  " + "".join({"#": block * 2, ".": "  "}.get(c, c) for c in line).rstrip() for line in lines)


def page(hub: str, code: str) -> str:
    """Where a user claims the device with this code, of a hub that devices know by this address."""
    return f"http{hub.removeprefix('ws').removesuffix('/ws/device')}/#/pair/{code}"


def picture(url: str) -> str:
    """An address as a QR code of half blocks, light on dark whatever the terminal's own colours are."""
    drawn = io.StringIO()
    segno.make(url, error="l", micro=False).terminal(drawn, compact=True)
    return "\n".join(f"  \x1b[97;40m{line}\x1b[0m" for line in drawn.getvalue().splitlines())


def show(code: PairingCode, device_id: str, url: str, in_colour: bool) -> None:
    """The code, for people beside the device."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(f"\n{large(code.code, '█' if utf8 else '#')}\n")
    if in_colour and utf8:
        print(f"{picture(url)}\n")
    print(f"  {code.code} pairs {device_id} with whoever opens {url} and signs in", flush=True)
    if re.match(r"https?://(localhost|127\.|\[::1\])", url):
        print("  (on this machine: a phone does not get to this hub, which listens here alone)", flush=True)


def connected(requester: rpc.Requester) -> LinkState:
    """How the link is, once it is connected. Raises Unhealthy."""
    deadline, said = time.monotonic() + CONNECT_LIMIT_S, ""
    while time.monotonic() < deadline:
        try:
            state = _state(requester)
        except DeadlineExceeded:
            said = _tell("ws_link does not run; make up or scripts/agent.py starts it", said)
            continue
        if state.state == "connected":
            return state
        said = _tell(f"no connection to {state.hub}: {state.said or 'not yet'}", said)
        time.sleep(LOOK_S)
    raise Unhealthy(said)


def _tell(now: str, before: str) -> str:
    """Say what is waited for, once, to who looks on."""
    if now != before and sys.stderr.isatty():
        print(f"pair: {now}; waiting for up to {CONNECT_LIMIT_S:.0f} s", file=sys.stderr, flush=True)
    return now


def _state(requester: rpc.Requester) -> LinkState:
    body = requester.ask(Describe()).body
    if not isinstance(body, LinkState):
        raise Unhealthy("ws_link is of another version; make up")
    return body


def wait(requester: rpc.Requester, code: PairingCode, show_left: bool) -> bool:
    """Until the code was used (True), or has expired."""
    deadline = time.monotonic() + code.ttl
    while (left := deadline - time.monotonic()) > 0:
        if show_left:
            print(f"\r  good for {int(left) // 60}:{int(left) % 60:02d} more ", end="", flush=True)
        try:
            if _state(requester).paired == code.code:
                return True
        except DeadlineExceeded:  # it is being started again
            continue
        time.sleep(min(left, LOOK_S))
    return False


def pair(as_json: bool, environ: Mapping[str, str]) -> int:
    """Get a code, show it, wait. Raises PlanariaError."""
    with rpc.Requester(settings.run_dir(environ), bus.WS_LINK_STATE) as requester:
        state = connected(requester)
        # Not to be sent twice: each asking makes a new code.
        code = requester.ask(Pair(), within_s=ASK_LIMIT_S, idempotent=False).body
        if not isinstance(code, PairingCode):
            raise Unhealthy("ws_link is of another version; make up")
        where = {"hub": state.hub, "device_id": state.device_id}
        url = page(state.hub, code.code)
        terminal = sys.stdout.isatty() and not as_json
        if as_json:
            told = {"code": code.code, "expires_at": code.expires_at, "ttl": code.ttl, "url": url, **where}
            print(json.dumps(told), flush=True)
        else:
            show(code, state.device_id, url, terminal)
            if not terminal:
                print(f"  good for {code.ttl // 60}:{code.ttl % 60:02d}", flush=True)
        paired = wait(requester, code, terminal)
    if as_json:
        print(json.dumps({"paired": paired, **where}), flush=True)
    else:
        end = (
            f"{state.device_id} is paired" if paired else "the code has expired, and the hub told of nobody who used it"
        )
        print(f"{chr(10) if terminal else ''}  {end}", flush=True)
    return 0 if paired else 1


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Pair, or say in one line why not."""
    try:
        parser = command_line("pair", "Pair this device with a user.", (__doc__ or "").partition("\n\n")[2])
        parser.add_argument("--json", action="store_true", help="JSON lines, for programs")
        return pair(parser.parse_args(list(argv)).json, environ)
    except PlanariaError as error:
        print(f"pair: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
