"""What the hub can be told, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from procs.errors import ConfigError
from procs.hub.options import Hub, load, refuse_open_air
from procs.kinds import Address


def test_by_default_it_is_for_this_machine_alone() -> None:
    chosen = load([], {})
    assert chosen == Hub() and chosen.listen == Address("127.0.0.1", 8000)
    assert not chosen.compat and not chosen.is_registration_open and not chosen.is_behind_tls


def test_variables() -> None:
    environ = {
        "PLANARIA_HUB": "0.0.0.0:8443",
        "PLANARIA_HUB_INSECURE": "1",
        "PLANARIA_HUB_PROXIES": "10.0.0.1, 10.0.0.2",
        "DATABASE_URL": "postgresql://u:p@db/planaria",
        "PLANARIA_HUB_VIEWS": "view.example.org",
        "PLANARIA_COMPAT": "1",
        "PLANARIA_TOKEN_TTL_S": "600",
        "STUN_URLS": "stun:a.example:3478,stun:b.example",
        "TURN_URLS": "turn:a.example:3478?transport=udp, turns:b.example:443?transport=tcp",
        "TURN_SECRET": "s",
    }
    chosen = load([], environ)
    assert chosen.listen == Address("0.0.0.0", 8443) and chosen.proxies == ("10.0.0.1", "10.0.0.2")
    assert chosen.stun_urls == ("stun:a.example:3478", "stun:b.example") and chosen.token_ttl_s == 600
    assert chosen.turn_urls == ("turn:a.example:3478?transport=udp", "turns:b.example:443?transport=tcp")
    assert chosen.turn_secret == "s" and "'turn_secret': '***'" in repr(chosen)
    assert chosen.is_registration_open and chosen.is_behind_tls and chosen.view_suffix == "view.example.org"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PLANARIA_HUB": "0.0.0.0:8000"}, "must be a loopback address without TLS"),
        ({"PLANARIA_HUB": "[::]:8000"}, "must be a loopback address without TLS"),
        ({"PLANARIA_HUB": "localhost"}, "an IP address and a port"),
        ({"PLANARIA_HUB_CERT": "a.pem"}, "must both be set"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL=***"),
        ({"PLANARIA_TOKEN_TTL_S": "1"}, "60 to"),
        ({"STUN_URLS": "http://x"}, "stun:HOST:PORT"),
        ({"TURN_URLS": "turn:x?transport=sctp", "TURN_SECRET": "s"}, "turn:HOST:PORT"),
        ({"TURN_URLS": "turn:x:3478"}, "TURN_URLS and TURN_SECRET: must both be set"),
        ({"TURN_SECRET": "s"}, "TURN_URLS and TURN_SECRET: must both be set"),
        ({"PLANARIA_HUB_PROXIES": "proxy.example"}, "IP addresses"),
        ({"PLANARIA_HUB_VIEWS": "https://view.example.org"}, "a host name such as"),
        ({"PLANARIA_HUB_VIEWS": ".example.org"}, "a host name such as"),
        ({"PLANARIA_HUB_VIEWS": "example.org:8000"}, "a host name such as"),
        ({"PLANARIA_HUB_SPEED": "11"}, "unknown variable"),
    ],
)
def test_a_wrong_value_is_one_line(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([], environ)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_secrets_have_no_flag_and_are_not_shown() -> None:
    for flag in ("--admin-password", "--database-url"):
        with pytest.raises(ConfigError):
            load([flag, "x"], {})
    shown = repr(load([], {"PLANARIA_ADMIN_PASSWORD": "hunter22", "DATABASE_URL": "postgresql://u:hunter22@db/x"}))
    assert "hunter22" not in shown


def test_an_inherited_socket_is_held_to_the_same() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        refuse_open_air(Hub(), Address("192.0.2.1", 8000))
    refuse_open_air(Hub(insecure=True), Address("192.0.2.1", 8000))
    refuse_open_air(Hub(), Address("127.0.0.1", 8000))


def test_devices_have_origins_of_their_own_where_a_browser_finds_them() -> None:
    assert Hub().view_suffix == "localhost"
    assert Hub(views="off").view_suffix == Hub(insecure=True).view_suffix == ""
    assert Hub(listen=Address("192.0.2.1", 80), insecure=True).view_suffix == ""
    assert Hub(views="view.example.org").view_suffix == "view.example.org"


def test_tokens_of_agents_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("a-token-of-16-chars\n\nanother-one-of-16,and-a-third-of-16\n")
    chosen = load([], {"SIGNALING_TOKENS_FILE": str(file), "SIGNALING_TOKENS": "the-first-of-sixteen"})
    assert len(chosen.signaling_tokens) == len(chosen.signaling_digests) == 4
    assert "sixteen" not in repr(chosen)
    file.write_text("short")
    for path, said in ((file, "16 to 256 characters"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ConfigError, match=said):
            load([], {"SIGNALING_TOKENS_FILE": str(path)})


def test_signalling_alone_needs_tokens_where_others_reach_it() -> None:
    assert load(["--only", "signal"], {}).only == "signal"
    environ = {"PLANARIA_HUB": "0.0.0.0:8000", "PLANARIA_HUB_INSECURE": "1"}
    with pytest.raises(ConfigError, match="set SIGNALING_TOKENS"):
        load(["--only", "signal"], environ)
    with pytest.raises(ConfigError, match=r"SIGNALING_TOKENS=\*\*\*"):
        load([], {"SIGNALING_TOKENS": "short"})
    assert load(["--only", "signal"], environ | {"SIGNALING_TOKENS": "a-token-of-16-chars"}).is_reached_by_others
