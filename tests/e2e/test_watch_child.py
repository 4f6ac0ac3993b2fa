"""A child of webrtc_peer with real pictures of go2rtc: what its viewer sees, hears, asks for and is told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aioice import Connection
from aiortc import RTCRtpReceiver
from aiortc.codecs.h264 import H264Decoder
from aiortc.rtp import RtpPacket

from procs.agent import ice
from tests import nat, rig, watching
from tests.nat import Turn, World
from tests.rig import Go2rtc
from tests.watching import Leader, Viewer

STREAM = "omega-0"
PORTS = (42_000, 42_999)
RELAYS = range(43_000, 43_999)

pytestmark = pytest.mark.skipif(not ice.host_addresses(), reason="no address but loopback's, where ICE finds nothing")


@pytest.fixture(scope="module")
def media() -> Iterator[Go2rtc]:
    with rig.go2rtc({"workers": 1, "producer": {"width": 640, "height": 360, "fps": 30}}) as running:
        yield running


def run(media: Go2rtc, directory: Path, test: Callable[[Leader], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(100), watching.leader(directory, media.rtsp) as leader:
            await test(leader)

    asyncio.run(main())


async def until(look: Callable[[], Any], within_s: float = 40) -> None:
    async with asyncio.timeout(within_s):
        while not look():  # noqa: ASYNC110 - whatever it looks at tells nobody
            await asyncio.sleep(0.02)


async def ended(leader: Leader, session: str) -> dict[str, Any]:
    """What the viewer is told at the end, once the child has gone."""
    told = await leader.hear(session, "watch_ended")
    async with asyncio.timeout(watching.LIMIT_S):
        assert await leader.children[session].wait() == 0
    return told


def test_three_viewers_see_the_cameras_own_pictures_from_one_pull(
    media: Go2rtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(H264Decoder, "decode", H264Decoder.decode)  # whatever is put in its place goes with the test
    arrivals: list[Any] = []
    watching.note_arrivals(arrivals)

    async def test(leader: Leader) -> None:
        viewers = []
        for name in ("one", "two", "three"):
            await leader.start(name, STREAM, udp_range=PORTS)
            viewers.append(Viewer(leader, name))
        answers = await asyncio.gather(*[viewer.watch() for viewer in viewers])
        for answer in answers:
            assert "a=sendonly" in answer and "H264/90000" in answer and "end-of-candidates" not in answer
            ports = re.findall(r"a=candidate:\S+ 1 udp \d+ \S+ (\d+) typ host", answer)
            assert ports and all(PORTS[0] <= int(port) <= PORTS[1] for port in ports)
        await until(lambda: all(viewer.pictures > 60 for viewer in viewers))
        await until(lambda: all(viewer.candidates == [""] for viewer in viewers))
        assert leader.pulls.connects == 1
        stamps = [stamp for _, stamp in arrivals if stamp]
        assert len(stamps) == len(arrivals)  # a stamp does not survive a decoder and an encoder
        await until(
            lambda: all(beat.path == "direct" and beat.stats["pictures"] > 60 for beat in leader.beats.values())
        )
        await viewers[0].close()
        assert (await ended(leader, "one"))["reason"] == "viewer_disconnected"
        seen = viewers[1].pictures
        await until(lambda: viewers[1].pictures > seen + 30)
        await asyncio.gather(*[viewer.close() for viewer in viewers[1:]])

    run(media, tmp_path, test)


def test_a_lost_picture_is_asked_for_and_the_same_offer_answered_again(media: Go2rtc, tmp_path: Path) -> None:
    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM)
        viewer = Viewer(leader, "s")
        answer = await viewer.watch()
        await until(lambda: viewer.pictures > 5)
        receiver = viewer.pc.getReceivers()[0]
        source = next(iter(receiver._RTCRtpReceiver__remote_streams))  # type: ignore[attr-defined]
        for _ in range(5):
            await receiver._send_rtcp_pli(source)
        await until(lambda: leader.keyframes["s"])
        assert leader.keyframes["s"] == 1  # not one for each
        again = {"type": "offer", "sdp": viewer.pc.localDescription.sdp}
        await leader.tell("s", "signal_offer", {"sdp": again})
        assert (await leader.hear("s", "signal_answer"))["sdp"]["sdp"] == answer
        await leader.tell("s", "signal_offer", {"sdp": again["sdp"].replace("a=recvonly", "a=sendrecv")})
        assert "one offer" in (await ended(leader, "s"))["why"]
        await viewer.close()

    run(media, tmp_path, test)


def test_what_a_viewer_lost_it_gets_again(media: Go2rtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = RTCRtpReceiver._handle_rtp_packet
    came: dict[int, int] = {}

    async def lossy(self: RTCRtpReceiver, packet: RtpPacket, arrival_time_ms: int) -> None:
        is_first = packet.ssrc == next(iter(came), packet.ssrc)  # what is sent again has a source of its own
        if is_first:
            came[packet.ssrc] = came.get(packet.ssrc, 0) + 1
        if not is_first or came[packet.ssrc] % 40:
            await handle(self, packet, arrival_time_ms)

    monkeypatch.setattr(RTCRtpReceiver, "_handle_rtp_packet", lossy)
    monkeypatch.setattr(H264Decoder, "decode", H264Decoder.decode)
    arrivals: list[Any] = []
    watching.note_arrivals(arrivals)

    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM)
        viewer = Viewer(leader, "s")
        await viewer.watch()
        await until(lambda: leader.beats["s"].stats.get("packets_again", 0) > 15 and len(arrivals) > 110, 40)
        await viewer.close()
        frames = [stamp.frame for _, stamp in arrivals if stamp]
        assert len(frames) > 100 and all(later > earlier for earlier, later in itertools.pairwise(frames))

    run(media, tmp_path, test)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda sdp: "hello", "no video"),
        (lambda sdp: sdp.replace("a=recvonly", "a=sendonly"), "no video"),
        (lambda sdp: re.sub("(H264|VP8)/90000", "AV1/90000", sdp), "neither H.264"),
        (lambda sdp: re.sub(r"a=ice-\w+:\S+\r\n", "", sdp), "can't be answered"),
        (lambda sdp: {"not": "text"}, "no SDP"),
    ],
)
def test_a_wrong_offer_ends_the_session_with_words(
    media: Go2rtc, tmp_path: Path, spoil: Callable[[str], Any], why: str
) -> None:
    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM)
        viewer = Viewer(leader, "s")
        viewer.pc.addTransceiver("video", direction="recvonly")
        await viewer.pc.setLocalDescription(await viewer.pc.createOffer())
        sdp = spoil(viewer.pc.localDescription.sdp)
        await leader.tell("s", "signal_offer", {"sdp": {"type": "offer", "sdp": sdp}})
        told = await ended(leader, "s")
        assert told["reason"] == "error" and why in told["why"]
        await viewer.close()

    run(media, tmp_path, test)


def test_a_data_channel_never_opens_and_the_picture_plays(media: Go2rtc, tmp_path: Path) -> None:
    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM)
        viewer = Viewer(leader, "s")
        channel = viewer.pc.createDataChannel("anything")
        assert "m=application" in await viewer.watch()
        await until(lambda: viewer.pictures > 60)
        assert channel.readyState == "connecting"
        await viewer.close()

    run(media, tmp_path, test)


def test_no_offer_within_the_lease_ends_it(media: Go2rtc, tmp_path: Path) -> None:
    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM, lease_s=0.5)
        told = await ended(leader, "s")
        assert told["reason"] == "timeout" and "no offer" in told["why"]

    run(media, tmp_path, test)


@pytest.mark.long
def test_a_viewer_who_says_nothing_any_more_is_given_up(media: Go2rtc, tmp_path: Path) -> None:
    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM)
        viewer = Viewer(leader, "s")
        await viewer.watch()
        await until(lambda: viewer.pictures > 5)
        for protocol in viewer.pc.getReceivers()[0].transport.transport._connection._protocols:
            protocol.transport.abort()  # as a laptop that was closed: no goodbye, and nobody there
        told = await leader.hear("s", "watch_ended", 20)
        assert told["reason"] == "timeout" and "nothing came" in told["why"]
        assert await leader.children["s"].wait() == 0

    run(media, tmp_path, test)


@pytest.mark.long
def test_a_viewer_who_is_heard_and_gets_nothing_is_told(media: Go2rtc, tmp_path: Path) -> None:
    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM)
        viewer = Viewer(leader, "s")
        await viewer.watch()
        await until(lambda: viewer.pictures > 5)

        async def lost(packet: RtpPacket, arrival_time_ms: int) -> None:
            """As where the way to the viewer has gone, and the way back has not."""

        viewer.pc.getReceivers()[0]._handle_rtp_packet = lost  # type: ignore[method-assign]
        told = await leader.hear("s", "watch_ended", 20)
        assert told["reason"] == "timeout" and "arrived at the viewer" in told["why"]
        assert await leader.children["s"].wait() == 0
        await viewer.close()

    run(media, tmp_path, test)


def test_two_hundred_candidates_and_nonsense_cost_nothing(media: Go2rtc, tmp_path: Path) -> None:
    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM)
        viewer = Viewer(leader, "s")
        for wrong in ({}, {"candidate": 5}, {"candidate": "candidate:"}, {"candidate": "x " * 9}, None, "text"):
            await leader.tell("s", "signal_ice", {"candidate": wrong})
        for at in range(200):
            text = f"candidate:{at} 1 udp 1 192.0.2.99 {1000 + at} typ host"
            await leader.tell("s", "signal_ice", {"candidate": {"candidate": text, "sdpMid": "0"}})
        await viewer.watch()
        await until(lambda: viewer.pictures > 5)
        await until(lambda: leader.beats["s"].stats["candidates_refused"] > 130)
        await viewer.close()

    run(media, tmp_path, test)


def _listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """ICE servers as the hub sends them: coturn's, behind one that is not there."""
    if not shutil.which("turnserver"):
        pytest.skip("no coturn")
    address, port = next(each for each in ice.host_addresses() if ":" not in each), rig.free_port()
    command = [
        *("turnserver", "-n", "--no-tls", "--no-dtls", "--no-cli", f"--listening-ip={address}"),
        *(f"--listening-port={port}", f"--relay-ip={address}", "--use-auth-secret", "--static-auth-secret=s3cr3t"),
        *(f"--min-port={RELAYS[0]}", f"--max-port={RELAYS[-1]}", "--realm=planaria"),
        *("--log-file=stdout", "--pidfile=/dev/null", f"--db={tmp_path / 'turn.db'}"),
    ]
    with (tmp_path / "turn.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    name = f"{int(time.time()) + 600}:viewer"
    secret = base64.b64encode(hmac.digest(b"s3cr3t", name.encode(), hashlib.sha1)).decode()
    with socket.socket() as nobody:
        nobody.bind((address, 0))  # bound, and not listening
        dead = f"turn:{address}:{nobody.getsockname()[1]}?transport=tcp"
        urls = [dead, "turn:192.0.2.250:3478", f"turn:{address}:{port}?transport=udp"]
        servers: list[dict[str, Any]] = [
            {"urls": "stun:192.0.2.250:3478"},
            {"urls": urls, "username": name, "credential": secret},
        ]
        try:
            rig.until(lambda: _listens(address, port))
            yield servers
        finally:
            process.kill()
            process.wait()


def test_relay_candidates_follow_the_answer_and_carry_it_all(
    media: Go2rtc, tmp_path: Path, relay: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hear, request_received = Leader.hear, Connection.request_received

    async def without_hosts(
        self: Leader, session: str, kind: str, within_s: float = watching.LIMIT_S
    ) -> dict[str, Any]:
        payload = await hear(self, session, kind, within_s)
        return json.loads(re.sub(r"a=candidate:.*?\\r\\n", "", json.dumps(payload)))  # type: ignore[no-any-return]

    def only_relayed(self: Connection, message: Any, address: tuple[str, int], protocol: Any) -> None:
        if address[1] in RELAYS:
            request_received(self, message, address, protocol)

    async def test(leader: Leader) -> None:
        await leader.start("s", STREAM, ice_servers=relay, udp_range=PORTS)
        viewer = Viewer(leader, "s")
        await viewer.watch()
        await until(lambda: viewer.pictures > 20)
        await until(lambda: leader.beats["s"].path == "relayed")
        # The end of candidates waits for the STUN server that is not there; nothing else has.
        await until(lambda: [bool(each) for each in viewer.candidates] == [True, False])
        assert "typ relay" in viewer.candidates[0]
        await viewer.close()

    monkeypatch.setattr(Leader, "hear", without_hosts)
    monkeypatch.setattr(Connection, "request_received", only_relayed)  # of the viewer: the child is another process
    run(media, tmp_path, test)


@pytest.mark.needs("turnserver", "nft", "ip", "nsenter")
@pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not())
@pytest.mark.parametrize("symmetric", [False, True], ids=["direct", "relayed"])
def test_from_nat_to_nat(media: Go2rtc, tmp_path: Path, world: World, turn: Turn, *, symmetric: bool) -> None:
    world.nat(symmetric=symmetric)
    name, secret = turn.credentials()
    servers = [{"urls": turn.stun_url}, {"urls": [turn.url], "username": name, "credential": secret}]
    wanted = "relayed" if symmetric else "direct"

    async def test(leader: Leader) -> None:
        with world.device.entered():
            await leader.start("s", STREAM, ice_servers=servers)
        viewer = Viewer(leader, "s", turn.stun_url, world.viewer)
        await viewer.watch()
        await until(lambda: viewer.pictures > 20)
        await until(lambda: leader.beats["s"].path == wanted)
        before = leader.beats["s"].stats["dropped"]  # while it took a busy machine long to connect
        await until(lambda: viewer.pictures > 80)
        assert leader.beats["s"].stats["dropped"] == before and leader.beats["s"].path == wanted
        kinds = [re.findall("typ (\\w+)", each) for each in viewer.candidates]
        assert kinds == [["srflx"], ["relay"], []] or kinds == [["relay"], ["srflx"], []]
        await viewer.close()

    run(media, tmp_path, test)
