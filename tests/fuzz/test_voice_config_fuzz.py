"""Whatever stands in devices.json: devices, or lines that say why not; never anything else."""

from __future__ import annotations

import functools
import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from procs.errors import Refused
from procs.voice import config

ANY = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=300),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=20), inner, max_size=4),
    max_leaves=8,
)
FIELDS = [*config.Device._fields, "more"]
RIGHT: dict[str, Any] = {"name": "right", "host": "10.0.0.1"}


def find_voice(name: str) -> str:
    """Any short one."""
    if len(name) > 20:
        raise Refused("too long")
    return '{"type":"smalltalk"}'


@given(some.lists(ANY | some.dictionaries(some.sampled_from(FIELDS), ANY, max_size=6), max_size=5))
def test_a_device_is_right_or_there_is_a_line_about_it(entries: list[Any]) -> None:
    text = json.dumps({"devices": [RIGHT, *entries]})
    found = config.parse(text, find_voice)
    assert "right" in found.devices
    assert len(found.devices) - 1 + len(found.problems) >= len(entries)
    for problem in found.problems:
        assert problem.startswith("devices.json: devices["), problem
        assert "\n" not in problem
    for device in found.devices.values():
        assert 1 <= device.port <= 65535
        assert 0.1 <= device.reconnect_delay <= 3600
        assert json.loads(device.instructions)["type"]


@given(some.text(max_size=400) | ANY.map(json.dumps))
def test_any_text_is_devices_or_a_reason(text: str) -> None:
    why = ""
    try:
        config.parse(text, find_voice)
    except Refused as refused:
        why = str(refused)
    assert not why or why.startswith("devices.json: ")


@given(some.dictionaries(some.sampled_from(FIELDS), ANY, max_size=6))
def test_what_was_added_or_changed_is_right_or_refused(entry: dict[str, Any]) -> None:
    text = json.dumps({"devices": [RIGHT]})
    for edit in (functools.partial(config.added, text), functools.partial(config.changed, text, "right")):
        with suppress(Refused):
            assert config.parse(edit(entry, find_voice), find_voice).problems == []
