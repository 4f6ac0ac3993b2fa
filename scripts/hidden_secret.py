"""Takes a secret off the command line, where everybody can read it, before a program goes on."""

from __future__ import annotations

import os
import sys


def parted(argv: list[str], flag: str) -> tuple[list[str], str]:
    """The words without `flag` and its value, and that value; "" without one."""
    kept, secret, rest = [], "", iter(argv)
    for word in rest:
        if word == flag:
            secret = next(rest, "")
        elif word.startswith(f"{flag}="):
            secret = word.partition("=")[2]
        else:
            kept.append(word)
    return kept, secret


def hide(flag: str, variable: str) -> None:
    """Go on without the secret among our words, but in the environment, which only the same user can read."""
    kept, secret = parted(sys.argv, flag)
    if secret:
        warning = f"{flag} can be read by every user of this machine; set {variable} instead"
        print(f"{os.path.basename(kept[0])}: warning: {warning}", file=sys.stderr, flush=True)
        os.execve(sys.executable, [sys.executable, *kept], os.environ | {variable: secret})
