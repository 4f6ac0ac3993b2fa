"""The leader's end of the ways to viewers, with real sockets: what a viewer is sent, where, and under which key."""

from __future__ import annotations

import array
import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiortc.rtp import RtpPacket
from pylibsrtp import Policy, Session

from procs import bus
from procs.messages import encode
from procs.messages.watch import PacketsWanted, Rtp, Unit, Way
from procs.webrtc_peer import again, sender
from procs.webrtc_peer.again import SAVED_MAX
from procs.webrtc_peer.outlets import Outlets

KEYS = bytes(range(30)), bytes(range(1, 31))
LARGE = b"\0\0\0\1\x65" + b"p" * 2 * SAVED_MAX
PICTURE = b"\0\0\0\1\x06" + b"s" * 20 + b"\0\0\0\1\x65" + b"p" * 3000


class Viewer:
    """Where packets arrive, and what they are once decrypted."""

    def __init__(self, key: bytes) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(5)
        self.begin(key)

    def begin(self, key: bytes) -> None:
        """As if nothing had come so far: a packet that has come is not taken again."""
        self._srtp = Session(Policy(key, Policy.SSRC_ANY_INBOUND))

    def packets(self, count: int) -> list[RtpPacket]:
        return [RtpPacket.parse(self._srtp.unprotect(self.sock.recv(2000))) for _ in range(count)]


def hand(
    run_dir: Path,
    viewer: Viewer,
    key: bytes,
    session: str = "s",
    again_type: int | None = 97,
    way: socket.socket | None = None,
) -> None:
    """As a child does it. `way`: whose other end is the viewer's."""
    to = None if way else viewer.sock.getsockname()
    rtp = Rtp("video", "h264", 90_000, 96, 1, again_type, 2, b"", -1, 1, key, to)
    with (
        way or socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [way.fileno()]))]
        sock.sendmsg([encode(Way(session, [rtp]))], beside, 0, str(bus.path(run_dir, bus.WEBRTC_PEER_WAYS)))


def run(run_dir: Path, test: Callable[[Outlets, list[str]], Awaitable[None]]) -> None:
    async def main() -> None:
        joined: list[str] = []
        outlets = Outlets(run_dir, lambda session: session == "s", joined.append, lambda *_: pytest.fail("broken"))
        await test(outlets, joined)
        outlets.close("s")
        asyncio.get_running_loop().remove_reader(outlets.sock)
        outlets.sock.close()

    asyncio.run(main())


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110 - whatever it looks at tells nobody
            await asyncio.sleep(0.01)


def test_a_way_that_becomes_another_goes_on_and_a_new_key_begins_anew(run_dir: Path) -> None:
    async def test(outlets: Outlets, joined: list[str]) -> None:
        first, second, other = Viewer(KEYS[0]), Viewer(KEYS[0]), Viewer(KEYS[1])
        hand(run_dir, first, KEYS[0])
        await until(lambda: len(joined) == 1)
        assert outlets.push("s", Unit("video", "h264", 0, 0, True), PICTURE)
        packets = first.packets(4)
        assert [packet.marker for packet in packets] == [0, 0, 0, 1]
        hand(run_dir, second, KEYS[0])
        await until(lambda: len(joined) == 2)
        assert outlets.push("s", Unit("video", "h264", 1, 33_333), PICTURE)
        numbers = [packet.sequence_number for packet in packets + second.packets(4)]
        assert numbers == list(range(numbers[0], numbers[0] + 8))
        hand(run_dir, other, KEYS[1])
        await until(lambda: len(joined) == 3)
        assert not outlets.push("s", Unit("video", "h264", 2, 66_666), PICTURE), "it has had no keyframe"
        assert outlets.push("s", Unit("video", "h264", 3, 99_999, True), PICTURE)
        assert len(other.packets(4)) == 4
        for viewer in (first, second, other):
            viewer.sock.close()

    run(run_dir, test)


