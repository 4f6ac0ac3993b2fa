"""What a tunnel may be told, and what is refused in one line."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from procs import settings
from procs.agent import network, reach
from procs.agent.network import Tunnel
from procs.agent.reach import Reach
from procs.errors import ConfigError
from procs.settings import ROOT, Layers
from scripts import settings_file

SECTION = {
    "interface": "mvp-tun0",
    "address": ["10.77.0.1/24", "fd77::1/64"],
    "mtu": "1380",
    "port": "51820",
    "peers": {
        "bob": {"allowed": ["10.77.0.2/32", "192.168.7.0/24"], "key": "A" * 43 + "="},
        "eve": {"allowed": "10.77.0.3/32 fd77::3/128 fd99::/64"},
    },
}


def bob(**more: object) -> dict[str, object]:
    """As the only peer."""
    return {"bob": {"allowed": "10.77.0.2/32", **more}}


def load(**change: object) -> Tunnel:
    """As from planaria.yaml."""
    document = network.document_of({**SECTION, **change}, "planaria.yaml: tunnel")
    its = Layers(document=document, document_name="planaria.yaml: tunnel")
    return network.check(settings.load(Tunnel, its), "planaria.yaml: tunnel")


def test_a_section_of_the_settings_file_is_a_tunnel() -> None:
    tunnel = load()
    assert [str(each) for each in tunnel.address] == ["10.77.0.1/24", "fd77::1/64"]
    assert (tunnel.interface, tunnel.mtu, tunnel.port, tunnel.keys) == (
        "mvp-tun0",
        1380,
        51820,
        {"bob": "A" * 43 + "="},
    )
    assert tunnel.allowed["bob"] == (ip_network("10.77.0.2/32"), ip_network("192.168.7.0/24"))
    assert tunnel.routes == {ip_network("192.168.7.0/24"), ip_network("fd99::/64")}, "its own networks have theirs"
    assert not Tunnel().address


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"interface": "a-name-that-is-too-long"}, "1 to 15"),
        ({"interface": "a/b"}, "1 to 15"),
        ({"address": "10.77.0.300/24"}, "10.77.0.1/24"),
        ({"address": "10.77.0.1/24,10.77.0.1/16"}, "stands twice"),
        ({"address": ""}, "must be set where there are peers"),
        ({"address": "10.77.0.1/24"}, "fd77::3/128 of eve: this machine has no IPv6 address"),
        ({"mtu": "1200"}, "at least 1280"),
        ({"mtu": "100"}, "576"),
        ({"port": "80"}, "1024 to 65535, or 0"),
        (
            {"peers": {"bob": {"allowed": "10.77.0.2/24"}}},
            "peers: bob: allowed: '10.77.0.2/24': must be without host bits: 10.77.0.0/24, or 10.77.0.2/32 for",
        ),
        ({"peers": {"bob": {"allowed": ["10.77.0.2", "10.77.0.1/33"]}}}, "'10.77.0.1/33': must be 10.77.0.1/LENGTH"),
        (
            {"peers": {"bob": {"allowed": "fd77::1/129"}}},
            "bob: allowed: 'fd77::1/129': must be fd77::1/LENGTH, a length",
        ),
        ({"peers": {"bob": {"allowed": "lan"}}}, "peers: bob: allowed: 'lan': must be an address or a prefix"),
        ({"peers": {"bob": {"allowed": "10.77.0.1/32"}}}, "tunnel: allowed: 10.77.0.1 of bob is this machine's own"),
        ({"peers": {"bob": {}}}, "peers: bob: allowed: must be what is behind"),
        ({"peers": {"b ob": {"allowed": "10.77.0.2/32"}}}, "peers: 'b ob': a peer's name must be"),
        ({"peers": {f"bob{i}": {"allowed": "10.77.0.2/32"} for i in range(65)}}, "there are 65, of at most 64"),
        ({"peers": bob(key="short")}, "peers: bob: key: 'short': must be a key as"),
        ({"peers": {"bob": {"allow": "10.77.0.2/32"}}}, "did you mean allowed"),
        ({"peers": "bob"}, "must be 'NAME"),
        ({"allowed": "bob=10.77.0.2/32"}, "belongs to each of its peers"),
        ({"reach": "bob=tcp/22"}, "belongs to each of its peers"),
        ({"peers": bob(reach=["tcp/22", "tcp/99999"])}, "peers: bob: reach: 'tcp/99999': must be [PREFIX:]tcp/PORTS"),
        ({"peers": bob(reach="10.77.0.1/24:tcp/22")}, "'10.77.0.1/24:tcp/22': must be"),
        ({"peers": bob(reach="192.168.7.0/24,443")}, "reach: '443': must be"),
        ({"peers": bob(reach="22")}, "reach: '22': must be"),
        ({"peers": bob(reach="icmp/8")}, "reach: 'icmp/8': must be"),
        ({"peers": bob(reach="tcp/30-20")}, "reach: 'tcp/30-20': must be"),
        ({"peers": bob(reach="tcp/")}, "reach: 'tcp/': must be"),
        ({"peers": bob(reach="sctp/22")}, "reach: 'sctp/22': must be"),
        ({"peers": bob(reach="")}, "[] is nothing"),
        ({"peers": bob(reach={"tcp": "22"})}, "text or a list"),
        ({"subnets": "192.168.7.1/24"}, "subnets: '192.168.7.1/24': must be without host bits: 192.168.7.0/24"),
        (
            {"address": "10.77.0.1/24", "peers": bob(), "subnets": "fd99::/64"},
            "fd99::/64: this machine has no",
        ),
        ({"colour": "red"}, "unknown key"),
        ({"pears": {"bob": {"allowed": "10.77.0.2/32"}}}, "did you mean peers?"),
        (
            {"peers": {"bob": {"allowed": "10.77.0.2/32"}, "eve": {"allowed": "10.0.0.0/8"}}},
            "10.77.0.2/32 of bob and 10.0.0.0/8 of eve overlap",
        ),
    ],
)
def test_what_can_not_be_is_one_line(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(**change)
    assert said in str(error.value) and "\n" not in str(error.value) and "planaria.yaml: tunnel" in str(error.value)


def test_what_a_peer_may_begin_is_written_as_one_would_guess() -> None:
    assert "bob" not in load().reach, "everything"
    assert load(peers=bob(reach=[])).reach == {"bob": ()}, "nothing"
    lan, one = ip_network("192.168.7.0/24"), ip_network("fd77::1/128")
    for written in (
        ["192.168.7.0/24:tcp/22,443", "192.168.7.0/24", "fd77::1:udp/53", "tcp/8000-8100", "icmp", "udp"],
        ["192.168.7.0/24:tcp/22", "443", "192.168.7.0/24", "FD77::1/128:UDP/53", "tcp/8000-8100", "icmp", "udp"],
        "192.168.7.0/24:tcp/22,443 192.168.7.0/24, fd77::1:udp/53 tcp/8000-8100 icmp udp",
    ):
        assert load(peers=bob(reach=written)).reach["bob"] == (
            Reach(lan, "tcp", ((22, 22), (443, 443))),
            Reach(lan),
            Reach(one, "udp", ((53, 53),)),
            Reach(None, "tcp", ((8000, 8100),)),
            Reach(None, "icmp"),
            Reach(None, "udp"),
        )


def test_the_sections_that_readme_shows_are_as_they_have_to_be(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(tunnel:.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) == 6
    for block in blocks:
        (tmp_path / "planaria.yaml").write_text(block)
        document = network.document_of(
            settings_file.read(tmp_path / "planaria.yaml", must_exist=True)["tunnel"], "here"
        )
        assert network.check(settings.load(Tunnel, Layers(document=document))).allowed


def test_flags_say_the_same() -> None:
    flags = {"address": "10.77.0.1/24", "allowed": "bob=10.77.0.2/32 eve=10.77.0.3/32", "reach": "bob=tcp/22,443 eve="}
    assert settings.load(Tunnel, Layers(flags)).reach == {"bob": reach.parse("tcp/22,443"), "eve": ()}
    for wrong in ("bob=tcp/22 bob=udp", "tcp/22 443", "bob=tcp/x"):
        with pytest.raises(ConfigError, match="must be PEER=ENTRY"):
            settings.load(Tunnel, Layers(flags | {"reach": wrong}))
    with pytest.raises(ConfigError, match="reach: carol: is no peer"):
        network.check(settings.load(Tunnel, Layers(flags | {"reach": "carol=tcp/22"})))
