"""Who listens at an address, and who only seems to."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from procs.errors import ConfigError
from procs.kinds import Address
from scripts import listeners
from scripts.listeners import Listener
from scripts.plan import load_plan


def refuse(address: Address) -> None:
    listeners.refuse_taken(Listener("hub", "PLANARIA_HUB", address))


def test_a_socket_of_a_process_that_is_just_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens still, and /proc shows nobody who holds it."""
    monkeypatch.setattr(listeners, "listener", lambda _: 0)
    answers = iter(["Address already in use", "Address already in use", ""])
    monkeypatch.setattr(listeners, "_why_not_bound", lambda *_: next(answers))
    refuse(Address("127.0.0.1", 1))
    assert not list(answers)


def test_one_that_stays_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "listener", lambda _: 0)
    monkeypatch.setattr(listeners, "LET_GO_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="choose another port"):
        refuse(Address("127.0.0.1", other.getsockname()[1]))


def test_who_listens_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match=r"by pid \d+"):
        refuse(Address("127.0.0.1", other.getsockname()[1]))


EVERY_ROLE = "hub device streams tun voice audio"


@pytest.mark.parametrize(
    ("variables", "both"),
    [
        ({"PLANARIA_HUB": "127.0.0.1:1984"}, r"hub: listen=127.0.0.1:1984 \(.*HUB\) and api=127.0.0.1:1984 \(.*API\)"),
        ({"PLANARIA_GO2RTC_API": "127.0.0.1:8554"}, "GO2RTC_API.* and .*GO2RTC_RTSP"),
        ({"PLANARIA_HUB": "0.0.0.0:8555", "PLANARIA_HUB_INSECURE": "1"}, "HUB.* and webrtc=127.0.0.1:8555"),
        ({"PLANARIA_HUB": "[::]:1984", "PLANARIA_HUB_INSECURE": "1"}, r"HUB.* and api=127.0.0.1:1984"),
        ({"PORT": "9464"}, "PORT.* and .*PLANARIA_METRICS"),
        ({"PLANARIA_SPEECH_TTS": "127.0.0.1:8090"}, "PLANARIA_SPEECH_STT=127.0.0.1:8090 and PLANARIA_SPEECH_TTS="),
        ({"PLANARIA_AUDIO_PORT": "8000"}, "hub: listen.* and .*PLANARIA_AUDIO_PORT"),
        ({"PLANARIA_TUN_PORT": "8555"}, r"webrtc=127.0.0.1:8555 .* and tunnel: port=0.0.0.0:8555"),
    ],
)
def test_two_of_ours_can_not_listen_at_the_same_place(tmp_path: Path, variables: dict[str, str], both: str) -> None:
    (tmp_path / "planaria.yaml").write_text("tunnel: {address: 10.77.0.1/24}")
    with pytest.raises(ConfigError, match=f"{both}.*: only one of them can listen there"):
        load_plan(tmp_path, {"PLANARIA_ROLES": EVERY_ROLE, **variables})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"PLANARIA_HUB": "127.0.0.2:1984"},
        {"PLANARIA_HUB": "[::1]:1984"},
        {"PLANARIA_TUN_PORT": "8554"},
        {"PLANARIA_HUB": "127.0.0.1:1984", "PLANARIA_ROLES": "hub"},
    ],
)
def test_others_have_places_of_their_own(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "planaria.yaml").write_text("tunnel: {address: 10.77.0.1/24}")
    assert load_plan(tmp_path, {"PLANARIA_ROLES": EVERY_ROLE, **variables}).listeners
