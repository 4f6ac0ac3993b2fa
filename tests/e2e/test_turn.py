"""coturn as docker/coturn starts it, and a hub that has the same secret: who may watch is relayed, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aioice import stun, turn

from procs.hub.viewers import ice
from procs.settings import ROOT
from tests import hub_rig
from tests.rig import clean_environ, command_line, free_port, until

pytestmark = pytest.mark.needs("turnserver")
SECRET = "coturn's and the hub's; # alone"
REFUSED = 401


@dataclass
class Coturn:
    """A TURN server on loopback."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """As a hub is told."""
        return f"turn:127.0.0.1:{self.port}?transport=udp"


@contextmanager
def coturn(folder: Path) -> Iterator[Coturn]:
    """Start it as the container does, but on loopback, where it otherwise refuses to be."""
    port = free_port()
    here = [f"--listening-port={port}", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--no-tcp"]
    environ = clean_environ(TURN_SECRET=SECRET, TURN_DIR=str(folder), TURN_PORTS="20000-20099")
    log = folder / "coturn.log"
    with log.open("wb") as out:
        running = subprocess.Popen([ROOT / "docker/coturn/start.sh", *here], env=environ, stdout=out, stderr=out)
    try:
        until(lambda: running.poll() is not None or is_there(port))
        assert running.poll() is None, log.read_text()
        yield Coturn(port, log, running)
    finally:
        running.kill()
        running.wait()


def is_there(port: int) -> bool:
    """Whether somebody answers a STUN binding request. What it says it writes down late."""
    asked = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.settimeout(0.2)
        sock.sendto(bytes(asked), ("127.0.0.1", port))
        return bool(sock.recv(2048))
    return False


async def relayed(server: Coturn, username: str, password: str) -> int:
    """The port that one is relayed on; raises what aioice does for one who is not."""
    transport, _ = await turn.create_turn_endpoint(
        asyncio.DatagramProtocol, ("127.0.0.1", server.port), username=username, password=password
    )
    found: tuple[str, int] = transport.get_extra_info("sockname")
    transport.close()
    return found[1]


def test_who_may_watch_is_relayed_and_nobody_else(tmp_path: Path) -> None:
    with (
        coturn(tmp_path) as server,
        hub_rig.process(tmp_path / "hub", PLANARIA_COMPAT="1", TURN_URLS=server.url, TURN_SECRET=SECRET) as hub,
    ):
        owner = hub.http.new_user("owner")
        hub_rig.paired(hub, owner, "cam")
        with hub_rig.device(hub, "cam") as at, hub_rig.viewer(hub, owner.token) as viewer:
            viewer.say("watch_request", {"device_id": "cam"})
            for told in (viewer.hear("watch_ready"), at.hear("watch_request")):
                (given,) = told["payload"]["ice_servers"]
                assert given["urls"] == [server.url]
                assert 20_000 <= asyncio.run(relayed(server, given["username"], given["credential"])) < 20_100
        expired = "1000000000:viewer_1"
        for username, password in (
            (given["username"], "guessed"),
            (given["username"].replace(":", "0:"), given["credential"]),
            (expired, ice.credential(SECRET, expired)),
            (given["username"], ice.credential("", given["username"])),
        ):
            with pytest.raises(stun.TransactionFailed) as refused:
                asyncio.run(relayed(server, username, password))
            assert refused.value.response.attributes["ERROR-CODE"][0] == REFUSED
        assert SECRET not in " ".join(command_line(server.process.pid))
        assert SECRET.encode() not in Path(f"/proc/{server.process.pid}/environ").read_bytes()
        assert SECRET not in server.log.read_text() + hub.said()


@pytest.mark.parametrize(("secret", "said"), [("", "must be what the hub has"), ("two\nlines", "must be one line")])
def test_without_a_proper_secret_it_does_not_start(tmp_path: Path, secret: str, said: str) -> None:
    done = subprocess.run(
        [ROOT / "docker/coturn/start.sh"],
        env=clean_environ(TURN_SECRET=secret, TURN_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2 and said in done.stderr and not list(tmp_path.iterdir())
