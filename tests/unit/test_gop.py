"""The cache for joining viewers: it begins with a keyframe or is empty, and keeps to its bounds."""

from __future__ import annotations

import pytest

from procs.errors import Refused
from procs.media import annexb
from procs.media.gop import GopCache
from tests.unit import h264


def test_it_begins_with_the_last_keyframe() -> None:
    cache = GopCache()
    cache.push(b"p", keyframe=False)
    assert cache.units() == ()
    for unit in (b"K1", b"p1", b"p2"):
        cache.push(unit, keyframe=unit == b"K1")
    assert list(cache) == [b"K1", b"p1", b"p2"]
    assert (len(cache), cache.size_bytes) == (3, 6)
    cache.push(b"K2", keyframe=True)
    assert cache.units() == (b"K2",)
    assert (len(cache), cache.size_bytes, cache.overflows) == (1, 2, 0)


@pytest.mark.parametrize("bounds", [{"bytes_max": 6}, {"units_max": 3}])
def test_a_bound_empties_it_until_the_next_keyframe(bounds: dict[str, int]) -> None:
    cache = GopCache(**bounds)
    cache.push(b"K1", keyframe=True)
    cache.push(b"p1", keyframe=False)
    cache.push(b"p2", keyframe=False)
    assert len(cache) == 3  # exactly at the bound
    cache.push(b"p3", keyframe=False)
    assert (cache.units(), cache.size_bytes, cache.overflows) == ((), 0, 1)
    cache.push(b"p4", keyframe=False)
    assert (cache.units(), cache.overflows) == ((), 1)
    cache.push(b"K2", keyframe=True)
    assert cache.units() == (b"K2",)


def test_a_keyframe_over_the_bound_is_not_kept() -> None:
    cache = GopCache(bytes_max=3)
    cache.push(b"K-long", keyframe=True)
    assert (cache.units(), cache.size_bytes, cache.overflows) == ((), 0, 1)


def test_a_viewer_may_read_while_the_stream_goes_on() -> None:
    cache = GopCache()
    cache.push(b"K1", keyframe=True)
    snapshot, running = cache.units(), iter(cache)
    cache.push(b"p1", keyframe=False)
    cache.push(b"K2", keyframe=True)
    assert snapshot == (b"K1",)
    assert list(running) == [b"K1"]


def test_bounds_below_one_are_refused() -> None:
    for bounds in ((0, 1), (1, 0)):
        with pytest.raises(Refused):
            GopCache(*bounds)


def test_what_a_joiner_gets_decodes() -> None:
    cache = GopCache()
    for unit in h264.encode(h264.moving(17)):
        cache.push(unit, annexb.is_keyframe(unit))
    assert len(h264.decode(cache)) == 7
