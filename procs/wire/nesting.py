"""How deep objects and lists may stand in each other in JSON that comes over the network. Pure."""

from __future__ import annotations

MAX_DEPTH = 32  # of braces and brackets in each other
_NEITHER = bytes(set(range(256)) - set(b'{}[]"'))  # brackets nor quotes


def is_deep(data: bytes) -> bool:
    """Whether brackets stand in each other more than MAX_DEPTH times, in JSON that has been read. In a few passes of C
    each: 2 MiB of brackets must not hold up everybody else."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False  # nearly every frame
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = b"".join(data.translate(None, _NEITHER).split(b'"')[::2])  # what is between quotes is text
    for _ in range(MAX_DEPTH):
        before, left = len(left), left.replace(b"{}", b"").replace(b"[]", b"")
        if len(left) in (0, before):
            break
    return bool(left)
