"""What streams have and viewers take, by the names that the bus has for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

KINDS = {"h264": "video", "vp8": "video", "opus": "audio", "pcma": "audio", "pcmu": "audio", "aac": "audio"}
PASSED = ("h264", "opus", "pcma", "pcmu", "aac")  # pulled from go2rtc
MADE = ("vp8", "opus", "pcma", "pcmu")  # by an encoder, for a viewer who takes nothing that is there


def names(described: Iterable[str]) -> list[str]:
    """Of a stream's codecs as messages.Source has them, without their profiles."""
    return [each.partition("/")[0] for each in described]


def to_make(stream: Iterable[str], takes: Iterable[str]) -> list[str]:
    """What an encoder has to make of a stream for a viewer who was promised these."""
    has = {KINDS[each]: each for each in stream}
    wanted = {KINDS[each]: each for each in takes}
    return [codec for kind, codec in wanted.items() if kind in has and has[kind] not in takes and codec in MADE]


def sources_of(codec: str) -> set[str]:
    """What its encoder can make it from."""
    return {each for each in PASSED if KINDS[each] == KINDS[codec] and each != codec}
