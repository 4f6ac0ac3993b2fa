"""How a session reaches the UDP port that all peers share: in its own process (port.py), or over the bus to the process
that owns it. Types only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Address = tuple[str, int]
Take = Callable[[str, Address, list[bytes]], None]  # which address of ours it came to, from whom, datagrams


class Way(Protocol):
    """`number`: of the port; 0 while it is not known, and then nothing is gathered on it."""

    @property
    def number(self) -> int:
        """The port."""

    def expect(self, ufrag: str, take: Take) -> None:
        """From now on `take` gets what is for the connection of this username fragment: checks that name it, answers
        to its own, and DTLS from where it has answered a check, or sent DTLS to. To say it again changes nothing."""

    def send(self, ufrag: str, local: str, to: Address, joined: bytes, step: int) -> int:
        """Send datagrams of `step` bytes that lie behind each other, the last maybe shorter, from this address of ours;
        how many were taken, of which some may be lost on the way to the port."""

    def forget(self, ufrag: str) -> None:
        """That connection has gone."""