@pytest.mark.parametrize("again_type", [97, None])
def test_a_packet_is_sent_again_as_the_viewer_has_agreed_to_take_it(run_dir: Path, again_type: int | None) -> None:
    async def test(outlets: Outlets, joined: list[str]) -> None:
        viewer = Viewer(KEYS[0])
        hand(run_dir, viewer, KEYS[0], again_type=again_type)
        await until(lambda: joined)
        assert outlets.push("s", Unit("video", "h264", 0, 0, True), PICTURE)
        lost = viewer.packets(4)[-1]
        viewer.begin(KEYS[0])
        outlets.again(PacketsWanted("s", "video", [lost.sequence_number, (lost.sequence_number + 1) & 0xFFFF], 0.01))
        (again,) = viewer.packets(1)
        if again_type is None:
            assert again.serialize() == lost.serialize()
        else:
            original = struct.pack(">H", lost.sequence_number)
            assert (again.payload_type, again.ssrc, again.payload) == (97, 2, original + lost.payload)
        assert [sent.again for sent in outlets.sent("s")] == [1]
        viewer.sock.close()

    run(run_dir, test)


async def who_lost_all(run_dir: Path, outlets: Outlets, joined: list[str]) -> tuple[Viewer, set[int]]:
    """One that has asked for every packet of a large picture again, and which those are."""
    viewer = Viewer(KEYS[0])
    hand(run_dir, viewer, KEYS[0])
    await until(lambda: joined)
    assert outlets.push("s", Unit("video", "h264", 0, 0, True), LARGE)
    lost = {packet.sequence_number for packet in await asyncio.to_thread(viewer.packets, -(-len(LARGE) // 1200))}
    outlets.again(PacketsWanted("s", "video", sorted(lost), 0.01))
    return viewer, lost


async def more(outlets: Outlets, pictures: int) -> None:
    """So many more have gone."""
    for number in range(1, pictures + 1):
        assert outlets.push("s", Unit("video", "h264", number, number, True), LARGE)
        await until(lambda: outlets.sent("s")[0].units == number + 1)  # noqa: B023


def test_what_a_viewer_asks_for_once_it_gets_though_not_all_of_it_at_once(run_dir: Path) -> None:
    async def test(outlets: Outlets, joined: list[str]) -> None:
        viewer, lost = await who_lost_all(run_dir, outlets, joined)
        assert 0 < outlets.sent("s")[0].again < len(lost)
        await more(outlets, 8)
        assert outlets.sent("s")[0].again == len(lost)
        viewer.sock.close()

    run(run_dir, test)


def test_what_is_owed_and_not_known_any_more_is_forgotten(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "HISTORY", 64)
    monkeypatch.setattr(again, "OWED_S", 3600.0)

    async def test(outlets: Outlets, joined: list[str]) -> None:
        viewer, _ = await who_lost_all(run_dir, outlets, joined)
        assert 0 < outlets.sent("s")[0].again < 64
        await more(outlets, 3)
        assert outlets.sent("s")[0].again <= 64
        viewer.sock.close()

    run(run_dir, test)


def test_a_way_of_a_session_that_is_none_or_without_its_socket_is_left_alone(run_dir: Path) -> None:
    async def test(outlets: Outlets, joined: list[str]) -> None:
        viewer = Viewer(KEYS[0])
        hand(run_dir, viewer, KEYS[0], "of another")
        hand(run_dir, viewer, b"too short")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            rtp = Rtp("video", "h264", 90_000, 96, 1, 97, 2, b"", -1, 1, KEYS[0], ("127.0.0.1", 9))
            for datagram in (b"nonsense", encode(Way("s", [rtp]))):
                sock.sendto(datagram, str(bus.path(run_dir, bus.WEBRTC_PEER_WAYS)))
        hand(run_dir, viewer, KEYS[0])
        await until(lambda: joined)
        assert joined == ["s"] and outlets.sent("of another") == []
        assert outlets.push("s", Unit("video", "h264", 0, 0, True), PICTURE)
        assert len(viewer.packets(4)) == 4
        viewer.sock.close()

    run(run_dir, test)


def test_what_the_socket_has_no_room_for_goes_out_once_there_is_some(run_dir: Path) -> None:
    async def test(outlets: Outlets, joined: list[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        viewer = Viewer(KEYS[0])
        viewer.sock.close()
        viewer.sock = ours
        ours.setblocking(False)
        hand(run_dir, viewer, KEYS[0], way=theirs)
        await until(lambda: joined)
        for number in range(200):
            assert outlets.push("s", Unit("video", "h264", number, number, True), PICTURE)
        await asyncio.sleep(0.3)
        (sent,) = outlets.sent("s")
        assert 0 < sent.packets < 800, "it has room for some only"
        numbers: list[int] = []

        def take() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    numbers.extend(packet.sequence_number for packet in viewer.packets(1))
            return len(numbers) >= 800

        await until(take)
        assert numbers == list(range(numbers[0], numbers[0] + 800))
        ours.close()

    run(run_dir, test)
