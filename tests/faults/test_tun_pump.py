"""tun_pump with real interfaces: it is killed under a connection, gets what it must not take, and can not have what it
was told to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procs.agent import netlink, network
from procs.tun_pump import interface
from tests import nat
from tests.nat import Place
from tests.rig import clean_environ, free_port, until
from tests.tunnelled import ADDRESSES, Joint, Side, section, tunnel
from tests.unit.test_packets import BOB4, BOB6, ME4, ME6, v4, v6

pytestmark = pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN")
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO, IP_MTU = 10, 0, 2, 14  # of linux/in.h, which Python lacks
PIECE = os.urandom(64 * 1024)


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[tuple[Side, Side, Joint]]:
    with tunnel(tmp_path) as made:
        yield made


NO_RIGHT = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-all")
NO_DEVICE = ("unshare", "-m", "--propagation", "private", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")


class Transfer:
    """A TCP connection from alice to bob, through the tunnel, that carries `pieces` times 64 KiB."""

    def __init__(self, alice: Side, bob: Side, pieces: int, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        port = free_port()
        with bob.place.entered():
            listener = socket.create_server((address, port), family=family)
        listener.settimeout(60)
        with alice.place.entered():
            self._out = socket.socket(family)
        self._out.settimeout(60)
        self._out.connect((address, port))
        self._in, _ = listener.accept()
        listener.close()
        self._in.settimeout(60)
        self.got = 0
        self._pieces, self._sum = pieces, hashlib.sha256()
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        for _ in range(self._pieces):
            self._out.sendall(PIECE)
        self._out.close()

    def _receive(self) -> None:
        while piece := self._in.recv(1 << 16):
            self._sum.update(piece)
            self.got += len(piece)
        self._in.close()

    def is_whole(self) -> bool:
        """Whether all of it has arrived, in the end."""
        for thread in self._threads:
            thread.join(90)
        return self._sum.digest() == hashlib.sha256(PIECE * self._pieces).digest()


def rights(pid: int) -> set[tuple[str, ...]]:
    """Capabilities, and whether new ones can be had, of each thread."""
    found: set[tuple[str, ...]] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        text = (task / "status").read_text()
        words = [re.search(rf"^{name}:\s+(\S+)$", text, re.M) for name in ("CapEff", "CapPrm", "NoNewPrivs")]
        found.add(tuple(word[1] for word in words if word))
    return found


def test_a_connection_outlives_the_pump(joined: tuple[Side, Side, Joint]) -> None:
    alice, bob, joint = joined
    for address in ("10.77.0.2", "fd77::2"):
        transfer = Transfer(alice, bob, 300, address)
        for side in (alice, bob):
            at = transfer.got
            until(lambda at=at, its=transfer: its.got > at + 2_000_000, 60)  # type: ignore[misc]
            side.kill()
            with side.place.entered():
                made = netlink.link("mvp-tun0")
                assert made and made.is_up and len(netlink.addresses(made.number)) == 2, "it stays, and all that it has"
            side.start()
        assert transfer.is_whole(), address
    assert until(lambda: joint.told.get("alice")).addresses == ADDRESSES["alice"]
    for side in (alice, bob):
        assert rights(side.process.pid) == {("0" * 16, "0" * 16, "1")}, "nothing of root's is left, in any thread"
    peer = alice.peer()
    assert (peer.peer, peer.plane, peer.path, peer.remote) == ("bob", 2, "direct", "192.0.2.1:9")
    assert peer.round_trip_ms == 1.0 and peer.sent_bytes > 1_000_000 and peer.received_packets > 100
    until(lambda: alice.peer().sent_bits_per_s is not None)


class Echo:
    """UDP from alice to bob, who sends back what comes."""

    def __init__(self, alice: Side, bob: Side, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with bob.place.entered():
            self.there = socket.socket(family, socket.SOCK_DGRAM)
        with alice.place.entered():
            self.here = socket.socket(family, socket.SOCK_DGRAM)
        self.there.bind((address, 0))
        self.here.connect(self.there.getsockname()[:2])
        for sock in (self.here, self.there):
            sock.settimeout(0.3)

    def passes(self, size: int, tries: int = 30) -> bool:
        """Whether a datagram comes back whole. The first may be lost, each way, for its sender to be told."""
        sent = os.urandom(size)
        for _ in range(tries):
            with contextlib.suppress(TimeoutError, OSError):
                self.here.send(sent)
                got, sender = self.there.recvfrom(65536)
                self.there.sendto(got, sender)
                return self.here.recv(65536) == sent
        return False

    def close(self) -> None:
        """Both ends."""
        self.here.close()
        self.there.close()


def test_packets_of_any_size_pass(joined: tuple[Side, Side, Joint]) -> None:
    alice, bob, joint = joined
    echoes = [Echo(alice, bob, address) for address in ("10.77.0.2", "fd77::2")]
    for echo in echoes:
        assert all(echo.passes(size) for size in (1, 1320, 1352, 4000, 20_000))
    # The session carries less from now on, as when it falls back to a data channel.
    joint.mtu = 1158
    until(lambda: alice.peer().mtu == bob.peer().mtu == 1158)
    v4, v6 = echoes
    for sock in (v4.here, v4.there):
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    assert v4.passes(1300, 1), "the pumps make fragments of it, and nobody has to be told"
    assert v6.passes(1200, 1), "what IPv6 always carries"
    assert v6.passes(1300), "who was told has made fragments"
    v4.here.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    until(lambda: _largest(v4.here) == 1158)
    for echo in echoes:
        echo.close()
    assert Transfer(alice, bob, 20, "10.77.0.2").is_whole() and Transfer(alice, bob, 20, "fd77::2").is_whole()


def _largest(sock: socket.socket) -> int:
    """What the kernel has been told of the way there."""
    with contextlib.suppress(OSError):  # EMSGSIZE
        sock.send(bytes(1300))
    return sock.getsockopt(socket.IPPROTO_IP, IP_MTU)


def test_what_a_peer_may_not_send_is_counted_and_dropped(joined: tuple[Side, Side, Joint]) -> None:
    alice, _, joint = joined
    stranger = bytes([192, 0, 2, 7])
    before = alice.peer().received_packets
    good = v4(b"1" * 16, source=BOB4, to=ME4)
    joint.give("alice", [v4(b"1", source=stranger, to=ME4), v4(b"1", source=ME4, to=ME4), v6(b"1", source=ME6, to=ME6)])
    joint.give("alice", [b"garbage" * 30, b"\x45", good, v6(b"1", source=BOB6, to=ME6)])
    found = until(lambda: its if (its := alice.peer()).received_packets >= before + 2 else None).dropped
    assert (found["spoofed"], found["malformed"]) == (3, 2)
    with alice.place.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"to nobody", ("10.77.0.99", 9))
    until(lambda: alice.state().dropped["homeless"] >= 1)


def test_new_settings_leave_nothing_of_the_old(tmp_path: Path) -> None:
    place = Place("alice")
    peers = {"bob": {"allowed": ["10.77.0.2/32", "192.168.50.0/24"]}}
    side = Side("alice", place, tmp_path, peers=peers, masquerade="1")
    try:
        assert side.state().interface == "mvp-tun0"
        assert "192.168.50.0/24 dev mvp-tun0" in place.run("ip", "route") and "masquerade" in place.run(
            "nft", "list", "ruleset"
        )
        side.kill()
        side.tell(address=["10.88.0.1/24"], mtu="1300", peers={"bob": {"allowed": ["10.88.0.2/32"]}})
        side.start()
        assert side.state().addresses == ["10.88.0.1/24"]
        shown = place.run("ip", "addr", "show", "dev", "mvp-tun0") + place.run("ip", "route")
        assert "mtu 1300" in shown and "10.88.0.1/24" in shown
        assert not re.search(r"10\.77|fd77|192\.168\.50", shown) and "masquerade" not in place.run(
            "nft", "list", "ruleset"
        )
        side.kill()
        with place.entered():
            assert interface.release(side.run_dir) == ["mvp-tun0"] and netlink.link("mvp-tun0") is None
        (side.run_dir / network.NAME).unlink()
        side.start()
        assert side.state().interface == "" and "idle: not configured" in side.log.read_text()
    finally:
        side.kill()
        place.end()


def test_an_interface_that_root_has_made_needs_no_rights(tmp_path: Path) -> None:
    place = Place("alice")
    peers = {"bob": {"allowed": ["10.77.0.2/32", "fd77::2/128", "192.168.50.0/24"]}}
    told = refused(tmp_path, *NO_RIGHT, before=("tuntap add mvp-tun0 mode tun user 0",), peers=peers)[1]
    by_hand = told.partition("have root say: ")[2].split("; ")
    place.ip(*(line.removeprefix("ip ").replace("user root", "user 0") for line in by_hand))
    side = Side("alice", place, tmp_path, NO_RIGHT, peers=peers)
    try:
        assert side.state().interface == "mvp-tun0" and "is there" in side.log.read_text()
        assert rights(side.process.pid) == {("0" * 16, "0" * 16, "1")}
    finally:
        side.kill()
        place.end()


def refused(folder: Path, *words: str, before: tuple[str, ...] = (), **change: Any) -> tuple[int, str]:
    """The exit code and the last words of a pump that is told this, after commands of ip(8)."""
    place = Place("refused")
    run_dir = folder / "run"
    run_dir.mkdir()
    document = network.document_of({**section("alice"), **change}, "tunnel")
    (run_dir / network.NAME).write_text(json.dumps(document))
    try:
        if before:
            place.ip(*before)
        done = subprocess.run(
            place.command(*words, sys.executable, "-m", "procs.tun_pump"),
            env=clean_environ(PLANARIA_RUN_DIR=str(run_dir), PLANARIA_LOG="json"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        place.end()
    (line,) = done.stderr.splitlines()
    return done.returncode, json.loads(line)["event"]


@pytest.mark.parametrize(
    ("words", "change", "before", "code", "said"),
    [
        ((), {}, ("link add mvp-tun0 type veth peer name other",), 2, "is taken; choose another name"),
        ((), {}, ("tuntap add mvp-tun0 mode tap",), 2, "is taken"),
        ((), {}, ("tuntap add mvp-tun0 mode tun", "link set mvp-tun0 alias theirs"), 2, "is taken: theirs"),
        ((), {"interface": "a-name-of-16-characters"}, (), 2, "1 to 15"),
        ((), {"peers": {"bob": {"allowed": "10.1.0.0/16"}, "eve": {"allowed": "10.1.2.0/24"}}}, (), 2, "overlap"),
        (NO_RIGHT, {}, (), 3, "CAP_NET_ADMIN; or have root make it: ip tuntap add mvp-tun0 mode tun user root"),
        (NO_RIGHT, {}, ("tuntap add mvp-tun0 mode tun user 0",), 3, "ip addr add 10.77.0.1/24 dev mvp-tun0"),
        (NO_DEVICE, {}, (), 3, "modprobe tun"),
    ],
)
def test_what_can_not_be_had_is_one_line(
    tmp_path: Path, words: tuple[str, ...], change: dict[str, Any], before: tuple[str, ...], code: int, said: str
) -> None:
    ended, text = refused(tmp_path, *words, before=before, **change)
    assert ended == code and said in text
