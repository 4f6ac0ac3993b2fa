"""What is handed on to a viewer whole or not at all, and cutting a flow of bytes into that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from procs.errors import Refused

MAX_UNIT = 16 * 1024 * 1024  # bytes of one picture


class Unit(NamedTuple):
    """What is sent whole or not at all."""

    data: bytes
    is_key: bool  # a viewer can begin here
    may_drop: bool
    flags: int = 0  # of the DATA frame


class Cutter(ABC):
    """Cuts a flow into units. What turns out to be something else passes as it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_opaque = False  # something else after all

    def feed(self, data: bytes) -> list[Unit]:
        """The units that these bytes complete."""
        if self._is_opaque:
            return [Unit(data, False, False)]
        self._buffer += data
        units = []
        try:
            while end := self._end_of_unit():
                units.append(self._unit(bytes(self._buffer[:end])))
                del self._buffer[:end]
        except Refused:
            self._is_opaque = True
            units.append(Unit(self.rest(), False, False))
        return units

    def rest(self) -> bytes:
        """What is left of a flow that has ended."""
        left = bytes(self._buffer)
        self._buffer.clear()
        return left

    @abstractmethod
    def _end_of_unit(self) -> int:
        """Where the first unit of the buffer ends; 0 if it has not come whole. Raises Refused."""

    @abstractmethod
    def _unit(self, piece: bytes) -> Unit:
        """What a piece is. Raises Refused."""
