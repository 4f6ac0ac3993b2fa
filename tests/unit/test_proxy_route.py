"""What of an address is the device's."""

from __future__ import annotations

import pytest

from procs.hub.proxy_route import _split


@pytest.mark.parametrize(
    ("sent", "target"),
    [
        ("/api/devices/cam/proxy/api/frame.jpeg?src=a", "/api/frame.jpeg?src=a"),
        ("/api/devices/cam/proxy", "/"),
        ("/api/devices/cam/proxy/", "/"),
        ("/api/devices/cam/proxy//x/..%2fy?a=%20&b", "//x/..%2fy?a=%20&b"),
        ("/api/devices/cam/proxy/x?token=secret&src=a", "/x?src=a"),
        ("/api/devices/cam/proxy/x?token=secret", "/x"),
    ],
)
def test_a_target_is_passed_on_as_it_was_sent_but_for_the_token(sent: str, target: str) -> None:
    assert _split(sent) == ("/api/devices/cam/proxy", target)
