"""Settings of hub, device and proxies: what their processes get to see of planaria.yaml, .env and environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from procs.errors import ConfigError
from scripts import addresses, roles
from scripts.fingerprint import fingerprint
from scripts.plan import Plan, load_plan


def plan(folder: Path, document: str = "{}", env_file: str = "", **environ: str) -> Plan:
    """What would be started."""
    (folder / "planaria.yaml").write_text(document)
    (folder / ".env").write_text(env_file)
    return load_plan(folder, environ)


def test_the_device_knows_this_suites_go2rtc_and_hub(tmp_path: Path) -> None:
    found = plan(tmp_path, "{api: 127.0.0.1:2001, hub: {listen: 127.0.0.1:2002}}")
    assert found.environment["GO2RTC_HTTP"] == "http://127.0.0.1:2001"
    assert found.environment["BACKEND_URL"] == "ws://127.0.0.1:2002/ws/device" and found.wall.is_own_hub
    assert "BACKEND_URL" not in plan(tmp_path, PLANARIA_ROLES="device streams").environment


def test_a_variable_that_is_set_but_empty_is_not_set(tmp_path: Path) -> None:
    empty = {"GO2RTC_HTTP": "", "BACKEND_URL": "", "DEVICE_ID": "", "PLANARIA_HUB": ""}
    document = "{api: 127.0.0.1:2001, hub: {listen: 127.0.0.1:2002}}"
    found = plan(tmp_path, document, "DEVICE_ID=cam-7\n", **empty)
    told = {name: found.environment[name] for name in empty}
    assert told == {
        "GO2RTC_HTTP": "http://127.0.0.1:2001",
        "BACKEND_URL": "ws://127.0.0.1:2002/ws/device",
        "DEVICE_ID": "cam-7",
        "PLANARIA_HUB": "127.0.0.1:2002",
    }


def test_a_variable_is_stronger_than_the_file(tmp_path: Path) -> None:
    document = "{hub: {listen: 127.0.0.1:2002}, device: {backend: wss://a.example/ws/device}}"
    found = plan(tmp_path, document, BACKEND_URL="wss://b.example/ws/device")
    assert found.environment["BACKEND_URL"] == found.wall.link.backend == "wss://b.example/ws/device"
    assert not found.wall.is_own_hub


def test_a_first_stream_must_be_one_of_those_that_there_are(tmp_path: Path) -> None:
    document = "{workers: 1, captures: {screen: 'cat x'}, sources: {door: 'rtsp://192.0.2.7/1'}, watch: {stream: %s}}"
    for name in ("omega-0", "screen", "door", "''"):
        assert plan(tmp_path, document % name)
    there = "is no stream; there are omega-0, screen, door$"
    with pytest.raises(ConfigError, match=rf"stream='nosuch' \(.*planaria\.yaml: watch\): {there}"):
        plan(tmp_path, document % "nosuch")
    with pytest.raises(ConfigError, match=rf"stream='nosuch' \(PLANARIA_WATCH_STREAM, environment\): {there}"):
        plan(tmp_path, document % "door", PLANARIA_WATCH_STREAM="nosuch")
    for elsewhere in ({"GO2RTC_HTTP": "http://192.0.2.7:1984"}, {"PLANARIA_ROLES": "device"}):
        assert plan(tmp_path, document % "nosuch", **elsewhere), "what another go2rtc has is not known"


def test_a_hub_that_could_not_start_is_refused_before_anything_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a loopback address without TLS"):
        plan(tmp_path, PLANARIA_HUB="0.0.0.0:8443")
    with pytest.raises(ConfigError, match="must both be set, or neither"):
        plan(tmp_path, PLANARIA_HUB_KEY="key.pem")
    assert plan(tmp_path, PLANARIA_HUB="0.0.0.0:8443", PLANARIA_ROLES="streams"), "whose role is off, it needs nothing"


def test_a_hub_with_tls_is_reached_by_the_name_in_its_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    tls = {"PLANARIA_HUB": "0.0.0.0:8443", "PLANARIA_HUB_CERT": cert, "PLANARIA_HUB_KEY": key}
    with pytest.raises(ConfigError, match=r"cert\.pem.*cannot be used: .*No such file"):
        plan(tmp_path, PLANARIA_ROLES="hub", **tls)
    for_names = "subjectAltName=DNS:*.view.example.org,DNS:hub.example.org,IP:192.0.2.7"
    words = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=hub -keyout {key} -out {cert} -addext {for_names}".split()
    )
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    with pytest.raises(ConfigError, match="wss://NAME:8443/ws/device"):
        plan(tmp_path, **tls)
    found = plan(tmp_path, BACKEND_URL="wss://hub.example.org:8443/ws/device", **tls)
    assert found.wall.is_own_hub
    assert not plan(tmp_path, BACKEND_URL="wss://hub.example.org/ws/device", **tls).wall.is_own_hub
    addresses.show(tmp_path, plan(tmp_path, PLANARIA_ROLES="hub", **tls), "")
    said = capsys.readouterr().out
    assert "BACKEND_URL=wss://NAME:8443/ws/device " in said and "NAME: as in its certificate)" in said
    assert "hub     https://hub.example.org:8443/\n" in said
    assert plan(tmp_path, **tls | {"PLANARIA_HUB": "192.0.2.7:8443"}, PLANARIA_ROLES="hub").wall.hub_url == (
        "https://192.0.2.7:8443"
    )


def test_what_the_file_says_reaches_a_supervisord_started_by_hand(tmp_path: Path) -> None:
    """Read back by supervisord's own parser, odd characters and all."""
    url = "postgresql://me:a%20b;#@db/x"
    found = plan(tmp_path, json.dumps({"hub": {"listen": "127.0.0.1:2002", "database_url": url}}))
    text = roles.conf(found.suite.roles, found.wall.hub.listen, found.wall.variables)
    assert "%%20" in text
    folder = tmp_path / "run/supervisor.d"
    folder.mkdir(parents=True)
    (folder / roles.NAME).write_text(text)
    sections = [line[1:-1] for line in text.splitlines() if line.startswith("[")]
    programs = "".join(f"[{name}]\ncommand=/bin/true\n" for name in sections)
    own = f"[supervisord]\n[include]\nfiles=run/supervisor.d/*.conf\n{programs}"
    (tmp_path / "supervisord.conf").write_text(own)
    options = ServerOptions()
    options.realize(["-c", str(tmp_path / "supervisord.conf")])
    told = {group.name: group.process_configs[0].environment for group in options.process_group_configs}
    assert told["hub"] == told["ws_link"] == told["proxy"] == found.wall.variables
    assert told["hub"]["DATABASE_URL"] == url and told["hub"]["BACKEND_URL"] == "ws://127.0.0.1:2002/ws/device"


