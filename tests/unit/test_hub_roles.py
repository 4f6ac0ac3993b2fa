"""What an owner and a viewer may ask of a device."""

from __future__ import annotations

import pytest

from procs.hub.people.roles import OWNER, VIEWER, lesser, may_ask, suffices


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("GET", "/", True),
        ("HEAD", "/api/streams", True),
        ("OPTIONS", "/api/config", True),
        ("POST", "/api/webrtc", True),
        ("DELETE", "/api/webrtc", True),
        ("PUT", "/api/webrtc", False),
        ("PATCH", "/api/webrtc", False),
        ("POST", "/api/webrtc/", False),
        ("POST", "//api/webrtc", False),
        ("POST", "/api/%77ebrtc", False),
        ("POST", "/api/x/../webrtc", False),
        ("POST", "/api/restart", False),
        ("PUT", "/api/streams", False),
        ("DELETE", "/api/streams", False),
        ("get", "/", False),
        ("PROPFIND", "/", False),
    ],
)
def test_a_viewer_looks_and_an_owner_does_all(method: str, path: str, *, may: bool) -> None:
    assert may_ask(VIEWER, method, path) is may
    assert may_ask(OWNER, method, path)


def test_of_two_roles_the_lesser_counts() -> None:
    assert [lesser(a, b) for a in (OWNER, VIEWER) for b in (OWNER, VIEWER)] == [OWNER, VIEWER, VIEWER, VIEWER]
    assert [suffices(a, b) for a in (OWNER, VIEWER) for b in (OWNER, VIEWER)] == [True, True, False, True]
