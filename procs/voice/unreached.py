"""Why a connection can't be had, in words that a person can act on. Pure."""

from __future__ import annotations

import os
import socket


def why(error: OSError) -> str:
    """Without a word of Python, whose own text says which call failed and not why."""
    match error:
        case socket.gaierror():
            return "nobody knows its name"
        case ConnectionRefusedError():
            return "refuses the connection: nothing listens there"
    if error.errno:
        return os.strerror(error.errno)
    said = str(error)
    return "cannot be reached" if "Connect call failed" in said else said or "the connection broke"
