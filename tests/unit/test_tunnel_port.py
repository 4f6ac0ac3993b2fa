"""Which UDP port the tunnel has: the one that is named, or one that is picked once and kept."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from procs.agent.lane.port import Port
from procs.agent.network import Tunnel
from procs.errors import ConfigError
from procs.tun_pump import interface, number
from procs.tun_pump.number import KEPT


def port_of(run_dir: Path, **told: Any) -> int:
    """What tun_pump has, with these settings."""
    port = interface.bound(Tunnel(**told), run_dir)
    port.close()
    return port.number


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is being killed here."""
    monkeypatch.setattr(number, "BUSY_S", 0.0)


def test_one_is_picked_once_and_kept(tmp_path: Path) -> None:
    first = port_of(tmp_path, udp_range=(42000, 42999))
    assert 42000 <= first <= 42999 and port_of(tmp_path, udp_range=(42000, 42999)) == first
    assert 43000 <= port_of(tmp_path, udp_range=(43000, 43999)) <= 43999, "it is not in the range any more"


@pytest.mark.parametrize("text", ["", "x", "70000", "-1"])
def test_what_is_no_number_is_picked_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / KEPT).write_text(text)
    assert port_of(tmp_path) == int((tmp_path / KEPT).read_text()) >= 49152


def test_where_it_can_not_be_kept_there_is_one_all_the_same(tmp_path: Path) -> None:
    (tmp_path / KEPT).with_suffix(".new").symlink_to("/dev/full")
    assert port_of(tmp_path) >= 49152 and not (tmp_path / KEPT).exists()


def test_another_s_is_left_to_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.bind(("127.0.0.1", 0))
        taken = theirs.getsockname()[1]
        (tmp_path / KEPT).write_text(str(taken))
        ours = port_of(tmp_path, udp_range=(1024, 65535))
        assert ours != taken and ours == int((tmp_path / KEPT).read_text())
        with pytest.raises(ConfigError, match=f"PLANARIA_TUN_PORT.*={taken}: .*UDP port"):
            port_of(tmp_path, port=taken)
    assert port_of(tmp_path, port=taken) == taken
    assert ours == int((tmp_path / KEPT).read_text()), "what is named is not kept"


def test_one_that_was_killed_just_now_has_it_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number, "BUSY_S", 5.0)
    theirs = Port(0, (42000, 42999))
    tries = []

    def make(wanted: int) -> Port:
        tries.append(wanted)
        if len(tries) == 3:
            theirs.close()
        return Port(wanted, (42000, 42999))

    number.bound(Tunnel(port=theirs.number), tmp_path, make).close()
    assert tries == [theirs.number] * 3