@pytest.mark.parametrize("variable", ["AGENT_ID", "SIGNALING_URL", "SIGNALING_TOKEN", "ICE_URLS", "ICE_CREDENTIAL"])
def test_a_change_of_the_agents_variables_is_one_of_the_suite_with_a_tunnel(tmp_path: Path, variable: str) -> None:
    values = {"AGENT_ID": "alice", "SIGNALING_URL": "ws://h/1", "ICE_URLS": "stun:a"}
    other = {"AGENT_ID": "carol", "SIGNALING_URL": "ws://h/2", "ICE_URLS": "stun:b"}.get(variable, "another")

    def word(roles: str, **changed: str) -> str:
        (tmp_path / "supervisord.conf").touch()
        return fingerprint(tmp_path, plan(tmp_path, PLANARIA_ROLES=roles, **values | changed))

    assert word("tun") == word("tun") != word("tun", **{variable: other})
    assert word("device") == word("device", **{variable: other}), "whom nobody reads is no change"


def test_whoever_has_no_tunnel_yet_may_lack_a_name_and_not_have_a_wrong_one(tmp_path: Path) -> None:
    assert plan(tmp_path, PLANARIA_ROLES="tun", AGENT_ID="alice").wall.agent.agent_id == "alice"
    with pytest.raises(ConfigError, match="AGENT_ID='a b'"):
        plan(tmp_path, PLANARIA_ROLES="tun", AGENT_ID="a b")


def test_another_token_in_a_hubs_file_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "supervisord.conf").touch()
    file = tmp_path / "tokens"
    words = []
    for token in ("a" * 20, "b" * 20, "b" * 20):
        file.write_text(token)
        found = plan(tmp_path, PLANARIA_ROLES="hub", SIGNALING_TOKENS_FILE=str(file))
        words.append(fingerprint(tmp_path, found))
        assert fingerprint(tmp_path, plan(tmp_path, PLANARIA_ROLES="hub", SIGNALING_TOKENS=token)) != words[-1]
    assert words[0] != words[1] == words[2]


@pytest.mark.parametrize(
    "variable", ["PLANARIA_VOICE_KEY_FILE", "PLANARIA_VOICE_STORE_FILE", "KYUTAI_LLM_API_KEY_FILE"]
)
def test_so_is_another_secret_in_a_file_of_the_voice_backends(tmp_path: Path, variable: str) -> None:
    (tmp_path / "supervisord.conf").touch()
    file = tmp_path / "secret"
    words = []
    for secret in ("a" * 20, "b" * 20, "b" * 20):
        file.write_text(secret)
        words.append(fingerprint(tmp_path, plan(tmp_path, PLANARIA_ROLES="voice", **{variable: str(file)})))
    assert words[0] != words[1] == words[2]
