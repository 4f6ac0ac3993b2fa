"""Whether our rules are still there: others load rules, too, and some begin with `flush ruleset`.

The kernel tells of each change. Who listens needs a right for it only at the beginning, so this goes on after ours are
given up. A pump whose rules somebody has touched ends; the next one sets them before it carries anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from struct import unpack_from

from procs import log
from procs.agent import nft
from procs.errors import NotHere

BUFFER = 4 << 20  # whole firewalls are loaded at once
_NETLINK_NETFILTER, _NETLINK_ADD_MEMBERSHIP, _SOL_NETLINK, _SO_RCVBUFFORCE = 12, 1, 270, 33
_GROUP, _SUBSYSTEM = 7, 10  # NFNLGRP_NFTABLES, NFNL_SUBSYS_NFTABLES
_REMOVED = {2, 5, 8}  # NFT_MSG_DELTABLE, DELCHAIN, DELRULE; attribute 1 of each is the table's name
_HEAD, _FAMILY = 16, 4  # nlmsghdr, nfgenmsg


class Guard:
    """Of our table, as it is now. Raises NotHere."""

    def __init__(self, interface: str) -> None:
        self._table = nft.table(interface).encode()
        try:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._sock.bind((0, 0))
            self._sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _GROUP)
        except OSError as error:
            raise NotHere(
                f"the rules of nft can't be watched: {error.strerror}; it needs root or CAP_NET_ADMIN"
            ) from None
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)

    def start(self) -> None:
        """End this process as soon as somebody has touched it, whatever else this process does."""
        threading.Thread(target=self._watch, name="rules", daemon=True).start()

    def _watch(self) -> None:
        while not self._is_touched():
            pass
        log.error("somebody has taken our rules of nft away: they are set again at the next start")
        os._exit(NotHere.exit_code)

    def _is_touched(self) -> bool:
        try:
            return self._table in removed(self._sock.recv(1 << 16))
        except OSError:  # ENOBUFS: there was more than could be kept, perhaps also this
            return True


def removed(data: bytes) -> Iterator[bytes]:
    """The tables of which, or in which, something was removed, by messages of the kernel. Pure."""
    at = 0
    while at + _HEAD <= len(data):
        size, kind = unpack_from("=IH", data, at)
        end = min(at + size, len(data))
        if kind >> 8 == _SUBSYSTEM and kind & 0xFF in _REMOVED:
            yield from _first(data, at + _HEAD + _FAMILY, end)
        at += max(_HEAD, (size + 3) & ~3)


def _first(data: bytes, at: int, end: int) -> Iterator[bytes]:
    """The text of each attribute of type 1."""
    while at + 4 <= end:
        size, kind = unpack_from("=HH", data, at)
        if kind == 1:
            yield data[at + 4 : at + size].rstrip(b"\0")
        at += max(4, (size + 3) & ~3)
