"""What an owner and a viewer may ask of a device."""

from __future__ import annotations

import pytest

from procs.hub.people.roles import OWNER, VIEWER, lesser, may_ask, may_say, suffices


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("GET", "/", True),
        ("HEAD", "/api/streams", True),
        ("OPTIONS", "/api/config", True),
        ("POST", "/api/webrtc", False),  # go2rtc's own takes sound from whoever watches by it
        ("DELETE", "/api/webrtc", False),
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


MSE = '{"type": "mse", "value": "avc1.640029"}'


@pytest.mark.parametrize(
    ("path", "message", "may"),
    [
        ("/api/ws", MSE, True),
        ("/api/ws", MSE.encode(), True),
        ("/api/%77s", MSE.replace("mse", "webrtc/offer"), False),
        ("/api/ws", MSE.replace("mse", "webrtc/offer"), False),
        ("/api/ws", MSE.replace("mse", "webrtc").encode(), False),
        ("/api/ws", MSE.replace("mse", "\\u0077ebrtc"), False),
        ("/api/ws", MSE[:-1] + ', "Type": "webrtc"}', False),
        ("/api/ws", MSE.replace("type", "TYPE").replace("mse", "webrtc"), False),
        ("/api/ws", MSE.replace("mse", "webrtc/offer") + " and more", False),
        ("/api/ws", "[]", False),
        ("/api/ws", "", False),
        ("/api/ws", "[" * 100_000, False),
        ("/files/live", "webrtc", True),
    ],
)
def test_a_viewer_begins_nothing_by_which_it_could_be_heard(path: str, message: str | bytes, *, may: bool) -> None:
    assert may_say(VIEWER, path, message) is may
    assert may_say(OWNER, path, message)


def test_of_two_roles_the_lesser_counts() -> None:
    assert [lesser(a, b) for a in (OWNER, VIEWER) for b in (OWNER, VIEWER)] == [OWNER, VIEWER, VIEWER, VIEWER]
    assert [suffices(a, b) for a in (OWNER, VIEWER) for b in (OWNER, VIEWER)] == [True, True, False, True]
