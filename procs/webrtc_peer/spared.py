"""aiortc without PyAV: it wants it for codecs of its own, none of which runs here, and libav is a third of what the
zygote would have to import before the first viewer is served, and of its memory.

Whoever needs PyAV itself imports it as ever, outside of `libav`. Names of aiortc 1.16.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

_MODULES = ("av", "av.frame", "av.packet", "av.video", "av.video.codeccontext")


class _Nothing(ModuleType):
    """In the place of a module: whatever is imported from it is a class of which there are no objects."""

    __path__: list[str] = []  # noqa: RUF012 - as packages have it

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def libav() -> Iterator[None]:
    """Import aiortc in here. Where PyAV is there already, nothing is spared and nothing done."""
    put = {} if "av" in sys.modules else {name: _Nothing(name) for name in _MODULES}
    sys.modules.update(put)
    try:
        yield
    finally:
        for name in put:
            del sys.modules[name]
