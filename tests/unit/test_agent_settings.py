"""The published settings of an agent, from the places they may stand in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from procs.agent.settings import load_settings
from procs.agent.signaling import CAP_S, pause
from procs.errors import ConfigError

HERE = {"PLANARIA_SUITE": "test"}  # so that no .env is read
NEEDED = HERE | {"AGENT_ID": "alice", "SIGNALING_URL": "wss://hub.example.org/ws/signal"}
FILE = {
    "agent_id": "from-file",
    "signaling_url": "ws://127.0.0.1:8000/ws/signal",
    "signaling_token": "a token",
    "mode": "bytes",
    "ice_servers": [{"urls": "stun:a.example"}, {"urls": ["turn:b.example"], "username": "u", "credential": "c"}],
    "of_another_version": 1,
}


@pytest.mark.parametrize("name", ["agent.json", "agent.yaml"])
def test_the_environment_wins_over_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(FILE))  # which is YAML, too
    environ = HERE | {"AGENT_CONFIG": str(tmp_path / name), "AGENT_ID": "alice", "MODE": ""}
    found = load_settings(environ)
    assert (found.agent_id, found.mode, found.token, found.data_channel_label) == ("alice", "bytes", "a token", "mvp")
    assert found.ice_servers == [
        {"urls": ["stun:a.example"]},
        {"urls": ["turn:b.example"], "username": "u", "credential": "c"},
    ]
    urls = {"ICE_URL": "stun:c.example", "ICE_URLS": "stun:d.example, stun:c.example", "ICE_USERNAME": "me"}
    assert load_settings(environ | urls).ice_servers == [
        {"urls": ["stun:c.example", "stun:d.example"], "username": "me"}
    ]
    assert load_settings(environ, {"mode": "json"}).mode == "json"


def test_a_token_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the room\n")
    found = load_settings(NEEDED | {"SIGNALING_TOKEN_FILE": str(tmp_path / "token")})
    assert found.token == "of the room" and "of the room" not in repr(found)
    with pytest.raises(ConfigError, match=r"SIGNALING_TOKEN_FILE=.*No such file"):
        assert load_settings(NEEDED | {"SIGNALING_TOKEN_FILE": str(tmp_path / "none")}).token


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AGENT_ID": ""}, "AGENT_ID is not set"),
        ({"SIGNALING_URL": "http://hub.example.org"}, "SIGNALING_URL='http://hub.example.org' .*must be a ws://"),
        ({"MODE": "smoke"}, "MODE='smoke' .*one of chat, json, bytes, tun"),
        ({"ICE_URLS": "stun:a, http://b"}, "ICE_URLS=.*must be up to 16 of stun:"),
        ({"PLANARIA_PEER_TRUST": "nobody"}, "PLANARIA_PEER_TRUST='nobody'"),
        ({"AGENT_CONFIG": "/nowhere/agent.yaml"}, "AGENT_CONFIG=.*cannot be read"),
    ],
)
def test_a_wrong_value_is_one_line(change: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_settings(NEEDED | change)


def test_an_option_may_be_set_later_as_published_and_must_be_one() -> None:
    found = load_settings(NEEDED)
    found.mode = "tun"  # type: ignore[misc]
    assert found.mode == "tun"
    with pytest.raises(ConfigError, match="mode='smoke'"):
        found.mode = "smoke"  # type: ignore[misc]


def test_the_signalling_server_is_tried_at_the_published_pace() -> None:
    assert pause(0, rng=lambda: 0.999) < 0.1
    assert [pause(n, rng=lambda: 0.0) for n in (1, 2, 3)] == [1.1, 2.2, 4.4]
    assert pause(50, rng=lambda: 1.0) == pytest.approx(1.3 * CAP_S)
