"""A block in a hosts file: what stands in it, and that all else stays as it is."""

from __future__ import annotations

import os
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from procs.agent.network import Tunnel
from procs.errors import NotHere
from procs.tun_pump import hosts
from procs.tun_pump.hosts import block, changed, unnamed

ALLOWED = {
    "bob": (ip_network("10.77.0.2/32"), ip_network("fd77::2/128"), ip_network("192.168.7.0/24")),
    "Carol": (ip_network("10.77.0.3/32"),),
    "b_b": (ip_network("10.77.0.4/32"),),
    "carol": (ip_network("10.77.0.5/32"),),
    "lan": (ip_network("192.168.8.0/24"),),
}
ADDRESSES = ip_interface("10.77.0.1/24"), ip_interface("fd77::1/64")
TUNNEL = Tunnel(address=ADDRESSES, allowed=ALLOWED, name="alice")
HERE = Path("/srv/run")
BEFORE = b"127.0.0.1 localhost\n", b"", b"\xff\r\n# no end", b"\n\n", b"10.77.0.2 bob.planaria\n"


def test_each_host_of_a_peer_has_its_name_and_so_have_we() -> None:
    assert block(TUNNEL, HERE).splitlines()[1:-1] == [
        *(b"10.77.0.1 alice.planaria", b"fd77::1 alice.planaria"),
        *(b"10.77.0.2 bob.planaria", b"fd77::2 bob.planaria"),
    ]
    assert unnamed(TUNNEL) == ["Carol", "b_b", "carol"]
    assert block(Tunnel(), HERE) == b""


@pytest.mark.parametrize("before", BEFORE)
def test_all_else_stays(before: bytes) -> None:
    one, other, elsewhere = block(TUNNEL, HERE), block(TUNNEL.but(name="dora"), HERE), block(TUNNEL, Path("/b"))
    with_one = changed(before, one, HERE)
    assert with_one.startswith(before) and b"10.77.0.2 bob.planaria\n" in with_one[len(before) :]
    assert changed(with_one, one, HERE) == with_one, "once"
    assert changed(changed(with_one, other, HERE), one, HERE) == with_one
    assert changed(with_one, b"", HERE) == before == changed(before, b"", HERE)
    both = changed(with_one, elsewhere, Path("/b"))
    assert changed(changed(both, b"", Path("/b")), b"", HERE) == before
    assert changed(changed(both, b"", HERE), b"", Path("/b")) == before
    more = with_one + b"\n192.0.2.1 later\n"
    assert changed(more, other, HERE).endswith(b"\n192.0.2.1 later\n")
    assert b"later" in changed(more, b"", HERE) and b"bob" not in changed(more, b"", HERE)[len(before) :]


def test_a_block_without_its_end_takes_nothing_with_it() -> None:
    torn = block(TUNNEL, HERE).rpartition(b"# planaria")[0] + b"192.0.2.1 mine\n"
    assert b"192.0.2.1 mine\n" in changed(changed(torn, block(TUNNEL, HERE), HERE), b"", HERE)


def test_the_file_keeps_what_it_is(tmp_path: Path) -> None:
    real, link = tmp_path / "hosts", tmp_path / "link"
    real.write_bytes(b"127.0.0.1 localhost")
    real.chmod(0o604)
    link.symlink_to(real)
    first = real.stat().st_ino
    hosts.apply(TUNNEL.but(hosts=link), tmp_path)
    assert b"bob.planaria" in real.read_bytes() and link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o604 and real.stat().st_ino != first, "as a whole or not at all"
    other = tmp_path / "other"
    other.write_bytes(b"")
    hosts.apply(TUNNEL.but(hosts=other), tmp_path)
    assert real.read_bytes() == b"127.0.0.1 localhost" and b"bob.planaria" in other.read_bytes()
    other.unlink()
    hosts.apply(Tunnel(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["hosts", "link"]
    for wrong in (tmp_path / "none", tmp_path):
        with pytest.raises(NotHere, match=f"hosts: under tunnel: in planaria.yaml: {wrong}: .*; name a file"):
            hosts.apply(TUNNEL.but(hosts=wrong), tmp_path)
